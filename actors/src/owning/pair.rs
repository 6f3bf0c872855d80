//! Two kinds as one, so that one engine serves both. A pair is itself a kind, so three kinds are a pair of a
//! kind and a pair.
//!
//! The rows of both kinds share shards, epochs, lanes and links. A statement holds rows of only one kind.

use std::fmt;

use crate::ids::ShardId;
use crate::owning::kind::{COUNTS, DecodeError, DoorNotice, Kind, Run, Superseded, Verdict};
use crate::time::Timestamp;

/// The kind that combines the kinds `A` and `B`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pair<A, B>(A, B);

/// A value of one of two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Either<A, B> {
    /// A value of the first kind.
    First(A),
    /// A value of the second kind.
    Second(B),
}

use Either::{First, Second};

impl<A: fmt::Display, B: fmt::Display> fmt::Display for Either<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            First(value) => value.fmt(f),
            Second(value) => value.fmt(f),
        }
    }
}

impl<A, B> Either<A, B> {
    /// Returns the value, if it is of the first kind.
    pub fn first(self) -> Option<A> {
        match self {
            First(value) => Some(value),
            Second(_) => None,
        }
    }

    /// Returns the value, if it is of the second kind.
    pub fn second(self) -> Option<B> {
        match self {
            First(_) => None,
            Second(value) => Some(value),
        }
    }

    fn as_first(&self) -> Option<&A> {
        match self {
            First(value) => Some(value),
            Second(_) => None,
        }
    }

    fn as_second(&self) -> Option<&B> {
        match self {
            First(_) => None,
            Second(value) => Some(value),
        }
    }
}

impl<A: Run, B: Run> Run for Either<A, B> {
    fn rows(&self) -> usize {
        match self {
            First(run) => run.rows(),
            Second(run) => run.rows(),
        }
    }

    fn is_joinable(&self) -> bool {
        match self {
            First(run) => run.is_joinable(),
            Second(run) => run.is_joinable(),
        }
    }

    fn joins(&self, other: &Self) -> bool {
        match (self, other) {
            (First(run), First(other)) => run.joins(other),
            (Second(run), Second(other)) => run.joins(other),
            (First(_), Second(_)) | (Second(_), First(_)) => false,
        }
    }
}

impl<A: DoorNotice, B: DoorNotice> DoorNotice for Either<A, B> {
    type Kind = Pair<A::Kind, B::Kind>;

    fn id(&self) -> <Self::Kind as Kind>::Id {
        match self {
            First(notice) => First(notice.id()),
            Second(notice) => Second(notice.id()),
        }
    }

    fn version(&self) -> u64 {
        match self {
            First(notice) => notice.version(),
            Second(notice) => notice.version(),
        }
    }

    fn refusal(
        &self,
        ask: &<Self::Kind as Kind>::Ask,
        now: Timestamp,
    ) -> Option<<Self::Kind as Kind>::Outcome> {
        match (self, ask) {
            (First(notice), First(ask)) => notice.refusal(ask, now).map(First),
            (Second(notice), Second(ask)) => notice.refusal(ask, now).map(Second),
            (First(_), Second(_)) | (Second(_), First(_)) => None,
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            First(notice) => tagged(FIRST, notice.encode()),
            Second(notice) => tagged(SECOND, notice.encode()),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        either(bytes, A::decode, B::decode)
    }
}

/// The first byte of everything of the first kind that is encoded for another node.
const FIRST: u8 = 1;
/// The first byte of everything of the second kind.
const SECOND: u8 = 2;

fn tagged(tag: u8, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.insert(0, tag);
    bytes
}

fn either<A, B>(
    bytes: &[u8],
    first: impl FnOnce(&[u8]) -> Result<A, DecodeError>,
    second: impl FnOnce(&[u8]) -> Result<B, DecodeError>,
) -> Result<Either<A, B>, DecodeError> {
    match bytes.split_first() {
        Some((&FIRST, bytes)) => first(bytes).map(First),
        Some((&SECOND, bytes)) => second(bytes).map(Second),
        _ => Err(DecodeError::Wrong("kind")),
    }
}

fn first_verdict<A: Kind, B: Kind>(verdict: Verdict<A>) -> Verdict<Pair<A, B>> {
    match verdict {
        Verdict::Known(outcome) => Verdict::Known(First(outcome)),
        Verdict::Refused(outcome) => Verdict::Refused(First(outcome)),
        Verdict::Enter(entry) => Verdict::Enter(First(entry)),
    }
}

fn second_verdict<A: Kind, B: Kind>(verdict: Verdict<B>) -> Verdict<Pair<A, B>> {
    match verdict {
        Verdict::Known(outcome) => Verdict::Known(Second(outcome)),
        Verdict::Refused(outcome) => Verdict::Refused(Second(outcome)),
        Verdict::Enter(entry) => Verdict::Enter(Second(entry)),
    }
}

impl<A: Kind, B: Kind> Kind for Pair<A, B> {
    type Id = Either<A::Id, B::Id>;
    type Ask = Either<A::Ask, B::Ask>;
    type Outcome = Either<A::Outcome, B::Outcome>;
    type Entry = Either<A::Entry, B::Entry>;
    type Run = Either<A::Run, B::Run>;
    type Head = Either<A::Head, B::Head>;
    type Rows = Either<A::Rows, B::Rows>;
    type PartialRows = Either<A::PartialRows, B::PartialRows>;
    type State = Either<A::State, B::State>;
    type Notice = Either<A::Notice, B::Notice>;

    fn shard(id: Self::Id) -> ShardId {
        match id {
            First(id) => A::shard(id),
            Second(id) => B::shard(id),
        }
    }

    fn flow(id: Self::Id) -> u64 {
        // The flows of both kinds are kept apart, because ids of both kinds are numbers of the same range.
        match id {
            First(id) => A::flow(id).wrapping_mul(2),
            Second(id) => B::flow(id).wrapping_mul(2) + 1,
        }
    }

    fn id(state: &Self::State) -> Self::Id {
        match state {
            First(state) => First(A::id(state)),
            Second(state) => Second(B::id(state)),
        }
    }

    fn is_repeatable(ask: &Self::Ask) -> bool {
        match ask {
            First(ask) => A::is_repeatable(ask),
            Second(ask) => B::is_repeatable(ask),
        }
    }

    fn judge(state: &Self::State, now: Timestamp, ask: &Self::Ask) -> Verdict<Self> {
        match (state, ask) {
            (First(state), First(ask)) => first_verdict(A::judge(state, now, ask)),
            (Second(state), Second(ask)) => second_verdict(B::judge(state, now, ask)),
            // A request is always sent to an owner of its own kind. For any other owner, the requested thing
            // does not exist.
            (First(_) | Second(_), ask) => Verdict::Refused(Self::absent(ask)),
        }
    }

    fn apply(state: &mut Self::State, entry: &Self::Entry) -> Self::Outcome {
        match (state, entry) {
            (First(state), First(entry)) => First(A::apply(state, entry)),
            (Second(state), Second(entry)) => Second(B::apply(state, entry)),
            (First(_) | Second(_), _) => panic!("an entry of another kind than its state"),
        }
    }

    fn is_refusal(outcome: &Self::Outcome) -> bool {
        match outcome {
            First(outcome) => A::is_refusal(outcome),
            Second(outcome) => B::is_refusal(outcome),
        }
    }

    fn absent(ask: &Self::Ask) -> Self::Outcome {
        match ask {
            First(ask) => First(A::absent(ask)),
            Second(ask) => Second(B::absent(ask)),
        }
    }

    fn version_of(entry: &Self::Entry) -> Option<u64> {
        match entry {
            First(entry) => A::version_of(entry),
            Second(entry) => B::version_of(entry),
        }
    }

    fn superseded(ask: &Self::Ask, outcome: &Self::Outcome) -> Option<Superseded> {
        match (ask, outcome) {
            (First(ask), First(outcome)) => A::superseded(ask, outcome),
            (Second(ask), Second(outcome)) => B::superseded(ask, outcome),
            (First(_), Second(_)) | (Second(_), First(_)) => None,
        }
    }

    fn run_length<'a>(entries: impl Iterator<Item = &'a Self::Entry>, rows_max: usize) -> usize {
        // All entries of one owner are of the same kind.
        let mut entries = entries.peekable();
        match entries.peek() {
            None => 0,
            Some(First(_)) => A::run_length(entries.map_while(Either::as_first), rows_max),
            Some(Second(_)) => B::run_length(entries.map_while(Either::as_second), rows_max),
        }
    }

    fn taken_along<'a>(
        entries: impl Iterator<Item = &'a Self::Entry>,
        length: usize,
        rows_max: usize,
    ) -> Vec<usize> {
        let mut entries = entries.peekable();
        match entries.peek() {
            None => Vec::new(),
            Some(First(_)) => A::taken_along(entries.map_while(Either::as_first), length, rows_max),
            Some(Second(_)) => B::taken_along(entries.map_while(Either::as_second), length, rows_max),
        }
    }

    fn run(entries: impl Iterator<Item = Self::Entry>) -> Self::Run {
        let mut entries = entries.peekable();
        match entries.peek() {
            Some(Second(_)) => Second(B::run(entries.filter_map(Either::second))),
            Some(First(_)) | None => First(A::run(entries.filter_map(Either::first))),
        }
    }

    fn may_be_joined(entry: &Self::Entry) -> bool {
        match entry {
            First(entry) => A::may_be_joined(entry),
            Second(entry) => B::may_be_joined(entry),
        }
    }

    fn is_exhausted(state: &Self::State) -> bool {
        match state {
            First(state) => A::is_exhausted(state),
            Second(state) => B::is_exhausted(state),
        }
    }

    fn notice(state: &mut Self::State) -> Option<Self::Notice> {
        match state {
            First(state) => A::notice(state).map(First),
            Second(state) => B::notice(state).map(Second),
        }
    }

    fn begin_load(id: Self::Id, ahead: Option<Self::Rows>) -> Self::PartialRows {
        match id {
            First(id) => First(A::begin_load(id, ahead.and_then(Either::first))),
            Second(id) => Second(B::begin_load(id, ahead.and_then(Either::second))),
        }
    }

    fn finish_load(reading: Self::PartialRows) -> Option<Self::Rows> {
        match reading {
            First(reading) => A::finish_load(reading).map(First),
            Second(reading) => B::finish_load(reading).map(Second),
        }
    }

    fn state(head: Self::Head, rows: Self::Rows) -> Self::State {
        match (head, rows) {
            (First(head), First(rows)) => First(A::state(head, rows)),
            (Second(head), Second(rows)) => Second(B::state(head, rows)),
            (First(_) | Second(_), _) => panic!("rows of another kind than their head"),
        }
    }

    fn entries(state: &Self::State) -> u64 {
        match state {
            First(state) => A::entries(state),
            Second(state) => B::entries(state),
        }
    }

    fn entries_max(state: &Self::State) -> Option<u64> {
        match state {
            First(state) => A::entries_max(state),
            Second(state) => B::entries_max(state),
        }
    }

    fn counts(state: &mut Self::State, now: Timestamp) -> [u64; COUNTS] {
        match state {
            First(state) => A::counts(state, now),
            Second(state) => B::counts(state, now),
        }
    }

    fn encode_id(id: Self::Id, bytes: &mut Vec<u8>) {
        match id {
            First(id) => {
                bytes.push(FIRST);
                A::encode_id(id, bytes);
            }
            Second(id) => {
                bytes.push(SECOND);
                B::encode_id(id, bytes);
            }
        }
    }

    fn decode_id(bytes: &[u8]) -> Result<Self::Id, DecodeError> {
        either(bytes, A::decode_id, B::decode_id)
    }

    fn encode_ask(ask: Self::Ask) -> Vec<u8> {
        match ask {
            First(ask) => tagged(FIRST, A::encode_ask(ask)),
            Second(ask) => tagged(SECOND, B::encode_ask(ask)),
        }
    }

    fn decode_ask(bytes: &[u8]) -> Result<Self::Ask, DecodeError> {
        either(bytes, A::decode_ask, B::decode_ask)
    }

    fn link_version(ask: &Self::Ask) -> u32 {
        match ask {
            First(ask) => A::link_version(ask),
            Second(ask) => B::link_version(ask),
        }
    }

    fn encode_outcome(outcome: Self::Outcome) -> Vec<u8> {
        match outcome {
            First(outcome) => tagged(FIRST, A::encode_outcome(outcome)),
            Second(outcome) => tagged(SECOND, B::encode_outcome(outcome)),
        }
    }

    fn decode_outcome(bytes: &[u8]) -> Result<Self::Outcome, DecodeError> {
        either(bytes, A::decode_outcome, B::decode_outcome)
    }
}
