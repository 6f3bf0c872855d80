//! The rows of nodes and shards, and the changes to them.

use std::cmp::Reverse;
use std::time::Duration;

use super::columns::{StoredRow, number, readable};
use super::{Result, links};
use crate::ids::{Epoch, Fence, Incarnation, NodeId, ShardId};

/// The state of a node, as written in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// The node has joined, and does not serve yet.
    Joining,
    /// The node serves, or is about to claim shards.
    Ready,
    /// The node drains.
    Leaving,
    /// The node is dead: it ended itself, or another node ended it.
    Ended,
}

impl NodeState {
    /// Returns the name in rows and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Leaving => "leaving",
            Self::Ended => "ended",
        }
    }

    /// Returns the state with this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Joining, Self::Ready, Self::Leaving, Self::Ended]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// Maximum number of rows of ended nodes that stay: enough to see what happened lately, and few enough for
/// every beat to read them.
pub const ENDED_ROWS_MAX: usize = 200;
/// How long the row of an ended node stays, in seconds.
const ENDED_ROW_SECONDS: i64 = 24 * 60 * 60;
/// Maximum number of rows that one call marks, and of rows that it removes, so that the call ends within its
/// time limit.
const SWEPT_MAX: usize = 500;

/// A node's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub id: NodeId,
    /// Its current incarnation.
    pub incarnation: Incarnation,
    /// Number of beats of this incarnation.
    pub beat: u64,
    /// The state that the node wrote last, or `Ended` if another node ended it.
    pub state: NodeState,
    /// Its HTTP address.
    pub http: String,
    /// Its address for links; empty if it has no links.
    pub cluster: String,
    /// Nodes that it is linked to, as of its last beat; at most [`crate::ids::PEERS_MAX`].
    pub links: Vec<Incarnation>,
    /// The time for which it may decide after its last successful beat. `None` if the incarnation is of a
    /// release that does not write it.
    pub lease: Option<Duration>,
    /// How long ago it was ended, at least, by the database's clock. `None` if it lives, or if nothing noted
    /// when it was ended.
    pub ended_for: Option<Duration>,
}

impl NodeRow {
    /// Makes the row of a node that joins, without addresses and links, and without saying its lease.
    pub fn new(id: NodeId, incarnation: Incarnation) -> Self {
        Self {
            id,
            incarnation,
            beat: 0,
            state: NodeState::Joining,
            http: String::new(),
            cluster: String::new(),
            links: Vec::new(),
            lease: None,
            ended_for: None,
        }
    }

    /// Makes the row of a ready node that has this number in its name and as its incarnation.
    #[cfg(test)]
    pub(crate) fn ready(number: u64, beat: u64) -> Self {
        let id = NodeId::parse(&format!("node-{number}")).expect("this is a name");
        Self {
            beat,
            state: NodeState::Ready,
            ..Self::new(id, Incarnation::new(number).expect("this is an incarnation"))
        }
    }

    /// Returns the node's lease. A node whose row has none is taken to have the lease `ours`.
    pub fn lease_or(&self, ours: Duration) -> Duration {
        self.lease.unwrap_or(ours)
    }

    /// Returns what the column `lease` holds: whole microseconds, 0 if unknown.
    pub(super) fn lease_micros(&self) -> i64 {
        let micros = self.lease.map_or(0, |lease| lease.as_micros());
        i64::try_from(micros).unwrap_or(i64::MAX)
    }

    /// Reads the row with its columns.
    pub(super) fn read(row: &impl StoredRow) -> Result<Self> {
        Ok(Self {
            id: readable(NodeId::parse(row.text("node_id")?).ok(), "node_id")?,
            incarnation: readable(Incarnation::new(number(row, "incarnation")?), "incarnation")?,
            beat: number(row, "beat")?,
            state: readable(NodeState::parse(row.text("state")?), "state")?,
            http: row.text("http")?.to_owned(),
            cluster: row.text("cluster")?.to_owned(),
            links: readable(links::parse(row.text("links")?), "links")?,
            lease: lease(row)?,
            ended_for: ended_for(row)?,
        })
    }
}

/// Returns the lease of the row's incarnation. A release that does not know the column leaves an earlier
/// incarnation's lease in it. So the row also names the incarnation that the lease belongs to.
fn lease(row: &impl StoredRow) -> Result<Option<Duration>> {
    let micros: u64 = number(row, "lease")?;
    Ok((is_of_its_incarnation(row)? && micros > 0).then(|| Duration::from_micros(micros)))
}

/// Returns how long ago the row's incarnation was ended, at least. Both times are in whole seconds, rounded
/// down. A release without this column leaves there what it had, as with the lease.
fn ended_for(row: &impl StoredRow) -> Result<Option<Duration>> {
    let (ended_at, asked_at) = (row.integer("ended_at")?, row.integer("asked_at")?);
    let is_known = ended_at != 0 && row.text("state")? == NodeState::Ended.as_str();
    if !is_known || !is_of_its_incarnation(row)? {
        return Ok(None);
    }
    let seconds = asked_at.saturating_sub(ended_at).saturating_sub(1);
    Ok(Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

/// Returns true if the row's incarnation wrote `lease` and `ended_at` when it joined.
fn is_of_its_incarnation(row: &impl StoredRow) -> Result<bool> {
    Ok(row.integer("lease_of")? == row.integer("incarnation")?)
}

/// The row of an ended node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndedRow {
    pub(super) id: NodeId,
    pub(super) incarnation: Incarnation,
    /// When the node was ended, in seconds since 1970, or when its row was first seen ended; 0 if that was
    /// not noted yet.
    pub(super) ended_at: i64,
}

impl EndedRow {
    /// Reads the row with its columns.
    pub(super) fn read(row: &impl StoredRow) -> Result<Self> {
        Ok(Self {
            id: readable(NodeId::parse(row.text("node_id")?).ok(), "node_id")?,
            incarnation: readable(Incarnation::new(number(row, "incarnation")?), "incarnation")?,
            ended_at: row.integer("ended_at")?,
        })
    }
}

/// What is to be done about the rows of ended nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sweep {
    /// Rows in which the time is to be noted.
    pub(super) mark: Vec<EndedRow>,
    /// Rows to remove, the oldest first.
    pub(super) remove: Vec<EndedRow>,
}

impl Sweep {
    /// Plans a call at this time of the database's clock. Removing a row lets no incarnation return: a beat
    /// changes only a live row of its own incarnation, and never makes one.
    pub(super) fn plan(now: i64, mut rows: Vec<EndedRow>) -> Self {
        // Rows without a time count as the newest.
        rows.sort_by_key(|row| Reverse((row.ended_at == 0, row.ended_at)));
        let mut sweep = Self::default();
        for (place, row) in rows.into_iter().enumerate() {
            let is_old = row.ended_at != 0 && now.saturating_sub(row.ended_at) >= ENDED_ROW_SECONDS;
            if is_old || place >= ENDED_ROWS_MAX {
                sweep.remove.push(row);
            } else if row.ended_at == 0 {
                sweep.mark.push(row);
            }
        }
        sweep.remove.reverse();
        sweep.remove.truncate(SWEPT_MAX);
        sweep.mark.truncate(SWEPT_MAX);
        sweep
    }
}

/// A shard's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardRow {
    /// Which shard.
    pub id: ShardId,
    /// Its ownership number; 0 before the first claim.
    pub epoch: Epoch,
    /// Its owner, if it has one.
    pub owner: Option<Incarnation>,
}

impl ShardRow {
    /// Reads the row with its columns.
    pub(super) fn read(row: &impl StoredRow) -> Result<Self> {
        let owner = row.optional_integer("owner")?;
        let owner =
            owner.map(|owner| readable(u64::try_from(owner).ok().and_then(Incarnation::new), "owner"));
        Ok(Self {
            id: readable(ShardId::new(number(row, "shard_id")?), "shard_id")?,
            epoch: Epoch::new(number(row, "epoch")?),
            owner: owner.transpose()?,
        })
    }
}

/// A compare-and-set of one shard's ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The shard as it was read.
    pub seen: ShardRow,
    /// Its owner in the next epoch.
    pub claimant: Incarnation,
}

impl Claim {
    /// Returns the fence that the claimant has if the claim succeeded. `row` is the shard's row after the
    /// claim.
    pub fn fence(&self, row: &ShardRow) -> Option<Fence> {
        let claimed = row.owner == Some(self.claimant) && row.epoch > self.seen.epoch;
        claimed.then_some(Fence {
            epoch: row.epoch,
            owner: self.claimant,
        })
    }
}

/// A compare-and-set by which the owner hands a shard off to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOff {
    /// Which shard.
    pub shard: ShardId,
    /// The fence under which the present owner has it.
    pub from: Fence,
    /// Its owner in the next epoch.
    pub to: Incarnation,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn ended(number: u64, ended_at: i64) -> EndedRow {
        EndedRow {
            id: NodeId::parse(&format!("node-{number}")).unwrap(),
            incarnation: Incarnation::new(number).unwrap(),
            ended_at,
        }
    }

    /// A row of the incarnation 7.
    struct Columns {
        lease: i64,
        lease_of: i64,
        state: &'static str,
        ended_at: i64,
    }

    const ROW: Columns = Columns {
        lease: 3_000_000,
        lease_of: 7,
        state: "ended",
        ended_at: 0,
    };

    impl StoredRow for Columns {
        fn integer(&self, column: &str) -> Result<i64> {
            Ok(match column {
                "lease" => self.lease,
                "lease_of" => self.lease_of,
                "ended_at" => self.ended_at,
                "asked_at" => NOW,
                _ => 7,
            })
        }

        fn optional_integer(&self, column: &str) -> Result<Option<i64>> {
            self.integer(column).map(Some)
        }

        fn text(&self, column: &str) -> Result<&str> {
            Ok(match column {
                "state" => self.state,
                "links" => "",
                _ => "a",
            })
        }

        fn optional_text(&self, column: &str) -> Result<Option<&str>> {
            self.text(column).map(Some)
        }
    }

    #[test]
    fn a_lease_that_an_earlier_release_left_in_the_row_is_unknown() {
        let row = |lease, lease_of| {
            NodeRow::read(&Columns {
                lease,
                lease_of,
                ..ROW
            })
            .unwrap()
        };
        let lease = |micros, of| row(micros, of).lease;
        assert_eq!(lease(3_000_000, 7), Some(Duration::from_secs(3)));
        assert_eq!(lease(3_000_000, 6), None);
        assert_eq!(lease(0, 0), None);
        assert_eq!(lease(0, 7), None);
        assert_eq!(row(0, 0).lease_or(Duration::from_secs(5)), Duration::from_secs(5));
        assert_eq!(row(0, 0).lease_micros(), 0);
    }

    #[test]
    fn a_row_says_how_long_ago_its_node_was_ended_at_least() {
        let ended_for = |row: Columns| NodeRow::read(&row).unwrap().ended_for;
        let ended = |ended_at| Columns { ended_at, ..ROW };
        assert_eq!(ended_for(ended(NOW - 10)), Some(Duration::from_secs(9)));
        // The clock of the database was set back.
        assert_eq!(ended_for(ended(NOW + 10)), Some(Duration::ZERO));
        assert_eq!(ended_for(ended(0)), None);
        let (state, lease_of) = ("ready", 6);
        assert_eq!(
            ended_for(Columns {
                state,
                ..ended(NOW - 10)
            }),
            None
        );
        assert_eq!(
            ended_for(Columns {
                lease_of,
                ..ended(NOW - 10)
            }),
            None,
            "an earlier release left there when the incarnation before was ended"
        );
    }

    #[test]
    fn ended_rows_are_marked_first_and_removed_a_day_later() {
        let rows = vec![
            ended(1, NOW - ENDED_ROW_SECONDS),
            ended(2, NOW - ENDED_ROW_SECONDS + 1),
            ended(3, 0),
            ended(4, NOW + 1_000),
        ];
        let expected = Sweep {
            mark: vec![ended(3, 0)],
            remove: vec![ended(1, NOW - ENDED_ROW_SECONDS)],
        };
        assert_eq!(Sweep::plan(NOW, rows), expected);
        assert_eq!(Sweep::plan(NOW, Vec::new()), Sweep::default());
    }

    #[test]
    fn of_many_ended_rows_the_oldest_are_removed_some_hundreds_at_a_time() {
        let many = (1..=5_000).map(|number| ended(number, NOW - i64::try_from(number).unwrap()));
        let Sweep { mark, remove } = Sweep::plan(NOW, many.collect());
        assert_eq!((mark.len(), remove.len()), (0, SWEPT_MAX));
        assert_eq!(remove[0], ended(5_000, NOW - 5_000));
        let few = (1..=203).map(|number| ended(number, i64::from(number > 3) * (NOW - 1)));
        let Sweep { mark, remove } = Sweep::plan(NOW, few.collect());
        assert_eq!((mark.len(), remove.len()), (3, 3), "unknown times are the newest");
        assert!(remove.iter().all(|row| row.ended_at == NOW - 1));
    }
}
