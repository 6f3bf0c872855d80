//! What a process must survive: kills at random moments under load, crowds, and everything that a database server does to it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod away;
mod backwards;
mod batches;
mod clients;
mod crash;
mod crowd;
mod history;
mod opening;
mod process;
mod server;
mod stage;
