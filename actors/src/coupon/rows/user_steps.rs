//! Steps through all issuances of a user, for lists that are too long for one statement.
//!
//! There is no index in the order of a user's list, so a page of it rests on all issuances of the user. The
//! key that keeps the limit per user has them by coupon. A step reads the issuances of whole coupons, as many
//! as it may examine. A coupon of which the user has more than that takes several steps, in the order of
//! issuing.

use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::uses::UsedIssuance;
use crate::ids::UserId;
use crate::store::columns::integer;

/// Where the next step begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserPlace {
    /// With the coupons that have higher ids than this; with the first one if it is `None`.
    After(Option<CouponId>),
    /// Within this coupon, after an issuance.
    Within(CouponId, UserNth),
}

/// An issuance among those that a user has of one coupon. Databases differ in which number finds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserNth {
    /// Its sequence.
    pub sequence: Sequence,
    /// Its number among them, or [`NTH_BEYOND_LIMITS`](crate::coupon::offer::NTH_BEYOND_LIMITS).
    pub nth: u32,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserStep {
    /// The user.
    pub user: UserId,
    /// Only issuances of this coupon.
    pub coupon: Option<CouponId>,
    /// Where the step begins.
    pub place: UserPlace,
    /// Maximum number of issuances to read, at least 1.
    pub examine: u32,
}

/// What a step has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserStepPage {
    /// The issuances, in no particular order.
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

    /// Returns how many issuances a step reads of whole coupons: one more than it may examine, which shows
    /// that there are more.
    pub(crate) fn limit(&self) -> u32 {
        self.examine.saturating_add(1)
    }

    /// Returns the result of a step that read the issuances of the lowest coupons, up to [`Self::limit`].
    pub(crate) fn of_whole_coupons(&self, mut issuances: Vec<UsedIssuance>) -> UserStepPage {
        let coupon = |used: &UsedIssuance| used.issuance.id.coupon;
        let is_whole = issuances.len() <= self.examine as usize;
        let cut = issuances.iter().map(coupon).max().filter(|_| !is_whole);
        let next = cut.map(|cut| {
            // Some issuances of the last coupon may be missing.
            issuances.retain(|used| coupon(used) < cut);
            match issuances.iter().map(coupon).max() {
                Some(last) => UserPlace::After(Some(last)),
                None => UserPlace::Within(cut, UserNth::default()),
            }
        });
        UserStepPage { issuances, next }
    }

    /// Returns the result of a step that read the next issuances within a coupon, in the order of issuing.
    pub(crate) fn within(&self, coupon: CouponId, issuances: Vec<UsedIssuance>) -> UserStepPage {
        let is_full = issuances.len() >= self.examine as usize;
        let next = match issuances.last().filter(|_| is_full) {
            Some(UsedIssuance { issuance, .. }) => {
                let last = UserNth {
                    sequence: issuance.id.sequence,
                    nth: issuance.nth,
                };
                Some(UserPlace::Within(coupon, last))
            }
            None => Some(UserPlace::After(Some(coupon))).filter(|_| self.coupon.is_none()),
        };
        UserStepPage { issuances, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupon::ids::IssuanceId;
    use crate::coupon::offer::Issuance;
    use crate::ids::RequestKey;

    fn id(number: u64) -> CouponId {
        CouponId::new(number).unwrap()
    }

    fn step(coupon: Option<u64>) -> UserStep {
        UserStep {
            user: UserId::parse("ann").unwrap(),
            coupon: coupon.map(id),
            place: UserPlace::After(None),
            examine: 3,
        }
    }

    /// Returns issuances of these coupons.
    fn of(coupons: &[u64]) -> Vec<UsedIssuance> {
        let issuance = |(coupon, sequence): (&u64, u64)| {
            UsedIssuance::from(Issuance {
                id: IssuanceId {
                    coupon: id(*coupon),
                    sequence: Sequence::new(sequence),
                },
                user: UserId::parse("ann").unwrap(),
                nth: 1,
                key: RequestKey::random(),
                issued_at: crate::time::timestamp(),
                expires_at: None,
            })
        };
        coupons.iter().zip(1..).map(issuance).collect()
    }

    #[test]
    fn a_step_ends_with_a_whole_coupon_or_goes_on_within_one() {
        for (read, left, next) in [
            (&[][..], 0, None),
            (&[1, 2, 2], 3, None),
            (&[1, 2, 2, 2], 1, Some(UserPlace::After(Some(id(1))))),
            (&[1, 1, 2, 3], 3, Some(UserPlace::After(Some(id(2))))),
            (
                &[5, 5, 5, 5],
                0,
                Some(UserPlace::Within(id(5), UserNth::default())),
            ),
        ] {
            let page = step(None).of_whole_coupons(of(read));
            assert_eq!((page.issuances.len(), page.next), (left, next), "{read:?}");
        }
    }

    #[test]
    fn steps_within_a_coupon_go_on_while_they_are_full() {
        let last = UserNth {
            sequence: Sequence::new(3),
            nth: 1,
        };
        for (coupon, read, next) in [
            (None, &[5, 5, 5][..], Some(UserPlace::Within(id(5), last))),
            (Some(5), &[5, 5, 5], Some(UserPlace::Within(id(5), last))),
            (None, &[5, 5], Some(UserPlace::After(Some(id(5))))),
            (Some(5), &[5, 5], None),
            (Some(5), &[], None),
        ] {
            let page = step(coupon).within(id(5), of(read));
            assert_eq!((page.issuances.len(), page.next), (read.len(), next), "{read:?}");
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
