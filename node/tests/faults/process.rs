//! The program as a child process on a port of its own, ended with the test.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What administrators show.
pub const ADMIN_TOKEN: &str = "token-of-the-administrators";

/// A serving process.
pub struct Process {
    pub child: Child,
    /// `127.0.0.1:port`.
    pub address: String,
}

impl Process {
    /// Starts it over this directory, and returns once it is ready.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// The same with these keys set.
    pub fn start_with(data: &Path, keys: &[String]) -> Self {
        let token = format!("auth.admin_token={ADMIN_TOKEN}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_firstcome"));
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("FIRSTCOME__")) {
            command.env_remove(key);
        }
        command.args(["--listen=127.0.0.1:0", "--set", &token, "--set", "log.level=error"]).current_dir(data);
        command.args(keys.iter().flat_map(|key| ["--set", key]));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut welcome = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut welcome).unwrap();
        let address = welcome.split("http://").nth(1).expect("it says where it is ready").trim().to_owned();
        Self { child, address }
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
    }
}
