//! The program `firstcome` as a child process on a port of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, Signal, without_settings};

/// The token of administrators.
pub const ADMIN_TOKEN: &str = "token-of-the-administrators";

/// How long a node may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running node. Dropping this value ends the node.
#[derive(Debug)]
pub struct Node {
    /// `127.0.0.1:port`.
    pub address: String,
    process: Process,
}

/// Returns the command of the program with these arguments, and the file for its log.
fn program(program: &str, directory: &Path, arguments: &[&str], keys: &[String]) -> (Command, PathBuf) {
    let mut command = Command::new(program);
    let token = format!("auth.admin_token={ADMIN_TOKEN}");
    without_settings(&mut command)
        .args(arguments)
        // No load balancer has to notice that a node stops, unless a test says so.
        .args([
            "--set",
            &token,
            "--set",
            "log.level=warn",
            "--set",
            "shutdown.delay=0s",
        ])
        .args(keys.iter().flat_map(|key| ["--set", key]))
        .current_dir(directory);
    (command, directory.join("stderr"))
}

/// Runs a command of the program that ends by itself. Returns true if the command succeeded, and the
/// command's log. Blocks.
///
/// # Panics
/// If the command does not end within the limit.
pub fn run(
    firstcome: &str,
    directory: &Path,
    command: &str,
    keys: &[String],
    limit: Duration,
) -> (bool, String) {
    let (command, log) = program(firstcome, directory, &[command], keys);
    let process = start(command, &log);
    let status = process.wait(limit).expect("a child can be waited for");
    let logged = process.log();
    drop(process);
    let _ = std::fs::remove_file(log);
    match status {
        Some(status) => (status.success(), logged),
        None => panic!("the command does not end within {limit:?}: {logged}"),
    }
}

fn start(command: Command, log: &Path) -> Process {
    let started = Process::start(command, log);
    started.unwrap_or_else(|error| panic!("a node does not start: {error}"))
}

impl Node {
    /// Starts the program over this directory with these keys, and waits until the node is ready. Blocks.
    ///
    /// # Panics
    /// If the node is not ready in time.
    pub fn start(firstcome: &str, directory: &Path, keys: &[String]) -> Self {
        Self::start_at("127.0.0.1:0", firstcome, directory, keys)
    }

    /// Starts a node like [`Self::start`], at this address.
    ///
    /// # Panics
    /// If the node is not ready in time.
    pub fn start_at(address: &str, firstcome: &str, directory: &Path, keys: &[String]) -> Self {
        let (command, log) = program(firstcome, directory, &[&format!("--listen={address}")], keys);
        let process = start(command, &log);
        let address = process.address(START_LIMIT);
        Self {
            address: address.unwrap_or_else(|error| panic!("a node is not ready: {error}")),
            process,
        }
    }

    /// Starts the program at this address, and does not wait until it is ready.
    pub fn begin_at(address: &str, firstcome: &str, directory: &Path, keys: &[String]) -> Self {
        let (command, log) = program(firstcome, directory, &[&format!("--listen={address}")], keys);
        Self {
            address: address.to_owned(),
            process: start(command, &log),
        }
    }

    /// Returns its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Returns the warnings and errors that this node and others over its directory have logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Sends the node a signal.
    ///
    /// # Panics
    /// If the system refuses the signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal).expect("a child can be signalled");
    }

    /// Asks the node to stop and waits. Returns true if the node stopped with success. Blocks.
    ///
    /// # Panics
    /// If the node does not stop within the limit.
    pub fn stop(&self, limit: Duration) -> bool {
        self.signal(Signal::TERM);
        let status = self.process.wait(limit).expect("a child can be waited for");
        status
            .unwrap_or_else(|| panic!("the node does not stop within {limit:?}"))
            .success()
    }

    /// Kills the node, as `kill -9` does.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Returns how many bytes of the node's resident memory are backed by no file.
    ///
    /// # Panics
    /// If the system does not report the memory.
    pub fn memory(&self) -> u64 {
        self.process
            .memory("RssAnon")
            .expect("Linux reports the memory of a process")
    }
}
