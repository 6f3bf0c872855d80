//! Joining: one row a node id, replaced by a fresh incarnation's.

use crate::cluster::membership::Options;
use crate::ids::{Incarnation, NodeId};
use crate::store::{ClusterStore, NodeRow, NodeState, Result, StoreError};
use crate::time;

/// How often joining is tried against others who write the same row, before it is given up.
const JOIN_ATTEMPTS: u32 = 5;

/// What stands in the way of a node of this name and address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// Nothing, or a life that is over.
    None,
    /// One at the same address, where we listen now: it is over, and we are its restart.
    Restarted,
    /// One at another address, which may live: it is watched for a lease.
    Elsewhere,
}

impl Predecessor {
    /// What this row is to a node whose links are reached at `cluster`. Nodes without links are told apart by
    /// nothing but their name.
    pub fn of(row: Option<&NodeRow>, cluster: &str) -> Self {
        match row {
            Some(row) if row.state != NodeState::Ended && row.cluster == cluster => Self::Restarted,
            Some(row) if row.state != NodeState::Ended => Self::Elsewhere,
            Some(_) | None => Self::None,
        }
    }
}

/// Puts this node's row in place with a fresh incarnation, and so ends a predecessor of the same name. With
/// the rows as they are then.
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
        };
        if store.join(&row, predecessor.map(|row| row.incarnation)).await? {
            end_the_dead(incarnation, store).await?;
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
    Ok(store.nodes().await?.into_iter().find(|row| row.id == *id))
}

/// Looks for a lease whether a node of our name lives elsewhere. The row as it is after that, if it does not.
async fn watch(
    options: &Options,
    store: &dyn ClusterStore,
    seen: Option<NodeRow>,
) -> Result<Option<NodeRow>> {
    let begun = time::moment();
    let address = seen.as_ref().map(|row| row.cluster.clone()).unwrap_or_default();
    tracing::warn!(node = %options.node, address, "a node of this name was elsewhere; watching for a lease whether it lives");
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
                "a node named {} lives at {address}: names must differ",
                options.node
            )));
        }
        if asked_at.since(begun) >= options.lease {
            return Ok(now);
        }
    }
}

/// In a store that one node at a time can open, all other rows are those of nodes that died: none needs to be
/// watched for a lease.
async fn end_the_dead(me: Incarnation, store: &dyn ClusterStore) -> Result<()> {
    if !store.is_exclusive() {
        return Ok(());
    }
    for row in store.nodes().await? {
        if row.incarnation != me && row.state != NodeState::Ended && store.end(me, &row).await? {
            tracing::info!(node = %row.id, incarnation = %row.incarnation, "ended: nobody else can have this store open");
        }
    }
    Ok(())
}
