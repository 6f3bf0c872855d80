//! Issuing while nothing fails: quantities, order, replays, idle owners.

use std::collections::HashSet;
use std::time::Duration;

use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::issue::{IssueOutcome, Refusal};
use testkit::poll::eventually;

use super::fixture::{DEADLINE, TestEngine};

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_issued_exactly_the_quantity_in_order_and_each_user_gets_one() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(500)).await;
    // Every user sends two requests, with two keys.
    let asked: Vec<_> = (0..3_000_u32)
        .map(|number| fixture.spawn_issue(coupon, number / 2, number, DEADLINE))
        .collect();
    let (mut winners, mut sold_out, mut already) = (HashSet::new(), 0, 0);
    for answer in asked {
        match answer.await.unwrap().unwrap() {
            IssueOutcome::Issued(issuance) => assert!(winners.insert(issuance.user)),
            IssueOutcome::Refused(Refusal::SoldOut { total_quantity: 500 }) => sold_out += 1,
            IssueOutcome::Refused(Refusal::AlreadyIssued(_)) => already += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((winners.len(), sold_out + already), (500, 2_500));
    let stored = fixture.issuances(coupon).await;
    assert!(
        stored
            .iter()
            .enumerate()
            .all(|(place, row)| row.id.sequence == Sequence::new(place as u64 + 1))
    );
    assert_eq!(
        stored.into_iter().map(|row| row.user).collect::<HashSet<_>>(),
        winners
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_returns_the_first_issuance_also_after_a_restart() {
    let (mut fixture, coupon) = TestEngine::with_coupon(Some(2)).await;
    let issuance = fixture.must_issue(coupon, 1).await;
    assert_eq!(
        fixture.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(Box::new(issuance.clone().into())))
    );
    fixture.restart().await;
    assert_eq!(
        fixture.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(Box::new(issuance.clone().into())))
    );
    assert_eq!(
        fixture.issue(coupon, 1, 2).await,
        Ok(IssueOutcome::Refused(Refusal::AlreadyIssued(Box::new(
            issuance.into()
        ))))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_found_even_if_it_was_requested_before_it_was_created() {
    let fixture = TestEngine::new().await;
    let next = CouponId::new(1).unwrap();
    assert_eq!(
        fixture.issue(next, 1, 1).await,
        Ok(IssueOutcome::Refused(Refusal::UnknownCoupon))
    );
    assert_eq!(fixture.coupon(Some(1), 1).await, next);
    fixture.must_issue(next, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_owner_is_passivated_and_loaded_again_unchanged() {
    let fixture = TestEngine::with_idle(Duration::from_millis(50)).await;
    let coupon = fixture.coupon(Some(3), 1).await;
    for number in 1..=3_u32 {
        let issuance = fixture.must_issue(coupon, number).await;
        assert_eq!(issuance.id.sequence.get(), u64::from(number));
        assert_eq!(
            fixture.faults.loads(),
            number as usize,
            "the owner was passivated before, and loaded for this request"
        );
        eventually("the owner is passivated", async || {
            fixture.engine.owners_active() == 0
        })
        .await;
    }
    assert_eq!(
        fixture.issue(coupon, 4, 4).await,
        Ok(IssueOutcome::Refused(Refusal::SoldOut { total_quantity: 3 }))
    );
}
