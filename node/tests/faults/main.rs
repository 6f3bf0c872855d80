//! What a process must survive: kills at random moments under load, crowds, and everything that a database
//! server does to it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod away;
mod backwards;
mod batches;
#[allow(dead_code, reason = "another test program uses the rest of it")]
#[path = "../common/clients.rs"]
mod clients;
mod crash;
mod crowd;
#[path = "../common/database.rs"]
mod database;
#[path = "../common/eventually.rs"]
mod eventually;
#[allow(dead_code, reason = "another test program uses the rest of it")]
#[path = "../common/history.rs"]
mod history;
#[path = "../common/on_both.rs"]
mod on_both;
mod opening;
#[allow(dead_code, reason = "another test program uses the rest of it")]
#[path = "../common/process.rs"]
mod process;
mod server;
mod stage;
