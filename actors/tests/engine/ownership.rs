//! Owners whose shard, lease or incarnation changes, or whose database is restored from a backup.

use std::time::{Duration, Instant};

use actors::coupon::ids::Sequence;
use actors::coupon::issue::{IssueOutcome, Refusal};
use actors::owning::request::Setback;
use actors::trace::Span;
use testkit::poll::eventually;

use super::fixture::{LONG, TestEngine, key, user};

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_shard_was_claimed_by_another_node_is_fenced_and_the_next_owner_answers_its_callers() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(10)).await;
    fixture.must_issue(coupon, 1).await;
    let (seen, claimant) = fixture.take_shard_away(coupon).await;
    let issuance = fixture.must_issue(coupon, 2).await;
    assert_eq!(issuance.id.sequence, Sequence::new(2));
    let row = fixture.shard(coupon).await;
    assert!(
        row.epoch > seen.epoch.next() && row.owner != Some(claimant),
        "{row:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_not_loaded_before_its_shard_is_claimed() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(10)).await;
    fixture.must_issue(coupon, 1).await;
    fixture.faults.hold_claims(true);
    fixture.take_shard_away(coupon).await;
    let asked = fixture.spawn_issue(coupon, 2, 2, LONG);
    eventually("a claim of the shard is held", async || {
        fixture.faults.claims_waiting() > 0 && fixture.engine.owners_active() == 0
    })
    .await;
    // The router retries the request at least every tenth of a second. No attempt may load the coupon.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(400) {
        assert_eq!(
            fixture.faults.loads(),
            1,
            "loaded although another node may still write"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fixture.faults.hold_claims(false);
    assert!(matches!(asked.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    assert_eq!(fixture.faults.loads(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_decided_without_a_lease_and_everything_is_as_before_when_the_lease_is_back() {
    let fixture = TestEngine::with_lease(Duration::from_millis(1_500)).await;
    let coupon = fixture.coupon(Some(10), 1).await;
    fixture.must_issue(coupon, 1).await;
    let epoch = fixture.shard(coupon).await.epoch;
    fixture.lose_lease().await;
    assert_eq!(fixture.issue(coupon, 2, 2).await, Err(Setback::StoreUnavailable));
    eventually("the owner stops with the lease", async || {
        fixture.engine.owners_active() == 0
    })
    .await;
    fixture.regain_lease().await;
    assert!(matches!(
        fixture.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(_))
    ));
    fixture.must_issue(coupon, 2).await;
    assert!(
        fixture.shard(coupon).await.epoch > epoch,
        "the shard was claimed before the coupon was loaded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_row_was_ended_joins_again() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(10)).await;
    fixture.must_issue(coupon, 1).await;
    let before = fixture.end_node().await;
    fixture.rejoined(before).await;
    let issuance = fixture.must_issue(coupon, 2).await;
    assert_eq!(issuance.id.sequence, Sequence::new(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portion_of_one_incarnation_is_not_retried_under_the_lease_of_the_next_incarnation() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(10)).await;
    fixture.faults.refuse_writes(true);
    let answer = fixture
        .coupons
        .issue(coupon, user(1), key(1), Duration::from_secs(1), &Span::default())
        .await;
    assert_eq!(answer, Err(Setback::Unknown));
    fixture.store_fails().await;
    let before = fixture.end_node().await;
    // The store still refuses writes. So the next incarnation is ready only if the portion was given up.
    fixture.rejoined(before).await;
    fixture.faults.refuse_writes(false);
    let issuance = fixture.must_issue(coupon, 1).await;
    assert_eq!(issuance.id.sequence, Sequence::new(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_a_restored_database_does_not_answer_from_rows_that_are_gone() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(1)).await;
    fixture.must_issue(coupon, 0).await;
    eventually("the door knows", async || fixture.engine.door_notices() == 1).await;
    let before = fixture.node().await.incarnation;
    fixture.faults.refuse_beats(true);
    // The backup is from before the node joined.
    fixture
        .run_sql(
            "BEGIN IMMEDIATE; DELETE FROM nodes; UPDATE shards SET epoch = 0, owner = NULL; \
             DELETE FROM issuances; DELETE FROM coupons; COMMIT",
        )
        .await;
    fixture.faults.refuse_beats(false);
    fixture.rejoined(before).await;
    assert_eq!(
        fixture.issue(coupon, 7, 7).await,
        Ok(IssueOutcome::Refused(Refusal::UnknownCoupon))
    );
}
