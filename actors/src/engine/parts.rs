//! What the parts of an engine share. All of it is made before the first part starts, and each part gets what
//! it needs.

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::admission::Admission;
use crate::cluster::lease::Lease;
use crate::cluster::membership::{self, MembershipContext};
use crate::cluster::ownership::Ownership;
use crate::cluster::peers::{NoPeers, Peers};
use crate::engine::exchange::Exchange;
use crate::engine::figures::Queues;
use crate::engine::housekeeping::Housekeeping;
use crate::engine::links::NodeLinks;
use crate::engine::local::EngineShards;
use crate::engine::{Options, StartError};
use crate::ids::{SHARDS, ShardId};
use crate::owning::door::peers::KnownPeers;
use crate::owning::door::{Board, Door, LEASE_MAX};
use crate::owning::kind::Kind;
use crate::owning::owner::actor::OwnerContext;
use crate::owning::router::{NoRemote, Remote, Router};
use crate::owning::shard::moves::Moves;
use crate::owning::shard::{LOADS_WAITING_MAX, ShardContext, ShardHandle};
use crate::owning::write_back::Lanes;
use crate::store::{ClusterStore, Result, Store, StoreError};
use crate::time;

/// Maximum number of owners that are read from the store at the same time.
const LOADS_MAX: usize = 4;
/// Maximum number of owners that are loaded ahead at the same time. It is smaller than [`LOADS_MAX`], because
/// no request waits for these owners yet.
const LOADS_AHEAD_MAX: usize = 2;
/// Maximum number of owners in memory on a node, however small they are. A request for one more owner is
/// answered `OVERLOADED` until an idle owner is passivated.
const OWNERS_MAX: usize = 131_072;

/// The shared parts.
pub(super) struct Parts<K: Kind> {
    pub(super) options: Options,
    pub(super) store: Arc<dyn Store<K>>,
    pub(super) lease: Lease,
    pub(super) lanes: Lanes<K>,
    pub(super) door: Arc<Door<K>>,
    pub(super) board: Arc<Board<K>>,
    pub(super) ownership: Ownership,
    /// The places of requests on this node.
    pub(super) places: Admission,
    /// The places of owners on this node.
    owners: Admission,
    /// The places of owners that are being loaded or wait to be loaded.
    loads_waiting: Admission,
    /// The links to other nodes, if the node is in a cluster.
    pub(super) links: Option<NodeLinks<K>>,
}

impl<K: Kind> Parts<K> {
    /// Checks that the options and the store fit each other, and makes the shared parts. Of the shared parts,
    /// only the lanes start here.
    pub(super) async fn new(
        options: Options,
        store: Arc<dyn Store<K>>,
    ) -> std::result::Result<Self, StartError> {
        if options.cluster.is_some() {
            check_cluster(&options, store.is_exclusive())?;
        }
        store.check().await?;
        let lease = Lease::default();
        let cluster = options.cluster.clone();
        Ok(Self {
            lanes: Lanes::start(options.lanes, OWNERS_MAX, &store, &lease, &options.spans),
            door: Arc::default(),
            board: Arc::default(),
            ownership: Ownership::default(),
            places: Admission::new(options.requests_max),
            owners: Admission::new(OWNERS_MAX),
            loads_waiting: Admission::new(LOADS_WAITING_MAX),
            links: cluster
                .map(|cluster| NodeLinks::new(options.node.clone(), cluster))
                .transpose()?,
            options,
            store,
            lease,
        })
    }

    /// Starts an actor for every shard.
    pub(super) async fn start_shards(&self) -> Result<Arc<[ShardHandle<K>]>> {
        let context = self.shard_context();
        let mut shards = Vec::with_capacity(usize::from(SHARDS));
        for id in ShardId::all() {
            let started = ShardHandle::start(id, context.clone()).await;
            let not_started = |error| StoreError::NotStored(format!("shard {id} did not start: {error}"));
            shards.push(started.map_err(not_started)?);
        }
        Ok(shards.into())
    }

    fn shard_context(&self) -> ShardContext<K> {
        ShardContext {
            store: Arc::clone(&self.store),
            moves: Moves::start(Arc::clone(&self.store) as Arc<dyn ClusterStore>),
            owners: OwnerContext {
                lease: self.lease.clone(),
                lanes: self.lanes.clone(),
                board: Arc::clone(&self.board),
                door: Arc::clone(&self.door),
                idle: self.options.idle,
                requests_max: self.options.owner_requests_max,
            },
            loads: Arc::new(Semaphore::new(LOADS_MAX)),
            loads_waiting: self.loads_waiting.clone(),
            loads_ahead: Arc::new(Semaphore::new(LOADS_AHEAD_MAX)),
            places: self.owners.clone(),
            ownership: self.ownership.clone(),
            peers: self.peers(),
        }
    }

    pub(super) fn router(&self, shards: &Arc<[ShardHandle<K>]>) -> Router<K> {
        let remote: Arc<dyn Remote<K>> = match &self.links {
            Some(links) => Arc::new(links.clone()),
            None => Arc::new(NoRemote),
        };
        Router::new(
            Arc::clone(shards),
            self.ownership.clone(),
            remote,
            self.lease.clone(),
            self.places.clone(),
        )
    }

    /// Lets the links serve other nodes, if there are links.
    pub(super) fn start_links(&self, shards: &Arc<[ShardHandle<K>]>) {
        if let Some(links) = &self.links {
            let exchange = Exchange::new(
                Arc::clone(shards),
                self.ownership.clone(),
                (Arc::clone(&self.door), Arc::clone(&self.board)),
                self.lease.clone(),
                self.places.clone(),
                KnownPeers::new(self.options.lease),
            );
            links.start(Arc::new(exchange.recording(self.options.spans.clone())));
        }
    }

    pub(super) fn member(&self) -> membership::Options {
        let advertised = self.links.as_ref().map(|links| links.advertised().to_owned());
        membership::Options {
            node: self.options.node.clone(),
            http: self.options.http.clone(),
            cluster: advertised.unwrap_or_default(),
            lease: self.options.lease,
            beat: self.options.beat,
            record: self.options.record.clone(),
        }
    }

    pub(super) fn membership_context(&self, shards: &Arc<[ShardHandle<K>]>) -> MembershipContext {
        MembershipContext {
            store: Arc::clone(&self.store) as Arc<dyn ClusterStore>,
            lease: self.lease.clone(),
            local: Arc::new(EngineShards {
                shards: Arc::clone(shards),
                door: Arc::clone(&self.door),
                board: Arc::clone(&self.board),
                links: self.links.clone(),
            }),
            ownership: self.ownership.clone(),
            peers: self.peers(),
        }
    }

    pub(super) fn housekeeping(&self, shards: &Arc<[ShardHandle<K>]>, router: &Router<K>) -> Housekeeping<K> {
        Housekeeping {
            door: Arc::clone(&self.door),
            board: Arc::clone(&self.board),
            lease: self.lease.clone(),
            shards: Arc::clone(shards),
            router: router.clone(),
            beat: self.options.beat,
            idle: self.options.idle,
        }
    }

    pub(super) fn queues(&self) -> Queues {
        Queues {
            owners: self.owners.clone(),
            loads: self.loads_waiting.clone(),
            owner_requests_max: self.options.owner_requests_max,
            compared_at: Mutex::new(time::moment()),
        }
    }

    fn peers(&self) -> Arc<dyn Peers> {
        match &self.links {
            Some(links) => Arc::new(links.clone()),
            None => Arc::new(NoPeers),
        }
    }
}

/// Checks that this node can be one of several.
pub(super) fn check_cluster(options: &Options, is_exclusive: bool) -> std::result::Result<(), StartError> {
    if is_exclusive {
        return Err(StartError::Exclusive);
    }
    if options.lease <= LEASE_MAX {
        Ok(())
    } else {
        Err(StartError::Lease)
    }
}
