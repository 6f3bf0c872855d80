//! What a node must survive: kills at random moments under load, crowds, and all faults of a database server.
//! In the end the checker judges everything that clients saw.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod away;
mod backwards;
mod batches;
mod crash;
mod crowd;
mod database;
mod exports;
mod log;
mod long_lists;
mod opening;
mod rows;
mod server;
mod stage;
mod tables;
mod twins;

/// The program under test.
const FIRSTCOME: &str = env!("CARGO_BIN_EXE_firstcome");
