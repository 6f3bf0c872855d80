//! What tests and measurements share, and nothing that depends on the crates that they test.
//!
//! - [`process`]: child processes; [`worker`]: a test program that is its own child and carries out commands.
//! - [`servers`]: private MySQL and MariaDB servers, and [`on_each_server`] for tests on both.
//! - [`database_proxy`], [`link_proxy`]: faults of connections. [`ports`]: free ports of loopback.
//! - [`poll`]: waiting for a condition, with a limit. [`prometheus`]: values of metrics.

pub mod database_proxy;
pub mod link_proxy;
pub mod poll;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod servers;
pub mod worker;
