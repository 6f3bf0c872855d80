//! Take-overs on a database that is slow to commit, or far away.

use std::time::{Duration, Instant};

use super::child::LEASE;
use super::house::House;
use super::node::Node;
use testkit::poll::eventually;

/// How many commits a take-over may take beyond a lease.
const COMMITS: u32 = 10;

/// Starts a third node and kills it. Checks that "a" and "b" have its shards within a lease and the time of
/// ten commits, and that its coupon is issued.
async fn take_over(house: &House, a: &Node, commit: Duration, delay: impl AsyncFnOnce()) {
    let c = house.start("c").await;
    house.spread_over(&["a", "b", "c"]).await;
    house.at_rest().await;
    let mut number = 0;
    let coupon = loop {
        number += 1;
        let coupon = house.coupon(&format!("coupon-{commit:?}-{number}"), None).await;
        if house.owner_of(coupon).await.as_deref() == Some("c") {
            break coupon;
        }
    };
    delay().await;
    c.kill().await;
    let killed_at = Instant::now();
    eventually("the shards of the killed node have owners", async || {
        house.shares(&["a", "b"]).await.is_some()
    })
    .await;
    let (took, limit) = (killed_at.elapsed(), LEASE + COMMITS * commit);
    assert!(
        took <= limit,
        "took {took:?} of {limit:?} with commits of {commit:?}"
    );
    let answer = a.issue(coupon, "user").await;
    assert_eq!(answer["issued"], 1, "{answer}");
}

pub async fn shards_of_a_killed_node_have_owners_after_a_lease_and_ten_slow_commits(house: House) {
    let (a, _b) = tokio::join!(house.start("a"), house.start("b"));
    for millis in [10, 50, 200] {
        let commit = Duration::from_millis(millis);
        take_over(&house, &a, commit, async || house.delay_commits(commit).await).await;
        house.delay_commits(Duration::ZERO).await;
    }
}

pub async fn shards_of_a_killed_node_have_owners_after_a_lease_and_ten_commits_far_away(house: House) {
    let (a, _b) = tokio::join!(house.start("a"), house.start("b"));
    for millis in [25, 75] {
        let each_way = Duration::from_millis(millis);
        take_over(&house, &a, 2 * each_way, async || house.delay_network(each_way)).await;
        house.delay_network(Duration::ZERO);
    }
}
