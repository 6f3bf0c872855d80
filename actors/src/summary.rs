//! Sums up what happens to many shards, owners or portions at about the same time, so that the log has one
//! line for all of them. Each of them is also logged by itself, at debug level, where it happens.
//!
//! A process has one log, and so it has one summary, as it has one set of metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::ids::Incarnation;
use crate::peer_names;
use crate::time::{self, Moment};

/// If no other occurrence of a kind follows for this time, the line of that kind is logged. It is longer than
/// the pauses within one move of many shards, which takes several beats.
const QUIET: Duration = Duration::from_millis(500);
/// Longest time from the first occurrence of a kind to its line.
const HELD_MAX: Duration = Duration::from_secs(3);
/// Maximum number of lines that are summed up at the same time. Beyond this number, peers are not told apart.
const LINES_MAX: usize = 64;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Occurrence {
    ShardClaimed,
    ShardReceived,
    ShardHandedOff,
    ShardReleased,
    EpochRaised,
    ShardLost,
    ShardLostBeforeHandOff,
    ShardLocked,
    OwnerNotChanged,
    HandOffUnknown,
    EpochNotRaised,
    PortionFenced,
    PortionGivenUp,
    LoadAheadFailed,
    LoadFailed,
    SlowCommit,
}

/// How severe an occurrence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Normal,
    Warning,
    Error,
}

impl Occurrence {
    const fn message(self) -> &'static str {
        match self {
            Self::ShardClaimed => "claimed shards",
            Self::ShardReceived => "received shards",
            Self::ShardHandedOff => "handed shards off",
            Self::ShardReleased => "released shards",
            Self::EpochRaised => "raised the epochs of shards",
            Self::ShardLost => "another node owns these shards now",
            Self::ShardLostBeforeHandOff => "shards were lost before their hand-off",
            Self::ShardLocked => "shards were not handed off yet: their rows are locked",
            Self::OwnerNotChanged => "the owners of shards were not changed",
            Self::HandOffUnknown => "shards may not have been handed off",
            Self::EpochNotRaised => "the epochs of shards were not raised yet",
            Self::PortionFenced => "portions were fenced: their shards have another owner or epoch",
            Self::PortionGivenUp => "the lease ended before portions were known to be stored",
            Self::LoadAheadFailed => "loading ahead failed",
            Self::LoadFailed => "loading failed",
            Self::SlowCommit => "commits were slow",
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Self::ShardClaimed
            | Self::ShardReceived
            | Self::ShardHandedOff
            | Self::ShardReleased
            | Self::EpochRaised => Severity::Normal,
            Self::ShardLost
            | Self::ShardLostBeforeHandOff
            | Self::ShardLocked
            | Self::OwnerNotChanged
            | Self::HandOffUnknown
            | Self::EpochNotRaised
            | Self::PortionFenced
            | Self::PortionGivenUp
            | Self::LoadAheadFailed
            | Self::SlowCommit => Severity::Warning,
            Self::LoadFailed => Severity::Error,
        }
    }
}

/// What one line is about.
type Subject = (Occurrence, Option<Incarnation>);

#[derive(Debug, PartialEq, Eq)]
struct Sum {
    count: u64,
    first: Moment,
    last: Moment,
    /// The description of the first occurrence, if it had one.
    example: Option<String>,
}

#[derive(Debug)]
struct Sums(BTreeMap<Subject, Sum>);

impl Sums {
    fn add(&mut self, now: Moment, (occurrence, peer): Subject, example: Option<String>) {
        let is_full = self.0.len() >= LINES_MAX && !self.0.contains_key(&(occurrence, peer));
        let subject = (occurrence, peer.filter(|_| !is_full));
        let sum = self.0.entry(subject).or_insert(Sum {
            count: 0,
            first: now,
            last: now,
            example,
        });
        sum.count += 1;
        sum.last = now;
    }

    /// Removes and returns the sums whose lines are due.
    fn due(&mut self, now: Moment) -> Vec<(Subject, Sum)> {
        let is_due = |sum: &Sum| now.since(sum.last) >= QUIET || now.since(sum.first) >= HELD_MAX;
        self.0.extract_if(.., |_, sum| is_due(sum)).collect()
    }
}

static SUMS: Mutex<Sums> = Mutex::new(Sums(BTreeMap::new()));

fn sums() -> MutexGuard<'static, Sums> {
    SUMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts an occurrence that involves this peer, if there is one. `example` describes it for the log.
pub(crate) fn count(occurrence: Occurrence, peer: Option<Incarnation>, example: Option<String>) {
    sums().add(time::moment(), (occurrence, peer), example);
}

/// Logs the lines that are due. Called at every beat.
pub(crate) fn log_due() {
    let due = sums().due(time::moment());
    due.into_iter().for_each(log);
}

/// Logs all lines, also those that are not due.
pub(crate) fn log_all() {
    let all = std::mem::take(&mut sums().0);
    all.into_iter().for_each(log);
}

fn log(((occurrence, peer), sum): (Subject, Sum)) {
    let (message, peer) = (occurrence.message(), peer.map(peer_names::of));
    let Sum { count, example, .. } = sum;
    match occurrence.severity() {
        Severity::Normal => tracing::info!(count, peer, example, "{message}"),
        Severity::Warning => tracing::warn!(count, peer, example, "{message}"),
        Severity::Error => tracing::error!(count, peer, example, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    fn claimed(by: u64) -> Subject {
        (Occurrence::ShardClaimed, Incarnation::new(by))
    }

    fn counts(due: &[(Subject, Sum)]) -> Vec<(Subject, u64)> {
        due.iter().map(|(subject, sum)| (*subject, sum.count)).collect()
    }

    #[test]
    fn a_move_of_many_shards_is_logged_by_one_line_for_each_peer_after_its_end() {
        let mut sums = Sums(BTreeMap::new());
        // 128 shards, 32 at each beat.
        for round in 0..4 {
            for _ in 0..32 {
                sums.add(at(round * 300), claimed(1), None);
            }
            assert_eq!(sums.due(at(round * 300 + 299)), []);
        }
        sums.add(at(1_000), claimed(2), Some("shard 7".to_owned()));
        sums.add(at(1_200), claimed(2), Some("shard 8".to_owned()));
        assert_eq!(counts(&sums.due(at(1_400))), [(claimed(1), 128)]);
        let last = sums.due(at(1_700));
        assert_eq!(counts(&last), [(claimed(2), 2)]);
        assert_eq!(last[0].1.example.as_deref(), Some("shard 7"));
        assert_eq!(sums.due(at(9_000)), []);
    }

    #[test]
    fn occurrences_that_go_on_without_a_pause_are_logged_all_the_same() {
        let mut sums = Sums(BTreeMap::new());
        let mut lines = Vec::new();
        for beat in 0..=10 {
            sums.add(at(beat * 300), (Occurrence::ShardLocked, None), None);
            lines.extend(counts(&sums.due(at(beat * 300))));
        }
        assert_eq!(lines, [((Occurrence::ShardLocked, None), 11)]);
    }

    #[test]
    fn beyond_the_bound_peers_are_not_told_apart() {
        let mut sums = Sums(BTreeMap::new());
        for peer in 1..=1_000 {
            sums.add(at(0), claimed(peer), None);
        }
        assert_eq!(sums.0.len(), LINES_MAX + 1);
        assert_eq!(
            sums.0[&(Occurrence::ShardClaimed, None)].count,
            1_000 - LINES_MAX as u64
        );
    }
}
