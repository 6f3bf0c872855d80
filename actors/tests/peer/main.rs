//! Links between real processes on loopback.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod child;
mod garbage;
mod links;
mod node;
mod refusals;
mod secrets;

/// Not a test, but a node of the tests: they run this program again.
#[test]
fn a_node() {
    testkit::worker::run(async |configuration| child::run(&configuration).await);
}
