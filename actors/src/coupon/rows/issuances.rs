//! Lists of issuances, with their latest uses, by state.
//!
//! A state depends on the clock and on the latest use, so it cannot be indexed. A user's list goes through
//! all issuances of the user, as every page of it does. A list of a coupon with a state is a search: one call
//! examines a bounded number of sequences, or of the user's issuances, however few it finds.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::offer::{CouponView, Issuance};
use crate::coupon::rows::UserCursor;
use crate::coupon::rows::columns::coupon_range;
use crate::coupon::uses::{UseNumber, UseState, UsedIssuance};
use crate::ids::UserId;
use crate::time::Timestamp;

/// Which issuances a list is about, and where its page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuancesOf {
    /// One issuance.
    Id(IssuanceId),
    /// Those of a user, newest first.
    User {
        /// The user.
        user: UserId,
        /// Only issuances of this coupon.
        coupon: Option<CouponId>,
        /// Only issuances after this place.
        after: Option<UserCursor>,
    },
    /// Those of a coupon, by sequence.
    Coupon {
        /// The coupon.
        coupon: CouponId,
        /// Only issuances of this user.
        user: Option<UserId>,
        /// Only issuances with a higher sequence.
        after: Sequence,
    },
    /// Those of a coupon that were used meanwhile, by sequence.
    Used {
        /// The coupon.
        coupon: CouponId,
        /// Only issuances of this user.
        user: Option<UserId>,
        /// Only issuances with one of these uses, from the one after the first to the second.
        uses: (UseNumber, UseNumber),
        /// Only issuances with one of these sequences, from the one after the first to the second.
        sequences: (Sequence, Sequence),
    },
}

/// One page of a list of issuances, or one step of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuanceQuery {
    /// The list.
    pub of: IssuancesOf,
    /// Only issuances in this state at `now`.
    pub state: Option<UseState>,
    /// The time at which states are computed.
    pub now: Timestamp,
    /// Maximum number of issuances to return.
    pub limit: u32,
    /// Maximum number of sequences that a search examines, or of the user's issuances, at least 1.
    pub examine: u32,
    /// True if the coupons of the issuances are returned too.
    pub with_coupons: bool,
}

impl IssuanceQuery {
    /// Returns a query for up to `limit` issuances in any state, without their coupons.
    pub fn all(of: IssuancesOf, limit: u32) -> Self {
        Self {
            of,
            state: None,
            now: crate::time::timestamp(),
            limit,
            examine: limit,
            with_coupons: false,
        }
    }

    /// Returns true if the query is a step of a search, which may find few issuances though there are more.
    pub fn is_search(&self) -> bool {
        matches!(self.of, IssuancesOf::Coupon { .. }) && self.state.is_some()
    }

    /// Returns the user of a list of one user, and the lowest and the highest id of its coupons.
    pub(crate) fn of_user(&self) -> Option<(&UserId, (i64, i64))> {
        match &self.of {
            IssuancesOf::User { user, coupon, .. } => Some((user, coupon_range(*coupon))),
            IssuancesOf::Coupon {
                user: Some(user),
                coupon,
                ..
            } => Some((user, coupon_range(Some(*coupon)))),
            _ => None,
        }
    }

    /// Returns a query that goes through a list of so many issuances in one step.
    pub(crate) fn in_one_step(&self, count: u32) -> Self {
        Self {
            examine: count.saturating_add(1),
            ..self.clone()
        }
    }

    /// Returns the highest sequence that a page of a coupon's list examines, of all users.
    pub(crate) fn up_to(&self, after: Sequence) -> Sequence {
        if self.is_search() {
            Sequence::new(after.get().saturating_add(self.examine.into()))
        } else {
            Sequence::new(crate::ids::ID_MAX)
        }
    }

    /// Returns the issuances in the order of the list. A join may change it.
    pub(crate) fn sorted(&self, mut found: Vec<UsedIssuance>) -> Vec<UsedIssuance> {
        match self.of {
            IssuancesOf::Id(_) => {}
            IssuancesOf::Coupon { .. } | IssuancesOf::Used { .. } => {
                found.sort_by_key(|used| used.issuance.id.sequence);
            }
            IssuancesOf::User { .. } => found.sort_by_key(|used| {
                let Issuance { id, issued_at, .. } = &used.issuance;
                Reverse((*issued_at, id.coupon, id.sequence))
            }),
        }
        found
    }

    /// Returns where a search goes on after a step that examined up to a sequence and found these issuances,
    /// by sequence; `None` if the list ends, at the coupon's highest sequence.
    pub(crate) fn next(&self, found: &[UsedIssuance], up_to: Sequence, issued: Sequence) -> Option<Sequence> {
        let last = found.last().filter(|_| found.len() >= self.limit as usize);
        let reached = last.map_or(up_to, |last| last.issuance.id.sequence);
        (reached < issued).then_some(reached)
    }
}

/// The result of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IssuancePage {
    /// The issuances, in the order of the list.
    pub issuances: Vec<UsedIssuance>,
    /// Their coupons, if these were asked for.
    pub coupons: HashMap<CouponId, CouponView>,
    /// Where a search goes on; `None` if its list ends, and for queries that are no searches.
    pub next: Option<Sequence>,
}

impl IssuancePage {
    /// Returns the coupons of the issuances, each once.
    pub(crate) fn coupon_ids(issuances: &[UsedIssuance]) -> Vec<CouponId> {
        let mut ids: Vec<CouponId> = issuances.iter().map(|used| used.issuance.id.coupon).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
