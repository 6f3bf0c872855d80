//! Links that are cut, silent, slow or half-open while every node reaches the database.
//!
//! The node with the smaller name dials. So the third node's link proxy is between the third node and both
//! others, and the second node's link proxy is between the second node and the first.

use std::time::Duration;
use testkit::on_each_server;

use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;
use testkit::link_proxy::LinkMode;

/// A lease shorter than the default, because a node outside the group releases its shards after a lease.
const KEYS: [&str; 2] = ["cluster.lease=1500ms", "cluster.beat=150ms"];

/// The reason why a node outside the group is not ready.
const LEFT_OUT: [&str; 1] = ["no_group"];

/// Delay in each direction, as on a link across a continent.
const DELAY: Duration = Duration::from_millis(40);
/// Half of all requests must take less than this, which is far longer than four delays.
const DELAYED_MAX: Duration = Duration::from_secs(1);

impl Stage {
    fn set(&self, before: usize, mode: LinkMode) {
        self.members[before]
            .link_proxy
            .as_ref()
            .expect("a link proxy")
            .set(mode);
    }

    /// Applies a mode to the links of one node. Checks that the node `left_out`, which may be the same node,
    /// leaves the group and that the others go on. Then restores the links.
    async fn without(&self, before: usize, mode: LinkMode, left_out: usize) {
        let others: Vec<usize> = (0..3).filter(|number| *number != left_out).collect();
        let coupon = self.coupon_of(left_out).await;
        self.set(before, mode);
        self.not_ready(left_out, &LEFT_OUT).await;
        self.settled_among(&others).await;
        let took = self.until_issued(others[0], coupon).await;
        println!(
            "{mode:?} before {}: its coupon is issued by others, in {took:?}",
            self.members[before].name
        );
        self.goes_on().await;
        self.set(before, LinkMode::Pass);
        self.settled().await;
        self.until_issued(left_out, coupon).await;
    }
}

async fn the_group_goes_on_without_a_node_whose_links_fail(kind: ServerKind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &KEYS, true).await;
    let (clients, _) = stage.clients().await;
    stage.goes_on().await;
    stage.without(2, LinkMode::Cut, 2).await;
    // Of two nodes that do not reach each other, the node with the smaller name stays in the group.
    stage.without(1, LinkMode::Cut, 1).await;
    stage.without(2, LinkMode::Silent, 2).await;
    clients.end().await;
    stage.judge().await;
}

async fn slow_and_half_open_links_only_delay_answers(kind: ServerKind) {
    let server = Server::shared(kind);
    // The lease is so long that no shard moves on a busy machine, so that requests cross the slow link.
    let stage = Stage::on(server, &["cluster.lease=5s", "cluster.beat=150ms"], true).await;
    let (clients, _) = stage.clients().await;
    let coupon = stage.coupon_of(2).await;
    stage.set(2, LinkMode::Delayed(DELAY));
    let mut took = Vec::new();
    for _ in 0..10 {
        took.push(stage.until_issued(0, coupon).await);
    }
    took.sort_unstable();
    assert!(
        took[0] >= DELAY * 2 && took[5] <= DELAYED_MAX,
        "{took:?} over a slow link"
    );
    stage.goes_on().await;
    stage.set(2, LinkMode::Pass);
    // Existing connections pass nothing, but are not cut. New connections pass everything.
    stage.members[2]
        .link_proxy
        .as_ref()
        .expect("a link proxy")
        .silence_existing();
    let took = stage.until_issued(0, coupon).await;
    println!("half-open: issued again after {took:?}");
    stage.settled().await;
    stage.goes_on().await;
    clients.end().await;
    stage.judge().await;
}

on_each_server! {
    the_group_goes_on_without_a_node_whose_links_fail
    slow_and_half_open_links_only_delay_answers
}
