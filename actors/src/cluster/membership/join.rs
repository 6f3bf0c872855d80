//! Joining: each node id has one row, and a node that joins writes its fresh incarnation in place of the
//! previous one.

use crate::cluster::membership::Options;
use crate::ids::{Incarnation, NodeId};
use crate::peer_names;
use crate::store::{ClusterStore, NodeRow, NodeState, Result, StoreError};
use crate::time;

/// Maximum number of attempts to join while other nodes write the same row.
const JOIN_ATTEMPTS: u32 = 5;

/// What the row of an earlier node of the same name means for a node that joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// There is no such row, or its incarnation was ended.
    None,
    /// The row has the address at which this node listens now. So the incarnation in the row is over, and
    /// this node is its restart.
    Restarted,
    /// The row has another address, and its node may be alive. The row is watched for the time of a lease.
    Elsewhere,
}

impl Predecessor {
    /// Returns what this row means for a node whose links are reached at `cluster`. Nodes without links
    /// differ by their names alone.
    pub fn of(row: Option<&NodeRow>, cluster: &str) -> Self {
        match row {
            Some(row) if row.state != NodeState::Ended && row.cluster == cluster => Self::Restarted,
            Some(row) if row.state != NodeState::Ended => Self::Elsewhere,
            Some(_) | None => Self::None,
        }
    }
}

/// Writes this node's row with a fresh incarnation, which ends a predecessor of the same name. Returns the
/// incarnation, and the rows of all nodes after the join.
pub(super) async fn join(options: &Options, store: &dyn ClusterStore) -> Result<(Incarnation, Vec<NodeRow>)> {
    for _ in 0..JOIN_ATTEMPTS {
        let mut predecessor = find(&options.node, store).await?;
        if Predecessor::of(predecessor.as_ref(), &options.cluster) == Predecessor::Elsewhere
            && !store.is_exclusive()
        {
            predecessor = watch(options, store, predecessor).await?;
        }
        let incarnation = Incarnation::random();
        let row = NodeRow {
            id: options.node.clone(),
            incarnation,
            beat: 0,
            state: NodeState::Joining,
            http: options.http.clone(),
            cluster: options.cluster.clone(),
            links: Vec::new(),
            lease: Some(options.lease),
        };
        if store.join(&row, predecessor.map(|row| row.incarnation)).await? {
            end_dead_nodes(incarnation, store).await?;
            tracing::info!(node = %options.node, %incarnation, "joined");
            return Ok((incarnation, store.nodes().await?));
        }
    }
    Err(StoreError::NotStored(format!(
        "another node keeps joining as {}",
        options.node
    )))
}

async fn find(id: &NodeId, store: &dyn ClusterStore) -> Result<Option<NodeRow>> {
    let rows = store.nodes().await?;
    // This node may claim shards of its predecessor, whose row it is about to replace.
    rows.iter()
        .for_each(|row| peer_names::learn(row.incarnation, &row.id));
    Ok(rows.into_iter().find(|row| row.id == *id))
}

/// Watches the row for the time of a lease, to see whether a node of this name is alive elsewhere. If no such
/// node is alive, returns the row as it is at the end.
async fn watch(
    options: &Options,
    store: &dyn ClusterStore,
    seen: Option<NodeRow>,
) -> Result<Option<NodeRow>> {
    let begun = time::moment();
    let address = seen.as_ref().map(|row| row.cluster.clone()).unwrap_or_default();
    tracing::warn!(
        node = %options.node, address,
        "a node of this name has another address; watching it for a lease"
    );
    loop {
        tokio::time::sleep(options.beat.min(options.lease)).await;
        let asked_at = time::moment();
        let now = find(&options.node, store).await?;
        let stands_still = match (&now, &seen) {
            (Some(now), Some(seen)) => {
                now.state == NodeState::Ended || (now.incarnation, now.beat) == (seen.incarnation, seen.beat)
            }
            _ => true,
        };
        if !stands_still {
            return Err(StoreError::NotStored(format!(
                "a node named {} lives at {address}: node names must be unique",
                options.node
            )));
        }
        if asked_at.since(begun) >= options.lease {
            return Ok(now);
        }
    }
}

/// Ends all other nodes if only one node at a time can open the store. The other nodes are dead then, so
/// their rows need not be watched for a lease.
async fn end_dead_nodes(me: Incarnation, store: &dyn ClusterStore) -> Result<()> {
    if !store.is_exclusive() {
        return Ok(());
    }
    for row in store.nodes().await? {
        if row.incarnation != me && row.state != NodeState::Ended && store.end(me, &row).await? {
            tracing::info!(
                node = %row.id, incarnation = %row.incarnation,
                "ended a node: no other node can have this store open"
            );
        }
    }
    Ok(())
}
