use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use actors::coupon::ids::IssuanceId;
use actors::coupon::offer::Issuance;
use actors::coupon::rows::{CouponSnapshot, UserStepPage};
use actors::coupon::uses::{UseNumber, UseState};
use actors::ids::RequestKey;
use async_trait::async_trait;

use super::*;
use crate::service::engine::{CouponPage, CouponQuery, CouponView, Statistics, StatisticsQuery};

fn user() -> UserId {
    UserId::parse("alice").unwrap()
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// Returns an issuance that was issued at this time. Those with odd sequences have expired.
fn issuance(coupon: u64, sequence: u64, issued_at: i64) -> UsedIssuance {
    UsedIssuance::from(Issuance {
        id: IssuanceId {
            coupon: CouponId::new(coupon).unwrap(),
            sequence: Sequence::new(sequence),
        },
        user: user(),
        nth: 1,
        key: RequestKey::random(),
        issued_at: at(issued_at),
        expires_at: (sequence % 2 == 1).then(|| at(99)),
    })
}

fn newest(state: Option<UseState>, after: Option<&UsedIssuance>, limit: u32) -> Newest {
    let options = IssuanceListOptions {
        state,
        ..IssuanceListOptions::default()
    };
    let of = IssuancesOf::User {
        user: user(),
        coupon: None,
        after: None,
    };
    Newest::new(options.query(of, limit), after.map(Row::cursor), at(100))
}

#[test]
fn the_newest_issuances_of_all_steps_are_kept_in_order() {
    let all = [
        issuance(1, 1, 50),
        issuance(1, 2, 60),
        issuance(2, 4, 60),
        issuance(2, 5, 60),
        issuance(2, 6, 10),
        issuance(3, 8, 70),
    ];
    let ids = |state, after: Option<&UsedIssuance>, limit| {
        let mut newest = newest(state, after, limit);
        for step in [&all[..1], &all[1..4], &all[4..]] {
            newest.add(step.to_vec());
        }
        let ids = newest.issuances.iter().map(|used| used.issuance.id.to_string());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(None, None, 10), "3-8 2-5 2-4 1-2 1-1 2-6");
    // One more than the limit shows that there is a next page.
    assert_eq!(ids(None, None, 2), "3-8 2-5 2-4");
    assert_eq!(ids(None, Some(&all[3]), 2), "2-4 1-2 1-1");
    assert_eq!(ids(Some(UseState::Issued), None, 10), "3-8 2-4 1-2 2-6");
    assert_eq!(ids(Some(UseState::Expired), Some(&all[5]), 10), "2-5 1-1");
    assert_eq!(ids(Some(UseState::Redeemed), None, 10), "");
}

/// A user with so many issuances that going through them takes this many steps.
struct Steps {
    left: AtomicU32,
    taken: Arc<AtomicU32>,
}

#[async_trait]
impl CouponSnapshot for Steps {
    async fn coupon(&self, _: CouponId) -> StoreResult<Option<CouponView>> {
        unreachable!("coupons are read together")
    }

    async fn coupons(&self, _: &CouponQuery) -> StoreResult<CouponPage> {
        unreachable!("no coupons are searched for")
    }

    async fn issuances(&self, _: &IssuanceQuery) -> StoreResult<Option<IssuancePage>> {
        unreachable!("the list is too long for one statement")
    }

    async fn user_step(&self, step: &UserStep) -> StoreResult<UserStepPage> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let next = match step.place {
            UserPlace::After(None) => 1,
            UserPlace::After(Some(coupon)) => coupon.get() + 1,
            UserPlace::Within(..) => unreachable!("each coupon fits into a step"),
        };
        assert_eq!(
            u64::from(taken) + 1,
            next,
            "each step begins where the one before ended"
        );
        let is_last = self.left.fetch_sub(1, Ordering::Relaxed) == 1;
        let coupon = CouponId::new(next).unwrap();
        Ok(UserStepPage {
            issuances: vec![issuance(next, 2, 50)],
            next: Some(UserPlace::After(Some(coupon))).filter(|_| !is_last),
        })
    }

    async fn coupons_of(&self, ids: &[CouponId]) -> StoreResult<HashMap<CouponId, CouponView>> {
        assert_eq!(ids.len(), 2, "the coupons of the page");
        Ok(HashMap::new())
    }

    async fn last_use(&self, _: CouponId) -> StoreResult<UseNumber> {
        unreachable!("a user's list keeps no progress")
    }

    async fn statistics(&self, _: &StatisticsQuery, _: Statistics) -> StoreResult<Option<Statistics>> {
        unreachable!("nothing is counted")
    }
}

#[tokio::test]
async fn a_users_list_that_takes_too_long_ends() {
    let late = Instant::now().checked_sub(FRUITLESS_TIME_MAX).unwrap();
    for (begun, steps, expected) in [(Instant::now(), 5, 5), (late, 1, 1), (late, 5, 1)] {
        let taken = Arc::new(AtomicU32::new(0));
        let reads = Steps {
            left: AtomicU32::new(steps),
            taken: Arc::clone(&taken),
        };
        let snapshot = SearchSnapshot::alone(Box::new(reads)).await;
        let step = UserStep {
            user: user(),
            coupon: None,
            place: UserPlace::After(None),
            examine: STEP,
        };
        let mut newest = newest(None, None, 1);
        newest.query.with_coupons = steps > 1;
        let found = search(&snapshot, step, newest, begun).await;
        assert_eq!(taken.load(Ordering::Relaxed), expected);
        assert_eq!(found.is_ok(), steps == expected, "{found:?}");
    }
}
