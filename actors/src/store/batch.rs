//! What a batch holds, and what can come back from storing one.

use std::sync::Arc;

use crate::coupon::offer::{Coupon, Issuance};
use crate::ids::{CouponId, Fence, Sequence, ShardId};

/// Most rows in one batch. Beyond some thousands a commit only takes longer (2,048 rows: 45 ms on MySQL 9);
/// and with the longest ids and keys this many rows still are a twentieth of the smallest default packet (16
/// MiB).
pub const BATCH_ROWS_MAX: usize = 2_048;

/// Entries of one coupon that commit together, under one fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    /// Whose entries these are.
    pub coupon: CouponId,
    /// Where the coupon is placed.
    pub shard: ShardId,
    /// The right to write them.
    pub fence: Fence,
    /// The entries.
    pub entries: Entries,
}

/// The entries of a portion: a run of issuances, or one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entries {
    /// Issuances with consecutive sequences; never empty.
    Issuances(Arc<[Issuance]>),
    /// The coupon as an administrator's change leaves it.
    Change(Arc<CouponChange>),
}

/// A change as it is stored: the guard is the version before and the highest sequence decided before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponChange {
    /// The coupon after the change. Its version is one above the stored one.
    pub coupon: Coupon,
    /// The highest sequence decided before the change.
    pub issued: Sequence,
}

impl Entries {
    /// How many entries, and so rows, these are.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        match self {
            Self::Issuances(issuances) => issuances.len(),
            Self::Change(_) => 1,
        }
    }
}

/// Portions that commit together: either issuances of any number of coupons, or one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// At most one portion a coupon; never empty.
    pub portions: Vec<Portion>,
}

impl Batch {
    /// How many rows it stores if every portion passes its guards.
    pub fn rows(&self) -> usize {
        self.portions.iter().map(|portion| portion.entries.len()).sum()
    }
}

/// What the store holds of a portion, by fresh reads after a write of it came back with anything but success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Whether the portion's fence is still the shard's.
    pub fence_holds: bool,
    /// How the portion's rows stand.
    pub rows: FoundRows,
}

/// How a portion's rows stand in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundRows {
    /// All are there, identical.
    Stored,
    /// None is there, and nothing is in their place.
    Absent,
    /// Something else is in the place of at least one, if only what cannot be read.
    Different,
}

/// How the story of a portion ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The fence it was sent under.
    pub fence: Fence,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a portion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Committed.
    Stored,
    /// The shard has another epoch or owner: what is not stored by now never will be.
    Fenced,
    /// The store contradicts the owner: it holds other rows, or none that can be read, or its guards refuse.
    /// The owner must be loaded anew.
    Contradicted,
    /// The lease ended before it was known.
    Unknown,
}
