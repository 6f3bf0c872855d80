//! Three nodes, as processes, over one database. They act as one service, whatever happens to a node, to the
//! links between nodes, or to the database.
//!
//! Clients send requests to all nodes while an administrator changes the coupons. In the end the checker
//! judges everything that they saw.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod balancer;
mod bulk;
mod change_keys;
mod codes;
mod fenced_uses;
mod kills;
mod leases;
mod logs;
mod member;
mod partitions;
mod pauses;
mod planned;
mod receiver;
mod secrets;
mod stage;
mod store;
mod traces;
mod views;

/// The program under test.
const FIRSTCOME: &str = env!("CARGO_BIN_EXE_firstcome");
