//! Three nodes, as processes, over one database: they answer like one, whatever happens to a node, to the
//! links between them, or to the database.
//!
//! Clients ask at any node, and an administrator changes what they ask for. In the end the checker judges all
//! that anybody saw.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[allow(dead_code, reason = "another test program uses the rest of it")]
#[path = "../common/clients.rs"]
mod clients;
#[allow(dead_code, reason = "another test program uses the rest of it")]
#[path = "../common/database.rs"]
mod database;
#[path = "../common/eventually.rs"]
mod eventually;
#[allow(dead_code, reason = "another test program uses the rest of it")]
#[path = "../common/history.rs"]
mod history;
#[path = "../common/least_of_three.rs"]
mod least_of_three;
#[path = "../common/on_both.rs"]
mod on_both;
#[allow(dead_code, reason = "another test program uses the rest of it")]
#[path = "../common/process.rs"]
mod process;

mod balancer;
mod kills;
mod member;
mod partitions;
mod pauses;
mod planned;
mod secrets;
mod stage;
mod store;
mod views;
mod wire;

pub(crate) use on_both::on_both;
