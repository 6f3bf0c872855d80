//! How many rows the steps of searches go through.

use std::time::Instant;

use actors::coupon::ids::Sequence;
use actors::coupon::rows::{CouponRows, IssuanceQuery, UserPlace, UserStep};
use actors::coupon::uses::UseState;
use testkit::servers::{ServerKind, run};

use super::issuances_of_ann::{
    every_hundredth, has_many, issuances_of_ann, list_of_ann, of_ann, used_of_ann,
};
use super::steps;
use crate::database::OnServer;
use crate::support::{after_noon, user};

/// A step of a search examines as many rows as it may, however many issuances and uses there are.
pub async fn a_step_goes_through_few_rows(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let store = &*database.store;
    let (ids, unlimited) = issuances_of_ann(store).await;
    let mut shell = database.shell().await;
    run(&mut shell, "ANALYZE TABLE issuances, coupons, uses").await;
    let snapshot = store.snapshot().await.unwrap();
    let step = |place, examine, state| UserStep {
        user: user("ann"),
        coupon: None,
        after: None,
        state,
        now: after_noon(0),
        limit: 51,
        place,
        examine,
    };
    let mut before = steps(&mut shell).await;
    let mut taken = async || {
        let now = steps(&mut shell).await;
        now - std::mem::replace(&mut before, now)
    };
    let after = UserPlace::After(Some(ids[3]));
    let page = snapshot.user_step(&step(after, 250, None)).await.unwrap();
    let next = Some(UserPlace::After(Some(ids[5])));
    assert_eq!((page.issuances.len(), page.next), (51, next));
    let of_coupons = taken().await;
    let page = snapshot
        .user_step(&step(after, 250, Some(UseState::Revoked)))
        .await;
    assert_eq!(page.unwrap().issuances.len(), 0);
    let by_state = taken().await;
    let within = UserPlace::Within(unlimited, 1_500);
    let page = snapshot.user_step(&step(within, 10, None)).await.unwrap();
    let next = Some(UserPlace::Within(unlimited, 1_510));
    assert_eq!((page.issuances.len(), page.next), (10, next));
    let of_one = taken().await;
    has_many(store).await;
    let counted = taken().await;
    list_of_ann(store, unlimited).await;
    let in_index = taken().await;
    used_of_ann(&*snapshot, ids[7]).await;
    let of_uses = taken().await;
    println!("steps along indexes: {of_coupons}, {by_state}, {of_one}, {counted}, {in_index}, {of_uses}");
    // For the latest use of an issuance, a server may go through the uses of that issuance.
    assert!(of_coupons < 3_000 && by_state < 1_500 && of_one < 350 && counted < 150);
    // All issuances of a user and a coupon are found in the index, and three times ten are read.
    assert!(in_index < 6_500 && of_uses < 500);
}

/// Ann has 3,000 of the 300,000 issuances of a coupon. A step goes through what she has of it in an index, and
/// reads only what it examines.
pub async fn steps_within_a_coupon_pass_over_the_issuances_of_others(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let store = &*database.store;
    let mut shell = database.shell().await;
    let coupon = every_hundredth(store, &mut shell).await;
    let snapshot = store.snapshot().await.unwrap();
    for (state, count) in [
        (None, 51),
        (Some(UseState::Issued), 51),
        (Some(UseState::Revoked), 0),
    ] {
        let mut step = UserStep {
            user: user("ann"),
            coupon: None,
            after: None,
            state,
            now: after_noon(0),
            limit: 51,
            place: UserPlace::After(None),
            examine: 2_000,
        };
        let (before, begun) = (steps(&mut shell).await, Instant::now());
        for (newest, next) in [
            (200_000, Some(UserPlace::Within(coupon, 200_000))),
            (300_000, Some(UserPlace::After(Some(coupon)))),
        ] {
            let page = snapshot.user_step(&step).await.unwrap();
            let found = page.issuances.iter().map(|used| used.issuance.id.sequence.get());
            let expected = (0..count).map(|n| newest - 100 * n);
            assert!(found.eq(expected), "{state:?}: {:?}", page.issuances);
            assert_eq!(page.next, next);
            step.place = next.unwrap();
        }
        let (taken, took) = (steps(&mut shell).await - before, begun.elapsed());
        println!("two steps through 3,000 of 300,000 issuances, {state:?}: {taken} along indexes, {took:?}");
        assert!(taken < 30_000, "{taken} steps");
    }
    let mut query = IssuanceQuery {
        state: Some(UseState::Revoked),
        now: after_noon(0),
        examine: 2_000,
        ..IssuanceQuery::all(of_ann(coupon, Sequence::NONE), 51)
    };
    let before = steps(&mut shell).await;
    for next in [Some(Sequence::new(200_000)), None] {
        let page = snapshot.issuances(&query).await.unwrap().unwrap();
        assert_eq!((page.issuances.len(), page.next), (0, next));
        query.of = of_ann(coupon, next.unwrap_or(Sequence::NONE));
    }
    let taken = steps(&mut shell).await - before;
    println!("the same by sequence: {taken}");
    assert!(taken < 30_000, "{taken} steps");
}
