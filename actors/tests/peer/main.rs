//! Links between real processes on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod child;
mod garbage;
mod links;
mod node;
mod refusals;
mod secrets;

/// Not a test, but a node of the tests. The tests run this program again to start a node.
#[test]
fn a_node() {
    testkit::worker::run(async |configuration| child::run(&configuration).await);
}
