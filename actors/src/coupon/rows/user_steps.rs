//! Steps through all issuances of a user, for lists that are too long for one statement.
//!
//! There is no index in the order of a user's list, so a page of it rests on all issuances of the user. The
//! key that keeps the limit per user has them by coupon. First a step finds its end in that key alone. Then
//! it reads the newest issuances of its part, as a list does: the database examines a bounded number of them,
//! and returns no more than the page needs. A step has whole coupons. A coupon of which the user has more than
//! a step may examine takes several steps, in the order of issuing.

use crate::coupon::ids::CouponId;
use crate::coupon::rows::UserCursor;
use crate::coupon::uses::{UseState, UsedIssuance};
use crate::ids::UserId;
use crate::store::columns::integer;
use crate::time::Timestamp;

/// Where the next step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserPlace {
    /// With the coupons that have higher ids than this; with the first one if it is `None`.
    After(Option<CouponId>),
    /// Within this coupon, after the issuance with this number; 0 at the beginning. It is the sequence or
    /// [`nth`](crate::coupon::offer::Issuance::nth), by the database.
    Within(CouponId, u64),
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserStep {
    /// The user.
    pub user: UserId,
    /// Only issuances of this coupon.
    pub coupon: Option<CouponId>,
    /// Only issuances after this place of the list.
    pub after: Option<UserCursor>,
    /// Only issuances in this state at `now`.
    pub state: Option<UseState>,
    /// The time at which states are computed.
    pub now: Timestamp,
    /// Maximum number of issuances to return.
    pub limit: u32,
    /// Where the step begins.
    pub place: UserPlace,
    /// Maximum number of issuances to examine, at least 1. Within a coupon, a database may examine those of
    /// other users, too.
    pub examine: u32,
}

/// What a step has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserStepPage {
    /// The newest issuances of the list among those that were examined, in no particular order.
    pub issuances: Vec<UsedIssuance>,
    /// Where the next step begins; `None` at the end.
    pub next: Option<UserPlace>,
}

impl UserStep {
    /// Returns the lowest and the highest id of the coupons after this one.
    pub(crate) fn coupons(&self, after: Option<CouponId>) -> (i64, i64) {
        let (lowest, highest) = super::columns::coupon_range(self.coupon);
        (
            lowest.max(after.map_or(0, |after| integer(after.get()) + 1)),
            highest,
        )
    }

    /// Returns the highest id of the whole coupons that a step examines up to this one, and where the next
    /// step begins. `cut` is the coupon of the first issuance that is too much for the step.
    pub(crate) fn whole_coupons(highest: i64, cut: Option<i64>) -> (i64, Option<UserPlace>) {
        let Some(cut) = cut else { return (highest, None) };
        let last = cut - 1;
        let id = u64::try_from(last).ok().and_then(CouponId::new);
        (last, Some(UserPlace::After(id)))
    }

    /// Returns where the next step begins after one within this coupon, which ended after the issuance with
    /// this number; `None` if it examined all that is left of the coupon.
    pub(crate) fn next_within(&self, coupon: CouponId, last: Option<u64>) -> Option<UserPlace> {
        match last {
            Some(last) => Some(UserPlace::Within(coupon, last)),
            None => Some(UserPlace::After(Some(coupon))).filter(|_| self.coupon.is_none()),
        }
    }

    /// Returns time, coupon and sequence of the issuance after which the list begins; the highest ones if it
    /// begins with the newest issuance.
    pub(crate) fn after(&self) -> [i64; 3] {
        self.after.map_or([i64::MAX; 3], |after| {
            [
                after.issued_at.as_micros(),
                integer(after.id.coupon.get()),
                integer(after.id.sequence.get()),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> CouponId {
        CouponId::new(number).unwrap()
    }

    fn step(coupon: Option<u64>) -> UserStep {
        UserStep {
            user: UserId::parse("ann").unwrap(),
            coupon: coupon.map(id),
            after: None,
            state: None,
            now: crate::time::timestamp(),
            limit: 3,
            place: UserPlace::After(None),
            examine: 3,
        }
    }

    #[test]
    fn a_step_ends_with_a_whole_coupon() {
        let after = |last| Some(UserPlace::After(Some(id(last))));
        for (highest, cut, expected) in [
            (i64::MAX, None, (i64::MAX, None)),
            (7, None, (7, None)),
            (i64::MAX, Some(5), (4, after(4))),
            (i64::MAX, Some(2), (1, after(1))),
        ] {
            assert_eq!(UserStep::whole_coupons(highest, cut), expected);
        }
    }

    #[test]
    fn steps_within_a_coupon_go_on_until_nothing_is_left() {
        for (coupon, last, next) in [
            (None, Some(3), Some(UserPlace::Within(id(5), 3))),
            (Some(5), Some(3), Some(UserPlace::Within(id(5), 3))),
            (None, None, Some(UserPlace::After(Some(id(5))))),
            (Some(5), None, None),
        ] {
            assert_eq!(step(coupon).next_within(id(5), last), next);
        }
    }

    #[test]
    fn a_step_reads_the_coupons_after_its_place() {
        assert_eq!(step(None).coupons(None), (0, i64::MAX));
        assert_eq!(step(None).coupons(Some(id(5))), (6, i64::MAX));
        assert_eq!(step(Some(7)).coupons(None), (7, 7));
        assert_eq!(step(Some(7)).coupons(Some(id(5))), (7, 7));
    }
}
