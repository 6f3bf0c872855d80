//! Take-overs on a database that is slow to commit, or far away.

use std::time::{Duration, Instant};

use super::child::LEASE;
use super::fixture::TestCluster;
use super::node::Node;
use testkit::poll::eventually;

/// How many commits a take-over may take beyond a lease.
const COMMITS: u32 = 10;

/// Starts a third node and kills it. Checks that "a" and "b" have its shards within a lease and the time of
/// ten commits, and that its coupon is issued.
async fn take_over(fixture: &TestCluster, a: &Node, commit: Duration, delay: impl AsyncFnOnce()) {
    let c = fixture.start("c").await;
    fixture.spread_over(&["a", "b", "c"]).await;
    fixture.at_rest().await;
    let mut number = 0;
    let coupon = loop {
        number += 1;
        let coupon = fixture.coupon(&format!("coupon-{commit:?}-{number}"), None).await;
        if fixture.owner_of(coupon).await.as_deref() == Some("c") {
            break coupon;
        }
    };
    delay().await;
    c.kill().await;
    let killed_at = Instant::now();
    eventually("the shards of the killed node have owners", async || {
        fixture.shares(&["a", "b"]).await.is_some()
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

pub async fn shards_of_a_killed_node_have_owners_after_a_lease_and_ten_slow_commits(fixture: TestCluster) {
    let (a, _b) = tokio::join!(fixture.start("a"), fixture.start("b"));
    for millis in [10, 50, 200] {
        let commit = Duration::from_millis(millis);
        take_over(&fixture, &a, commit, async || fixture.delay_commits(commit).await).await;
        fixture.delay_commits(Duration::ZERO).await;
    }
}

pub async fn shards_of_a_killed_node_have_owners_after_a_lease_and_ten_commits_far_away(
    fixture: TestCluster,
) {
    let (a, _b) = tokio::join!(fixture.start("a"), fixture.start("b"));
    for millis in [25, 75] {
        let each_way = Duration::from_millis(millis);
        take_over(&fixture, &a, 2 * each_way, async || {
            fixture.delay_network(each_way);
        })
        .await;
        fixture.delay_network(Duration::ZERO);
    }
}
