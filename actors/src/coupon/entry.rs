//! What a coupon's owner decides: issuances and changes, each of which is one stored row.

use std::sync::Arc;

use crate::coupon::change_keys::ChangeKeys;
use crate::coupon::ids::Sequence;
use crate::coupon::ledger::CouponHead;
use crate::coupon::offer::{Coupon, Issuance};
use crate::owning::kind::Run;
use crate::store::batch::FoundRows;

/// One decision about a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CouponEntry {
    /// The coupon was issued to a user.
    Issuance(Issuance),
    /// An administrator changed the coupon.
    Change(Arc<CouponChange>),
}

/// A change as it is stored. Its guards are the version before the change, and the highest sequence that was
/// decided before the change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponChange {
    /// The coupon after the change. Its version is one above the stored one, or the same if only a key is
    /// added.
    pub coupon: Coupon,
    /// The version before the change.
    pub from_version: u64,
    /// The coupon's keys after the change.
    pub keys: ChangeKeys,
    /// The highest sequence decided before the change.
    pub issued: Sequence,
}

impl CouponChange {
    /// Returns whether the change is stored, if `stored` is the coupon's row.
    pub(crate) fn found_in(&self, stored: &CouponHead) -> FoundRows {
        if (&stored.coupon, &stored.change_keys) == (&self.coupon, &self.keys) {
            FoundRows::Stored
        } else if stored.coupon.version == self.from_version {
            FoundRows::Absent
        } else {
            FoundRows::Different
        }
    }
}

/// Entries of a coupon that one statement stores: consecutive issuances, or one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CouponRun {
    /// Issuances with consecutive sequences; never empty.
    Issuances(Arc<[Issuance]>),
    /// A single change.
    Change(Arc<CouponChange>),
}

impl Run for CouponRun {
    fn rows(&self) -> usize {
        match self {
            Self::Issuances(issuances) => issuances.len(),
            Self::Change(_) => 1,
        }
    }

    fn is_joinable(&self) -> bool {
        matches!(self, Self::Issuances(_))
    }

    fn joins(&self, _other: &Self) -> bool {
        // Issuances of different coupons may be in one batch.
        true
    }
}

impl CouponRun {
    /// Makes a run of entries: issuances, or one change.
    pub(crate) fn of(entries: impl Iterator<Item = CouponEntry>) -> Self {
        let mut issuances = Vec::with_capacity(entries.size_hint().0);
        for entry in entries {
            match entry {
                CouponEntry::Issuance(issuance) => issuances.push(issuance),
                CouponEntry::Change(change) => return Self::Change(change),
            }
        }
        Self::Issuances(issuances.into())
    }

    /// Returns how many entries the first run takes.
    pub(crate) fn length<'a>(entries: impl Iterator<Item = &'a CouponEntry>, rows_max: usize) -> usize {
        let mut length = 0;
        for entry in entries.take(rows_max) {
            match entry {
                CouponEntry::Issuance(_) => length += 1,
                // A change is always a run by itself.
                CouponEntry::Change(_) => return length.max(1),
            }
        }
        length
    }
}
