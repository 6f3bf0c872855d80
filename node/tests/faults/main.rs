//! What a process must survive: kills at random moments under load, and crowds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crash;
mod crowd;
mod history;
mod process;
