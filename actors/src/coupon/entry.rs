//! What a coupon's owner decides: issuances, uses and changes, each of which is one stored row.

use std::sync::Arc;

use crate::coupon::change_keys::ChangeKeys;
use crate::coupon::ids::Sequence;
use crate::coupon::ledger::CouponHead;
use crate::coupon::offer::{Coupon, Issuance};
use crate::coupon::record::ChangeRecord;
use crate::coupon::uses::{Use, UseEntry};
use crate::owning::kind::Run;
use crate::store::batch::FoundRows;

/// One decision about a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CouponEntry {
    /// The coupon was issued to a user.
    Issuance(Issuance),
    /// An issuance was used.
    Use(Box<UseEntry>),
    /// An administrator changed the coupon.
    Change(Arc<CouponChange>),
}

impl CouponEntry {
    /// Returns true if other entries may be in the same run. A change is always a run by itself. So is a use
    /// with a reason: reasons are rare and long, and many of them would not fit into a statement.
    pub(crate) fn may_be_joined(&self) -> bool {
        match self {
            Self::Issuance(_) => true,
            Self::Use(entry) => entry.made.reason.is_none(),
            Self::Change(_) => false,
        }
    }
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
    /// How many issuances were given back before the change.
    pub returned: u64,
    /// How many issuances orders held at the time of the change. It is not stored.
    pub reserved: u64,
    /// What the audit log keeps of the change.
    pub record: Option<ChangeRecord>,
}

impl CouponChange {
    /// True if the change makes a new version, which has a row in the audit log.
    pub(crate) fn makes_version(&self) -> bool {
        self.coupon.version != self.from_version
    }

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

/// Entries of a coupon that one statement stores: consecutive issuances, consecutive uses, or one change.
/// Other entries may have been decided between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CouponRun {
    /// Issuances with consecutive sequences; never empty.
    Issuances(Arc<[Issuance]>),
    /// Uses with consecutive numbers; never empty.
    Uses(Arc<[Use]>),
    /// A single change.
    Change(Arc<CouponChange>),
}

impl Run for CouponRun {
    fn rows(&self) -> usize {
        match self {
            Self::Issuances(issuances) => issuances.len(),
            Self::Uses(uses) => uses.len(),
            Self::Change(_) => 1,
        }
    }

    fn is_joinable(&self) -> bool {
        match self {
            Self::Issuances(_) => true,
            Self::Uses(uses) => uses.iter().all(|made| made.reason.is_none()),
            Self::Change(_) => false,
        }
    }

    fn joins(&self, other: &Self) -> bool {
        // Issuances of different coupons may be in one batch, and so may uses.
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl CouponRun {
    /// Makes a run of entries of one sort.
    pub(crate) fn of(entries: impl Iterator<Item = CouponEntry>) -> Self {
        let (mut issuances, mut uses) = (Vec::with_capacity(entries.size_hint().0), Vec::new());
        for entry in entries {
            match entry {
                CouponEntry::Issuance(issuance) => issuances.push(issuance),
                CouponEntry::Use(entry) => uses.push(entry.made),
                CouponEntry::Change(change) => return Self::Change(change),
            }
        }
        if uses.is_empty() {
            Self::Issuances(issuances.into())
        } else {
            Self::Uses(uses.into())
        }
    }

    /// Returns how many entries the first run takes.
    pub(crate) fn length<'a>(entries: impl Iterator<Item = &'a CouponEntry>, rows_max: usize) -> usize {
        let mut entries = entries.take(rows_max);
        match entries.next() {
            None => 0,
            Some(first) if !first.may_be_joined() => 1,
            Some(first) => {
                let sort = std::mem::discriminant(first);
                1 + entries
                    .take_while(|entry| entry.may_be_joined() && std::mem::discriminant(*entry) == sort)
                    .count()
            }
        }
    }

    /// Returns the places of further entries of the same sort that join the first run, although entries of
    /// the other sort are before them.
    ///
    /// Changes are not passed: their guards name what was decided before them. Issuances do not pass a use
    /// that gave quantity back, because they may rest on it. A use does not pass its own issuance.
    pub(crate) fn taken_along<'a>(
        mut entries: impl Iterator<Item = &'a CouponEntry>,
        length: usize,
        rows_max: usize,
    ) -> Vec<usize> {
        let mut places = Vec::new();
        let Some(first) = entries.next().filter(|first| first.may_be_joined()) else {
            return places;
        };
        let mut first_passed: Option<Sequence> = None;
        for (place, entry) in (1..).zip(entries).skip(length - 1) {
            let is_taken = match (first, entry) {
                (CouponEntry::Issuance(_), CouponEntry::Issuance(_)) => true,
                (CouponEntry::Issuance(_), CouponEntry::Use(entry)) if !entry.made.shown.returns => false,
                (CouponEntry::Use(_), CouponEntry::Issuance(issuance)) => {
                    first_passed = first_passed.or(Some(issuance.id.sequence));
                    false
                }
                (CouponEntry::Use(_), CouponEntry::Use(next))
                    if entry.may_be_joined()
                        && first_passed.is_none_or(|passed| next.made.sequence < passed) =>
                {
                    true
                }
                _ => break,
            };
            if is_taken && length + places.len() == rows_max {
                break;
            }
            places.extend(is_taken.then_some(place));
        }
        places
    }
}
