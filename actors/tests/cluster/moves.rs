//! Shards that move while users send requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::crowd::{self, Crowd, Told};
use super::fixture::TestCluster;
use super::node::STOP_LIMIT;
use actors::store::{ClusterStore, NodeState};
use testkit::poll::{eventually, within};

/// Makes enough coupons for every node to have some.
async fn coupons(fixture: &TestCluster) -> Vec<u64> {
    let mut coupons = Vec::new();
    for number in 0..12 {
        coupons.push(fixture.coupon(&format!("coupon-{number}"), None).await);
    }
    coupons
}

/// Waits until the users have 300 more answers.
async fn go_on(crowd: &Crowd) {
    let so_far = crowd.told();
    eventually("the crowd is answered", async || crowd.told() >= so_far + 300).await;
}

pub async fn any_node_answers_while_nodes_join_and_leave_and_no_request_fails(fixture: TestCluster) {
    let coupons = coupons(&fixture).await;
    let crowd = Crowd::start(coupons.clone());
    let a = fixture.start("a").await;
    crowd.ask(&[&a]);
    go_on(&crowd).await;
    let b = fixture.start("b").await;
    crowd.ask(&[&a, &b]);
    fixture.spread_over(&["a", "b"]).await;
    go_on(&crowd).await;
    let c = fixture.start("c").await;
    crowd.ask(&[&a, &b, &c]);
    fixture.spread_over(&["a", "b", "c"]).await;
    go_on(&crowd).await;
    assert!(
        a.metric("coupon_requests_forwarded_total").await > 0.0,
        "nothing went over a link"
    );
    // The first node leaves. It hands off all its shards, and users still send requests to it.
    let leaving = a.ask(json!({"do": "hand_off", "limit_ms": 20_000})).await;
    assert_eq!(leaving, true, "node a did not hand off its shards");
    fixture.spread_over(&["b", "c"]).await;
    go_on(&crowd).await;
    crowd.ask(&[&b, &c]);
    go_on(&crowd).await;
    assert!(a.stop().await);
    go_on(&crowd).await;
    let told = crowd.end().await;
    let failed: Vec<&Told> = told
        .iter()
        .filter(|told| {
            told.answer
                .as_ref()
                .is_none_or(|answer| answer["issued"].is_null() && answer["replayed"].is_null())
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed: {:?}",
        failed.len(),
        told.len(),
        &failed[..failed.len().min(5)]
    );
    crowd::check(&fixture, &coupons, &told).await;
    for node in [&b, &c] {
        let received = node.metric("coupon_shard_moves_total{kind=\"received\"}").await;
        let claimed = node.metric("coupon_shard_moves_total{kind=\"claimed\"}").await;
        // A node may find some of its new shards in the rows before the news of their hand-off arrives, and on
        // a busy machine many of them. Without the news it would find all of them there.
        assert!(
            2.0 * received > claimed,
            "{}: {received} shards were handed off and {claimed} claimed",
            node.name
        );
    }
}

pub async fn no_answered_issuance_is_lost_when_a_node_is_killed(fixture: TestCluster) {
    let coupons = coupons(&fixture).await;
    let crowd = Crowd::start(coupons.clone());
    let (a, b, c) = tokio::join!(fixture.start("a"), fixture.start("b"), fixture.start("c"));
    fixture.spread_over(&["a", "b", "c"]).await;
    crowd.ask(&[&a, &b, &c]);
    go_on(&crowd).await;
    c.kill().await;
    crowd.ask(&[&a, &b]);
    fixture.spread_over(&["a", "b"]).await;
    go_on(&crowd).await;
    let told = crowd.end().await;
    // Requests to live nodes were answered by the next owner, even if the first answer was lost with the old
    // owner.
    let failed: Vec<&Told> = told
        .iter()
        .filter(|told| {
            told.answer
                .as_ref()
                .is_some_and(|answer| answer["issued"].is_null() && answer["replayed"].is_null())
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed: {:?}",
        failed.len(),
        told.len(),
        &failed[..failed.len().min(5)]
    );
    crowd::check(&fixture, &coupons, &told).await;
}

pub async fn an_ended_node_rejoins_and_is_linked_again(fixture: TestCluster) {
    let (a, b) = tokio::join!(fixture.start("a"), fixture.start("b"));
    fixture.spread_over(&["a", "b"]).await;
    let nodes = fixture.store.nodes().await.unwrap();
    let row = |name: &str| {
        nodes
            .iter()
            .find(|node| node.id.to_string() == name)
            .unwrap()
            .clone()
    };
    let by = row("b").incarnation;
    // If the node beats after its row was read, it is not ended. So this is retried.
    eventually("node a is ended", async || {
        let nodes = fixture.store.nodes().await.unwrap();
        let row = nodes
            .into_iter()
            .find(|node| node.incarnation == row("a").incarnation && node.state != NodeState::Ended);
        match row {
            Some(row) => fixture.store.end(by, &row).await.unwrap(),
            None => true,
        }
    })
    .await;
    eventually("node a has a new incarnation", async || {
        let nodes = fixture.store.nodes().await.unwrap();
        nodes.iter().any(|node| {
            node.id.to_string() == "a"
                && node.incarnation != row("a").incarnation
                && node.state == NodeState::Ready
        })
    })
    .await;
    fixture.spread_over(&["a", "b"]).await;
    fixture.at_rest().await;
    let coupons = coupons(&fixture).await;
    for (number, coupon) in coupons.iter().enumerate() {
        for node in [&a, &b] {
            let answer = node.issue(*coupon, &format!("{}-{number}", node.name)).await;
            assert!(answer["issued"].is_u64(), "{answer}");
        }
    }
    assert!(
        a.metric("coupon_requests_forwarded_total").await > 0.0
            && b.metric("coupon_requests_forwarded_total").await > 0.0
    );
}

pub async fn a_node_that_is_stopped_hands_off_its_shards(fixture: TestCluster) {
    let (a, b) = tokio::join!(fixture.start("a"), fixture.start("b"));
    fixture.spread_over(&["a", "b"]).await;
    let moves = async |kind: &str| {
        a.metric(&format!("coupon_shard_moves_total{{kind=\"{kind}\"}}"))
            .await
    };
    let before = (moves("received").await, moves("claimed").await);
    assert!(b.stop().await);
    // The node's process goes on, but stopping ends its links. Otherwise only its peer would end them, ten
    // seconds after membership no longer names the node.
    within(Duration::from_secs(5), "its links end", async || {
        b.metric("coupon_peers_up").await == 0.0
    })
    .await;
    fixture.spread_over(&["a"]).await;
    let (received, claimed) = (
        moves("received").await - before.0,
        moves("claimed").await - before.1,
    );
    assert!(
        received > 2.0 * claimed,
        "{received} shards were handed off and {claimed} claimed"
    );
}

pub async fn nodes_that_are_stopped_together_do_not_wait_for_each_other(fixture: TestCluster) {
    let (a, b) = tokio::join!(fixture.start("a"), fixture.start("b"));
    fixture.spread_over(&["a", "b"]).await;
    let begun = Instant::now();
    assert_eq!(tokio::join!(a.stop(), b.stop()), (true, true));
    assert!(begun.elapsed() < STOP_LIMIT / 4, "{:?}", begun.elapsed());
}

pub async fn a_node_that_can_store_nothing_stops_within_its_limit(fixture: TestCluster) {
    const LIMIT: Duration = Duration::from_secs(6);
    let (a, _b) = tokio::join!(fixture.start("a"), fixture.start("b"));
    fixture.spread_over(&["a", "b"]).await;
    fixture.at_rest().await;
    let mut coupons = coupons(&fixture).await.into_iter();
    let coupon = loop {
        let coupon = coupons.next().unwrap();
        if fixture.owner_of(coupon).await.as_deref() == Some("a") {
            break coupon;
        }
    };
    assert_eq!(a.issue(coupon, "first").await, json!({"issued": 1}));
    let locked = fixture.lock_shards().await;
    let waiting = tokio::spawn({
        let a = Arc::clone(&a);
        async move { a.issue(coupon, "second").await }
    });
    eventually("it is decided", async || {
        a.metric("coupon_entries_unstored").await > 0.0
    })
    .await;
    let begun = Instant::now();
    assert_eq!(
        a.ask(json!({"do": "stop", "limit_ms": LIMIT.as_millis() as u64}))
            .await,
        false
    );
    // The node ends within about one second after the limit. If the node also waited for other nodes, it
    // would end later by half of the limit.
    assert!(
        begun.elapsed() < LIMIT + LIMIT / 2 - Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(waiting.await.unwrap()["setback"], "Unknown");
    drop(locked);
    fixture.spread_over(&["b"]).await;
}
