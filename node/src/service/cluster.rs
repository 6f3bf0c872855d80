//! Nodes and shards, as administrators see them.

use std::collections::HashMap;
use std::time::Duration;

use actors::coupon::ids::CouponId;
use actors::ids::{Incarnation, NodeId};
use actors::store::ClusterStore;

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

/// Interval between two checks whether other nodes use the database of a node without links.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Logs an error while other nodes use the database of a node without `cluster.listen`, for as long as the
/// future is polled. Such a node reaches no other, and only one of them can be ready.
pub(crate) async fn report_others(store: &dyn ClusterStore, me: &NodeId, lease: Duration) {
    if store.is_exclusive() {
        return;
    }
    loop {
        let before = store.nodes().await;
        tokio::time::sleep(lease).await;
        if let (Ok(before), Ok(now)) = (before, store.nodes().await) {
            let others = beating(&before, &now, me);
            if !others.is_empty() {
                tracing::error!(
                    others = others.join(", "),
                    "cluster.listen is not set, but other nodes use this database: set it and the keys of a \
                     cluster, or give this node a database of its own"
                );
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Returns the other nodes that beat between two reads, with their addresses.
fn beating(before: &[NodeRow], now: &[NodeRow], me: &NodeId) -> Vec<String> {
    let has_beaten = |row: &&NodeRow| {
        let is_as_before =
            |old: &NodeRow| (&old.id, old.incarnation, old.beat) == (&row.id, row.incarnation, row.beat);
        row.id != *me && row.state != NodeState::Ended && !before.iter().any(is_as_before)
    };
    let shown = |row: &NodeRow| match row.cluster.as_str() {
        "" => row.id.to_string(),
        address => format!("{} at {address}", row.id),
    };
    now.iter().filter(has_beaten).map(shown).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, beat: u64, state: NodeState, cluster: &str) -> NodeRow {
        NodeRow {
            beat,
            state,
            cluster: cluster.to_owned(),
            ..NodeRow::new(NodeId::parse(id).unwrap(), Incarnation::new(7).unwrap())
        }
    }

    #[test]
    fn only_other_nodes_that_beat_are_named() {
        let rows = |beat| {
            [
                row("me", beat, NodeState::Ready, ""),
                row("a", beat, NodeState::Ready, "10.0.0.1:7400"),
                row("alone", beat, NodeState::Joining, ""),
                row("killed", 4, NodeState::Ready, "10.0.0.2:7400"),
                row("ended", beat, NodeState::Ended, "10.0.0.3:7400"),
            ]
        };
        let me = NodeId::parse("me").unwrap();
        assert_eq!(beating(&rows(1), &rows(2), &me), ["a at 10.0.0.1:7400", "alone"]);
        assert_eq!(beating(&rows(2), &rows(2), &me), Vec::<String>::new());
    }
}
