//! The whole engine in one process, over a real SQLite file, with a store around it that fails on demand.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bounds;
mod door;
mod faults;
mod figures;
mod fixture;
mod gathering;
mod issuing;
mod membership;
mod ownership;
mod stopping;
mod store_failures;
mod views;
