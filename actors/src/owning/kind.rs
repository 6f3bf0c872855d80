//! A kind says what is owned. The engine gives it everything else: owners and their mailboxes, order, the
//! output gate, batches, the fence, placement, hand-off, doors, links and recovery.
//!
//! A kind is pure: no method here waits, reads a clock or touches a database. What a database needs of a kind
//! is in [`SqliteRows`](crate::store::sqlite::SqliteRows) and [`MySqlRows`](crate::store::mysql::MySqlRows).
//!
//! Kinds are a closed set: an engine is compiled for one type, which is a kind by itself or a
//! [`Pair`](crate::owning::pair::Pair) of kinds. Nothing is boxed and nothing is called through a table on
//! the way of a request.

use std::fmt::{Debug, Display};
use std::hash::Hash;

use crate::ids::ShardId;
use crate::time::Timestamp;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// They are not protocol buffers of the expected shape.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A field holds a value that it must not hold.
    #[error("wrong {0}")]
    Wrong(&'static str),
}

impl From<prost::DecodeError> for Unreadable {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// What a request leads to. Nothing has happened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<K: Kind> {
    /// An earlier decision answers it: the same request again, or a limit that the earlier decision used up.
    Known(K::Outcome),
    /// Nothing is to be entered: it is refused, or would change nothing.
    Refused(K::Outcome),
    /// This entry is to be made, by [`Kind::apply`].
    Enter(K::Entry),
}

/// A change that makes what doors were told untrue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superseded {
    /// Doors may not count what they know below this version.
    pub version: u64,
    /// True if a refusal based on an earlier version may be untrue now. Such a change is answered only after
    /// every node has acknowledged it.
    pub widens: bool,
}

/// How a run of entries stands in a statement.
///
/// A run is what one owner hands to a lane at a time.
pub trait Run: Debug + Clone + Eq + Send + Sync + 'static {
    /// Returns how many entries, and so rows, it holds; at least 1.
    fn rows(&self) -> usize;

    /// Returns true if it can share a statement with another run that is like it.
    fn is_joinable(&self) -> bool;

    /// Returns true if one statement can store both. Only asked of joinable runs.
    fn joins(&self, other: &Self) -> bool;
}

/// What an owner tells doors, on its node and on others, while the answer to most requests is fixed.
/// Everything in it is stored.
pub trait DoorNotice: Debug + Send + Sync + Sized + 'static {
    /// The kind that it belongs to.
    type Kind: Kind<Notice = Self>;

    /// Returns what it is about.
    fn id(&self) -> <Self::Kind as Kind>::Id;

    /// Returns the version that it is true of.
    fn version(&self) -> u64;

    /// Returns the refusal that the owner would give at `now`; `None` if only the owner can answer. Must be
    /// the owner's own answer in its own order of precedence.
    fn refusal(
        &self,
        ask: &<Self::Kind as Kind>::Ask,
        now: Timestamp,
    ) -> Option<<Self::Kind as Kind>::Outcome>;

    /// Writes it for other nodes, in at most
    /// [`NOTICE_BYTES_MAX`](crate::owning::door::notice::NOTICE_BYTES_MAX) bytes.
    fn encode(&self) -> Vec<u8>;

    /// Reads what another node wrote.
    ///
    /// # Errors
    ///
    /// If it is not a notice of this kind.
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable>;
}

/// What is owned, one at a time by one actor.
pub trait Kind: Copy + Debug + Default + PartialEq + Eq + Send + Sync + 'static {
    /// Identifies one thing of this kind, and places it on a shard.
    type Id: Copy + Debug + Display + Eq + Hash + Ord + Send + Sync + 'static;
    /// What may be asked of an owner, with the identity of the request where it has one.
    type Ask: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// What an owner may answer.
    type Outcome: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// One decision to be stored: one row.
    type Entry: Clone + Debug + Eq + Send + Sync + 'static;
    /// Consecutive entries of one owner that can be stored by one statement.
    type Run: Run;
    /// The thing itself as it stands in its row, without its entries.
    type Head: Debug + Send + 'static;
    /// Entries as they were loaded, oldest first; what a successor loads ahead.
    type Rows: Debug + Send + 'static;
    /// Entries being loaded; see [`Self::reading`].
    type Reading: Debug + Send + 'static;
    /// What an owner decides from.
    type State: Debug + Send + 'static;
    /// What an owner tells doors.
    type Notice: DoorNotice<Kind = Self>;

    /// Returns the shard that places this thing. Stable for ever.
    fn shard(id: Self::Id) -> ShardId;

    /// Returns the number under which a link counts requests of this id in a window. Equal ids have equal
    /// numbers.
    fn flow(id: Self::Id) -> u64;

    /// Returns the id of the thing that `state` belongs to.
    fn id(state: &Self::State) -> Self::Id;

    /// Returns true if an owner recognises the request when it is repeated, so that asking again after an
    /// unknown outcome does no harm.
    fn is_repeatable(ask: &Self::Ask) -> bool;

    /// Returns what the request leads to at `now`: the first rule that fits.
    fn judge(state: &Self::State, now: Timestamp, ask: &Self::Ask) -> Verdict<Self>;

    /// Takes an entry that [`Self::judge`] made for this very state, and returns what its request is answered
    /// once the entry is stored.
    fn apply(state: &mut Self::State, entry: &Self::Entry) -> Self::Outcome;

    /// Returns true if the outcome rests on nothing that its request changed.
    fn is_refusal(outcome: &Self::Outcome) -> bool;

    /// Returns the answer to a request for something that does not exist.
    fn absent(ask: &Self::Ask) -> Self::Outcome;

    /// Returns the version below which this node's door must forget what it knows once this entry is decided;
    /// `None` for most entries.
    fn version_of(entry: &Self::Entry) -> Option<u64>;

    /// Returns what doors must forget before a request with this outcome is answered.
    fn superseded(ask: &Self::Ask, outcome: &Self::Outcome) -> Option<Superseded>;

    /// Returns how many of these entries the first run takes, at most `rows_max`; at least 1 if there is an
    /// entry.
    fn run_length<'a>(entries: impl Iterator<Item = &'a Self::Entry>, rows_max: usize) -> usize;

    /// Makes a run of entries that [`Self::run_length`] counted.
    fn run(entries: impl Iterator<Item = Self::Entry>) -> Self::Run;

    /// Returns true if entries that follow may join the run that this entry is in.
    fn may_be_joined(entry: &Self::Entry) -> bool;

    /// Returns true if no request can lead to an entry that joins the next run. It saves waiting in vain. A
    /// kind that does not know returns false.
    fn is_exhausted(state: &Self::State) -> bool;

    /// Returns what doors may be told now that everything decided is stored; `None` if the owner must be
    /// asked.
    fn notice(state: &Self::State) -> Option<Self::Notice>;

    /// Begins to load: nothing if `ahead` is `None`, otherwise what is stored after the rows loaded ahead.
    fn reading(id: Self::Id, ahead: Option<Self::Rows>) -> Self::Reading;

    /// Ends loading. `None` if what was loaded ahead is not what is stored, because the database went
    /// backwards in between: then it must be loaded whole.
    fn read(reading: Self::Reading) -> Option<Self::Rows>;

    /// Makes the state from what was loaded.
    fn state(head: Self::Head, rows: Self::Rows) -> Self::State;

    /// Returns how many entries the state rests on, for the log.
    fn entries(state: &Self::State) -> u64;

    /// Writes an id for other nodes.
    fn encode_id(id: Self::Id, bytes: &mut Vec<u8>);

    /// Reads an id that another node wrote.
    ///
    /// # Errors
    ///
    /// If it is not an id of this kind.
    fn decode_id(bytes: &[u8]) -> Result<Self::Id, Unreadable>;

    /// Writes a request for other nodes.
    fn encode_ask(ask: Self::Ask) -> Vec<u8>;

    /// Reads a request of another node.
    ///
    /// # Errors
    ///
    /// If a field does not hold what this program would have written.
    fn decode_ask(bytes: &[u8]) -> Result<Self::Ask, Unreadable>;

    /// Writes an outcome for other nodes.
    fn encode_outcome(outcome: Self::Outcome) -> Vec<u8>;

    /// Reads an outcome of another node.
    ///
    /// # Errors
    ///
    /// If a field does not hold what this program would have written.
    fn decode_outcome(bytes: &[u8]) -> Result<Self::Outcome, Unreadable>;
}
