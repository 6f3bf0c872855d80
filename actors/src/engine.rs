//! Wires owners, shards, lanes, membership, links and door into one engine, and starts and stops it.

pub(crate) mod exchange;
mod housekeeping;
pub mod links;
pub mod local;
pub mod payload;
mod widening;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::cluster::lease::Lease;
use crate::cluster::membership::{self, Membership, MembershipContext};
use crate::cluster::ownership::Ownership;
use crate::cluster::peers::{NoPeers, Peers};
use crate::critical::critical;
use crate::engine::exchange::Exchange;
use crate::engine::housekeeping::Housekeeping;
use crate::engine::links::NodeLinks;
pub use crate::engine::links::Options as ClusterOptions;
use crate::engine::local::EngineShards;
use crate::ids::{NodeId, SHARDS, ShardId};
use crate::link::LinksError;
use crate::metrics::handles;
use crate::owning::door::peers::KnownPeers;
use crate::owning::door::{Board, Door, LEASE_MAX};
use crate::owning::kind::Kind;
use crate::owning::owner::actor::OwnerContext;
use crate::owning::request::{Answer, Setback};
use crate::owning::router::{NoRemote, Remote, Router};
use crate::owning::shard::{LOADS_WAITING_MAX, ShardContext, ShardHandle};
use crate::owning::write_back::Lanes;
use crate::store::{ClusterStore, NodeRow, Result, ShardRow, Store, StoreError};
use crate::time;

/// Maximum number of owners read from the store at the same time.
const LOADS_MAX: usize = 4;
/// Maximum number of them loaded ahead of their shard: fewer, as no request waits for them yet.
const LOADS_AHEAD_MAX: usize = 2;
/// Maximum number of owners in memory on a node, however little each holds. A request for another owner is
/// answered `OVERLOADED` until others are idle.
const OWNERS_MAX: usize = 131_072;
/// Interval of checking whether shards are handed off.
const HAND_OFF_POLL: Duration = Duration::from_millis(10);
/// Time that leaving may take beyond the limit for stopping, so that others need not wait for a lease to end.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// Options of an engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// This node's name.
    pub node: NodeId,
    /// The address at which its HTTP is reached.
    pub http: String,
    /// Time for which a node may decide after its last successful beat was sent.
    pub lease: Duration,
    /// Time between beats. The door asks owners for notices at least as often.
    pub beat: Duration,
    /// Time without requests after which an owner is passivated.
    pub idle: Duration,
    /// Maximum number of requests in all queues of the node; [`crate::owning::router::REQUESTS_MAX`] is a
    /// good number.
    pub requests_max: usize,
    /// Maximum number of requests in one owner's queue; [`crate::owning::owner::actor::OWNER_PLACES`] is a
    /// good number.
    pub owner_requests_max: usize,
    /// Number of lanes, each of which writes one batch at a time. A store with one writer needs only one.
    pub lanes: usize,
    /// Options of a node among others. `None` if no other node shares its store; it has no links then.
    pub cluster: Option<ClusterOptions>,
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
    /// Links to other nodes cannot start.
    #[error("the links to other nodes: {0}")]
    Links(#[from] LinksError),
    /// A cluster needs a store that several nodes can open.
    #[error("only one node can open this store: a cluster needs MySQL or MariaDB")]
    Exclusive,
    /// The lease is too long: others would wait too long for a node that is gone.
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
        if options.cluster.is_some() {
            check_cluster(&options, store.is_exclusive())?;
        }
        store.check().await?;
        let lease = Lease::default();
        let lanes = Lanes::start(options.lanes, OWNERS_MAX, &store, &lease);
        let (door, board) = (Arc::new(Door::default()), Arc::new(Board::default()));
        let (ownership, places) = (Ownership::default(), Admission::new(options.requests_max));
        let cluster = options.cluster.clone();
        let links = cluster
            .map(|cluster| NodeLinks::new(options.node.clone(), cluster))
            .transpose()?;
        let context = ShardContext {
            store: Arc::clone(&store),
            owners: OwnerContext {
                lease: lease.clone(),
                lanes: lanes.clone(),
                board: Arc::clone(&board),
                door: Arc::clone(&door),
                idle: options.idle,
                requests_max: options.owner_requests_max,
            },
            loads: Arc::new(Semaphore::new(LOADS_MAX)),
            loads_waiting: Admission::new(LOADS_WAITING_MAX),
            loads_ahead: Arc::new(Semaphore::new(LOADS_AHEAD_MAX)),
            places: Admission::new(OWNERS_MAX),
            ownership: ownership.clone(),
            peers: peers(links.as_ref()),
        };
        let shards = start_shards(&context).await?;
        let remote: Arc<dyn Remote<K>> = match &links {
            Some(links) => Arc::new(links.clone()),
            None => Arc::new(NoRemote),
        };
        let router = Router::new(
            Arc::clone(&shards),
            ownership.clone(),
            remote,
            lease.clone(),
            places.clone(),
        );
        if let Some(links) = &links {
            links.start(Arc::new(Exchange::new(
                Arc::clone(&shards),
                ownership.clone(),
                (Arc::clone(&door), Arc::clone(&board)),
                lease.clone(),
                places,
                KnownPeers::new(options.lease),
            )));
        }
        let membership = MembershipContext {
            store: Arc::clone(&store) as Arc<dyn ClusterStore>,
            lease: lease.clone(),
            local: Arc::new(EngineShards {
                shards: Arc::clone(&shards),
                door: Arc::clone(&door),
                board: Arc::clone(&board),
                links: links.clone(),
            }),
            ownership,
            peers: peers(links.as_ref()),
        };
        let membership = Membership::start(member(&options, links.as_ref()), membership).await?;
        let housekeeping = Housekeeping {
            door: Arc::clone(&door),
            board,
            lease: lease.clone(),
            shards: Arc::clone(&shards),
            router: router.clone(),
            beat: options.beat,
            idle: options.idle,
        };
        let housekeeping = tokio::spawn(critical("housekeeping", housekeeping.run())).abort_handle();
        let inner = Inner {
            links,
            store,
            lease,
            lanes,
            door,
            shards,
            router,
            membership,
            housekeeping,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Brings a request to its owner, or answers it at the door. Answers within `deadline`.
    ///
    /// Cancel safety: a dropped future may leave the request decided. A repeatable request can be sent again
    /// and finds the decision.
    ///
    /// # Errors
    ///
    /// If there is no decision to return.
    pub async fn request(&self, id: K::Id, ask: K::Ask, deadline: Duration) -> Answer<K> {
        if let Some(refusal) = self.inner.door.refusal(id, &ask, time::now) {
            handles().door_answers.increment(1);
            return Ok(refusal);
        }
        let expires = time::moment() + deadline;
        self.inner
            .router
            .route(id, ask, expires, Instant::now() + deadline)
            .await
    }

    /// Brings a request that may supersede what doors know to its owner, and returns the answer once no door
    /// answers based on the old state. Answers within `deadline`.
    ///
    /// Cancel safety: as [`Self::request`].
    ///
    /// # Errors
    ///
    /// If there is no decision to return.
    pub async fn change(&self, id: K::Id, ask: K::Ask, deadline: Duration) -> Answer<K> {
        let (until, expires) = (Instant::now() + deadline, time::moment() + deadline);
        let outcome = self.inner.router.route(id, ask.clone(), expires, until).await?;
        if let Some(superseded) = K::superseded(&ask, &outcome) {
            let version = superseded.version;
            // Before the answer, every door must know of the change: that of the owner's node, which does,
            // that of this node, and all others.
            self.inner.door.raise_floor(id, version, time::moment());
            if let (true, Some(links)) = (superseded.widens, &self.inner.links) {
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
        // The shards first: then an owner that is not among the nodes has ended, and not one that joined in
        // between.
        let shards = self.inner.store.shards().await?;
        Ok(ClusterView {
            nodes: self.inner.store.nodes().await?,
            shards,
        })
    }

    /// Returns the row of one shard, and the nodes, one of which may own it.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn place(&self, shard: ShardId) -> Result<(ShardRow, Vec<NodeRow>)> {
        // In this order, as in [`Self::cluster`].
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

    /// Makes the node not ready, and begins to hand its shards off. It serves as before.
    pub fn begin_leaving(&self) {
        self.inner.membership.begin_leaving();
    }

    /// Leaves as [`Self::begin_leaving`] does, and waits until others own all shards of this node. Returns
    /// false if some are still here after `limit`. Requests go on to the new owners. A node without peers, or
    /// with peers that all leave too, keeps its shards until [`Self::stop`].
    ///
    /// Cancel safe: the node leaves all the same.
    pub async fn hand_off(&self, limit: Duration) -> bool {
        self.begin_leaving();
        let until = Instant::now() + limit;
        while self.inner.shards.iter().any(ShardHandle::is_here) {
            let linked = self.inner.links.as_ref().map(Peers::linked);
            let is_alone = linked.is_none_or(|linked| linked.is_empty());
            // Nodes that all stop at once would wait for each other.
            if Instant::now() >= until || is_alone || !self.inner.membership.do_others_stay() {
                return false;
            }
            tokio::time::sleep(HAND_OFF_POLL).await;
        }
        true
    }

    /// Stops: hands its shards off for half of `limit`, stores everything decided, answers everything,
    /// releases the remaining shards, and leaves. Returns false if that was not done within `limit`; all
    /// answers hold all the same.
    pub async fn stop(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.hand_off(limit / 2).await;
        let drained = futures_util::future::join_all(self.inner.shards.iter().map(ShardHandle::drain));
        let drained = tokio::time::timeout_at(until, drained).await.is_ok();
        let leaving = self.inner.membership.leave();
        let left = tokio::time::timeout(LEAVE_LIMIT, leaving).await.is_ok();
        if let Some(links) = &self.inner.links {
            links.stop().await;
        }
        self.inner.housekeeping.abort();
        self.inner.shards.iter().for_each(ShardHandle::stop);
        drained && left
    }
}

async fn start_shards<K: Kind>(context: &ShardContext<K>) -> Result<Arc<[ShardHandle<K>]>> {
    let mut shards = Vec::with_capacity(usize::from(SHARDS));
    for id in ShardId::all() {
        let started = ShardHandle::start(id, context.clone()).await;
        let not_started = |error| StoreError::NotStored(format!("shard {id} did not start: {error}"));
        shards.push(started.map_err(not_started)?);
    }
    Ok(shards.into())
}

fn peers<K: Kind>(links: Option<&NodeLinks<K>>) -> Arc<dyn Peers> {
    match links {
        Some(links) => Arc::new(links.clone()),
        None => Arc::new(NoPeers),
    }
}

fn member<K: Kind>(options: &Options, links: Option<&NodeLinks<K>>) -> membership::Options {
    let advertised = links.map(|links| links.advertised().to_owned());
    membership::Options {
        node: options.node.clone(),
        http: options.http.clone(),
        cluster: advertised.unwrap_or_default(),
        lease: options.lease,
        beat: options.beat,
    }
}

/// Checks that this node can be one of several.
fn check_cluster(options: &Options, is_exclusive: bool) -> std::result::Result<(), StartError> {
    if is_exclusive {
        return Err(StartError::Exclusive);
    }
    if options.lease <= LEASE_MAX {
        Ok(())
    } else {
        Err(StartError::Lease)
    }
}

#[cfg(test)]
mod tests;
