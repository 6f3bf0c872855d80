//! Changes: an administrator patches, pauses, resumes or closes the coupon.

use std::sync::Arc;

use crate::coupon::CouponKind;
use crate::coupon::entry::{CouponChange, CouponEntry};
use crate::coupon::ledger::Ledger;
use crate::coupon::offer::{Coupon, InvalidField, Offer, OfferPatch, Status};
use crate::coupon::{Ask, Outcome};
use crate::ids::Sequence;
use crate::owning::kind::Verdict;
use crate::time::Timestamp;

/// What an administrator wants to change about a coupon.
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
    /// The change.
    pub change: Change,
    /// The version that the coupon must have, if there is a condition.
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
    /// The coupon has what the change asks for, even if it had it before.
    Done(Box<ChangeDone>),
    /// The coupon was not changed.
    Refused(ChangeRefusal),
}

/// The result of a change that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeDone {
    /// The coupon after the change.
    pub coupon: Coupon,
    /// The highest decided sequence at the time of the change.
    pub issued: Sequence,
}

/// Why a coupon is not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// There is no such coupon.
    UnknownCoupon,
    /// The coupon has another version.
    VersionMismatch {
        /// The version that the coupon has.
        version: u64,
    },
    /// The coupon is closed for ever.
    Closed,
    /// The coupon's quantity would be below the number of issuances already decided.
    QuantityBelowIssued {
        /// The number of issuances already decided.
        issued: u64,
    },
    /// The offer would not make sense.
    Invalid(Vec<InvalidField>),
}

impl Change {
    /// Returns true if a refusal that rests on the coupon before the change may be untrue after the change.
    pub fn may_widen(&self) -> bool {
        match self {
            Self::Patch(_) | Self::Resume => true,
            Self::Pause | Self::Close => false,
        }
    }
}

/// Returns the verdict on a change. A change that would alter nothing does not make an entry.
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
        // Even if the clock was set back, a change is not older than the change before.
        updated_at: now.max(before.updated_at),
        ..before.clone()
    };
    let issued = ledger.last();
    Verdict::Enter(CouponEntry::Change(Arc::new(CouponChange { coupon, issued })))
}

/// Returns what the coupon would be after a change, or why the change is refused.
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
