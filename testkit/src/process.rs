//! Child processes: started with their log in a file, waited for with a limit, and never left behind.
//!
//! A process is killed when its [`Process`] is dropped. If this program ends without dropping it, a shell
//! that waits on a pipe of this program ends the process. Each child is in a process group of its own, so
//! that Ctrl-C in a terminal reaches this program alone.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Maximum number of log lines that are shown for a process that failed.
const TAIL_LINES: usize = 30;

/// Time between two checks of a process that should end.
const INTERVAL: Duration = Duration::from_millis(5);

/// A shell script that waits until its input ends, which happens when the program that holds the other end is
/// gone. It then sends a signal to a process and, if a directory is given, removes the directory once the
/// process has ended. A line on the input means that there is nothing to do.
const GUARD: &str = r#"read -r line && exit
kill -"$1" "$2"
[ -n "$3" ] || exit
for second in 1 2 3 4 5 6 7 8 9; do kill -0 "$2" 2>/dev/null || break; sleep 1; done
rm -rf "$3""#;

/// Removes what configures the program `firstcome` from the environment of a command.
pub fn without_settings(command: &mut Command) -> &mut Command {
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("FIRSTCOME__") {
            command.env_remove(key);
        }
    }
    command
}

/// A process to start.
#[derive(Debug)]
pub struct Spawn {
    command: Command,
    log: PathBuf,
    has_input: bool,
    orphan_signal: Signal,
    orphan_directory: Option<PathBuf>,
    output: Option<Stdio>,
    error_output: Option<Stdio>,
}

impl Spawn {
    /// Describes a process that runs the command, without input. Its standard error is appended to this file.
    pub fn new(command: Command, log: impl Into<PathBuf>) -> Self {
        Self {
            command,
            log: log.into(),
            has_input: false,
            orphan_signal: Signal::KILL,
            orphan_directory: None,
            output: None,
            error_output: None,
        }
    }

    /// Makes standard input a pipe. By default the input is empty.
    #[must_use]
    pub fn with_input(mut self) -> Self {
        self.has_input = true;
        self
    }

    /// Changes the signal that the process gets if this program ends first. The default is `SIGKILL`.
    #[must_use]
    pub fn orphan_signal(mut self, signal: Signal) -> Self {
        self.orphan_signal = signal;
        self
    }

    /// Names a directory that is removed once the process has ended, if this program ends first.
    #[must_use]
    pub fn orphan_directory(mut self, directory: &Path) -> Self {
        self.orphan_directory = Some(directory.to_owned());
        self
    }

    /// Replaces the pipe as standard output. The lines that the process prints are then not collected.
    #[must_use]
    pub fn output(mut self, output: Stdio) -> Self {
        self.output = Some(output);
        self
    }

    /// Replaces the file as standard error. The log of the process is then empty.
    #[must_use]
    pub fn error_output(mut self, output: Stdio) -> Self {
        self.error_output = Some(output);
        self
    }

    /// Starts the process.
    pub fn start(self) -> io::Result<Process> {
        self.start_with(|_| {})
    }

    /// Starts the process and gives each line of its standard output to `on_line`, in a thread. `on_line` is
    /// dropped when the output ends.
    pub fn start_with(mut self, on_line: impl FnMut(&str) + Send + 'static) -> io::Result<Process> {
        let log = match self.error_output.take() {
            Some(output) => output,
            None => OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.log)?
                .into(),
        };
        let input = if self.has_input {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        let output = self.output.take().unwrap_or_else(Stdio::piped);
        self.command.stdin(input).stdout(output).stderr(log);
        let program = self.command.get_program().to_owned();
        let spawned = self.command.process_group(0).spawn();
        let mut child = spawned
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))?;
        let output = Arc::new(Output::default());
        if let Some(stdout) = child.stdout.take() {
            let output = Arc::clone(&output);
            thread::spawn(move || read(stdout, &output, on_line));
        }
        let input = child.stdin.take();
        // From here on, dropping this value ends the process, even if the guard does not start.
        let process = Process {
            id: child.id(),
            state: Mutex::new(State {
                child,
                status: None,
                guard: None,
            }),
            input: Mutex::new(input),
            output,
            log: self.log,
        };
        let guard = Guard::start(process.id, self.orphan_signal, self.orphan_directory.as_deref())?;
        process.state().guard = Some(guard);
        Ok(process)
    }
}

/// Collects lines until the output ends.
fn read(stdout: ChildStdout, output: &Output, mut on_line: impl FnMut(&str)) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        on_line(&line);
        lock(&output.lines).lines.push(line);
        output.changed.notify_all();
    }
    drop(on_line);
    lock(&output.lines).has_ended = true;
    output.changed.notify_all();
}

/// Locks a value, which is valid even if a holder of the lock panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The standard output of a process so far.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    has_ended: bool,
}

/// The shell that ends a process whose parent is gone.
#[derive(Debug)]
struct Guard {
    shell: Child,
    input: ChildStdin,
}

impl Guard {
    fn start(process: u32, signal: Signal, directory: Option<&Path>) -> io::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .args([signal.as_raw().to_string(), process.to_string()])
            .arg(directory.unwrap_or(Path::new("")))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let input = shell.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { shell, input })
    }

    fn dismiss(mut self) {
        let _ = self.input.write_all(b"done\n");
        drop(self.input);
        let _ = self.shell.wait();
    }
}

#[derive(Debug)]
struct State {
    child: Child,
    /// How the process ended, once that is known.
    status: Option<ExitStatus>,
    guard: Option<Guard>,
}

impl State {
    fn look(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        if self.status.is_some()
            && let Some(guard) = self.guard.take()
        {
            guard.dismiss();
        }
        Ok(self.status)
    }
}

/// A child process.
#[derive(Debug)]
pub struct Process {
    id: u32,
    state: Mutex<State>,
    input: Mutex<Option<ChildStdin>>,
    output: Arc<Output>,
    log: PathBuf,
}

impl Process {
    /// Starts a command without input, and appends its standard error to this file.
    pub fn start(command: Command, log: impl Into<PathBuf>) -> io::Result<Self> {
        Spawn::new(command, log).start()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits until the process prints a line for which `is_last` is true. Returns all lines up to that line.
    /// Blocks.
    ///
    /// The error says whether the process ended or was too slow, with the end of its log.
    pub fn lines_until(
        &self,
        limit: Duration,
        is_last: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, String> {
        let begun = Instant::now();
        let mut lines = lock(&self.output.lines);
        loop {
            if let Some(last) = lines.lines.iter().position(|line| is_last(line)) {
                return Ok(lines.lines[..=last].to_vec());
            }
            let left = limit.saturating_sub(begun.elapsed());
            if lines.has_ended || left.is_zero() {
                let what = if lines.has_ended {
                    "its output ended".to_owned()
                } else {
                    format!("{limit:?} passed")
                };
                return Err(format!("{what} before the expected line\n{}", self.log_tail()));
            }
            let waited = self.output.changed.wait_timeout(lines, left);
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the process prints the URL where it serves. Returns `host:port` of the URL. Blocks.
    ///
    /// The errors are those of [`Self::lines_until`].
    pub fn address(&self, limit: Duration) -> Result<String, String> {
        let lines = self.lines_until(limit, |line| line.contains("http://"))?;
        let address = lines.last().and_then(|line| line.split("http://").nth(1));
        Ok(address.unwrap_or_default().trim().to_owned())
    }

    /// True if the process has printed a line for which `is_such` is true.
    pub fn has_printed(&self, is_such: impl Fn(&str) -> bool) -> bool {
        lock(&self.output.lines).lines.iter().any(|line| is_such(line))
    }

    /// Writes a line to the standard input of the process.
    pub fn write_line(&self, line: &str) -> io::Result<()> {
        let mut input = lock(&self.input);
        let input = input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(format!("{line}\n").as_bytes())
    }

    /// Sends the process a signal, if the process has not ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let mut state = self.state();
        // The id belongs to this process until the status is read.
        if state.look()?.is_none() {
            let id = i32::try_from(self.id).ok().and_then(Pid::from_raw);
            kill_process(id.ok_or(io::ErrorKind::NotFound)?, signal)?;
        }
        Ok(())
    }

    /// Returns how the process ended; `None` if it still runs.
    pub fn status(&self) -> io::Result<Option<ExitStatus>> {
        self.state().look()
    }

    /// Waits until the process ends. Returns `None` if it does not end within the limit. Blocks.
    pub fn wait(&self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            match self.status()? {
                None if begun.elapsed() < limit => thread::sleep(INTERVAL),
                status => return Ok(status),
            }
        }
    }

    /// Waits like [`Self::wait`], but without blocking the thread. Cancel safe.
    pub async fn ended(&self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            match self.status()? {
                None if begun.elapsed() < limit => tokio::time::sleep(INTERVAL).await,
                status => return Ok(status),
            }
        }
    }

    /// Kills the process, as `kill -9` does. Returns once the process has ended.
    pub fn kill(&self) {
        let mut state = self.state();
        if state.status.is_none() {
            let _ = state.child.kill();
            state.status = state.child.wait().ok();
        }
        if let Some(guard) = state.guard.take() {
            guard.dismiss();
        }
    }

    /// Returns the content of the log file.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns the last lines of the log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Returns a figure from `/proc/<id>/status` in bytes, such as `VmRSS` (its resident memory) or `RssAnon`
    /// (the part of it that is backed by no file).
    pub fn memory(&self, field: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id))?;
        let kib = status.lines().find_map(|line| {
            let value = line.strip_prefix(field)?.strip_prefix(':')?;
            value.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        Ok(kib.ok_or(io::ErrorKind::Unsupported)? * 1_024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            println!("the end of {}:\n{}", self.log.display(), self.log_tail());
        }
    }
}

#[cfg(test)]
mod tests;
