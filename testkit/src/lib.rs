//! What tests and measurements share. Nothing here depends on the crates under test.
//!
//! - [`process`]: child processes; [`node`]: the program `firstcome` as one; [`worker`]: a test program that
//!   is its own child and carries out commands. [`output`]: terminals, and outputs that cannot be written.
//! - [`servers`]: private MySQL and MariaDB servers, and [`on_each_server`] for tests on both; private Redis
//!   servers.
//! - [`database_proxy`], [`link_proxy`]: faults of connections. [`ports`]: free ports of loopback.
//! - [`poll`]: waiting for a condition, with a limit. [`prometheus`]: values of metrics.
//! - [`checker`]: judges a service by what its clients saw.
//!
//! How a service is judged:
//!
//! 1. A program that drives the service records every operation: [`history`], over HTTP by [`recorder`] and
//!    [`clients`].
//! 2. When the service is quiet, the coupons, issuances and uses are read back: [`rows`], over HTTP by [`fetch`];
//!    uses also from the tables, by [`stored_uses`].
//! 3. [`checker::check`] decides whether both can come from a service that keeps its promises. It is pure.

pub mod checker;
pub mod clients;
pub mod database_proxy;
pub mod fetch;
pub mod history;
pub mod ids;
pub mod link_proxy;
pub mod node;
pub mod output;
pub mod poll;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod recorder;
pub mod rows;
pub mod servers;
pub mod stored_uses;
pub mod time;
pub mod worker;
