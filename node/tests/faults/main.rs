//! What a process must survive: kills at random moments under load, and crowds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod crash;
mod crowd;
mod history;
#[path = "../../../actors/tests/servers/launcher.rs"]
#[allow(dead_code, reason = "other test programs use the rest of it")]
mod launcher;
mod process;
