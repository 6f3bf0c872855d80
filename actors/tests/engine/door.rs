//! The node's own door: when it answers for a coupon that is sold out, and when it must not.

use std::time::Duration;

use actors::coupon::change::{Change, ChangeOutcome};
use actors::coupon::issue::{IssueOutcome, Refusal};
use actors::coupon::offer::OfferPatch;
use actors::owning::request::Setback;
use actors::trace::Span;
use testkit::poll::eventually;

use super::fixture::{DEADLINE, TestEngine};

#[tokio::test(flavor = "multi_thread")]
async fn no_new_request_is_refused_as_sold_out_after_a_raise_is_answered() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(1)).await;
    fixture.must_issue(coupon, 0).await;
    for round in 1..30_u32 {
        let refused = fixture.issue(coupon, 1_000 + round, round).await;
        assert_eq!(
            refused,
            Ok(IssueOutcome::Refused(Refusal::SoldOut {
                total_quantity: u64::from(round)
            }))
        );
        let patch = OfferPatch {
            total_quantity: Some(Some(u64::from(round) + 1)),
            ..OfferPatch::default()
        };
        let changed = fixture
            .coupons
            .change(
                coupon,
                Change::Patch(Box::new(patch)).into(),
                DEADLINE,
                &Span::default(),
            )
            .await;
        assert!(matches!(changed, Ok(ChangeOutcome::Done(_))), "{changed:?}");
        fixture.must_issue(coupon, round).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_answers_for_a_sold_out_coupon_without_its_owner() {
    // This lease is much shorter than the time for which the door may use what it knows.
    let fixture = TestEngine::with_lease(Duration::from_millis(800)).await;
    let coupon = fixture.coupon(Some(1), 1).await;
    fixture.must_issue(coupon, 0).await;
    eventually("the door knows", async || fixture.engine.door_notices() == 1).await;
    let refused = Ok(IssueOutcome::Refused(Refusal::SoldOut { total_quantity: 1 }));
    // After the owner must stop deciding, the door may use its knowledge for a while, but not for ever.
    fixture.lose_lease().await;
    assert_eq!(fixture.issue(coupon, 7, 7).await, refused);
    eventually("the door forgets", async || {
        fixture.issue(coupon, 7, 7).await == Err(Setback::StoreUnavailable)
    })
    .await;
    fixture.regain_lease().await;
    assert_eq!(fixture.issue(coupon, 7, 7).await, refused);
    assert!(
        matches!(
            fixture.issue(coupon, 0, 1).await,
            Ok(IssueOutcome::Refused(Refusal::AlreadyIssued(_)))
        ),
        "the request of a winner goes to the owner"
    );
}
