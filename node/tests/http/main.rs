//! The HTTP contract, over real sockets: one test and more for every row of its tables.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod contract;
mod cors;
mod coupons;
mod fuzz;
mod general;
mod hostile;
mod issuing;
mod jwt;
mod limits;
mod lists;
mod logs;
mod operations;
mod process;
mod rate;
mod readme;
mod reads;
mod setbacks;
mod support;
mod tls;
mod tokens;
