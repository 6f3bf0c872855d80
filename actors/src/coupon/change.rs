//! Changing: an administrator patches, pauses, resumes or closes the coupon.

use std::sync::Arc;

use crate::coupon::CouponKind;
use crate::coupon::entry::{CouponChange, CouponEntry};
use crate::coupon::ledger::Ledger;
use crate::coupon::offer::{Coupon, InvalidField, Offer, OfferPatch, Status};
use crate::coupon::{Ask, Outcome};
use crate::ids::Sequence;
use crate::owning::kind::Verdict;
use crate::time::Timestamp;

/// What an administrator wants of a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set these parts of the offer.
    Patch(Box<OfferPatch>),
    /// Stop issuing until resumed.
    Pause,
    /// Issue again.
    Resume,
    /// Stop issuing for ever.
    Close,
}

/// A change, and the condition on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRequest {
    /// What is wanted.
    pub change: Change,
    /// Only if the coupon has this version.
    pub if_version: Option<u64>,
}

impl From<ChangeRequest> for Ask {
    fn from(request: ChangeRequest) -> Self {
        Self::Change(request)
    }
}

/// The owner's decision on a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The coupon as it is now, changed or as it was.
    Done(Box<ChangeDone>),
    /// It was not changed.
    Refused(ChangeRefusal),
}

/// A change that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeDone {
    /// The coupon after it.
    pub coupon: Coupon,
    /// The highest sequence decided by then.
    pub issued: Sequence,
}

/// Why a coupon is not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// There is no such coupon.
    UnknownCoupon,
    /// It has another version.
    VersionMismatch {
        /// The one it has.
        version: u64,
    },
    /// It is closed for ever.
    Closed,
    /// Its quantity would be below the number already decided.
    QuantityBelowIssued {
        /// How many are decided.
        issued: u64,
    },
    /// The offer would not make sense.
    Invalid(Vec<InvalidField>),
}

impl Change {
    /// Returns true if a refusal based on what the coupon was may be untrue after it.
    pub fn may_widen(&self) -> bool {
        match self {
            Self::Patch(_) | Self::Resume => true,
            Self::Pause | Self::Close => false,
        }
    }
}

/// Returns what a change leads to. A change that would alter nothing makes no entry.
pub fn judge(ledger: &Ledger, now: Timestamp, request: &ChangeRequest) -> Verdict<CouponKind> {
    let outcome = |outcome| Verdict::Refused(Outcome::Change(outcome));
    let (offer, status) = match after(ledger, request) {
        Ok(after) => after,
        Err(refusal) => return outcome(ChangeOutcome::Refused(refusal)),
    };
    let before = ledger.coupon();
    if offer == before.offer && status == before.status {
        return outcome(ChangeOutcome::Done(Box::new(ChangeDone {
            coupon: before.clone(),
            issued: ledger.last(),
        })));
    }
    let coupon = Coupon {
        offer,
        status,
        version: before.version + 1,
        // A clock that was set back does not make a change older than the one before.
        updated_at: now.max(before.updated_at),
        ..before.clone()
    };
    let issued = ledger.last();
    Verdict::Enter(CouponEntry::Change(Arc::new(CouponChange { coupon, issued })))
}

/// Returns what the coupon would be after a change, or why it may not be made.
fn after(ledger: &Ledger, request: &ChangeRequest) -> Result<(Offer, Status), ChangeRefusal> {
    let Coupon {
        offer,
        status,
        version,
        ..
    } = ledger.coupon();
    if request.if_version.is_some_and(|wanted| wanted != *version) {
        return Err(ChangeRefusal::VersionMismatch { version: *version });
    }
    match &request.change {
        Change::Pause | Change::Resume if *status == Status::Closed => Err(ChangeRefusal::Closed),
        Change::Pause => Ok((offer.clone(), Status::Paused)),
        Change::Resume => Ok((offer.clone(), Status::Open)),
        Change::Close => Ok((offer.clone(), Status::Closed)),
        Change::Patch(patch) => Ok((patched(ledger, patch)?, *status)),
    }
}

fn patched(ledger: &Ledger, patch: &OfferPatch) -> Result<Offer, ChangeRefusal> {
    let offer = patch
        .apply(&ledger.coupon().offer)
        .map_err(|error| ChangeRefusal::Invalid(vec![error]))?;
    let errors = offer.check();
    if !errors.is_empty() {
        return Err(ChangeRefusal::Invalid(errors));
    }
    let issued = ledger.last().get();
    match offer.total_quantity {
        Some(total) if total < issued => Err(ChangeRefusal::QuantityBelowIssued { issued }),
        _ => Ok(offer),
    }
}
