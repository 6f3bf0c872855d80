//! Links that are cut, silent, slow or half-open while every node reaches the database.
//!
//! The node with the smaller name dials. So what lies before the third node's links is between it and both
//! others, and what lies before the second's between it and the first.

use std::time::Duration;
use testkit::on_each_server;

use testkit::servers::{Kind, Server};

use crate::stage::Stage;
use testkit::link_proxy::LinkMode;

/// Shorter than by default: a node outside the group gives its shards up after two.
const KEYS: [&str; 2] = ["cluster.lease=1500ms", "cluster.beat=150ms"];

/// What a node says that the others go on without.
const LEFT_OUT: [&str; 1] = ["no_group"];

/// Each way; a link across a continent.
const DELAY: Duration = Duration::from_millis(40);
/// Far longer than four times that; half of all take less.
const DELAYED_MAX: Duration = Duration::from_secs(1);

impl Stage {
    fn set(&self, before: usize, mode: LinkMode) {
        self.members[before].wire.as_ref().expect("a wire").set(mode);
    }

    /// The links before this node are as the mode has it: this node is left out, and the others go on without
    /// it. Then they are mended.
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

async fn links_fail_and_the_group_goes_on(kind: Kind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &KEYS, true).await;
    let (clients, _) = stage.clients().await;
    stage.goes_on().await;
    stage.without(2, LinkMode::Cut, 2).await;
    // Of two that do not reach each other, the one with the smaller name stays.
    stage.without(1, LinkMode::Cut, 1).await;
    stage.without(2, LinkMode::Silent, 2).await;
    clients.end().await;
    stage.judge().await;
}

async fn slow_and_half_open_links_delay_answers_and_nothing_else(kind: Kind) {
    let server = Server::shared(kind);
    // Long enough that no shard moves on a busy machine: the way over the slow link is asked for.
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
    // The connections that are there say nothing more and are not cut; new ones pass.
    stage.members[2].wire.as_ref().expect("a wire").silence_existing();
    let took = stage.until_issued(0, coupon).await;
    println!("half-open: issued again after {took:?}");
    stage.settled().await;
    stage.goes_on().await;
    clients.end().await;
    stage.judge().await;
}

on_each_server! { links_fail_and_the_group_goes_on slow_and_half_open_links_delay_answers_and_nothing_else }
