//! Nodes and shards, as administrators see them.

use std::collections::HashMap;

use actors::ids::{CouponId, Incarnation, NodeId};

use super::engine::{ClusterView, NodeRow, NodeState, Refusal, ShardRow};
use super::{Error, Service};

impl Service {
    /// The id of this node.
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    /// Reads all nodes and shards.
    pub(crate) async fn cluster(&self) -> Result<ClusterView, Error> {
        let engine = self.engine()?.clone();
        self.read(engine.cluster()).await
    }

    /// Reads the shard of a coupon, and the nodes.
    pub(crate) async fn place(&self, coupon: CouponId) -> Result<(ShardRow, Vec<NodeRow>), Error> {
        let engine = self.engine()?.clone();
        let place = self.read(engine.place(coupon)).await?;
        place.ok_or_else(|| Refusal::UnknownCoupon.into())
    }
}

/// Ids of live nodes, by incarnation.
pub(crate) struct LiveNodes<'a>(HashMap<Incarnation, &'a str>);

impl<'a> LiveNodes<'a> {
    /// Collects the live nodes.
    pub(crate) fn new(nodes: &'a [NodeRow]) -> Self {
        let live = nodes.iter().filter(|node| node.state != NodeState::Ended);
        Self(live.map(|node| (node.incarnation, node.id.as_str())).collect())
    }

    /// Returns the id of the node that owns the shard; `None` if no live node owns it.
    pub(crate) fn owner(&self, shard: &ShardRow) -> Option<&'a str> {
        self.0.get(&shard.owner?).copied()
    }
}
