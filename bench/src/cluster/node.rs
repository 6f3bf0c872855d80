//! One node as a child process, with its configuration in a file.
//!
//! Ctrl-C in a terminal does not reach the node, so that this program can stop nodes in order. If this
//! program ends without stopping the node, the node gets SIGTERM ([`testkit::process`]).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::process::{Process, Signal, Spawn, without_settings};

use crate::load::Failed;

/// The file with a node's configuration.
const CONFIGURATION: &str = "node.toml";

/// A node of a cluster on this machine.
#[derive(Debug)]
pub(crate) struct ClusterNode {
    name: String,
    process: Process,
    /// True once this program has stopped the node or found that it ended by itself.
    has_ended: bool,
    url: String,
    program: PathBuf,
    directory: PathBuf,
    more: Vec<String>,
}

/// A node that ended by itself.
pub(crate) struct Ended {
    pub(crate) status: String,
    pub(crate) last_lines: String,
}

impl ClusterNode {
    /// Starts the program with a configuration file of these keys in this new directory. The keys in `more`
    /// override the file.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        directory: &Path,
        keys: &[(&str, String)],
        more: &[String],
    ) -> Result<Self, Failed> {
        fs::create_dir(directory)?;
        // The file holds secrets.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(directory.join(CONFIGURATION))?
            .write_all(configuration(keys).as_bytes())?;
        let http = keys
            .iter()
            .find_map(|(key, value)| (*key == "http.listen").then_some(value))
            .ok_or("a node without an address")?;
        Ok(Self {
            name: name.to_owned(),
            process: spawn(program, directory, more)?,
            has_ended: false,
            url: format!("http://{http}"),
            program: program.to_owned(),
            directory: directory.to_owned(),
            more: more.to_vec(),
        })
    }

    /// Starts the node again, after it has ended.
    pub(crate) fn start_again(&mut self) -> Result<(), Failed> {
        self.kill();
        self.process = spawn(&self.program, &self.directory, &self.more)?;
        self.has_ended = false;
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the URL where the node serves.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the id of the node's process.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Returns the command that starts the node again.
    pub(crate) fn command(&self) -> String {
        let (directory, program) = (self.directory.display(), self.program.display());
        let more: String = self.more.iter().map(|key| format!(" --set {key}")).collect();
        format!("cd {directory} && {program} --config {CONFIGURATION}{more}")
    }

    /// True once the node has printed that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.process.has_printed(|line| line.contains("is ready at"))
    }

    /// True until this program has stopped the node or found that it ended.
    pub(crate) fn is_running(&self) -> bool {
        !self.has_ended
    }

    /// Returns how the node ended, if it ended by itself. Only the first call that finds this returns it.
    pub(crate) fn ended_by_itself(&mut self) -> std::io::Result<Option<Ended>> {
        if self.has_ended {
            return Ok(None);
        }
        let Some(status) = self.process.status()? else {
            return Ok(None);
        };
        self.has_ended = true;
        Ok(Some(Ended {
            status: status.to_string(),
            last_lines: self.last_lines(),
        }))
    }

    /// Returns the last lines of the node's log.
    pub(crate) fn last_lines(&self) -> String {
        self.process.log_tail()
    }

    /// Asks the node to stop, waits until it has ended, and kills it after the limit. If the node did not
    /// stop with success, the error says how it ended.
    ///
    /// Cancel safety: if this future is dropped before it completes, the node has been asked to stop.
    pub(crate) async fn stop(&mut self, limit: Duration) -> Result<(), String> {
        let failed = |error: std::io::Error| error.to_string();
        self.process.signal(Signal::TERM).map_err(failed)?;
        let status = self.process.ended(limit).await.map_err(failed)?;
        self.kill();
        match status {
            None => Err(format!("it was killed after {limit:?}")),
            Some(status) if !status.success() => Err(status.to_string()),
            Some(_) => Ok(()),
        }
    }

    /// Kills the node.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
        self.has_ended = true;
    }
}

/// Starts the program in the directory of its configuration.
fn spawn(program: &Path, directory: &Path, more: &[String]) -> Result<Process, Failed> {
    let mut command = Command::new(program);
    without_settings(&mut command)
        .args(["--config", CONFIGURATION])
        .args(more.iter().flat_map(|key| ["--set", key]))
        .current_dir(directory);
    let spawn = Spawn::new(command, directory.join("log")).orphan_signal(Signal::TERM);
    Ok(spawn.start()?)
}

/// Returns the keys as a TOML file.
fn configuration(keys: &[(&str, String)]) -> String {
    // A JSON string is a TOML string, and TOML allows dots in keys.
    keys.iter()
        .map(|(key, value)| format!("{key} = {}\n", serde_json::Value::from(value.as_str())))
        .collect()
}
