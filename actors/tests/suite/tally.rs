//! A second kind, which proves that the engine knows no kind. A tally is a sum of amounts that never exceeds
//! a bound. Like a coupon it has keys, a notice for doors, and rows that are only added.

pub mod contract;
mod decide;
mod rows;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use actors::ids::{RequestKey, SHARDS, ShardId};
use actors::owning::door::filter::Filter;
use actors::owning::kind::{DecodeError, DoorNotice, Kind, Run, Superseded, Verdict};
use actors::time::Timestamp;

/// The kind of tallies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally;

/// Identifies a tally.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TallyId(pub u64);

impl fmt::Display for TallyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tally {}", self.0)
    }
}

impl TallyId {
    /// Returns the first tally that is placed on this shard.
    pub fn on(shard: ShardId) -> Self {
        Self(u64::from(shard.get()) + u64::from(SHARDS))
    }
}

/// Returns the bound that the migration gave a tally.
pub fn bound(tally: TallyId) -> u64 {
    let classes = rows::BOUNDS.len() as u64;
    rows::BOUNDS[(tally.0 % classes) as usize]
}

/// A request to add this amount, unless the total would pass the bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// The identity of the request.
    pub key: RequestKey,
    /// The amount to add.
    pub amount: u64,
}

/// One addition, which is one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// The tally.
    pub tally: TallyId,
    /// The place of the addition in the tally: 1, 2, 3 … without a gap.
    pub number: u64,
    /// The amount added.
    pub amount: u64,
    /// The total after the addition.
    pub total: u64,
    /// The key of the request that asked for the addition.
    pub key: RequestKey,
}

/// The owner's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddOutcome {
    /// The amount was added now.
    Added(Addition),
    /// The amount was added for this key before.
    Replayed(Addition),
    /// The total would pass the bound.
    BeyondBound {
        /// The bound.
        bound: u64,
    },
    /// There is no such tally.
    UnknownTally,
}

/// Additions of one tally in one statement, which may also hold additions of other tallies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Additions(pub Arc<[Addition]>);

impl Run for Additions {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn is_joinable(&self) -> bool {
        true
    }

    fn joins(&self, _other: &Self) -> bool {
        true
    }
}

/// The content of a tally's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TallyHead {
    /// The tally's id.
    pub id: TallyId,
    /// The bound, which the total never passes.
    pub bound: u64,
}

/// The state that an owner decides from.
#[derive(Debug)]
pub struct TallyState {
    head: TallyHead,
    additions: Vec<Addition>,
    by_key: HashMap<RequestKey, usize>,
}

/// Additions being loaded.
#[derive(Debug)]
pub struct PartialTallyRows {
    additions: Vec<Addition>,
    /// True if nothing was loaded ahead, or the last addition loaded ahead was compared with the stored one.
    begins: bool,
    /// True if the last addition loaded ahead differs from the stored one.
    differs: bool,
}

/// The notice for doors once the bound is reached.
#[derive(Debug)]
pub struct FullNotice {
    head: TallyHead,
    keys: Filter,
}

impl DoorNotice for FullNotice {
    type Kind = Tally;

    fn id(&self) -> TallyId {
        self.head.id
    }

    fn version(&self) -> u64 {
        1
    }

    fn refusal(&self, ask: &Add, _now: Timestamp) -> Option<AddOutcome> {
        let bound = self.head.bound;
        let may_be_replayed = self.keys.may_hold(ask.key.as_str());
        (!may_be_replayed && ask.amount > 0).then_some(AddOutcome::BeyondBound { bound })
    }

    fn encode(&self) -> Vec<u8> {
        wire::notice(self.head, &self.keys)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (head, keys) = wire::read_notice(bytes)?;
        Ok(Self { head, keys })
    }
}

impl Kind for Tally {
    type Id = TallyId;
    type Ask = Add;
    type Outcome = AddOutcome;
    type Entry = Addition;
    type Run = Additions;
    type Head = TallyHead;
    type Rows = Vec<Addition>;
    type PartialRows = PartialTallyRows;
    type State = TallyState;
    type Notice = FullNotice;

    fn shard(id: TallyId) -> ShardId {
        ShardId::new((id.0 % u64::from(SHARDS)) as u16).expect("a remainder is below its divisor")
    }

    fn flow(id: TallyId) -> u64 {
        id.0
    }

    fn id(state: &TallyState) -> TallyId {
        state.head.id
    }

    fn is_repeatable(_ask: &Add) -> bool {
        true
    }

    fn judge(state: &TallyState, _now: Timestamp, ask: &Add) -> Verdict<Self> {
        decide::judge(state, ask)
    }

    fn apply(state: &mut TallyState, addition: &Addition) -> AddOutcome {
        state.push(addition.clone());
        AddOutcome::Added(addition.clone())
    }

    fn is_refusal(outcome: &AddOutcome) -> bool {
        matches!(outcome, AddOutcome::BeyondBound { .. } | AddOutcome::UnknownTally)
    }

    fn absent(_ask: &Add) -> AddOutcome {
        AddOutcome::UnknownTally
    }

    fn version_of(_addition: &Addition) -> Option<u64> {
        None
    }

    fn superseded(_ask: &Add, _outcome: &AddOutcome) -> Option<Superseded> {
        None
    }

    fn run_length<'a>(entries: impl Iterator<Item = &'a Addition>, rows_max: usize) -> usize {
        entries.take(rows_max).count()
    }

    fn run(entries: impl Iterator<Item = Addition>) -> Additions {
        Additions(entries.collect())
    }

    fn may_be_joined(_addition: &Addition) -> bool {
        true
    }

    fn is_exhausted(state: &TallyState) -> bool {
        state.total() == state.head.bound
    }

    fn notice(state: &mut TallyState) -> Option<FullNotice> {
        Self::is_exhausted(state).then(|| FullNotice {
            head: state.head,
            keys: Filter::of(state.additions.iter().map(|addition| addition.key.as_str())),
        })
    }

    fn begin_load(_id: TallyId, ahead: Option<Vec<Addition>>) -> PartialTallyRows {
        let additions = ahead.unwrap_or_default();
        PartialTallyRows {
            begins: additions.is_empty(),
            differs: false,
            additions,
        }
    }

    fn finish_load(reading: PartialTallyRows) -> Option<Vec<Addition>> {
        (reading.begins && !reading.differs).then_some(reading.additions)
    }

    fn state(head: TallyHead, additions: Vec<Addition>) -> TallyState {
        TallyState::new(head, additions)
    }

    fn entries(state: &TallyState) -> u64 {
        state.additions.len() as u64
    }

    fn encode_id(id: TallyId, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&id.0.to_le_bytes());
    }

    fn decode_id(bytes: &[u8]) -> Result<TallyId, DecodeError> {
        let number = <[u8; 8]>::try_from(bytes).map_err(|_| DecodeError::Wrong("tally id"))?;
        Ok(TallyId(u64::from_le_bytes(number)))
    }

    fn encode_ask(ask: Add) -> Vec<u8> {
        wire::ask(&ask)
    }

    fn decode_ask(bytes: &[u8]) -> Result<Add, DecodeError> {
        wire::read_ask(bytes)
    }

    fn encode_outcome(outcome: AddOutcome) -> Vec<u8> {
        wire::outcome(outcome)
    }

    fn decode_outcome(bytes: &[u8]) -> Result<AddOutcome, DecodeError> {
        wire::read_outcome(bytes)
    }
}
