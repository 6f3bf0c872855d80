//! A node's links through all its incarnations: each incarnation has links of its own, and all these links
//! use one socket.
//!
//! Membership, the router and changes hold a [`NodeLinks`]. The links themselves are replaced with each
//! incarnation.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::cluster::peers::Peers;
use crate::critical::critical;
use crate::engine::exchange::Exchange;
use crate::engine::exchange::news::News;
use crate::engine::payload::{OwnerPayload, RemoteAsk};
use crate::ids::{Epoch, Fence, Incarnation, NodeId, PeerAddress, ShardId};
use crate::link::hello::Hello;
use crate::link::payload::{Outgoing, Undelivered};
use crate::link::tls::Tls;
use crate::link::{self, Handler, Links, LinksError, TlsFiles};
use crate::owning::kind::Kind;
use crate::owning::request::Request;
use crate::owning::router::Remote;
use crate::peer_names;
use crate::store::{NodeRow, NodeState};
use crate::time::{self, Moment};

/// Pause before links that did not start are started again.
const START_PAUSE: Duration = Duration::from_secs(1);

/// Options of a node in a cluster.
#[derive(Clone)]
pub struct ClusterOptions {
    /// The cluster's name. It separates two clusters that share a cookie by mistake.
    pub name: String,
    /// The socket at which peers reach this node, which is bound before the node joins.
    pub listener: Arc<TcpListener>,
    /// The `host:port` at which peers reach it, as its row says.
    pub advertise: String,
    /// The secret that all nodes of the cluster share.
    pub cookie: String,
    /// Mutual TLS.
    pub tls: Option<TlsFiles>,
    /// Time between heartbeats; [`link::HEARTBEAT`] is a good value.
    pub heartbeat: Duration,
}

impl fmt::Debug for ClusterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            listener,
            advertise,
            cookie: _,
            tls,
            heartbeat,
        } = self;
        let mut shown = f.debug_struct("ClusterOptions");
        shown.field("name", name).field("listener", listener);
        shown.field("advertise", advertise).field("tls", &tls.is_some());
        shown.field("heartbeat", heartbeat).finish_non_exhaustive()
    }
}

/// The links of a node, whatever its present incarnation is; cheap to clone.
pub struct NodeLinks<K: Kind> {
    shared: Arc<Shared<K>>,
}

impl<K: Kind> Clone for NodeLinks<K> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

struct Shared<K: Kind> {
    node: NodeId,
    options: ClusterOptions,
    /// The handler of peers' messages, once [`NodeLinks::start`] was called.
    exchange: OnceLock<Arc<Exchange<K>>>,
    keeping: OnceLock<AbortHandle>,
    /// The node's present incarnation.
    me: watch::Sender<Option<Incarnation>>,
    /// The links of that incarnation, once they have started.
    links: ArcSwapOption<Links<OwnerPayload<K>>>,
    known: Mutex<Vec<PeerAddress>>,
}

impl<K: Kind> NodeLinks<K> {
    /// Makes the links of a node that has no shards yet.
    ///
    /// # Errors
    ///
    /// If a file for TLS cannot be used.
    pub fn new(node: NodeId, options: ClusterOptions) -> Result<Self, LinksError> {
        // The files are checked now already, and not only when links start.
        options.tls.as_ref().map(Tls::load).transpose()?;
        let shared = Shared {
            node,
            options,
            exchange: OnceLock::new(),
            keeping: OnceLock::new(),
            me: watch::Sender::new(None),
            links: ArcSwapOption::default(),
            known: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Begins to link, as the incarnation that [`Peers::live_as`] names. Must be called once.
    pub(crate) fn start(&self, exchange: Arc<Exchange<K>>) {
        if self.shared.exchange.set(exchange).is_ok() {
            let keep = Arc::clone(&self.shared).keep();
            let keeping = tokio::spawn(critical("the links of a node", keep));
            // This is set only here, and once.
            let _ = self.shared.keeping.set(keeping.abort_handle());
        }
    }

    /// Returns the node's present incarnation.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        *self.shared.me.borrow()
    }

    /// Returns the address at which peers reach this node.
    pub(crate) fn advertised(&self) -> &str {
        &self.shared.options.advertise
    }

    /// Returns the highest number of requests that are in flight to one peer, and the maximum; `None` until
    /// links have started.
    pub(crate) fn fullest(&self) -> Option<(usize, usize)> {
        self.shared.with_links(Links::fullest)
    }

    /// Learns which peers are alive, from the rows of all other nodes, which were read after `asked_at`.
    /// Membership calls [`Peers::know`] instead.
    pub(crate) fn know_living(&self, asked_at: Moment, others: &[NodeRow]) {
        if let Some(exchange) = self.shared.exchange.get() {
            exchange.know(asked_at, others);
        }
    }

    /// Returns until when a peer that is gone may still refuse based on an old version; `None` if no such
    /// peer may.
    pub(crate) fn departed_until(&self) -> Option<Moment> {
        let exchange = self.shared.exchange.get()?;
        exchange.with_peers(|peers| peers.departed_until(time::moment()))
    }

    /// Returns true if this peer is leaving and has closed its door.
    pub(crate) fn is_door_closed(&self, peer: Incarnation) -> bool {
        let exchange = self.shared.exchange.get();
        exchange.is_some_and(|exchange| exchange.with_peers(|peers| peers.is_closed(peer)))
    }

    /// Tells all linked peers that the door of this node is closed. Returns once each has acknowledged it, or
    /// after `limit`. At a peer that was not told, changes wait as they do after a node was killed.
    pub(crate) async fn say_door_closed(&self, limit: Duration) {
        let told = self.linked().into_iter().map(async |peer| {
            if !self.tell(peer, &News::DoorClosed, limit).await {
                let peer = peer_names::of(peer);
                tracing::warn!(peer, "peer did not acknowledge that this node's door is closed");
            }
        });
        futures_util::future::join_all(told).await;
    }

    /// Returns until when a live peer that has not acknowledged a change may still refuse based on the
    /// version before. The change was made at `done_at` or earlier.
    pub(crate) fn unacknowledged_until(&self, done_at: Moment) -> Option<Moment> {
        let exchange = self.shared.exchange.get()?;
        Some(exchange.with_peers(|peers| peers.unacknowledged_until(done_at)))
    }

    /// Sends news to a peer, and returns true if the peer acknowledged them within `limit`.
    ///
    /// Cancel safe: the news are sent even if this future is dropped.
    pub(crate) async fn tell(&self, to: Incarnation, news: &News<K>, limit: Duration) -> bool {
        match self.shared.links.load_full() {
            Some(links) => links.tell(to, news.write(), limit).await,
            None => false,
        }
    }

    /// Sends news to a peer, without waiting.
    pub(crate) fn say_to(&self, to: Incarnation, news: &News<K>) {
        self.shared.with_links(|links| links.say_to(to, news.write()));
    }

    /// Ends all links, and answers their requests. No new links start after this.
    pub async fn stop(&self) {
        if let Some(keeping) = self.shared.keeping.get() {
            keeping.abort();
        }
        if let Some(links) = self.shared.links.swap(None) {
            links.stop().await;
        }
    }
}

impl<K: Kind> Shared<K> {
    /// Replaces the links whenever the incarnation changes.
    async fn keep(self: Arc<Self>) {
        let mut incarnations = self.me.subscribe();
        let mut linked_as = None;
        loop {
            // This never fails, because `self` holds the sender.
            let next = incarnations.wait_for(|me| *me != linked_as).await;
            let Ok(Some(me)) = next.map(|me| *me) else { return };
            if let Some(links) = self.links.swap(None) {
                links.stop().await;
            }
            // The exchange is set before this task starts.
            let Some(exchange) = self.exchange.get() else {
                return;
            };
            match self.link(me, Arc::clone(exchange)).await {
                Ok(links) => {
                    let links = Arc::new(links);
                    self.links.store(Some(Arc::clone(&links)));
                    // The order matters: peers that become known after the links are published are passed to
                    // the links directly.
                    links.know(self.known.lock().unwrap_or_else(PoisonError::into_inner).clone());
                    linked_as = Some(me);
                }
                Err(error) => {
                    tracing::error!(%error, "links to peers did not start; trying again");
                    linked_as = None;
                    tokio::time::sleep(START_PAUSE).await;
                }
            }
        }
    }

    async fn link(
        &self,
        me: Incarnation,
        exchange: Arc<Exchange<K>>,
    ) -> Result<Links<OwnerPayload<K>>, LinksError> {
        let ClusterOptions {
            name,
            listener,
            cookie,
            tls,
            heartbeat,
            ..
        } = self.options.clone();
        let hello = Hello::new(&name, self.node.clone(), me);
        let options = link::Options {
            tls,
            heartbeat,
            ..link::Options::new(hello, cookie)
        };
        let handler: Arc<dyn Handler<OwnerPayload<K>>> = exchange;
        Links::start(options, listener, handler).await
    }

    fn with_links<T>(&self, read: impl FnOnce(&Links<OwnerPayload<K>>) -> T) -> Option<T> {
        self.links.load().as_deref().map(read)
    }
}

impl<K: Kind> Peers for NodeLinks<K> {
    fn live_as(&self, me: Incarnation) {
        self.shared.me.send_replace(Some(me));
    }

    fn know(&self, asked_at: Moment, others: &[NodeRow]) {
        self.know_living(asked_at, others);
        let live = others.iter().filter(|row| row.state != NodeState::Ended);
        let peer = |row: &NodeRow| PeerAddress {
            node: row.id.clone(),
            incarnation: row.incarnation,
            address: row.cluster.clone(),
        };
        let peers: Vec<PeerAddress> = live.map(peer).collect();
        *self.shared.known.lock().unwrap_or_else(PoisonError::into_inner) = peers.clone();
        self.shared.with_links(|links| links.know(peers));
    }

    fn linked(&self) -> Vec<Incarnation> {
        self.shared.with_links(Links::linked).unwrap_or_default()
    }

    fn refuses(&self, peer: Incarnation) -> bool {
        self.shared
            .with_links(|links| links.refuses(peer))
            .unwrap_or(false)
    }

    fn loaded_ahead(&self, peer: Incarnation, shard: ShardId) {
        self.say_to(peer, &News::LoadedAhead { shard });
    }

    fn publish(&self, shard: ShardId, fence: Fence) {
        let news = News::<K>::Owned { shard, to: fence }.write();
        self.shared.with_links(|links| links.say(&news));
    }
}

impl<K: Kind> Remote<K> for NodeLinks<K> {
    fn forward(&self, to: Incarnation, epoch: Epoch, id: K::Id, request: Request<K>) {
        let Request { ask, expires, reply } = request;
        let trace = reply.span().as_parent().map(Box::new);
        let request = Outgoing {
            flow: K::flow(id),
            expires,
            ask: RemoteAsk {
                id,
                epoch,
                ask,
                trace,
            },
            reply,
        };
        match self.shared.links.load().as_deref() {
            Some(links) => links.send(to, request),
            None => request.undelivered(Undelivered::NotSent),
        }
    }
}
