//! Batches, and the results of writing them.

use crate::ids::{Fence, ShardId};
use crate::owning::kind::{Kind, Run};
use crate::store::Result;
use crate::trace::TraceContext;

/// Maximum number of rows in one batch. More rows would only make a commit longer (2,048 rows take 45 ms on
/// MySQL 9). With the longest ids and keys, this many rows are a twentieth of the smallest default packet (16
/// MiB).
pub const BATCH_ROWS_MAX: usize = 2_048;

/// Entries of one owner that commit together, under one fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion<K: Kind> {
    /// What the entries belong to.
    pub id: K::Id,
    /// The shard of that id.
    pub shard: ShardId,
    /// The fence under which they are written.
    pub fence: Fence,
    /// The entries.
    pub run: K::Run,
}

/// Portions that one statement commits together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<K: Kind> {
    /// At most one portion for each id, all storing the same kind of row; never empty.
    pub portions: Vec<Portion<K>>,
}

impl<K: Kind> Batch<K> {
    /// Returns how many rows are stored if the guards of all portions hold.
    pub fn rows(&self) -> usize {
        self.portions.iter().map(|portion| portion.run.rows()).sum()
    }
}

/// What fresh reads find of a portion after a write that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// True if the shard still has the portion's epoch and owner.
    pub fence_holds: bool,
    /// What is stored of the portion's rows.
    pub rows: FoundRows,
}

/// What is stored of a portion's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundRows {
    /// All rows are stored, and are identical.
    Stored,
    /// No row is stored, and nothing else is in the rows' places.
    Absent,
    /// Something else, possibly unreadable, is in the place of at least one row.
    Different,
}

impl FoundRows {
    /// Compares what is stored in the places of these rows with them; `stored` is `None` if nothing is. An
    /// unreadable row counts as different: it concerns its owner alone, and must not hold up others.
    pub(crate) fn of<T: PartialEq>(stored: Option<Vec<Result<T>>>, sent: &[T]) -> Self {
        let Some(stored) = stored else {
            return Self::Absent;
        };
        let stored = stored.into_iter().collect::<Result<Vec<_>>>();
        if stored.is_ok_and(|stored| stored == sent) {
            Self::Stored
        } else {
            Self::Different
        }
    }
}

/// The result for a portion, as its owner is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The fence under which the portion was sent.
    pub fence: Fence,
    /// What became of the portion.
    pub fate: Fate,
    /// The span of its batch, if that is traced.
    pub batch: Option<TraceContext>,
}

/// What became of a portion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is committed.
    Stored,
    /// The shard has another epoch or owner. The portion was not stored and never will be.
    Fenced,
    /// The store contradicts the owner: it holds other or unreadable rows, or its guards refuse. The owner
    /// must be loaded again.
    Contradicted,
    /// The lease ended before the outcome was known.
    Unknown,
}
