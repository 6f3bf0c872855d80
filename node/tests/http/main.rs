//! The HTTP contract, over real sockets: one test and more for every row of its tables.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod contract;
mod coupons;
mod general;
mod hostile;
mod issuing;
mod lists;
mod operations;
mod process;
mod readme;
mod reads;
mod setbacks;
mod support;
