//! The decided state of one coupon: the coupon itself, its issuances and their uses.

use std::sync::Arc;

use crate::coupon::change_keys::ChangeKeys;
use crate::coupon::entry::CouponChange;
use crate::coupon::ids::{IssuanceId, Sequence};
use crate::coupon::issued::{InconsistentIssuance, Issued, LoadedIssuance};
use crate::coupon::offer::{Coupon, Issuance, taken};
use crate::coupon::uses::Use;
use crate::coupon::uses::latest::Uses;
use crate::ids::{RequestKey, UserId};
use crate::owning::door::filter::Filter;
use crate::time::Timestamp;

/// A coupon's own row, as its owner loads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponHead {
    /// The coupon.
    pub coupon: Coupon,
    /// The keys of its latest changes.
    pub change_keys: ChangeKeys,
}

/// A coupon that was never changed by a request with a key.
impl From<Coupon> for CouponHead {
    fn from(coupon: Coupon) -> Self {
        Self {
            coupon,
            change_keys: ChangeKeys::default(),
        }
    }
}

/// What is loaded of a coupon beside its own row.
#[derive(Debug)]
pub struct LedgerRows {
    /// Its issuances.
    pub issued: Issued,
    /// Their uses.
    pub uses: Box<Uses>,
}

/// Issuances of which none was ever used.
impl From<Issued> for LedgerRows {
    fn from(issued: Issued) -> Self {
        Self {
            issued,
            uses: Box::default(),
        }
    }
}

/// The decided state of one coupon. [`issue`](super::issue), [`change`](super::change) and
/// [`uses`](super::uses) make the decisions.
#[derive(Debug)]
pub struct Ledger {
    coupon: Coupon,
    change_keys: ChangeKeys,
    issued: Issued,
    uses: Box<Uses>,
    winners: Option<Winners>,
}

/// The users of all issuances up to a sequence. No user is ever removed: a user still counts as having an
/// issuance that was revoked.
#[derive(Debug)]
struct Winners {
    filter: Arc<Filter>,
    upto: Sequence,
}

impl Ledger {
    /// Makes the ledger of a coupon that was loaded.
    pub fn new(head: CouponHead, rows: impl Into<LedgerRows>) -> Self {
        let CouponHead { coupon, change_keys } = head;
        let LedgerRows { issued, uses } = rows.into();
        Self {
            coupon,
            change_keys,
            issued,
            uses,
            winners: None,
        }
    }

    /// Returns the coupon after all decided changes.
    pub fn coupon(&self) -> &Coupon {
        &self.coupon
    }

    /// Returns the keys of decided changes.
    pub fn change_keys(&self) -> &ChangeKeys {
        &self.change_keys
    }

    /// Returns all decided issuances.
    pub fn issued(&self) -> &Issued {
        &self.issued
    }

    /// Returns the highest decided sequence.
    pub fn last(&self) -> Sequence {
        self.issued.last()
    }

    /// Returns the latest use of each used issuance.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Returns how many issuances orders hold at `now`; see [`Uses::count_holds`].
    pub(super) fn count_holds(&mut self, now: Timestamp) -> u64 {
        self.uses.count_holds(now)
    }

    /// Returns how many issuances count against the quantity: those that were not given back.
    pub fn taken(&self) -> Sequence {
        taken(self.last(), self.uses.counts())
    }

    /// Returns true if all coupons are issued.
    pub fn is_sold_out(&self) -> bool {
        self.coupon.is_sold_out(self.taken())
    }

    /// Returns the version of notices: it rises with each change, and with each issuance that is given back.
    pub fn door_version(&self) -> u64 {
        self.coupon.version + self.uses.counts().returned
    }

    /// Returns the users that have an issuance. The first call takes some 50 ms for a million. Later calls
    /// add only new users, so that a coupon that is sold out again soon has a notice again.
    pub(super) fn winners(&mut self) -> Arc<Filter> {
        let (issued, last) = (&self.issued, self.issued.last());
        let winners = self.winners.get_or_insert_with(|| Winners {
            filter: Arc::new(Filter::of(issued.users_after(Sequence::NONE))),
            upto: last,
        });
        if winners.upto < last {
            // Doors may still have the previous notice, with its filter, so a shared filter is copied.
            Arc::make_mut(&mut winners.filter).add(issued.users_after(winners.upto));
            winners.upto = last;
        }
        Arc::clone(&winners.filter)
    }

    /// Makes the next issuance, which is the user's `nth`, without adding it to the ledger.
    pub(super) fn next(&self, now: Timestamp, user: &UserId, key: &RequestKey, nth: u32) -> Issuance {
        Issuance {
            id: IssuanceId {
                coupon: self.coupon.id,
                sequence: self.last().next(),
            },
            user: user.clone(),
            nth,
            key: key.clone(),
            issued_at: now,
            expires_at: self.coupon.offer.expires_at(now),
        }
    }

    /// Takes the next issuance. [`issue::judge`](super::issue::judge) must have made it for exactly this
    /// state.
    pub(super) fn issue(&mut self, issuance: &Issuance) {
        self.issued
            .push(&borrowed(issuance))
            .unwrap_or_else(|error: InconsistentIssuance| {
                // The issuance was made to follow the last one, so a refusal is a mistake in the program. No
                // client may be told of such an issuance.
                panic!("the ledger does not take its own issuance: {error}")
            });
    }

    /// Takes the next use. [`uses::judge`](super::uses::judge) must have made it for exactly this state.
    pub(super) fn make(&mut self, made: &Use) {
        self.uses.push(&made.into()).unwrap_or_else(|error| {
            // As for an issuance.
            panic!("the ledger does not take its own use: {error}")
        });
    }

    /// Takes the coupon and the keys as they are after a change.
    pub(super) fn change(&mut self, change: &CouponChange) {
        self.coupon = change.coupon.clone();
        self.change_keys = change.keys.clone();
    }
}

fn borrowed(issuance: &Issuance) -> LoadedIssuance<'_> {
    LoadedIssuance {
        sequence: issuance.id.sequence,
        user: issuance.user.as_str(),
        nth: issuance.nth,
        key: issuance.key.as_str(),
        issued_at: issuance.issued_at,
        expires_at: issuance.expires_at,
    }
}

#[cfg(test)]
mod tests;
