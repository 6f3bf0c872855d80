//! The signals that end a node: SIGTERM, SIGINT from a terminal, and SIGHUP when the terminal goes away. All
//! of them let the node finish what it has begun. Files that may change (certificates, keys) are read again
//! without a signal.

use std::fs;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives these signals. From [`Signals::listen`] on they no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` if the process was started to ignore it.
    hang_up: Option<Signal>,
}

impl Signals {
    /// Receives these signals from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        let hang_up = || signal(SignalKind::hangup());
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: (!is_hang_up_ignored()).then(hang_up).transpose()?,
        })
    }

    /// Waits for the next signal, and returns its name.
    ///
    /// Cancel safety: a signal that arrives between two calls is returned by the second.
    pub(crate) async fn next(&mut self) -> &'static str {
        let hung_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hung_up => "SIGHUP",
        }
    }
}

/// True if this process was started to outlive its terminal, as by `nohup`. False if that cannot be read.
fn is_hang_up_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The lowest bit is signal 1.
    mask.is_some_and(|mask| mask & 1 == 1)
}
