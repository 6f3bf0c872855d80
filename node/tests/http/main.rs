//! The HTTP contract, over real sockets: one test and more for every row of its tables.

mod coupons;
mod general;
mod issuing;
mod lists;
mod operations;
mod process;
mod support;
