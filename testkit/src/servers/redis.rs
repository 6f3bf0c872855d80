//! Private Redis servers: a real `redis-server` on a free port of loopback, with its data in a temporary
//! directory.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::{is_required, on_the_path};
use crate::ports::free_port;
use crate::process::{Process, Spawn};

/// How long a server may take to start, including reading its log of commands.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running server. It and its data end with this value.
#[derive(Debug)]
pub struct RedisServer {
    program: PathBuf,
    directory: PathBuf,
    port: u16,
    arguments: Vec<String>,
    process: Mutex<Option<Process>>,
}

/// Returns the server's program, or why there is no program.
fn program() -> Result<PathBuf, String> {
    std::env::var_os("REDIS_SERVER")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| on_the_path("redis-server"))
        .ok_or_else(|| "neither REDIS_SERVER is set nor redis-server on the PATH".to_owned())
}

impl RedisServer {
    /// True if this machine has the program. If it has none, tests are skipped, and a line on standard error
    /// says so, once.
    ///
    /// # Panics
    /// If there is no program and `FIRSTCOME_REQUIRE_DATABASES` is 1.
    pub fn is_available() -> bool {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        let is_available = *AVAILABLE.get_or_init(|| match program() {
            Ok(_) => true,
            Err(reason) => {
                // The test harness hides what a passing test prints with eprintln, but not this.
                let _ = writeln!(std::io::stderr(), "SKIPPED: no test runs on Redis: {reason}");
                false
            }
        });
        assert!(
            is_available || !is_required(),
            "FIRSTCOME_REQUIRE_DATABASES=1, but there is no Redis"
        );
        is_available
    }

    /// Starts a server with these arguments, such as `--appendonly yes --appendfsync always`. The error says
    /// why there is no server.
    ///
    /// Blocks.
    pub fn start(arguments: &[&str]) -> Result<Self, String> {
        let program = program()?;
        let directory = tempfile::Builder::new()
            .prefix("firstcome-redis-")
            .tempdir()
            .map_err(|error| error.to_string())?
            .keep();
        let server = Self {
            program,
            directory,
            port: free_port(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            process: Mutex::new(None),
        };
        server.resume()?;
        Ok(server)
    }

    /// Starts the server on its data after [`Self::kill`]. Blocks.
    pub fn resume(&self) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--daemonize", "no"])
            .args(["--port", &self.port.to_string(), "--dir"])
            .arg(&self.directory)
            .arg("--logfile")
            .arg(self.directory.join("log"))
            .args(&self.arguments);
        let spawn = Spawn::new(command, self.directory.join("log")).orphan_directory(&self.directory);
        let process = spawn.start().map_err(|error| error.to_string())?;
        let begun = Instant::now();
        while !answers(self.port) {
            let has_ended = process.status().map_err(|error| error.to_string())?.is_some();
            if has_ended || begun.elapsed() > START_LIMIT {
                return Err(format!("the server does not answer\n{}", process.log_tail()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.process() = Some(process);
        Ok(())
    }

    /// Kills the server's process; its data stays. Blocks.
    pub fn kill(&self) {
        if let Some(process) = self.process().take() {
            process.kill();
        }
    }

    /// Returns the URL of one of the server's 16 databases.
    pub fn url(&self, database: u8) -> String {
        format!("redis://127.0.0.1:{}/{database}", self.port)
    }

    /// Returns the id of the server's process; `None` if it was killed.
    pub fn process_id(&self) -> Option<u32> {
        self.process().as_ref().map(Process::id)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// True if a server answers at this port. One that still reads its log answers with an error.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<[u8; 5]> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| &answer == b"+PONG")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(server: &RedisServer, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut bytes = [0; 64];
        let read = stream.read(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    #[test]
    fn what_a_server_synced_is_there_after_it_was_killed() {
        if !RedisServer::is_available() {
            return;
        }
        let server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]).unwrap();
        assert_eq!(answer(&server, "SET name value"), "+OK\r\n");
        server.kill();
        assert_eq!(server.process_id(), None);
        server.resume().unwrap();
        assert_eq!(answer(&server, "GET name"), "$5\r\nvalue\r\n");
        let directory = server.directory.clone();
        drop(server);
        assert!(!directory.exists());
    }
}
