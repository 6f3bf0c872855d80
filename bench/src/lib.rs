//! What Firstcome is judged by: the record of what clients saw, and the checker that holds it against what is stored.
//!
//! 1. Whatever drives a service (a load generator, a test with child processes) records every operation: [`history`].
//! 2. When it is quiet, the coupons and issuances are read back: [`rows`], over HTTP by [`fetch`].
//! 3. [`checker::check`] decides whether both can be of one service that keeps its promises; it is pure, and `firstcome-bench verify` is [`verify`] around it.
//!
//! Time and memory grow with n log n. A million operations, timed by hand:
//!
//! ```text
//! cargo run --release -p firstcome-bench --example check_million
//! ```
//!
//! Beside it are private database [`servers`] to run all that on.

pub mod checker;
pub mod compare;
pub mod fetch;
pub mod history;
pub mod load;
pub mod rows;
pub mod servers;
pub mod verify;
