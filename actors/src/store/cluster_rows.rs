//! The rows of nodes and shards, and the changes to them.

use crate::ids::{Epoch, Fence, Incarnation, NodeId, ShardId};

/// The state a node gives itself in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Joined, not serving yet.
    Joining,
    /// Serving, or about to claim what it is to serve.
    Ready,
    /// Draining.
    Leaving,
    /// Not living any more: ended by itself or by another.
    Ended,
}

impl NodeState {
    /// The name in rows and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Leaving => "leaving",
            Self::Ended => "ended",
        }
    }

    /// The inverse of [`Self::as_str`].
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
    /// Its present life.
    pub incarnation: Incarnation,
    /// How often this life has beaten.
    pub beat: u64,
    /// What it says of itself.
    pub state: NodeState,
    /// Where its HTTP is reached.
    pub http: String,
    /// Where its links are reached; empty where there are none.
    pub cluster: String,
    /// Nodes that it is linked to, as of its last beat; at most [`crate::ids::PEERS_MAX`].
    pub links: Vec<Incarnation>,
}

/// A shard's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardRow {
    /// Which shard.
    pub id: ShardId,
    /// Its ownership number; 0 before the first claim.
    pub epoch: Epoch,
    /// Who owns it, if anybody.
    pub owner: Option<Incarnation>,
}

/// A compare-and-set of one shard's ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The shard as it was read.
    pub seen: ShardRow,
    /// Who is to own it, in the next epoch.
    pub claimant: Incarnation,
}

/// A compare-and-set by which an owner gives a shard to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOff {
    /// Which shard.
    pub shard: ShardId,
    /// The fence under which it is given up.
    pub from: Fence,
    /// Who is to own it, in the next epoch.
    pub to: Incarnation,
}
