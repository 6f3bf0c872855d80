//! Changes: an administrator patches, pauses, resumes or closes the coupon.

use std::sync::Arc;

use crate::coupon::CouponKind;
use crate::coupon::change_keys::{ChangeKeys, KeyedChange};
use crate::coupon::entry::{CouponChange, CouponEntry};
use crate::coupon::ids::Sequence;
use crate::coupon::ledger::Ledger;
use crate::coupon::offer::{Coupon, InvalidField, Offer, OfferPatch, Status};
use crate::coupon::record::ChangeRecord;
use crate::coupon::uses::UseCounts;
use crate::coupon::{CouponAsk, CouponOutcome};
use crate::ids::RequestKey;
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

/// A change, the condition on it, and its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRequest {
    /// The change.
    pub change: Change,
    /// The coupon must have one of these versions; empty if there is no condition.
    pub if_versions: Vec<u64>,
    /// The identity of this request, if it has one. A request with the same key is not executed again.
    pub key: Option<RequestKey>,
    /// What the audit log keeps of it. A node of the former build sends none.
    pub record: Option<ChangeRecord>,
}

/// A change without a condition and without a key.
impl From<Change> for ChangeRequest {
    fn from(change: Change) -> Self {
        Self {
            change,
            if_versions: Vec::new(),
            key: None,
            record: None,
        }
    }
}

impl From<ChangeRequest> for CouponAsk {
    fn from(request: ChangeRequest) -> Self {
        Self::Change(request)
    }
}

/// The owner's decision on a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The coupon is as the change asks. Nothing was altered if it was so before.
    Done(Box<ChangeDone>),
    /// A request with the same key was executed before. This is the coupon as it is now.
    Replayed(Box<ChangeDone>),
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
    /// The version before the change. `None` if the owner is a build that does not say it.
    pub from_version: Option<u64>,
    /// How many issuances were in which state then. `None` if the owner is a build that does not know uses;
    /// such an owner leaves out the fields of the coupon that it does not know.
    pub uses: Option<UseCounts>,
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
    /// The coupon's quantity would be below the number of issuances that are decided and were not given back.
    QuantityBelowIssued {
        /// The number of issuances already decided.
        issued: u64,
        /// How many of them were given back to the quantity.
        returned: u64,
    },
    /// The offer would not make sense.
    Invalid(Vec<InvalidField>),
    /// Another change of this coupon had this key.
    KeyReused,
}

impl Change {
    /// Returns true if a refusal based on the coupon before the change may be untrue after the change.
    pub fn may_widen(&self) -> bool {
        match self {
            Self::Patch(_) | Self::Resume => true,
            Self::Pause | Self::Close => false,
        }
    }
}

/// Returns the verdict on a change. A change that would alter nothing makes an entry only if it has a key,
/// which is then remembered. So the same request never changes the coupon later.
pub fn judge(ledger: &Ledger, now: Timestamp, request: &ChangeRequest) -> Verdict<CouponKind> {
    if let Some(outcome) = known(ledger, now, request) {
        return Verdict::Known(CouponOutcome::Change(outcome));
    }
    let outcome = |outcome| Verdict::Refused(CouponOutcome::Change(outcome));
    let (offer, status) = match after(ledger, request) {
        Ok(after) => after,
        Err(refusal) => return outcome(ChangeOutcome::Refused(refusal)),
    };
    let before = ledger.coupon();
    let alters = offer != before.offer || status != before.status;
    if !alters && request.key.is_none() {
        return outcome(ChangeOutcome::Done(present(ledger, now)));
    }
    let coupon = Coupon {
        offer,
        status,
        version: before.version + u64::from(alters),
        // Even if the clock was set back, a change is not older than the change before.
        updated_at: if alters {
            now.max(before.updated_at)
        } else {
            before.updated_at
        },
        ..before.clone()
    };
    Verdict::Enter(CouponEntry::Change(Arc::new(CouponChange {
        from_version: before.version,
        issued: ledger.last(),
        returned: ledger.uses().counts().returned,
        reserved: ledger.uses().counts_at(now).reserved,
        keys: keys_after(ledger, request, alters.then_some(coupon.version)),
        record: request.record.clone(),
        coupon,
    })))
}

/// Returns the outcome if the key of a request was used before.
fn known(ledger: &Ledger, now: Timestamp, request: &ChangeRequest) -> Option<ChangeOutcome> {
    let earlier = ledger.change_keys().find(request.key.as_ref()?)?;
    Some(if earlier.digest == KeyedChange::digest(&request.change) {
        ChangeOutcome::Replayed(present(ledger, now))
    } else {
        ChangeOutcome::Refused(ChangeRefusal::KeyReused)
    })
}

/// Returns the coupon as it is at `now`.
fn present(ledger: &Ledger, now: Timestamp) -> Box<ChangeDone> {
    Box::new(ChangeDone {
        coupon: ledger.coupon().clone(),
        issued: ledger.last(),
        from_version: Some(ledger.coupon().version),
        uses: Some(ledger.uses().counts_at(now)),
    })
}

/// Returns the keys that the coupon has after a change to this version; `None` if it alters nothing.
fn keys_after(ledger: &Ledger, request: &ChangeRequest, version: Option<u64>) -> ChangeKeys {
    let keys = ledger.change_keys();
    request.key.as_ref().map_or_else(
        || keys.clone(),
        |key| {
            keys.with(KeyedChange {
                key: key.clone(),
                version,
                digest: KeyedChange::digest(&request.change),
            })
        },
    )
}

/// Returns what the coupon would be after a change, or why the change is refused.
fn after(ledger: &Ledger, request: &ChangeRequest) -> Result<(Offer, Status), ChangeRefusal> {
    let Coupon {
        offer,
        status,
        version,
        ..
    } = ledger.coupon();
    if !request.if_versions.is_empty() && !request.if_versions.contains(version) {
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
    let (issued, returned) = (ledger.last().get(), ledger.uses().counts().returned);
    match offer.total_quantity {
        Some(total) if total + returned < issued => {
            Err(ChangeRefusal::QuantityBelowIssued { issued, returned })
        }
        _ => Ok(offer),
    }
}
