//! The store: what the engine asks of a database, and what every database must promise.
//!
//! Each change is one statement or one short transaction. Every call has a time limit; loading has a limit
//! for each page. The contract suite (`actors/tests/suite`) checks these promises, and every store passes it.

pub mod batch;
pub mod cluster_rows;
pub mod columns;
pub mod links;
pub mod migrations;
pub mod mysql;
mod pair;
pub mod sqlite;
pub(crate) mod uninterrupted;

use async_trait::async_trait;

use crate::critical;
use crate::ids::{Fence, Incarnation, NodeId, ShardId};
use crate::metrics::handles;
use crate::owning::kind::Kind;
use crate::store::batch::{Batch, Found};
pub use crate::store::cluster_rows::{Claim, ENDED_ROWS_MAX, HandOff, NodeRow, NodeState, ShardRow};

/// Why a call to the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing was changed, and a retry may help (a lock, a refused connection, a full disk).
    #[error("not stored: {0}")]
    NotStored(String),
    /// The change may or may not be stored (the connection was lost or the call timed out before the answer).
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Other rows are in the place of the new rows, or a constraint of the database refuses the new rows. A
    /// retry cannot help. Nothing was changed.
    #[error("clash: {0}")]
    Clash(String),
    /// This program cannot interpret what is stored (a gap in sequences, an unknown status, a missing table).
    #[error("unreadable: {0}")]
    Unreadable(String),
    /// The disk lost writes that it had accepted (a failed fsync). The process must end without answering
    /// anything more.
    #[error("the disk lost writes: {0}")]
    Fatal(String),
}

/// Counts a failure in the metrics.
pub(crate) fn counted<T>(result: Result<T>) -> Result<T> {
    if let Err(error) = &result {
        let handles = handles();
        match error {
            StoreError::NotStored(_) => handles.store_not_stored.increment(1),
            StoreError::Unknown(_) | StoreError::Fatal(_) => handles.store_unknown.increment(1),
            StoreError::Clash(_) => handles.store_clashes.increment(1),
            StoreError::Unreadable(_) => handles.store_unreadable.increment(1),
        }
    }
    result
}

/// Why a database that has all tables still cannot be used.
pub(crate) const ROWS_MISSING: &str = "rows of the tables cluster or shards are missing";

/// Exit status of a process whose disk lost writes: `EX_IOERR` of sysexits.
const EXIT_IO_ERROR: i32 = 74;

/// Ends the process, because the disk lost writes ([`StoreError::Fatal`]). The system reports such an error
/// only once, and later answers may be based on lost data. Each store calls this function itself, whichever
/// call got the error.
pub(crate) fn end_process(why: &str) -> ! {
    critical::end(EXIT_IO_ERROR, || {
        tracing::error!(
            why,
            "the disk lost writes that it had accepted: the process ends without answering anything more"
        );
    })
}

/// Result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The rows of nodes and shards.
///
/// Cancel safety: a dropped future may leave its statement running. The statement takes effect whole or not
/// at all.
#[async_trait]
pub trait ClusterStore: Send + Sync + 'static {
    /// Returns true if no other process can have this store open. Then all other nodes that have a row are
    /// dead.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// Checks that the store answers and belongs to this program (schema, [`crate::ids::SHARDS`],
    /// [`crate::ids::SHARD_HASH`]). Creates the rows of `cluster` and `shards` if they are missing.
    async fn check(&self) -> Result<()>;

    /// Replaces the row of the node with this id, if that row still has the incarnation `replaces`. If
    /// `replaces` is `None`, inserts the row if the node has no row. Returns false if another process was
    /// first.
    async fn join(&self, node: &NodeRow, replaces: Option<Incarnation>) -> Result<bool>;

    /// Counts one beat of this incarnation, and writes its state and the peers that it is linked to. Returns
    /// the new beat; `None` if the incarnation's row is missing or ended.
    async fn beat(
        &self,
        id: &NodeId,
        incarnation: Incarnation,
        state: NodeState,
        links: &[Incarnation],
    ) -> Result<Option<u64>>;

    /// Declares another incarnation dead, if its row still has this incarnation and beat, and if the row of
    /// `by` is live. Returns true if it did so.
    async fn end(&self, by: Incarnation, dead: &NodeRow) -> Result<bool>;

    /// Removes rows of ended nodes: those that were first seen ended at least a day ago, and the oldest ones
    /// if there are more than [`ENDED_ROWS_MAX`]. One call removes at most some hundreds. Returns how many it
    /// removed.
    async fn sweep_nodes(&self) -> Result<usize>;

    /// Returns all nodes' rows, by id.
    async fn nodes(&self) -> Result<Vec<NodeRow>>;

    /// Returns all shards' rows, by id.
    async fn shards(&self) -> Result<Vec<ShardRow>>;

    /// Claims shards, independently of each other and many by one commit. If a row is still as it was seen,
    /// raises the epoch and sets the owner. A row that stays locked is skipped. Returns the rows as they are
    /// afterwards, in the order of the claims, including rows that were not claimed.
    async fn claim(&self, claims: &[Claim]) -> Result<Vec<ShardRow>>;

    /// Hands shards off to other nodes, independently of each other and many by one commit. If a fence still
    /// holds, raises the epoch and sets the new owner. A row that stays locked is skipped. Returns the rows
    /// as they are afterwards, in the order of `hand_offs`, including rows that were not handed off.
    async fn hand_off(&self, hand_offs: &[HandOff]) -> Result<Vec<ShardRow>>;

    /// Releases the shards that are owned under these fences, many by one commit. Released shards keep their
    /// epochs. Other shards stay as they are. If a row stays locked, the call fails, although other shards
    /// may have been released.
    async fn release(&self, shards: &[(ShardId, Fence)]) -> Result<()>;
}

/// Result of loading.
#[derive(Debug)]
pub enum Loaded<K: Kind> {
    /// The thing itself and its rows.
    Read(K::Head, K::Rows),
    /// There is no such thing.
    Absent,
    /// The rows that were loaded ahead are not the beginning of what is stored.
    WentBackwards,
}

/// The rows of one kind.
///
/// Cancel safety: as [`ClusterStore`].
#[async_trait]
pub trait EntryStore<K: Kind>: Send + Sync + 'static {
    /// Stores a batch by one statement, except the portions whose guards (the fence, and the guards of the
    /// kind) do not hold. A portion is stored whole or not at all. Returns how many rows were stored.
    async fn write(&self, batch: &Batch<K>) -> Result<u64>;

    /// Returns what is stored of each portion, by fresh reads, in the order of the portions. The fence is
    /// read before the rows, so if it no longer holds, the result for the rows is final. A portion that is
    /// stored only in part or has an unreadable row is [`Different`](batch::FoundRows::Different).
    async fn read_back(&self, batch: &Batch<K>) -> Result<Vec<Found>>;

    /// Reads a thing, such as a coupon, and all its rows, or only the rows after those loaded ahead.
    async fn load(&self, id: K::Id, ahead: Option<K::Rows>) -> Result<Loaded<K>>;
}

/// The database, as the engine sees it.
pub trait Store<K: Kind>: ClusterStore + EntryStore<K> {}

impl<K: Kind, T: ClusterStore + EntryStore<K>> Store<K> for T {}
