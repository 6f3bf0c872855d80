//! The rows of nodes and shards, and the changes to them.

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

/// A node's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub id: NodeId,
    /// Its current incarnation.
    pub incarnation: Incarnation,
    /// Number of beats of this incarnation.
    pub beat: u64,
    /// Its state, which the node wrote last, or `Ended` if another node ended it.
    pub state: NodeState,
    /// Its HTTP address.
    pub http: String,
    /// Its address for links; empty if it has no links.
    pub cluster: String,
    /// Nodes that it is linked to, as of its last beat; at most [`crate::ids::PEERS_MAX`].
    pub links: Vec<Incarnation>,
    /// The time for which it may decide after its last successful beat. `None` if the incarnation is of a
    /// release that does not say so.
    pub lease: Option<Duration>,
}

impl NodeRow {
    /// Returns the node's lease. A node that does not say so is taken to have the lease `ours`.
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
        })
    }
}

/// Returns the lease of the row's incarnation. A release without this column leaves there what the
/// incarnation before it had, so the row also says whose lease it is.
fn lease(row: &impl StoredRow) -> Result<Option<Duration>> {
    let micros: u64 = number(row, "lease")?;
    let is_its_own = row.integer("lease_of")? == row.integer("incarnation")?;
    Ok((is_its_own && micros > 0).then(|| Duration::from_micros(micros)))
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
