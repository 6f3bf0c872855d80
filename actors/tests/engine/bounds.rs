//! Full queues, and places that callers give back.

use std::time::Duration;

use actors::coupon::ids::CouponId;
use actors::coupon::issue::{IssueOutcome, Refusal};
use actors::owning::request::Setback;
use actors::owning::shard::LOADS_WAITING_MAX;
use actors::trace::Span;
use testkit::poll::eventually;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::fixture::{DEADLINE, LONG, TestEngine, key, user};

#[tokio::test(flavor = "multi_thread")]
async fn loads_beyond_the_limit_are_refused_even_if_the_callers_of_earlier_loads_gave_up() {
    let fixture = TestEngine::new().await;
    fixture.faults.hold_loads(true);
    let unknown = |number: u64| CouponId::new(1_000_000 + number).unwrap();
    let asked: Vec<_> = (0..LOADS_WAITING_MAX as u64)
        .map(|number| fixture.spawn_issue(unknown(number), 1, 1, LONG))
        .collect();
    eventually("all requests are admitted", async || {
        fixture.engine.admitted() == LOADS_WAITING_MAX
    })
    .await;
    asked.iter().for_each(JoinHandle::abort);
    eventually("no caller waits", async || fixture.engine.admitted() == 0).await;
    let short = Duration::from_secs(1);
    eventually("one more load is refused", async || {
        fixture
            .coupons
            .issue(
                unknown(LOADS_WAITING_MAX as u64),
                user(1),
                key(1),
                short,
                &Span::default(),
            )
            .await
            == Err(Setback::Overloaded)
    })
    .await;
    fixture.faults.hold_loads(false);
    eventually("there is room again", async || {
        fixture
            .coupons
            .issue(unknown(0), user(1), key(1), DEADLINE, &Span::default())
            .await
            == Ok(IssueOutcome::Refused(Refusal::UnknownCoupon))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_requests_at_once_and_admits_more_when_there_is_room() {
    const PLACES: u32 = 2_000;
    let (fixture, coupon) = TestEngine::with_queues_of(PLACES as usize).await;
    fixture.faults.hold_writes(true);
    // Which one finds the queue full is not known: the node admits a request before the owner's queue does.
    let mut asked = JoinSet::new();
    for number in 0..=PLACES {
        asked.spawn(fixture.spawn_issue(coupon, number, number, LONG));
    }
    let refused = timeout(LONG, asked.join_next()).await.unwrap().unwrap();
    assert_eq!(refused.unwrap().unwrap(), Err(Setback::Overloaded));
    fixture.faults.hold_writes(false);
    while let Some(answer) = asked.join_next().await {
        let answer = answer.unwrap().unwrap();
        assert!(matches!(answer, Ok(IssueOutcome::Issued(_))), "{answer:?}");
    }
    assert!(matches!(
        fixture.issue(coupon, 1_000_000, 1).await,
        Ok(IssueOutcome::Issued(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_gave_up_give_their_places_back() {
    let (fixture, coupon) = TestEngine::with_coupon(None).await;
    fixture.faults.hold_writes(true);
    let asked = fixture.spawn_issue(coupon, 1, 1, LONG);
    eventually("the request is admitted", async || fixture.engine.admitted() == 1).await;
    asked.abort();
    eventually("its place is given back", async || fixture.engine.admitted() == 0).await;
    fixture.faults.hold_writes(false);
    // The decision is stored although its caller gave up.
    assert!(matches!(
        fixture.issue(coupon, 1, 1).await,
        Ok(IssueOutcome::Replayed(_))
    ));
}
