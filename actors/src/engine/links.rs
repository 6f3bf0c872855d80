//! A node's links through all its lives: each incarnation has links of its own, on the one socket.
//!
//! What membership, the router and whoever changes coupons hold of peers. The links themselves come and go
//! with the incarnation that joined.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::cluster::peers::{PeerAddress, Peers};
use crate::critical::critical;
use crate::engine::exchange::{News, Talk};
use crate::ids::{CouponId, Epoch, Fence, Incarnation, NodeId, ShardId};
use crate::link::hello::Hello;
use crate::link::tls::Tls;
use crate::link::{self, Links, LinksError, Notices, Requests, TlsFiles};
use crate::owning::admission::Admission;
use crate::owning::message::{Request, Setback};
use crate::owning::router::Remote;
use crate::time::{self, Moment};

/// Pause before links that did not start are started again.
const START_PAUSE: Duration = Duration::from_secs(1);

/// How a node is one of a cluster.
#[derive(Clone)]
pub struct Options {
    /// The cluster's name: two that share a cookie by mistake are kept apart by it.
    pub name: String,
    /// Where peers reach this node: bound before it joins.
    pub listener: Arc<TcpListener>,
    /// The `host:port` by which they do, as its row says.
    pub advertise: String,
    /// What all nodes of the cluster know, and nobody else.
    pub cookie: String,
    /// Mutual TLS.
    pub tls: Option<TlsFiles>,
    /// Time between heartbeats; [`link::HEARTBEAT`] is a good one.
    pub heartbeat: Duration,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            listener,
            advertise,
            cookie: _,
            tls,
            heartbeat,
        } = self;
        let mut shown = f.debug_struct("Options");
        shown
            .field("name", name)
            .field("listener", listener)
            .field("advertise", advertise);
        shown
            .field("tls", &tls.is_some())
            .field("heartbeat", heartbeat)
            .finish_non_exhaustive()
    }
}

/// The links of a node, whichever incarnation it lives as; cheap to clone.
#[derive(Clone)]
pub struct Lives {
    shared: Arc<Shared>,
}

struct Shared {
    node: NodeId,
    options: Options,
    places: Admission,
    /// Whom they talk for, from [`Lives::start`] on.
    talk: OnceLock<Arc<Talk>>,
    keeping: OnceLock<AbortHandle>,
    /// As which incarnation the node lives.
    me: watch::Sender<Option<Incarnation>>,
    /// That incarnation's, once they are there.
    links: ArcSwapOption<Links>,
    known: Mutex<Vec<PeerAddress>>,
}

impl Lives {
    /// Of a node that has no shards yet. Peers' requests will take places in the node's queues too.
    pub fn new(node: NodeId, options: Options, places: Admission) -> Result<Self, LinksError> {
        // Said now, and not each time that they do not start.
        options.tls.as_ref().map(Tls::load).transpose()?;
        let shared = Shared {
            node,
            options,
            places,
            talk: OnceLock::new(),
            keeping: OnceLock::new(),
            me: watch::Sender::new(None),
            links: ArcSwapOption::default(),
            known: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Begins to link, and to talk for this one, as whatever incarnation [`Peers::live_as`] names. Once.
    pub(crate) fn start(&self, talk: Arc<Talk>) {
        if self.shared.talk.set(talk).is_ok() {
            let keeping = tokio::spawn(critical(
                "the links of a node's lives",
                Arc::clone(&self.shared).keep(),
            ));
            // Set here alone, and once.
            let _ = self.shared.keeping.set(keeping.abort_handle());
        }
    }

    /// As whom the node lives.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        *self.shared.me.borrow()
    }

    /// Where peers reach this node.
    pub(crate) fn advertised(&self) -> &str {
        &self.shared.options.advertise
    }

    /// These are the peers that live, by rows read after `asked_at`, besides those that membership reads.
    pub(crate) fn acquainted(&self, asked_at: Moment, living: Vec<Incarnation>) {
        if let Some(talk) = self.shared.talk.get() {
            talk.know(asked_at, living);
        }
    }

    /// Until when peers that are gone may refuse by what a change made untrue, if any may.
    pub(crate) fn departed_until(&self) -> Option<Moment> {
        self.shared
            .talk
            .get()?
            .with_acquaintances(|acquaintances| acquaintances.departed_until(time::moment()))
    }

    /// The same of a peer that lives and was not heard to forget what a change made untrue, that was made by
    /// `done_at`.
    pub(crate) fn unheard_until(&self, done_at: Moment) -> Option<Moment> {
        Some(
            self.shared
                .talk
                .get()?
                .with_acquaintances(|acquaintances| acquaintances.unheard_until(done_at)),
        )
    }

    /// Tells a peer news, and whether it is known to have heard them within `limit`. Cancel safe: it is told
    /// all the same.
    pub(crate) async fn tell(&self, to: Incarnation, news: &News, limit: Duration) -> bool {
        match self.shared.links.load_full() {
            Some(links) => links.tell(to, news.write(), limit).await,
            None => false,
        }
    }

    /// Ends all links, and answers their requests; there will be no others.
    pub async fn stop(&self) {
        if let Some(keeping) = self.shared.keeping.get() {
            keeping.abort();
        }
        if let Some(links) = self.shared.links.swap(None) {
            links.stop().await;
        }
    }
}

impl Shared {
    /// Keeps the links those of the present incarnation.
    async fn keep(self: Arc<Self>) {
        let mut lives = self.me.subscribe();
        let mut linked_as = None;
        loop {
            // The sender lives in `self`.
            let Ok(Some(me)) = lives.wait_for(|me| *me != linked_as).await.map(|me| *me) else {
                return;
            };
            if let Some(links) = self.links.swap(None) {
                links.stop().await;
            }
            // Set before this task was begun.
            let Some(talk) = self.talk.get() else { return };
            match self.link(me, Arc::clone(talk)).await {
                Ok(links) => {
                    let links = Arc::new(links);
                    self.links.store(Some(Arc::clone(&links)));
                    // After that: whatever is known later goes to them by itself.
                    links.know(self.known.lock().unwrap_or_else(PoisonError::into_inner).clone());
                    linked_as = Some(me);
                }
                Err(error) => {
                    tracing::error!(%error, "there are no links to peers; trying again");
                    linked_as = None;
                    tokio::time::sleep(START_PAUSE).await;
                }
            }
        }
    }

    async fn link(&self, me: Incarnation, talk: Arc<Talk>) -> Result<Links, LinksError> {
        let Options {
            name,
            listener,
            cookie,
            tls,
            heartbeat,
            ..
        } = self.options.clone();
        let options = link::Options::new(
            Hello::new(&name, self.node.clone(), me),
            cookie,
            self.places.clone(),
        );
        let options = link::Options {
            tls,
            heartbeat,
            ..options
        };
        Links::start(
            options,
            listener,
            Arc::clone(&talk) as Arc<dyn Requests>,
            talk as Arc<dyn Notices>,
        )
        .await
    }

    fn with_links<T>(&self, read: impl FnOnce(&Links) -> T) -> Option<T> {
        self.links.load().as_deref().map(read)
    }
}

impl Peers for Lives {
    fn live_as(&self, me: Incarnation) {
        self.shared.me.send_replace(Some(me));
    }

    fn know(&self, asked_at: Moment, peers: Vec<PeerAddress>) {
        self.acquainted(asked_at, peers.iter().map(|peer| peer.incarnation).collect());
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

    fn expect(&self, peer: Incarnation, shard: ShardId, coupons: Vec<CouponId>) {
        self.shared
            .with_links(|links| links.preload(peer, shard, coupons));
    }

    fn loaded_ahead(&self, peer: Incarnation, shard: ShardId) {
        let news = News::LoadedAhead { shard }.write();
        self.shared.with_links(|links| links.say_to(peer, news));
    }

    fn moved(&self, shard: ShardId, to: Fence) {
        let news = News::Moved { shard, to }.write();
        self.shared.with_links(|links| links.say(&news));
    }
}

impl Remote for Lives {
    fn ask(&self, to: Incarnation, epoch: Epoch, coupon: CouponId, request: Request) {
        match self.shared.links.load().as_deref() {
            Some(links) => links.ask(to, epoch, coupon, request),
            None => request.set_back(Setback::Moved),
        }
    }
}
