//! The decided state of one coupon: the coupon itself and its issuances.

use crate::coupon::issued::{Issued, LoadedIssuance, OutOfLine};
use crate::coupon::offer::{Coupon, Issuance};
use crate::ids::{IssuanceId, RequestKey, Sequence, UserId};
use crate::time::Timestamp;

/// The decided state of one coupon. [`issue`](super::issue) and [`change`](super::change) make the decisions.
#[derive(Debug)]
pub struct Ledger {
    coupon: Coupon,
    issued: Issued,
}

impl Ledger {
    /// Makes the ledger of a coupon that was loaded.
    pub fn new(coupon: Coupon, issued: Issued) -> Self {
        Self { coupon, issued }
    }

    /// Returns the coupon after all decided changes.
    pub fn coupon(&self) -> &Coupon {
        &self.coupon
    }

    /// Returns all decided issuances.
    pub fn issued(&self) -> &Issued {
        &self.issued
    }

    /// Returns the highest decided sequence.
    pub fn last(&self) -> Sequence {
        self.issued.last()
    }

    /// Returns true if all coupons are issued.
    pub fn is_sold_out(&self) -> bool {
        self.coupon.is_sold_out(self.last())
    }

    /// Returns the next issuance, which is the user's `nth`. This does not issue it.
    pub(super) fn next(&self, now: Timestamp, user: &UserId, key: &RequestKey, nth: u8) -> Issuance {
        let days = self.coupon.offer.use_within_days;
        Issuance {
            id: IssuanceId {
                coupon: self.coupon.id,
                sequence: self.last().next(),
            },
            user: user.clone(),
            nth,
            key: key.clone(),
            issued_at: now,
            expires_at: days.map(|days| now.plus_days(days)),
        }
    }

    /// Takes the next issuance. [`issue::judge`](super::issue::judge) must have made it for exactly this
    /// state.
    pub(super) fn issue(&mut self, issuance: &Issuance) {
        self.issued
            .push(&borrowed(issuance))
            .unwrap_or_else(|error: OutOfLine| {
                // The issuance was made to follow the last one, so a refusal is a mistake in the program. No
                // client may be told of such an issuance.
                panic!("the ledger does not take its own issuance: {error}")
            });
    }

    /// Takes the coupon as it is after a change.
    pub(super) fn change(&mut self, coupon: &Coupon) {
        self.coupon = coupon.clone();
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
