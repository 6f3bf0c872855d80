//! The decision: from the coupon as it is decided and a request, what happens. Pure, and the only place where
//! a coupon is given.

use crate::coupon::issued::{Issued, OutOfLine};
use crate::coupon::offer::{Coupon, Issuance, Offer, OfferPatch, Phase, Status};
use crate::ids::{IssuanceId, RequestKey, Sequence, UserId};
use crate::owning::message::{Change, ChangeDone, ChangeOutcome, ChangeRefusal, Refusal};
use crate::store::LoadedIssuance;
use crate::time::Timestamp;

/// The decided state of one coupon.
#[derive(Debug)]
pub struct Ledger {
    coupon: Coupon,
    issued: Issued,
}

/// What a request meets; nothing has happened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The same request was answered with this.
    Replay(Issuance),
    /// No coupon for it.
    Refuse(Refusal),
    /// A coupon for it, by [`Ledger::issue`].
    Grant,
}

/// What a change meets, and has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It was made; this is to be stored and then told.
    Made(ChangeDone),
    /// Nothing was to be changed, or nothing may be.
    Kept(ChangeOutcome),
}

impl Ledger {
    /// The ledger of a coupon as it was loaded.
    pub fn new(coupon: Coupon, issued: Issued) -> Self {
        Self { coupon, issued }
    }

    /// The coupon as decided.
    pub fn coupon(&self) -> &Coupon {
        &self.coupon
    }

    /// The highest decided sequence.
    pub fn last(&self) -> Sequence {
        self.issued.last()
    }

    /// Whether nothing is left to give.
    pub fn is_sold_out(&self) -> bool {
        self.coupon.is_sold_out(self.last())
    }

    /// The users who have one.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.issued.users()
    }

    /// What a request meets: the first that fits, in the order of the API's table.
    pub fn judge(&self, now: Timestamp, user: &UserId, key: &RequestKey) -> Verdict {
        if let Some(earlier) = self.issued.answered(user, key) {
            return Verdict::Replay(earlier);
        }
        if self.issued.count_of(user) >= self.coupon.offer.per_user_limit
            && let Some(latest) = self.issued.latest(user)
        {
            return Verdict::Refuse(Refusal::AlreadyIssued(Box::new(latest)));
        }
        refusal(&self.coupon, now, self.last()).map_or(Verdict::Grant, Verdict::Refuse)
    }

    /// Gives the user the next one. Only for a request that [`Self::judge`] granted.
    pub fn issue(&mut self, now: Timestamp, user: &UserId, key: &RequestKey) -> Issuance {
        debug_assert_eq!(self.judge(now, user, key), Verdict::Grant);
        let issuance = Issuance {
            id: IssuanceId {
                coupon: self.coupon.id,
                sequence: self.last().next(),
            },
            user: user.clone(),
            nth: self.issued.count_of(user) + 1,
            key: key.clone(),
            issued_at: now,
            expires_at: self.coupon.offer.use_within_days.map(|days| now.plus_days(days)),
        };
        self.issued
            .push(&borrowed(&issuance))
            .unwrap_or_else(|error: OutOfLine| {
                // Every part of it was just made to follow: a mistake here must not become a told coupon.
                panic!("the ledger does not take its own issuance: {error}")
            });
        issuance
    }

    /// Makes a change, if it may be made and changes anything.
    pub fn change(&mut self, now: Timestamp, change: &Change, if_version: Option<u64>) -> Changed {
        let (offer, status) = match self.after(change, if_version) {
            Ok(after) => after,
            Err(refusal) => return Changed::Kept(ChangeOutcome::Refused(refusal)),
        };
        let unchanged = offer == self.coupon.offer && status == self.coupon.status;
        if !unchanged {
            let version = self.coupon.version + 1;
            // A clock set back does not make a change older than the one before.
            let updated_at = now.max(self.coupon.updated_at);
            self.coupon = Coupon {
                offer,
                status,
                version,
                updated_at,
                ..self.coupon.clone()
            };
        }
        let done = ChangeDone {
            coupon: self.coupon.clone(),
            issued: self.last(),
        };
        if unchanged {
            Changed::Kept(ChangeOutcome::Done(Box::new(done)))
        } else {
            Changed::Made(done)
        }
    }

    /// What the coupon would be after a change, or why it may not be made.
    fn after(&self, change: &Change, if_version: Option<u64>) -> Result<(Offer, Status), ChangeRefusal> {
        let Coupon {
            offer,
            status,
            version,
            ..
        } = &self.coupon;
        if if_version.is_some_and(|wanted| wanted != *version) {
            return Err(ChangeRefusal::VersionMismatch { version: *version });
        }
        match change {
            Change::Pause | Change::Resume if *status == Status::Closed => Err(ChangeRefusal::Closed),
            Change::Pause => Ok((offer.clone(), Status::Paused)),
            Change::Resume => Ok((offer.clone(), Status::Open)),
            Change::Close => Ok((offer.clone(), Status::Closed)),
            Change::Patch(patch) => Ok((self.patched(patch)?, *status)),
        }
    }

    fn patched(&self, patch: &OfferPatch) -> Result<Offer, ChangeRefusal> {
        let offer = patch
            .apply(&self.coupon.offer)
            .map_err(|error| ChangeRefusal::Invalid(vec![error]))?;
        let errors = offer.check();
        if !errors.is_empty() {
            return Err(ChangeRefusal::Invalid(errors));
        }
        let issued = self.last().get();
        match offer.total_quantity {
            Some(total) if total < issued => Err(ChangeRefusal::QuantityBelowIssued { issued }),
            _ => Ok(offer),
        }
    }
}

/// Why this coupon is given to nobody at `now` with `issued` out, in the order of precedence; `None` if it
/// is.
///
/// The door answers by this very function, so that it and the owner cannot differ.
pub fn refusal(coupon: &Coupon, now: Timestamp, issued: Sequence) -> Option<Refusal> {
    let offer = &coupon.offer;
    match coupon.phase(now, issued) {
        Phase::Live => None,
        Phase::Closed => Some(Refusal::Closed),
        Phase::Paused => Some(Refusal::Paused),
        Phase::Scheduled => offer.starts_at.map(|starts_at| Refusal::NotStarted {
            starts_at,
            server_time: now,
        }),
        Phase::Ended => offer.ends_at.map(|ends_at| Refusal::Ended {
            ends_at,
            server_time: now,
        }),
        Phase::SoldOut => offer
            .total_quantity
            .map(|total_quantity| Refusal::SoldOut { total_quantity }),
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
