//! Wires owners, shards, lanes, membership, links and door into one engine, and starts and stops it.

pub(crate) mod exchange;
mod figures;
mod housekeeping;
pub mod links;
pub mod local;
mod parts;
pub mod payload;
mod widening;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cluster::lease::Lease;
use crate::cluster::membership::life_record::LifeRecord;
use crate::cluster::membership::{JoinError, Membership};
use crate::cluster::peers::Peers;
use crate::critical::critical;
use crate::engine::figures::Queues;
pub use crate::engine::links::ClusterOptions;
use crate::engine::links::NodeLinks;
use crate::engine::parts::Parts;
use crate::ids::{NodeId, ShardId};
use crate::link::LinksError;
use crate::metrics::handles;
use crate::owning::door::{Door, LEASE_MAX};
use crate::owning::kind::Kind;
use crate::owning::request::{Answer, Setback};
use crate::owning::router::Router;
use crate::owning::shard::ShardHandle;
use crate::owning::write_back::Lanes;
use crate::store::{ClusterStore, NodeRow, Result, ShardRow, Store, StoreError};
use crate::summary;
use crate::time;
use crate::trace::{Span, SpanKind, Spans};

/// Interval of checking whether shards are handed off.
const HAND_OFF_POLL: Duration = Duration::from_millis(10);
/// Time that leaving may take beyond the limit for stopping, so that other nodes need not wait until this
/// node's lease ends.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);
/// Time for peers to acknowledge that the door of this node is closed.
const DOOR_CLOSED_LIMIT: Duration = Duration::from_millis(500);

/// Options of an engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// This node's name.
    pub node: NodeId,
    /// The address of this node's HTTP server.
    pub http: String,
    /// Time for which a node may decide after its last successful beat was sent.
    pub lease: Duration,
    /// Time between beats. The door asks owners for notices at least as often.
    pub beat: Duration,
    /// Time without requests after which an owner is passivated.
    pub idle: Duration,
    /// Maximum number of requests in all queues of the node; [`crate::owning::router::REQUESTS_MAX`] is a
    /// good value.
    pub requests_max: usize,
    /// Maximum number of requests in one owner's queue; [`crate::owning::owner::actor::OWNER_PLACES`] is a
    /// good value.
    pub owner_requests_max: usize,
    /// Number of lanes, each of which writes one batch at a time. A store with one writer needs only one.
    pub lanes: usize,
    /// The node's own incarnations, so that it can tell after a restart that the last one is over.
    pub record: LifeRecord,
    /// Options of a node in a cluster. `None` if no other node shares the store; such a node has no links.
    pub cluster: Option<ClusterOptions>,
    /// Where spans of traced requests go.
    pub spans: Spans,
}

/// Reasons why an engine is not ready, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// The node has not claimed its shards yet.
    Starting,
    /// The node is stopping.
    Draining,
    /// The node's lease ended.
    NoLease,
    /// The other nodes go on without this node: it does not reach all of them, or they do not reach it.
    NoGroup,
    /// The store does not accept what is decided.
    NoStore,
}

impl NotReady {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Draining,
        Self::NoLease,
        Self::NoGroup,
        Self::NoStore,
    ];
}

/// The nodes and shards as the store has them.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// All nodes.
    pub nodes: Vec<NodeRow>,
    /// All shards.
    pub shards: Vec<ShardRow>,
}

/// Reasons why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed or refused.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// The node did not join.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Links to other nodes cannot start.
    #[error("the links to other nodes: {0}")]
    Links(#[from] LinksError),
    /// A cluster needs a store that several nodes can open.
    #[error("only one node can open this store: a cluster needs MySQL or MariaDB")]
    Exclusive,
    /// The lease is too long: other nodes would wait too long for a node that is gone.
    #[error("a lease in a cluster is at most {LEASE_MAX:?}")]
    Lease,
}

/// The engine; cheap to clone.
pub struct Engine<K: Kind> {
    inner: Arc<Inner<K>>,
}

impl<K: Kind> Clone for Engine<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

struct Inner<K: Kind> {
    /// The links to other nodes, if the node is in a cluster.
    links: Option<NodeLinks<K>>,
    store: Arc<dyn ClusterStore>,
    lease: Lease,
    lanes: Lanes<K>,
    queues: Queues,
    door: Arc<Door<K>>,
    shards: Arc<[ShardHandle<K>]>,
    router: Router<K>,
    membership: Membership,
    housekeeping: AbortHandle,
}

impl<K: Kind> Drop for Inner<K> {
    fn drop(&mut self) {
        self.housekeeping.abort();
    }
}

impl<K: Kind> Engine<K> {
    /// Joins the cluster, claims shards and serves. It is ready once [`Self::not_ready`] is empty.
    ///
    /// # Errors
    ///
    /// If the store does not answer or is not for this program, or the options do not fit.
    pub async fn start(options: Options, store: Arc<dyn Store<K>>) -> std::result::Result<Self, StartError> {
        let parts = Parts::new(options, store).await?;
        let shards = parts.start_shards().await?;
        let router = parts.router(&shards);
        parts.start_links(&shards);
        let membership = Membership::start(parts.member(), parts.membership_context(&shards)).await?;
        let housekeeping = parts.housekeeping(&shards, &router).run();
        let housekeeping = tokio::spawn(critical("housekeeping", housekeeping)).abort_handle();
        let queues = parts.queues();
        let inner = Inner {
            queues,
            links: parts.links,
            store: parts.store,
            lease: parts.lease,
            lanes: parts.lanes,
            door: parts.door,
            shards,
            router,
            membership,
            housekeeping,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Brings a request to its owner, or answers it at the door. Answers within `deadline`. What happens to
    /// the request is recorded as parts of `span`.
    ///
    /// Cancel safety: a dropped future may leave the request decided. If the request is repeatable, the
    /// caller can send it again and gets the decision.
    ///
    /// # Errors
    ///
    /// If there is no decision to return.
    pub async fn request(&self, id: K::Id, ask: K::Ask, deadline: Duration, span: &Span) -> Answer<K> {
        if let Some(refusal) = self.inner.door.refusal(id, &ask, time::now) {
            handles().door_answers.increment(1);
            span.event("answered at the door");
            return Ok(refusal);
        }
        let expires = time::moment() + deadline;
        self.inner
            .router
            .route(id, ask, expires, Instant::now() + deadline, span)
            .await
    }

    /// Brings a change to its owner. Returns the answer once no door answers based on the state before the
    /// change. Answers within `deadline`.
    ///
    /// Cancel safety: as [`Self::request`].
    ///
    /// # Errors
    ///
    /// If there is no decision to return.
    pub async fn change(&self, id: K::Id, ask: K::Ask, deadline: Duration, span: &Span) -> Answer<K> {
        let (until, expires) = (Instant::now() + deadline, time::moment() + deadline);
        let router = &self.inner.router;
        let outcome = router.route(id, ask.clone(), expires, until, span).await?;
        if let Some(superseded) = K::superseded(&ask, &outcome) {
            let version = superseded.version;
            // Every door must know of the change before the change is answered. The door of the owner's node
            // knows it already. The door of this node is told here, and so are the doors of all other nodes.
            self.inner.door.raise_floor(id, version, time::moment());
            if let (true, Some(links)) = (superseded.widens, &self.inner.links) {
                let _spreading = span.child("tell the doors", SpanKind::Internal);
                let spreading = widening::spread(links, self.inner.store.as_ref(), id, version);
                // The change is made, but it cannot be promised that no node refuses based on the old state.
                let spread = tokio::time::timeout_at(until, spreading).await;
                spread.map_err(|_late| Setback::Unknown)?;
            }
        }
        Ok(outcome)
    }

    /// Returns why this node is not ready; empty if it is.
    pub fn not_ready(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        let membership = &self.inner.membership;
        if membership.is_leaving() {
            reasons.push(NotReady::Draining);
        }
        let (was_ready, outside) = (membership.was_ready(), membership.is_outside());
        if !self.inner.lease.holds(time::moment()) && was_ready {
            reasons.push(NotReady::NoLease);
        } else if !membership.is_ready() {
            if !was_ready || !outside {
                reasons.push(NotReady::Starting);
            }
            if outside {
                reasons.push(NotReady::NoGroup);
            }
        }
        if self.inner.lanes.are_delayed() {
            reasons.push(NotReady::NoStore);
        }
        reasons
    }

    /// Returns the nodes and shards as the store has them.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn cluster(&self) -> Result<ClusterView> {
        // The shards are read first. So an owner that is not among the nodes has ended, and is not a node
        // that joined between the two reads.
        let shards = self.inner.store.shards().await?;
        Ok(ClusterView {
            nodes: self.inner.store.nodes().await?,
            shards,
        })
    }

    /// Returns the row of one shard, and the rows of all nodes. One of these nodes may own the shard.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn place(&self, shard: ShardId) -> Result<(ShardRow, Vec<NodeRow>)> {
        // The shards are read first, as in [`Self::cluster`].
        let rows = self.inner.store.shards().await?;
        let row = rows.into_iter().find(|row| row.id == shard);
        let row = row.ok_or_else(|| StoreError::Unreadable(format!("shard {shard} has no row")))?;
        Ok((row, self.inner.store.nodes().await?))
    }

    /// Returns how many notices this node's door knows.
    pub fn door_notices(&self) -> usize {
        self.inner.door.notices()
    }

    /// Returns how many requests are in this node's queues or wait for their answer.
    pub fn admitted(&self) -> usize {
        self.inner.router.admitted()
    }

    /// Returns how many owners are loaded on this node.
    pub fn owners_active(&self) -> usize {
        self.inner.shards.iter().map(ShardHandle::owners).sum()
    }

    /// Makes the node not ready, and begins to hand its shards off. It still serves the shards that it has.
    pub fn begin_leaving(&self) {
        self.inner.membership.begin_leaving();
    }

    /// Begins to leave, as [`Self::begin_leaving`] does, and waits until other nodes own all shards of this
    /// node. Returns false if this node still has shards after `limit`. Requests are forwarded to the new
    /// owners. A node without peers, or with peers that all leave too, keeps its shards until [`Self::stop`].
    ///
    /// Cancel safe: the node leaves even if this future is dropped.
    pub async fn hand_off(&self, limit: Duration) -> bool {
        self.begin_leaving();
        let until = Instant::now() + limit;
        while self.inner.shards.iter().any(ShardHandle::is_here) {
            let linked = self.inner.links.as_ref().map(Peers::linked);
            let is_alone = linked.is_none_or(|linked| linked.is_empty());
            // Nodes that all stop at once would wait for each other.
            if Instant::now() >= until || is_alone || !self.inner.membership.has_staying_peer() {
                return false;
            }
            tokio::time::sleep(HAND_OFF_POLL).await;
        }
        true
    }

    /// Stops the node: hands shards off for at most half of `limit`, stores everything decided, answers
    /// everything, releases the remaining shards, and leaves. Returns false if that was not done within
    /// `limit`. Even then, all answers that were given are true.
    pub async fn stop(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.hand_off(limit / 2).await;
        let drained = futures_util::future::join_all(self.inner.shards.iter().map(ShardHandle::drain));
        let drained = tokio::time::timeout_at(until, drained).await.is_ok();
        // No request comes any more, so the door is of no use. Peers that know that it is closed do not wait
        // for it after this node is gone. If draining was not finished, they are not told: an owner of this
        // node may still confirm notices, so that changes must wait for its lease.
        self.inner.door.close(time::moment());
        if let Some(links) = self.inner.links.as_ref().filter(|_| drained) {
            links.say_door_closed(DOOR_CLOSED_LIMIT).await;
        }
        let leaving = self.inner.membership.leave();
        let left = tokio::time::timeout(LEAVE_LIMIT, leaving).await.is_ok();
        if let Some(links) = &self.inner.links {
            links.stop().await;
        }
        self.inner.housekeeping.abort();
        self.inner.shards.iter().for_each(ShardHandle::stop);
        summary::log_all();
        drained && left
    }
}

#[cfg(test)]
mod tests;
