//! Steps through the issuances of a user who has very many.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::offer::counted;
use actors::coupon::rows::{
    CouponRows, CouponSnapshot, IssuanceQuery, IssuancesOf, UserCursor, UserPlace, UserStep,
};
use actors::coupon::uses::{UseState, UsedIssuance};
use actors::time::Timestamp;

use crate::support::{CouponStore, Database, Owned, after_noon, batch, user};
use crate::using;

/// Returns an issuance with its `nth` as far as all databases store it.
fn as_counted(mut used: UsedIssuance) -> UsedIssuance {
    used.issuance.nth = counted(used.issuance.nth);
    used
}

/// Stores a coupon of which Ann has this many issuances, and Bob one after each of them and one more. Returns
/// the issuances of Ann, of which every third one is reserved. Both have so many already that some are beyond
/// the limits.
async fn of_ann(store: &impl CouponStore, count: u64) -> (CouponId, Vec<UsedIssuance>) {
    let owned = Owned::unlimited(store).await;
    let rows = (1..=2 * count + 1).map(|sequence| {
        let name = if sequence % 2 == 0 { "ann" } else { "bob" };
        let nth = 85 + sequence.div_ceil(2);
        owned.issuance(sequence, name, u32::try_from(nth).unwrap())
    });
    let rows: Vec<_> = rows.collect();
    store.write(&batch([owned.portion(rows.clone())])).await.unwrap();
    let of_ann = rows.into_iter().filter(|row| row.user == user("ann"));
    let mut of_ann: Vec<_> = of_ann.map(UsedIssuance::from).map(as_counted).collect();
    let mut uses = Vec::new();
    for (used, number) in of_ann.iter_mut().step_by(3).zip(1..) {
        let made = using::reserved(&owned, number, used.issuance.id.sequence.get());
        used.latest = Some(made.shown.clone());
        uses.push(made);
    }
    if !uses.is_empty() {
        store.write(&batch([using::portion(&owned, uses)])).await.unwrap();
    }
    (owned.id(), of_ann)
}

/// Returns the place of an issuance in a user's list, of which newer ones are greater.
fn place(used: &UsedIssuance) -> (Timestamp, CouponId, Sequence) {
    let issuance = &used.issuance;
    (issuance.issued_at, issuance.id.coupon, issuance.id.sequence)
}

/// Takes all steps from this one on. Returns the newest issuances that they found, and their number.
async fn newest(snapshot: &dyn CouponSnapshot, mut step: UserStep) -> (Vec<UsedIssuance>, usize) {
    let (mut read, mut steps) = (Vec::new(), 0);
    loop {
        let page = snapshot.user_step(&step).await.unwrap();
        assert!(page.issuances.len() <= step.limit as usize, "{step:?}");
        read.extend(page.issuances.into_iter().map(as_counted));
        steps += 1;
        match page.next {
            Some(next) => step.place = next,
            None => break,
        }
    }
    read.sort_by_key(|used| Reverse(place(used)));
    read.truncate(step.limit as usize);
    (read, steps)
}

/// Reads the list of Ann, who has this many issuances, if she has at most so many, and at most one less.
async fn count_is_compared(store: &impl CouponStore, coupon: Option<CouponId>, count: u32) {
    let of = IssuancesOf::User {
        user: user("ann"),
        coupon,
        after: None,
    };
    let query = IssuanceQuery::all(of, 200);
    let page = store.issuances(&query).await.unwrap();
    assert_eq!(store.issuances_of_few(&query, count).await.unwrap(), page);
    if count > 0 {
        let of_few = store.issuances_of_few(&query, count - 1).await;
        assert_eq!(of_few.unwrap(), None, "{coupon:?} has {count}");
    }
}

/// Counts Ann's issuances of some of the coupons.
async fn coupons_are_counted(snapshot: &dyn CouponSnapshot, coupons: &[CouponId], all: &[UsedIssuance]) {
    for (after, last) in [
        (None, None),
        (None, Some(2)),
        (Some(1), Some(5)),
        (Some(4), None),
        (Some(6), None),
    ] {
        let ids = (
            after.map(|place: usize| coupons[place]),
            last.map(|place: usize| coupons[place]),
        );
        let is_of = |used: &&UsedIssuance| {
            let id = used.issuance.id.coupon;
            ids.0.is_none_or(|after| id > after) && ids.1.is_none_or(|last| id <= last)
        };
        let count = snapshot.count_of_user(&user("ann"), ids).await.unwrap();
        assert_eq!(count, all.iter().filter(is_of).count() as u64, "{ids:?}");
    }
}

pub async fn steps_through_a_users_issuances_find_the_newest_of_them(database: &impl Database) {
    let store = database.store();
    let (mut coupons, mut all) = (Vec::new(), Vec::new());
    for count in [2, 0, 30, 1, 3, 25, 2] {
        let (coupon, of_ann) = of_ann(&*store, count).await;
        coupons.push(coupon);
        all.extend(of_ann);
    }
    all.sort_by_key(|used| Reverse(place(used)));
    let after = &all[all.len() / 3];
    let cursor = UserCursor {
        issued_at: after.issuance.issued_at,
        id: after.issuance.id,
    };
    let snapshot = store.snapshot().await.unwrap();
    let filters = [None, Some(coupons[0]), Some(coupons[1]), Some(coupons[2])];
    for (coupon, examine) in filters
        .iter()
        .flat_map(|filter| [1, 2, 7, 29, 30, 1_000].map(|by| (*filter, by)))
    {
        let is_of = |used: &&UsedIssuance| coupon.is_none_or(|coupon| used.issuance.id.coupon == coupon);
        for (state, after, limit) in [
            (None, None, 200),
            (None, Some(cursor), 10),
            (Some(UseState::Reserved), None, 200),
            (Some(UseState::Issued), Some(cursor), 10),
        ] {
            let step = UserStep {
                user: user("ann"),
                coupon,
                after,
                state,
                now: after_noon(0),
                limit,
                place: UserPlace::After(None),
                examine,
            };
            let (read, steps) = newest(&*snapshot, step.clone()).await;
            let is_listed = |used: &&UsedIssuance| {
                let is_after = after.is_none_or(|_| place(used) < place(&all[all.len() / 3]));
                is_after && state.is_none_or(|state| used.state(after_noon(0)) == state)
            };
            let expected = all.iter().filter(is_of).filter(is_listed).take(limit as usize);
            assert_eq!(read, expected.cloned().collect::<Vec<_>>(), "{step:?}");
            // A step examines issuances of Ann, who has 63. If it may examine one of them, a server goes
            // through the coupons of which she has the most by sequence.
            let of_large_coupons = if examine == 1 { 130 } else { 64 / examine as usize };
            assert!(
                steps <= 2 * coupons.len() + of_large_coupons,
                "{steps} steps by {examine}"
            );
        }
        let count = all.iter().filter(is_of).count();
        count_is_compared(&*store, coupon, u32::try_from(count).unwrap()).await;
    }
    coupons_are_counted(&*snapshot, &coupons, &all).await;
    let views = snapshot.coupons_of(&coupons[..2]).await.unwrap();
    let issued = |number: usize| views[&coupons[number]].issued.get();
    assert_eq!((views.len(), issued(0), issued(1)), (2, 5, 1));
}

/// Stores a coupon without a limit of which Ann has 15,000, and fifty of which she has a hundred each. Each
/// fourth of the 15,000 is reserved. Returns the coupon without a limit.
async fn twenty_thousand_of_ann(store: &impl CouponStore) -> CouponId {
    let unlimited = Owned::unlimited(store).await;
    for first in (1..=15_000_u64).step_by(1_000) {
        let rows = (first..first + 1_000).map(|n| unlimited.issuance(n, "ann", u32::try_from(n).unwrap()));
        let rows = batch([unlimited.portion(rows.collect())]);
        assert_eq!(store.write(&rows).await.unwrap(), 1_000);
        let uses = (1..=250).map(|n| using::reserved(&unlimited, (first - 1) / 4 + n, first - 1 + 4 * n));
        let uses = batch([using::portion(&unlimited, uses.collect())]);
        assert_eq!(store.write(&uses).await.unwrap(), 250);
    }
    for _ in 0..50 {
        let owned = Owned::make(store, None, 100).await;
        let rows = (1..=100).map(|nth| owned.issuance(nth, "ann", u32::try_from(nth).unwrap()));
        let rows = batch([owned.portion(rows.collect())]);
        assert_eq!(store.write(&rows).await.unwrap(), 100);
    }
    unlimited.id()
}

/// This test prints and bounds the cost of a step.
pub async fn a_user_with_twenty_thousand_issuances_is_listed_in_short_steps(database: &impl Database) {
    const STEP_MAX: Duration = Duration::from_millis(500);
    let store = database.store();
    let unlimited = twenty_thousand_of_ann(&*store).await;
    let snapshot = store.snapshot().await.unwrap();
    for (state, first, gap, steps) in [
        (None, 15_000, 1, 12),
        (Some(UseState::Reserved), 15_000, 4, 12),
        (Some(UseState::Revoked), 0, 1, 12),
    ] {
        let step = UserStep {
            user: user("ann"),
            coupon: None,
            after: None,
            state,
            now: after_noon(0),
            limit: 51,
            place: UserPlace::After(None),
            examine: 2_000,
        };
        let begun = Instant::now();
        let (read, taken) = newest(&*snapshot, step).await;
        let took = begun.elapsed() / u32::try_from(taken).unwrap();
        println!("{taken} steps through 20,000 issuances, {state:?}: each {took:?}");
        let expected = (0..51)
            .map_while(|n| u64::checked_sub(first, n * gap))
            .filter(|n| *n > 0);
        let expected = expected.map(|n| (unlimited, Sequence::new(n)));
        let read = read
            .iter()
            .map(|used| (used.issuance.id.coupon, used.issuance.id.sequence));
        assert!(read.eq(expected), "{state:?}");
        assert!(taken <= steps && took < STEP_MAX, "{taken} steps of {took:?}");
    }
}
