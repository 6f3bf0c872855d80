//! Owners whose shard, lease or incarnation changes, or whose database is restored from a backup.

use std::time::{Duration, Instant};

use actors::coupon::issue::{IssueOutcome, Refusal};
use actors::ids::Sequence;
use actors::owning::request::Setback;
use testkit::poll::eventually;

use super::house::{House, LONG, key, user};

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_shard_was_claimed_by_another_node_is_fenced_and_the_next_owner_answers_its_callers() {
    let (house, coupon) = House::with_coupon(Some(10)).await;
    house.must_issue(coupon, 1).await;
    let (seen, thief) = house.take_shard_away(coupon).await;
    let issuance = house.must_issue(coupon, 2).await;
    assert_eq!(issuance.id.sequence, Sequence::new(2));
    let row = house.shard(coupon).await;
    assert!(
        row.epoch > seen.epoch.next() && row.owner != Some(thief),
        "{row:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_not_loaded_before_its_shard_is_claimed() {
    let (house, coupon) = House::with_coupon(Some(10)).await;
    house.must_issue(coupon, 1).await;
    house.faults.hold_claims(true);
    house.take_shard_away(coupon).await;
    let asked = house.spawn_issue(coupon, 2, 2, LONG);
    eventually("a claim of the shard is held", async || {
        house.faults.claims_waiting() > 0 && house.engine.owners_active() == 0
    })
    .await;
    // The router retries the request within a tenth of a second, again and again. No attempt may load the
    // coupon.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        assert_eq!(
            house.faults.loads(),
            1,
            "loaded although another node may still write"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    house.faults.hold_claims(false);
    assert!(matches!(asked.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    assert_eq!(house.faults.loads(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_without_a_lease_and_everything_is_as_before_when_the_lease_is_back() {
    let house = House::with_lease(Duration::from_millis(1_500)).await;
    let coupon = house.coupon(Some(10), 1).await;
    house.must_issue(coupon, 1).await;
    let epoch = house.shard(coupon).await.epoch;
    house.lose_lease().await;
    assert_eq!(house.issue(coupon, 2, 2).await, Err(Setback::StoreUnavailable));
    eventually("the owner stops with the lease", async || {
        house.engine.owners_active() == 0
    })
    .await;
    house.regain_lease().await;
    assert!(matches!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(_))
    ));
    house.must_issue(coupon, 2).await;
    assert!(
        house.shard(coupon).await.epoch > epoch,
        "the shard was claimed before the coupon was loaded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_row_was_ended_joins_again() {
    let (house, coupon) = House::with_coupon(Some(10)).await;
    house.must_issue(coupon, 1).await;
    let before = house.end_node().await;
    house.rejoined(before).await;
    let issuance = house.must_issue(coupon, 2).await;
    assert_eq!(issuance.id.sequence, Sequence::new(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portion_of_one_incarnation_is_not_retried_under_the_lease_of_the_next_incarnation() {
    let (house, coupon) = House::with_coupon(Some(10)).await;
    house.faults.refuse_writes(true);
    let answer = house
        .coupons
        .issue(coupon, user(1), key(1), Duration::from_secs(1))
        .await;
    assert_eq!(answer, Err(Setback::Unknown));
    house.store_fails().await;
    let before = house.end_node().await;
    // The store still refuses writes. So the next incarnation is ready only if the portion was given up.
    house.rejoined(before).await;
    house.faults.refuse_writes(false);
    let issuance = house.must_issue(coupon, 1).await;
    assert_eq!(issuance.id.sequence, Sequence::new(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_a_restored_database_does_not_answer_from_rows_that_are_gone() {
    let (house, coupon) = House::with_coupon(Some(1)).await;
    house.must_issue(coupon, 0).await;
    eventually("the door knows", async || house.engine.door_notices() == 1).await;
    let before = house.node().await.incarnation;
    house.faults.refuse_beats(true);
    // The backup is from before the node joined.
    house
        .run_sql(
            "BEGIN IMMEDIATE; DELETE FROM nodes; UPDATE shards SET epoch = 0, owner = NULL; \
             DELETE FROM issuances; DELETE FROM coupons; COMMIT",
        )
        .await;
    house.faults.refuse_beats(false);
    house.rejoined(before).await;
    assert_eq!(
        house.issue(coupon, 7, 7).await,
        Ok(IssueOutcome::Refused(Refusal::UnknownCoupon))
    );
}
