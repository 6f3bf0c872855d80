//! Joining: each node id has one row, and a node that joins writes its fresh incarnation in place of the
//! previous one.

use crate::cluster::membership::Options;
use crate::cluster::membership::life_record::LifeRecord;
use crate::ids::{Incarnation, NodeId};
use crate::peer_names;
use crate::store::{ClusterStore, NodeRow, NodeState, Result, StoreError};
use crate::time;

/// Maximum number of attempts to join while other nodes write the same row.
const JOIN_ATTEMPTS: u32 = 5;

/// Why a node does not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The store failed.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// Another process has joined as this node and beats.
    #[error("another process runs as the node {node}, with HTTP at {http} and links at {links}")]
    Taken {
        /// The name of both processes.
        node: NodeId,
        /// The address at which the other process serves HTTP.
        http: String,
        /// The address at which the other process accepts links; a dash if it has none.
        links: String,
    },
}

/// What the row of an earlier process of the same name means for a node that joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// There is no such row, or its incarnation is over.
    Over,
    /// Its process may be alive. Even an address equal to this node's proves nothing, because the address may
    /// be one that is reached only from its own machine. The row is watched for the lease of that
    /// incarnation.
    MayLive,
}

impl Predecessor {
    /// Returns what this row means for a node with this record of its incarnations.
    pub fn of(row: Option<&NodeRow>, record: &LifeRecord) -> Self {
        match row {
            Some(row) if row.state != NodeState::Ended && !record.is_over(row.incarnation) => Self::MayLive,
            Some(_) | None => Self::Over,
        }
    }
}

/// Writes this node's row with a fresh incarnation, which ends a predecessor of the same name. Returns the
/// incarnation, and the rows of all nodes after the join.
pub(super) async fn join(
    options: &Options,
    store: &dyn ClusterStore,
) -> std::result::Result<(Incarnation, Vec<NodeRow>), JoinError> {
    for _ in 0..JOIN_ATTEMPTS {
        let mut predecessor = find(&options.node, store).await?;
        if !store.is_exclusive()
            && Predecessor::of(predecessor.as_ref(), &options.record) == Predecessor::MayLive
            && let Some(seen) = predecessor
        {
            predecessor = watch(options, store, seen).await?;
        }
        let incarnation = Incarnation::random();
        let row = NodeRow {
            http: options.http.clone(),
            cluster: options.cluster.clone(),
            lease: Some(options.lease),
            ..NodeRow::new(options.node.clone(), incarnation)
        };
        options.record.begin(incarnation);
        if store.join(&row, predecessor.map(|row| row.incarnation)).await? {
            end_dead_nodes(incarnation, store).await?;
            tracing::info!(node = %options.node, %incarnation, "joined");
            return Ok((incarnation, store.nodes().await?));
        }
    }
    let why = format!("another node keeps joining as {}", options.node);
    Err(StoreError::NotStored(why).into())
}

async fn find(id: &NodeId, store: &dyn ClusterStore) -> Result<Option<NodeRow>> {
    let rows = store.nodes().await?;
    // This node may claim shards of its predecessor, whose row it is about to replace.
    rows.iter()
        .for_each(|row| peer_names::learn(row.incarnation, &row.id));
    Ok(rows.into_iter().find(|row| row.id == *id))
}

/// Watches the row until it is ended, or for the lease of its incarnation, to see whether a process of this
/// name is alive. If no such process is alive, returns the row as it is at the end.
async fn watch(
    options: &Options,
    store: &dyn ClusterStore,
    seen: NodeRow,
) -> std::result::Result<Option<NodeRow>, JoinError> {
    let (begun, lease) = (time::moment(), seen.lease_or(options.lease));
    tracing::warn!(
        node = %options.node, http = seen.http, cluster = seen.cluster, ?lease,
        "a process of this name may be alive; watching its row for its lease"
    );
    loop {
        tokio::time::sleep(options.beat.min(lease)).await;
        let asked_at = time::moment();
        let Some(now) = find(&options.node, store).await? else {
            return Ok(None);
        };
        if now.state == NodeState::Ended {
            return Ok(Some(now));
        }
        if (now.incarnation, now.beat) != (seen.incarnation, seen.beat) {
            let links = Some(now.cluster).filter(|address| !address.is_empty());
            return Err(JoinError::Taken {
                node: now.id,
                http: now.http,
                links: links.unwrap_or_else(|| "-".to_owned()),
            });
        }
        if asked_at.since(begun) >= lease {
            return Ok(Some(now));
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
