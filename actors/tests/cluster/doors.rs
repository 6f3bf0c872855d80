//! What doors know of owners on other nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::owning::door::DOOR_TTL;
use serde_json::json;
use testkit::poll::eventually;

use super::child::LEASE;
use super::fixture::TestCluster;
use super::node::Node;

pub async fn every_door_learns_what_is_sold_out_and_no_door_refuses_after_a_widening(fixture: TestCluster) {
    let (a, b, c) = tokio::join!(fixture.start("a"), fixture.start("b"), fixture.start("c"));
    fixture.spread_over(&["a", "b", "c"]).await;
    fixture.at_rest().await;
    let nodes = [a, b, c];
    let coupon = fixture.coupon("few", Some(3)).await;
    let owner = fixture.owner_of(coupon).await.unwrap();
    sell_out(coupon, &nodes).await;
    every_door_learns_that_it_is_sold_out(coupon, &nodes).await;
    let asker = nodes.iter().find(|node| node.name != owner).unwrap();
    for round in 0..5 {
        widen(coupon, 6 + 3 * round, asker).await;
        no_door_refuses_after_the_change(coupon, round, &nodes).await;
        every_door_learns_the_new_total(coupon, 6 + 3 * round, &nodes).await;
    }
    // Of the 18 issuances, the first ones are given back.
    for (given_back, taker) in (1..).zip(nodes.iter().cycle().take(6)) {
        give_back(coupon, given_back, asker).await;
        let answer = taker.issue(coupon, &format!("next-{given_back}")).await;
        assert_eq!(
            answer,
            json!({"issued": 18 + given_back}),
            "answer of {}",
            taker.name
        );
        every_door_learns_the_new_total(coupon, 18, &nodes).await;
    }
    // A killed node delays a change only as long as its door could have used what it knew.
    let gone = nodes
        .iter()
        .find(|node| node.name != owner && node.name != asker.name)
        .unwrap();
    gone.kill().await;
    widen(coupon, 100, asker).await;
    let answer = asker.issue(coupon, "last").await;
    assert!(answer["issued"].is_u64(), "{answer}");
}

/// A node that leaves closes its door and says so. Only after a kill does a change wait for a door.
pub async fn a_change_does_not_wait_for_the_door_of_a_node_that_left(fixture: TestCluster) {
    let (a, b, c) = tokio::join!(fixture.start("a"), fixture.start("b"), fixture.start("c"));
    fixture.spread_over(&["a", "b", "c"]).await;
    let coupon = fixture.coupon("paused", None).await;
    // Nodes that have just started do not know whose doors may be open.
    for node in [&a, &b] {
        eventually("changes are quick", async || resume(coupon, node).await < QUICK).await;
    }
    assert!(c.stop().await);
    for node in [&a, &b] {
        let took = resume(coupon, node).await;
        assert!(took < QUICK, "{took:?} at {} after a stop", node.name);
    }
    let c = fixture.start("c").await;
    for node in [&a, &b] {
        let took = resume(coupon, node).await;
        assert!(took < QUICK, "{took:?} at {} after the return", node.name);
    }
    c.kill().await;
    let took = resume(coupon, &a).await;
    let door = LEASE + DOOR_TTL;
    assert!(
        took > door - Duration::from_secs(1),
        "{took:?} after a kill: its door may be open"
    );
    assert!(took < door + QUICK, "{took:?} after a kill");
}

/// Well below the time for which doors may be open.
const QUICK: Duration = Duration::from_secs(1);

/// Pauses and resumes the coupon through this node. Returns how long resuming took.
async fn resume(coupon: u64, node: &Node) -> Duration {
    let mut took = Duration::ZERO;
    for pause in [true, false] {
        let begun = Instant::now();
        let change = json!({"do": "change", "coupon": coupon, "pause": pause, "limit_ms": 10_000});
        let answer = node.ask(change).await;
        assert!(answer["version"].is_u64(), "{answer}");
        took = begun.elapsed();
    }
    took
}

/// Issues the three coupons, one through each node.
async fn sell_out(coupon: u64, nodes: &[Arc<Node>; 3]) {
    for (number, node) in nodes.iter().enumerate() {
        assert_eq!(
            node.issue(coupon, &format!("winner-{number}")).await,
            json!({"issued": number + 1})
        );
    }
}

async fn every_door_learns_that_it_is_sold_out(coupon: u64, nodes: &[Arc<Node>; 3]) {
    for node in nodes {
        eventually("the door knows that the coupon is sold out", async || {
            assert_eq!(
                node.issue(coupon, &format!("late-{}", node.name)).await["refused"],
                "SoldOut { total_quantity: 3 }"
            );
            node.metric("coupon_door_answers_total").await > 0.0
        })
        .await;
        // A winner's request is sent on to the owner, whichever node receives it.
        for number in 0..3 {
            assert_eq!(
                node.issue(coupon, &format!("winner-{number}")).await,
                json!({"replayed": number + 1})
            );
        }
    }
}

/// Raises the coupon's total quantity through this node.
async fn widen(coupon: u64, total: u64, asker: &Node) {
    let answer = asker
        .ask(json!({"do": "change", "coupon": coupon, "total": total, "limit_ms": 10_000}))
        .await;
    assert!(answer["version"].is_u64(), "{answer}");
}

/// Revokes an issuance through this node, and gives it back to the quantity. As after a change that widens,
/// no door may refuse because of what it knew before.
async fn give_back(coupon: u64, sequence: u64, asker: &Node) {
    let answer = asker
        .ask(json!({"do": "give_back", "coupon": coupon, "sequence": sequence, "limit_ms": 10_000}))
        .await;
    assert_eq!(answer, json!({"revoked": sequence}));
}

/// Issues the three coupons that the change of this round added, one through each node. Once a change is
/// answered, no door may refuse because of what it knew before the change.
async fn no_door_refuses_after_the_change(coupon: u64, round: u64, nodes: &[Arc<Node>; 3]) {
    for (number, node) in (0..).zip(nodes) {
        let answer = node.issue(coupon, &format!("{}-{round}", node.name)).await;
        assert_eq!(
            answer,
            json!({"issued": 4 + 3 * round + number}),
            "answer of {} in round {round}",
            node.name
        );
    }
}

async fn every_door_learns_the_new_total(coupon: u64, total: u64, nodes: &[Arc<Node>; 3]) {
    for node in nodes {
        eventually("the door knows that the coupon is sold out again", async || {
            let before = node.metric("coupon_door_answers_total").await;
            assert_eq!(
                node.issue(coupon, &format!("later-{}", node.name)).await["refused"],
                format!("SoldOut {{ total_quantity: {total} }}")
            );
            node.metric("coupon_door_answers_total").await > before
        })
        .await;
    }
}
