//! A kind says what is owned. Everything else comes from the engine: owners and their mailboxes, order, the
//! output gate, batches, the fence, placement, hand-off, doors, links and recovery.
//!
//! A kind is pure: no method here waits, reads a clock or touches a database. How databases store a kind is
//! in [`SqliteRows`](crate::store::sqlite::SqliteRows) and [`MySqlRows`](crate::store::mysql::MySqlRows).
//!
//! Kinds are a closed set: an engine is compiled for one type, which is a single kind or a
//! [`Pair`](crate::owning::pair::Pair) of kinds. So calls of a kind need no boxes and no dynamic dispatch.

use std::fmt::{Debug, Display};
use std::hash::Hash;

use crate::ids::ShardId;
use crate::time::Timestamp;

/// Number of counts that a kind chooses for metrics, see [`Kind::counts`].
pub const COUNTS: usize = 2;

/// Bytes that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not protocol buffers of the expected shape.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A field holds a value that it must not hold.
    #[error("wrong {0}")]
    Wrong(&'static str),
}

impl From<prost::DecodeError> for DecodeError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The verdict on a request. Nothing is entered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<K: Kind> {
    /// An earlier decision answers the request, because the request was repeated or the earlier decision used
    /// up a limit.
    Known(K::Outcome),
    /// There is nothing to enter: the request is refused, or would change nothing.
    Refused(K::Outcome),
    /// The owner is to make this entry, with [`Kind::apply`].
    Enter(K::Entry),
}

/// What doors must forget after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superseded {
    /// Doors must ignore notices below this version.
    pub version: u64,
    /// True if a refusal based on an earlier version may be untrue now. Such a change is answered only after
    /// every node has acknowledged it.
    pub widens: bool,
}

/// Entries of one owner in the order of their decisions, and how they fit into a statement.
///
/// An owner hands one run to a lane at a time.
pub trait Run: Debug + Clone + Eq + Send + Sync + 'static {
    /// Returns how many entries the run has, which is at least 1. Each entry is one row.
    fn rows(&self) -> usize;

    /// Returns true if this run can share a statement with similar runs.
    fn is_joinable(&self) -> bool;

    /// Returns true if one statement can store both runs. Called only if both are joinable.
    fn joins(&self, other: &Self) -> bool;
}

/// What an owner tells doors, on its node and on other nodes, while it answers most requests in the same way.
/// Everything in a notice is stored already.
pub trait DoorNotice: Debug + Send + Sync + Sized + 'static {
    /// The kind that the notice belongs to.
    type Kind: Kind<Notice = Self>;

    /// Returns the id of the thing that the notice is about.
    fn id(&self) -> <Self::Kind as Kind>::Id;

    /// Returns the version for which the notice is true.
    fn version(&self) -> u64;

    /// Returns the refusal that the owner would give at `now`; `None` if only the owner can answer. The
    /// refusal must follow the owner's order of precedence.
    fn refusal(
        &self,
        ask: &<Self::Kind as Kind>::Ask,
        now: Timestamp,
    ) -> Option<<Self::Kind as Kind>::Outcome>;

    /// Encodes the notice for other nodes, in at most
    /// [`NOTICE_BYTES_MAX`](crate::owning::door::notice::NOTICE_BYTES_MAX) bytes.
    fn encode(&self) -> Vec<u8>;

    /// Decodes a notice of another node.
    ///
    /// # Errors
    ///
    /// If the bytes are not a notice of this kind.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// What is owned. Each thing of a kind has one actor at a time as its owner.
pub trait Kind: Copy + Debug + Default + PartialEq + Eq + Send + Sync + 'static {
    /// Identifies one thing of this kind, and places it on a shard.
    type Id: Copy + Debug + Display + Eq + Hash + Ord + Send + Sync + 'static;
    /// What may be asked of an owner, with the identity of the request if it has an identity.
    type Ask: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// What an owner may answer.
    type Outcome: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// One decision, which is stored as one row.
    type Entry: Clone + Debug + Eq + Send + Sync + 'static;
    /// Entries of one owner that can be stored by one statement.
    type Run: Run;
    /// The thing's own row, without its entries.
    type Head: Debug + Send + 'static;
    /// Loaded entries, oldest first. The node of the next owner loads these ahead.
    type Rows: Debug + Send + 'static;
    /// Entries that are being loaded; see [`Self::begin_load`].
    type PartialRows: Debug + Send + 'static;
    /// What an owner decides from.
    type State: Debug + Send + 'static;
    /// What an owner tells doors.
    type Notice: DoorNotice<Kind = Self>;

    /// Returns the shard of this thing, which never changes.
    fn shard(id: Self::Id) -> ShardId;

    /// Returns the number under which a link counts requests of this id in a window. Equal ids have equal
    /// numbers.
    fn flow(id: Self::Id) -> u64;

    /// Returns the id of the thing that `state` belongs to.
    fn id(state: &Self::State) -> Self::Id;

    /// Returns true if an owner recognises the request when it is repeated, so that a retry after an unknown
    /// outcome does no harm.
    fn is_repeatable(ask: &Self::Ask) -> bool;

    /// Returns the verdict on the request at `now`, by the first rule that applies.
    fn judge(state: &Self::State, now: Timestamp, ask: &Self::Ask) -> Verdict<Self>;

    /// Applies an entry that [`Self::judge`] made for exactly this state. Returns the outcome with which its
    /// request is answered once the entry is stored.
    fn apply(state: &mut Self::State, entry: &Self::Entry) -> Self::Outcome;

    /// Returns true if the outcome is a refusal, so that the request changed nothing.
    fn is_refusal(outcome: &Self::Outcome) -> bool;

    /// Returns the answer to a request for something that does not exist.
    fn absent(ask: &Self::Ask) -> Self::Outcome;

    /// Returns a version if the entry may make notices untrue: this node's door must forget a notice below
    /// this version when the entry is decided. Most entries return `None`.
    fn version_of(entry: &Self::Entry) -> Option<u64>;

    /// Returns what doors must forget before a request with this outcome is answered.
    fn superseded(ask: &Self::Ask, outcome: &Self::Outcome) -> Option<Superseded>;

    /// Returns how many of these entries make up the first run: at most `rows_max`, and at least 1 if there
    /// is an entry.
    fn run_length<'a>(entries: impl Iterator<Item = &'a Self::Entry>, rows_max: usize) -> usize;

    /// Returns the places, ascending, of further entries that the first run of `length` entries takes along,
    /// past entries that cannot be in it. With them, the run has at most `rows_max` entries.
    ///
    /// So batches grow with load although entries of several sorts come in turn. An entry that is taken along
    /// is stored before those that it passes, so it must not rest on them.
    fn taken_along<'a>(
        _entries: impl Iterator<Item = &'a Self::Entry>,
        _length: usize,
        _rows_max: usize,
    ) -> Vec<usize> {
        Vec::new()
    }

    /// Makes a run of the entries that [`Self::run_length`] counted, and of those that [`Self::taken_along`]
    /// adds.
    fn run(entries: impl Iterator<Item = Self::Entry>) -> Self::Run;

    /// Returns true if later entries may join the run of this entry.
    fn may_be_joined(entry: &Self::Entry) -> bool;

    /// Returns true if no request can lead to an entry that joins the next run. An owner then need not wait
    /// for such an entry. A kind that does not know returns false.
    fn is_exhausted(state: &Self::State) -> bool;

    /// Returns the notice that doors may get when everything decided is stored; `None` if only the owner can
    /// answer. The state may keep what makes the next notice cheaper.
    fn notice(state: &mut Self::State) -> Option<Self::Notice>;

    /// Begins to load. With `ahead`, only the entries after those loaded ahead are read; with `None`, all
    /// entries are read.
    fn begin_load(id: Self::Id, ahead: Option<Self::Rows>) -> Self::PartialRows;

    /// Ends loading. `None` if the rows loaded ahead differ from the stored ones, because the database went
    /// backwards in between. Then all rows must be loaded again.
    fn finish_load(reading: Self::PartialRows) -> Option<Self::Rows>;

    /// Makes the state from the loaded head and rows.
    fn state(head: Self::Head, rows: Self::Rows) -> Self::State;

    /// Returns how many entries the state has, as far as the kind counts them, for the log and for metrics.
    /// Never falls when an entry is applied.
    fn entries(state: &Self::State) -> u64;

    /// Returns how many entries there may be, for metrics; `None` if there is no bound.
    fn entries_max(_state: &Self::State) -> Option<u64> {
        None
    }

    /// Returns counts that the kind chooses, for metrics, as decided and at `now`. The state may keep what makes
    /// the next counts cheaper.
    fn counts(_state: &mut Self::State, _now: Timestamp) -> [u64; COUNTS] {
        [0; COUNTS]
    }

    /// Writes an id for other nodes.
    fn encode_id(id: Self::Id, bytes: &mut Vec<u8>);

    /// Reads an id that another node wrote.
    ///
    /// # Errors
    ///
    /// If the bytes are not an id of this kind.
    fn decode_id(bytes: &[u8]) -> Result<Self::Id, DecodeError>;

    /// Writes a request for other nodes.
    fn encode_ask(ask: Self::Ask) -> Vec<u8>;

    /// Reads a request of another node.
    ///
    /// # Errors
    ///
    /// If a field does not hold what this program would have written.
    fn decode_ask(bytes: &[u8]) -> Result<Self::Ask, DecodeError>;

    /// Returns the lowest version of a link whose both ends know this request; see
    /// [`hello`](crate::link::hello). A node of the former build is not sent what it does not know.
    fn link_version(_ask: &Self::Ask) -> u32 {
        0
    }

    /// Writes an outcome for other nodes.
    fn encode_outcome(outcome: Self::Outcome) -> Vec<u8>;

    /// Reads an outcome of another node.
    ///
    /// # Errors
    ///
    /// If a field does not hold what this program would have written.
    fn decode_outcome(bytes: &[u8]) -> Result<Self::Outcome, DecodeError>;
}
