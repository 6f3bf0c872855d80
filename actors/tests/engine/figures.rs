//! The figures of owners, which metrics show.

use std::time::Duration;

use actors::coupon::ids::CouponId;
use actors::owning::figures::OwnerReading;
use testkit::poll::eventually;

use super::fixture::{LONG, TestEngine};

fn reading(fixture: &TestEngine, coupon: CouponId) -> Option<OwnerReading> {
    let mut figures = fixture.engine.collect(100).into_iter();
    figures.find(|(id, _)| *id == coupon).map(|(_, reading)| reading)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_an_owner_show_stored_entries_and_the_age_of_the_oldest_unstored_entry() {
    let (fixture, coupon) = TestEngine::with_coupon(Some(10)).await;
    fixture.must_issue(coupon, 1).await;
    eventually("everything is stored", async || {
        reading(&fixture, coupon).is_some_and(|owner| owner.entries == 1 && owner.unstored == 0)
    })
    .await;
    let stored = reading(&fixture, coupon).unwrap();
    assert_eq!(
        (stored.requests, stored.entries_max, stored.unstored_since),
        (1, Some(10), None)
    );

    fixture.faults.hold_writes(true);
    let first = fixture.spawn_issue(coupon, 2, 2, LONG);
    eventually("the first entry waits to be written", async || {
        fixture.faults.writes_waiting() == 1
    })
    .await;
    eventually("the owner shows its entry", async || {
        reading(&fixture, coupon).is_some_and(|owner| owner.unstored == 1)
    })
    .await;
    let since = reading(&fixture, coupon).unwrap().unstored_since;
    assert!(since.is_some());
    let second = fixture.spawn_issue(coupon, 3, 3, LONG);
    eventually("both entries are decided", async || {
        reading(&fixture, coupon).is_some_and(|owner| owner.unstored == 2)
    })
    .await;
    let both = reading(&fixture, coupon).unwrap();
    assert_eq!(
        (both.entries, both.requests, both.queued, both.unstored_since),
        (1, 3, 2, since),
        "the time is that of the oldest unstored entry, and only stored entries are counted"
    );

    fixture.faults.hold_writes(false);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    eventually("everything is stored", async || {
        reading(&fixture, coupon).is_some_and(|owner| owner.entries == 3 && owner.unstored_since.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busiest_owners_have_figures_until_they_are_passivated() {
    let fixture = TestEngine::with_idle(Duration::from_millis(500)).await;
    let coupons = [
        fixture.coupon(None, 9).await,
        fixture.coupon(None, 9).await,
        fixture.coupon(None, 9).await,
    ];
    for (coupon, requests) in coupons.iter().zip([3, 1, 2]) {
        for number in 0..requests {
            fixture.must_issue(*coupon, number).await;
        }
    }
    let busiest: Vec<_> = fixture.engine.collect(2).into_iter().map(|(id, _)| id).collect();
    assert_eq!(busiest, [coupons[0], coupons[2]]);
    assert!(fixture.engine.collect(0).is_empty());
    eventually("no owner is left", async || {
        fixture.engine.collect(100).is_empty()
    })
    .await;
}
