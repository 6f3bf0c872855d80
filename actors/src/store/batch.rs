//! What a batch holds, and what can come back from storing one.

use crate::ids::{Fence, ShardId};
use crate::owning::kind::{Kind, Run};

/// Most rows in one batch. Beyond some thousands a commit only takes longer (2,048 rows: 45 ms on MySQL 9),
/// and with the longest ids and keys this many rows are a twentieth of the smallest default packet (16 MiB).
pub const BATCH_ROWS_MAX: usize = 2_048;

/// Entries of one owner that commit together, under one fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion<K: Kind> {
    /// What the entries belong to.
    pub id: K::Id,
    /// The shard that places it.
    pub shard: ShardId,
    /// The right to write them.
    pub fence: Fence,
    /// The entries.
    pub run: K::Run,
}

/// Portions that commit together by one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<K: Kind> {
    /// At most one portion for each owner, all of one kind of row; never empty.
    pub portions: Vec<Portion<K>>,
}

impl<K: Kind> Batch<K> {
    /// Returns how many rows it stores if every portion passes its guards.
    pub fn rows(&self) -> usize {
        self.portions.iter().map(|portion| portion.run.rows()).sum()
    }
}

/// What the store holds of a portion, by fresh reads after a write of it that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// True if the portion's fence is still the shard's.
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
    /// Something else is in the place of at least one, even if it cannot be read.
    Different,
}

/// How the way of a portion ends.
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
    /// It is committed.
    Stored,
    /// The shard has another epoch or owner: what is not stored by now never will be.
    Fenced,
    /// The store contradicts the owner: it holds other rows, or none that can be read, or its guards refuse.
    /// The owner must be loaded anew.
    Contradicted,
    /// The lease ended before it was known.
    Unknown,
}
