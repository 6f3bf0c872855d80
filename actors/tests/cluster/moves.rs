//! Shards move while people ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::crowd::{self, Crowd, Told};
use super::house::House;
use super::node::STOP_LIMIT;
use actors::store::{ClusterStore, NodeState};
use testkit::poll::{eventually, within};

/// As many as that every node has some.
async fn coupons(house: &House) -> Vec<u64> {
    let mut coupons = Vec::new();
    for number in 0..12 {
        coupons.push(house.coupon(&format!("coupon-{number}"), None).await);
    }
    coupons
}

/// Lets some hundred more be told.
async fn go_on(crowd: &Crowd) {
    let so_far = crowd.told();
    eventually("the crowd is answered", async || crowd.told() >= so_far + 300).await;
}

pub async fn whoever_is_asked_answers_while_nodes_join_and_leave_and_nothing_fails(house: House) {
    let coupons = coupons(&house).await;
    let crowd = Crowd::start(coupons.clone());
    let a = house.start("a").await;
    crowd.ask(&[&a]);
    go_on(&crowd).await;
    let b = house.start("b").await;
    crowd.ask(&[&a, &b]);
    house.spread_over(&["a", "b"]).await;
    go_on(&crowd).await;
    let c = house.start("c").await;
    crowd.ask(&[&a, &b, &c]);
    house.spread_over(&["a", "b", "c"]).await;
    go_on(&crowd).await;
    assert!(
        a.metric("coupon_requests_forwarded_total").await > 0.0,
        "nothing went over a link"
    );
    // The first of all leaves: it hands everything over, and is asked on.
    let leaving = a.ask(json!({"do": "hand_off", "limit_ms": 20_000})).await;
    assert_eq!(leaving, true, "it did not hand over");
    house.spread_over(&["b", "c"]).await;
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
    crowd::check(&house, &coupons, &told).await;
    for node in [&b, &c] {
        let received = node.metric("coupon_shard_moves_total{kind=\"received\"}").await;
        let claimed = node.metric("coupon_shard_moves_total{kind=\"claimed\"}").await;
        // One may be found in the rows before the news of it come; not all of them.
        assert!(
            received > 2.0 * claimed,
            "{}: {received} were handed over and {claimed} claimed",
            node.name
        );
    }
}

pub async fn a_node_that_is_killed_takes_nothing_with_it_that_was_told(house: House) {
    let coupons = coupons(&house).await;
    let crowd = Crowd::start(coupons.clone());
    let (a, b, c) = tokio::join!(house.start("a"), house.start("b"), house.start("c"));
    house.spread_over(&["a", "b", "c"]).await;
    crowd.ask(&[&a, &b, &c]);
    go_on(&crowd).await;
    c.kill().await;
    crowd.ask(&[&a, &b]);
    house.spread_over(&["a", "b"]).await;
    go_on(&crowd).await;
    let told = crowd.end().await;
    // Whoever asked a node that lives was answered by the next owner, also where the first answer was lost
    // with the old one.
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
    crowd::check(&house, &coupons, &told).await;
}

pub async fn an_ended_node_joins_anew_and_is_linked_again(house: House) {
    let (a, b) = tokio::join!(house.start("a"), house.start("b"));
    house.spread_over(&["a", "b"]).await;
    let nodes = house.store.nodes().await.unwrap();
    let row = |name: &str| {
        nodes
            .iter()
            .find(|node| node.id.to_string() == name)
            .unwrap()
            .clone()
    };
    let by = row("b").incarnation;
    // Its beat goes on between reading and ending: again until both are of one moment.
    eventually("a is ended", async || {
        let nodes = house.store.nodes().await.unwrap();
        let row = nodes
            .into_iter()
            .find(|node| node.incarnation == row("a").incarnation && node.state != NodeState::Ended);
        match row {
            Some(row) => house.store.end(by, &row).await.unwrap(),
            None => true,
        }
    })
    .await;
    eventually("a lives as another", async || {
        let nodes = house.store.nodes().await.unwrap();
        nodes.iter().any(|node| {
            node.id.to_string() == "a"
                && node.incarnation != row("a").incarnation
                && node.state == NodeState::Ready
        })
    })
    .await;
    house.spread_over(&["a", "b"]).await;
    house.at_rest().await;
    let coupons = coupons(&house).await;
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

pub async fn a_node_that_is_stopped_hands_over_what_it_has(house: House) {
    let (a, b) = tokio::join!(house.start("a"), house.start("b"));
    house.spread_over(&["a", "b"]).await;
    let moves = async |kind: &str| {
        a.metric(&format!("coupon_shard_moves_total{{kind=\"{kind}\"}}"))
            .await
    };
    let before = (moves("received").await, moves("claimed").await);
    assert!(b.stop().await);
    // Its process goes on, its links do not: and not only because nobody names its peers any more, which
    // takes twice as long.
    within(Duration::from_secs(5), "its links end", async || {
        b.metric("coupon_peers_up").await == 0.0
    })
    .await;
    house.spread_over(&["a"]).await;
    let (received, claimed) = (
        moves("received").await - before.0,
        moves("claimed").await - before.1,
    );
    assert!(
        received > 2.0 * claimed,
        "{received} were handed over and {claimed} claimed"
    );
}

pub async fn nodes_that_are_all_stopped_wait_for_nobody(house: House) {
    let (a, b) = tokio::join!(house.start("a"), house.start("b"));
    house.spread_over(&["a", "b"]).await;
    let begun = Instant::now();
    assert_eq!(tokio::join!(a.stop(), b.stop()), (true, true));
    assert!(begun.elapsed() < STOP_LIMIT / 4, "{:?}", begun.elapsed());
}

pub async fn a_node_that_can_store_nothing_stops_within_its_limit(house: House) {
    const LIMIT: Duration = Duration::from_secs(6);
    let (a, _b) = tokio::join!(house.start("a"), house.start("b"));
    house.spread_over(&["a", "b"]).await;
    house.at_rest().await;
    let mut coupons = coupons(&house).await.into_iter();
    let coupon = loop {
        let coupon = coupons.next().unwrap();
        if house.owner_of(coupon).await.as_deref() == Some("a") {
            break coupon;
        }
    };
    assert_eq!(a.issue(coupon, "first").await, json!({"issued": 1}));
    let locked = house.lock_shards().await;
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
    // It leaves within a second more; half of the limit is what it would have waited for others besides.
    assert!(
        begun.elapsed() < LIMIT + LIMIT / 2 - Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(waiting.await.unwrap()["setback"], "Unknown");
    drop(locked);
    house.spread_over(&["b"]).await;
}
