//! Whoever comes when queues are full, and who gives a place back.

use std::time::Duration;

use actors::coupon::issue::{IssueOutcome, Refusal};
use actors::owning::owner::actor::OWNER_PLACES;
use actors::owning::request::Setback;
use actors::owning::shard::LOADS_WAITING_MAX;

use testkit::poll::eventually;

use super::house::{DEADLINE, House, LONG, key, user};

#[tokio::test(flavor = "multi_thread")]
async fn more_coupons_than_may_wait_to_be_read_are_refused_although_nobody_waits_for_them_any_more() {
    let house = House::new().await;
    house.faults.hold_loads(true);
    let unknown = |number: u64| actors::ids::CouponId::new(1_000_000 + number).unwrap();
    let asked: Vec<_> = (0..LOADS_WAITING_MAX as u64)
        .map(|number| {
            let coupons = house.coupons.clone();
            tokio::spawn(async move { coupons.issue(unknown(number), user(1), key(1), LONG).await })
        })
        .collect();
    eventually("all are admitted", async || {
        house.engine.admitted() == LOADS_WAITING_MAX
    })
    .await;
    asked.iter().for_each(tokio::task::JoinHandle::abort);
    eventually("nobody waits", async || house.engine.admitted() == 0).await;
    let short = Duration::from_secs(1);
    eventually("one more is refused", async || {
        house
            .coupons
            .issue(unknown(LOADS_WAITING_MAX as u64), user(1), key(1), short)
            .await
            == Err(Setback::Overloaded)
    })
    .await;
    house.faults.hold_loads(false);
    eventually("there is room again", async || {
        house.coupons.issue(unknown(0), user(1), key(1), DEADLINE).await
            == Ok(IssueOutcome::Refused(Refusal::UnknownCoupon))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_at_once_and_takes_more_when_there_is_room() {
    let house = House::new().await;
    let coupon = house.coupon(None, 1).await;
    house.faults.hold_writes(true);
    let asked: Vec<_> = (0..OWNER_PLACES as u32)
        .map(|number| {
            let coupons = house.coupons.clone();
            tokio::spawn(async move { coupons.issue(coupon, user(number), key(number), LONG).await })
        })
        .collect();
    eventually("all places are taken", async || {
        house.engine.admitted() == OWNER_PLACES
    })
    .await;
    assert_eq!(house.issue(coupon, 1_000_000, 1).await, Err(Setback::Overloaded));
    house.faults.hold_writes(false);
    for answer in asked {
        assert!(matches!(answer.await.unwrap(), Ok(IssueOutcome::Issued(_))));
    }
    assert!(matches!(
        house.issue(coupon, 1_000_000, 1).await,
        Ok(IssueOutcome::Issued(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_gave_up_give_their_places_back() {
    let house = House::new().await;
    let coupon = house.coupon(None, 1).await;
    house.faults.hold_writes(true);
    let coupons = house.coupons.clone();
    let asked = tokio::spawn(async move { coupons.issue(coupon, user(1), key(1), LONG).await });
    eventually("it is admitted", async || house.engine.admitted() == 1).await;
    asked.abort();
    eventually("its place is given back", async || house.engine.admitted() == 0).await;
    house.faults.hold_writes(false);
    // What was decided is stored all the same.
    assert!(matches!(
        house.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(_))
    ));
}
