//! Wires owners, shards, lanes, membership and door into one engine, and starts and stops it. What a gateway holds.

use std::sync::Arc;
use std::time::Duration;

use crate::coupon::message::{Change, ChangeAnswer, IssueAnswer};
use crate::ids::{CouponId, NodeId, RequestKey, ShardId, UserId};
use crate::store::{NodeRow, Result, ShardRow, Store, StoreError};

/// How an engine is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// This node's name.
    pub node: NodeId,
    /// Where its HTTP is reached.
    pub http: String,
    /// How long a node may decide after its last successful beat was sent.
    pub lease: Duration,
    /// Time between beats.
    pub beat: Duration,
    /// An owner without requests for so long is unloaded.
    pub idle: Duration,
}

/// Why an engine is not ready, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// It has not claimed its shards yet.
    Starting,
    /// It is stopping.
    Draining,
    /// Its lease ran out.
    NoLease,
    /// The store does not take what is decided.
    NoStore,
}

/// The nodes and shards as the store has them.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// All nodes.
    pub nodes: Vec<NodeRow>,
    /// All shards.
    pub shards: Vec<ShardRow>,
}

/// The engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    store: Arc<dyn Store>,
}

impl Engine {
    /// Joins the cluster, claims shards and serves.
    pub async fn start(_options: Options, store: Arc<dyn Store>) -> Result<Self> {
        Ok(Self { store })
    }

    /// Asks the coupon's owner to give it to the user. Answers within `deadline`.
    ///
    /// Cancel safety: a dropped future may leave the request decided; asking again with the same key finds it.
    pub async fn issue(&self, _coupon: CouponId, _user: UserId, _key: RequestKey, _deadline: Duration) -> IssueAnswer {
        std::future::pending().await
    }

    /// Asks the coupon's owner for a change. Answers within `deadline`.
    ///
    /// Cancel safety: a dropped future may leave the change made.
    pub async fn change(&self, _coupon: CouponId, _change: Change, _if_version: Option<u64>, _deadline: Duration) -> ChangeAnswer {
        std::future::pending().await
    }

    /// Why this node is not ready; empty if it is.
    pub fn not_ready(&self) -> Vec<NotReady> {
        Vec::new()
    }

    /// The nodes and shards as the store has them.
    pub async fn cluster(&self) -> Result<ClusterView> {
        Ok(ClusterView { nodes: self.store.nodes().await?, shards: self.store.shards().await? })
    }

    /// The row of one shard.
    pub async fn shard(&self, shard: ShardId) -> Result<ShardRow> {
        let row = self.store.shards().await?.into_iter().find(|row| row.id == shard);
        row.ok_or_else(|| StoreError::Unreadable(format!("shard {shard} has no row")))
    }

    /// The store, for reads and for making coupons.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Is not ready any more from now on, but serves as before.
    pub fn begin_leaving(&self) {}

    /// Stops: stores everything decided, answers everybody, leaves. False if that was not done within `limit`.
    pub async fn stop(&self, _limit: Duration) -> bool {
        true
    }
}
