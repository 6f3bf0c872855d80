//! The store: what the engine asks of a database, and what every database must promise.
//!
//! Each change is one statement or one short transaction, and every call has a limit in time; loading has one
//! for each page. The contract suite (`actors/tests/suite`) states in code what is said here in words; every
//! store passes it.

pub mod batch;
pub mod cluster_rows;
pub mod links;
pub mod migrations;
pub mod mysql;
mod pair;
pub mod sqlite;
pub(crate) mod uninterrupted;

use async_trait::async_trait;

use crate::ids::{Fence, Incarnation, NodeId, ShardId};
use crate::owning::kind::Kind;
use crate::store::batch::{Batch, Found};
pub use crate::store::cluster_rows::{Claim, HandOff, NodeRow, NodeState, ShardRow};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Surely nothing was changed; trying again may help (a lock, a refused connection, a full disk).
    #[error("not stored: {0}")]
    NotStored(String),
    /// It may have been changed (a connection lost or a limit passed while waiting for the answer).
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Other rows stand where these should go, or these are such that no database takes them: trying again is
    /// in vain. Surely nothing was changed.
    #[error("clash: {0}")]
    Clash(String),
    /// What is stored makes no sense to this program (a gap in sequences, an unknown status, a missing
    /// table).
    #[error("unreadable: {0}")]
    Unreadable(String),
    /// The disk failed to keep what it had taken (fsync): nothing more may be told, and the process must end.
    #[error("the disk lost writes: {0}")]
    Fatal(String),
}

/// Exit status of a process whose disk lost what it had taken: `EX_IOERR` of sysexits.
const EXIT_IO_ERROR: i32 = 74;

/// Ends the process, as the disk lost what it had taken ([`StoreError::Fatal`]): the system reports that
/// once, and whatever is told after it may be missing tomorrow. Stores call it themselves, whichever call was
/// the one to hear of it.
pub(crate) fn end_process(why: &str) -> ! {
    tracing::error!(
        why,
        "the disk lost writes that it had taken: this process must not tell anything more"
    );
    std::process::exit(EXIT_IO_ERROR);
}

/// Result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The rows of nodes and shards.
///
/// Cancel safety: a dropped future may leave its statement running; it takes effect whole or not at all.
#[async_trait]
pub trait ClusterStore: Send + Sync + 'static {
    /// Returns true if no other process can have this store open: the rows of all other nodes are then of
    /// dead ones.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// Checks that this is a store for this program (schema, [`crate::ids::SHARDS`],
    /// [`crate::ids::SHARD_HASH`]), creates the rows of `cluster` and `shards` if there are none, and that it
    /// answers at all.
    async fn check(&self) -> Result<()>;

    /// Puts a node's row in place of the one with the same id, if that still has the incarnation `replaces`
    /// (`None`: if there is none). False if another process was first.
    async fn join(&self, node: &NodeRow, replaces: Option<Incarnation>) -> Result<bool>;

    /// Counts one beat of this incarnation, and writes its state and the peers that it is linked to. Returns
    /// the new beat; `None` if its row is not there or has ended.
    async fn beat(
        &self,
        id: &NodeId,
        incarnation: Incarnation,
        state: NodeState,
        links: &[Incarnation],
    ) -> Result<Option<u64>>;

    /// Declares another incarnation dead, if its row still has that incarnation and that beat, and if the row
    /// of `by` is live. False if one of these is not so.
    async fn end(&self, by: Incarnation, dead: &NodeRow) -> Result<bool>;

    /// Returns all nodes' rows, by id.
    async fn nodes(&self) -> Result<Vec<NodeRow>>;

    /// Returns all shards' rows, by id.
    async fn shards(&self) -> Result<Vec<ShardRow>>;

    /// Claims shards, each for itself: raises the epoch and names the owner where the row is still as it was
    /// seen, and commits. Returns the rows after that, in the order of the claims, claimed or not.
    async fn claim(&self, claims: &[Claim]) -> Result<Vec<ShardRow>>;

    /// Hands shards off to other nodes, each for itself: raises the epoch and names the new owner where the
    /// fence still holds, and commits. Returns the rows after that, in the order asked, handed off or not.
    async fn hand_off(&self, hand_offs: &[HandOff]) -> Result<Vec<ShardRow>>;

    /// Releases shards owned under these fences; they keep their epochs. Those owned otherwise stay as they
    /// are.
    async fn release(&self, shards: &[(ShardId, Fence)]) -> Result<()>;
}

/// What loading found.
#[derive(Debug)]
pub enum Loaded<K: Kind> {
    /// The thing itself and its rows.
    Read(K::Head, K::Rows),
    /// It does not exist.
    Absent,
    /// The rows that were loaded ahead are not the beginning of what is stored.
    WentBackwards,
}

/// The rows of one kind.
///
/// Cancel safety: as [`ClusterStore`].
#[async_trait]
pub trait EntryStore<K: Kind>: Send + Sync + 'static {
    /// Stores a batch by one statement, whole or without the portions whose guards do not hold: the fence,
    /// and what the kind demands. A portion is stored whole or not at all. Returns how many rows were stored.
    async fn write(&self, batch: &Batch<K>) -> Result<u64>;

    /// Returns how the rows of each portion stand, by fresh reads, in the order of the portions. The fence is
    /// read before the rows: where it does not hold any more, what is said of the rows is final. A portion of
    /// which only a part is there, or a row that cannot be read, is
    /// [`Different`](batch::FoundRows::Different).
    async fn read_back(&self, batch: &Batch<K>) -> Result<Vec<Found>>;

    /// Reads a thing and all its rows, or those that follow the rows loaded ahead.
    async fn load(&self, id: K::Id, ahead: Option<K::Rows>) -> Result<Loaded<K>>;
}

/// The database, as the engine sees it.
pub trait Store<K: Kind>: ClusterStore + EntryStore<K> {}

impl<K: Kind, T: ClusterStore + EntryStore<K>> Store<K> for T {}
