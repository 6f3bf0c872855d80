//! The program as a child process on a port of its own, ended with the test.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What administrators show.
pub const ADMIN_TOKEN: &str = "token-of-the-administrators";

/// How long it may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How much of its log a process shows whose test fails.
const SHOWN_LINES: usize = 30;

/// A serving process.
pub struct Process {
    pub child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
    log: PathBuf,
}

/// The program in this directory with these arguments, its log in a file there.
fn program(data: &Path, arguments: &[&str]) -> (Command, PathBuf) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstcome"));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("FIRSTCOME__")) {
        command.env_remove(key);
    }
    let token = format!("auth.admin_token={ADMIN_TOKEN}");
    command
        .args(["--set", &token, "--set", "log.level=warn"])
        .args(arguments)
        .current_dir(data)
        .stdin(Stdio::null());
    let log = data.join("stderr");
    command.stderr(OpenOptions::new().create(true).append(true).open(&log).unwrap());
    (command, log)
}

fn set(keys: &[String]) -> impl Iterator<Item = &str> {
    keys.iter().flat_map(|key| ["--set", key])
}

/// Runs a command of the program that ends by itself, within a limit: whether it went well, and what it
/// logged.
pub fn run(data: &Path, command: &str, keys: &[String], limit: Duration) -> (bool, String) {
    let arguments: Vec<&str> = std::iter::once(command).chain(set(keys)).collect();
    let (mut command, log) = program(data, &arguments);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = ended(&mut child, limit);
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let said = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(log).unwrap();
    (
        status
            .unwrap_or_else(|| panic!("it does not end within {limit:?}: {said}"))
            .success(),
        said,
    )
}

/// How a process ended, if it did within the limit.
fn ended(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            None if begun.elapsed() < limit => std::thread::sleep(Duration::from_millis(5)),
            status => return status,
        }
    }
}

impl Process {
    /// Starts it over this directory, and returns once it is ready.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// The same with these keys set.
    pub fn start_with(data: &Path, keys: &[String]) -> Self {
        Self::start_at("127.0.0.1:0", data, keys)
    }

    /// The same at this address.
    pub fn start_at(address: &str, data: &Path, keys: &[String]) -> Self {
        let listen = format!("--listen={address}");
        let arguments: Vec<&str> = std::iter::once(listen.as_str()).chain(set(keys)).collect();
        let (mut command, log) = program(data, &arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (output, (sender, said)) = (child.stdout.take().unwrap(), mpsc::channel());
        let mut process = Self {
            child,
            address: String::new(),
            log,
        };
        std::thread::spawn(move || {
            let mut welcome = String::new();
            BufReader::new(output).read_line(&mut welcome).unwrap();
            // Nobody waits any more if it took too long.
            let _ = sender.send(welcome);
        });
        let welcome = said.recv_timeout(START_LIMIT).unwrap_or_default();
        let address = welcome
            .split("http://")
            .nth(1)
            .map(|address| address.trim().to_owned());
        process.address = address.unwrap_or_else(|| panic!("it says where it is ready: {}", process.log()));
        process
    }

    /// What it and others over this directory have logged, from warnings on.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Bytes of memory that are its own.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(
            Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(),
            signal,
        )
        .unwrap();
    }

    /// Asks it to stop; whether it did so well, within the limit.
    pub fn stop(&mut self, limit: Duration) -> bool {
        self.signal(Signal::TERM);
        ended(&mut self.child, limit)
            .unwrap_or_else(|| panic!("it does not stop within {limit:?}"))
            .success()
    }

    /// As by `kill -9`: nothing is finished.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n"));
        }
    }
}
