//! One node as a child process.
//!
//! It is in a process group of its own, so that Ctrl-C in a terminal reaches this program alone, which then
//! stops nodes in order. Should this program end without that, a shell that waits on a pipe of ours tells the
//! node to stop.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::load::Failed;

/// How much of its log is shown of a node that is in trouble.
const SHOWN_LINES: usize = 10;

/// The file with what a node is told.
const CONFIGURATION: &str = "node.toml";

/// Reads until its input ends, which it does with the process that holds it; a word means that there is
/// nothing to do.
const GUARD: &str = r#"read -r word || kill -TERM "$1""#;

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    name: String,
    child: Child,
    /// How it ended, once it has.
    status: Option<ExitStatus>,
    ready: Arc<AtomicBool>,
    url: String,
    program: PathBuf,
    directory: PathBuf,
    more: Vec<String>,
    guard: Option<(Child, ChildStdin)>,
}

/// A node that ended by itself.
pub(crate) struct Ended {
    pub(crate) how: String,
    pub(crate) last_lines: String,
}

impl Node {
    /// Starts the program with a configuration file of these keys in this new directory; `more` goes over it.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        directory: &Path,
        keys: &[(&str, String)],
        more: &[String],
    ) -> Result<Self, Failed> {
        fs::create_dir(directory)?;
        let file = directory.join(CONFIGURATION);
        // Secrets are in it.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?
            .write_all(configuration(keys).as_bytes())?;
        let http = keys
            .iter()
            .find_map(|(key, value)| (*key == "http.listen").then_some(value))
            .ok_or("a node without an address")?;
        let (child, ready) = spawn(program, directory, more)?;
        let mut node = Self {
            name: name.to_owned(),
            child,
            status: None,
            ready,
            url: format!("http://{http}"),
            program: program.to_owned(),
            directory: directory.to_owned(),
            more: more.to_vec(),
            guard: None,
        };
        node.guard = Some(node.guarded()?);
        Ok(node)
    }

    /// Starts it once more, after it has ended.
    pub(crate) fn start_again(&mut self) -> Result<(), Failed> {
        self.kill();
        (self.child, self.ready) = spawn(&self.program, &self.directory, &self.more)?;
        self.status = None;
        self.guard = Some(self.guarded()?);
        Ok(())
    }

    fn guarded(&self) -> Result<(Child, ChildStdin), Failed> {
        let mut command = Command::new("sh");
        command
            .args(["-c", GUARD, "sh"])
            .arg(self.process().to_string())
            .process_group(0);
        let mut guard = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let input = guard.stdin.take().ok_or("a guard without its input")?;
        Ok((guard, input))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it serves.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// How to start it again by hand.
    pub(crate) fn command(&self) -> String {
        let (directory, program) = (self.directory.display(), self.program.display());
        let more: String = self.more.iter().map(|key| format!(" --set {key}")).collect();
        format!("cd {directory} && {program} --config {CONFIGURATION}{more}")
    }

    /// Whether it has said that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether it has not ended, as far as anybody has looked.
    pub(crate) fn lives(&self) -> bool {
        self.status.is_none()
    }

    /// How it ended, told once.
    pub(crate) fn ended_by_itself(&mut self) -> std::io::Result<Option<Ended>> {
        if !self.lives() || !self.has_ended()? {
            return Ok(None);
        }
        let how = self.status.map_or_else(String::new, |status| status.to_string());
        Ok(Some(Ended {
            how,
            last_lines: self.last_lines(),
        }))
    }

    /// The last lines of its log.
    pub(crate) fn last_lines(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    /// Asks it to stop, and waits until it has; after the limit it is killed. The error is what was wrong
    /// with how it ended.
    ///
    /// Cancel safety: dropped midway, it has been asked.
    pub(crate) async fn stop(&mut self, limit: Duration, poll: Duration) -> Result<(), String> {
        self.tell(Signal::TERM);
        let begun = Instant::now();
        while !self.has_ended().map_err(|error| error.to_string())? {
            if begun.elapsed() > limit {
                self.kill();
                return Err(format!("it was killed after {limit:?}"));
            }
            tokio::time::sleep(poll).await;
        }
        match self.status {
            Some(status) if !status.success() => Err(status.to_string()),
            Some(_) | None => Ok(()),
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if self.lives() {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
        self.dismiss_guard();
    }

    fn has_ended(&mut self) -> std::io::Result<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        if self.status.is_some() {
            self.dismiss_guard();
        }
        Ok(self.status.is_some())
    }

    /// Nobody but this waits for the process, so its number is its own until it is seen to have ended.
    fn tell(&self, signal: Signal) {
        if let (true, Some(process)) = (
            self.lives(),
            i32::try_from(self.process()).ok().and_then(Pid::from_raw),
        ) {
            let _ = kill_process(process, signal);
        }
    }

    fn dismiss_guard(&mut self) {
        if let Some((mut guard, mut input)) = self.guard.take() {
            let _ = input.write_all(b"done\n");
            drop(input);
            let _ = guard.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts the program in a directory where its configuration is.
fn spawn(program: &Path, directory: &Path, more: &[String]) -> Result<(Child, Arc<AtomicBool>), Failed> {
    let mut command = Command::new(program);
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("FIRSTCOME__")) {
        command.env_remove(key);
    }
    command
        .args(["--config", CONFIGURATION])
        .args(more.iter().flat_map(|key| ["--set", key]))
        .current_dir(directory)
        .process_group(0);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))?;
    let started = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn();
    let mut child = started.map_err(|error| format!("{}: {error}", program.display()))?;
    let ready = Arc::new(AtomicBool::new(false));
    if let Some(output) = child.stdout.take() {
        let ready = Arc::clone(&ready);
        std::thread::spawn(move || listen(output, &ready));
    }
    Ok((child, ready))
}

/// Reads what it says: the first line comes when it is ready. The rest is read so that it can be written.
fn listen(output: ChildStdout, ready: &AtomicBool) {
    for line in BufReader::new(output).lines() {
        match line {
            Ok(line) if line.contains("is ready at") => ready.store(true, Ordering::Release),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// As a TOML file.
fn configuration(keys: &[(&str, String)]) -> String {
    // A text in JSON is one in TOML, and keys may be written with dots.
    keys.iter()
        .map(|(key, value)| format!("{key} = {}\n", serde_json::Value::from(value.as_str())))
        .collect()
}
