//! Links: sessions between this node and every other of its cluster, over which requests go to owners
//! elsewhere and answers come back.
//!
//! ```text
//!   Links::ask ──► egress ──► frame ──► ingress ──► the peer's egress ──► Requests::ask ──► owner
//!       answer ◄── egress ◄── ingress ◄── frame ◄── the peer's egress ◄────────────────────── answer
//! ```
//!
//! [`mesh`] says whom to dial, [`hello`] what two nodes must agree on, [`end`] is one session from hello to
//! its loss, [`window`] what may be on its way, [`frame`] what travels. These decide and do no IO. The hub,
//! an egress for each link and a few ingresses are actors around them, on sessions of `ractor_cluster`, whose
//! sockets are ours: so that every handshake has a limit, and every connection can be cut.
//!
//! A request that is taken gets exactly one answer. Its remaining time is what was left when it was sent: the
//! way itself is not taken off.
//!
//! One process has links once at a time: the library keeps its actors in statics of the process.

mod egress;
pub mod end;
pub mod frame;
pub mod hello;
mod hub;
mod ingress;
pub mod mesh;
mod socket;
pub(crate) mod tls;
pub mod window;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use ractor::{Actor, ActorRef};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use crate::cluster::peers::PeerAddress;
use crate::critical::end_process;
use crate::ids::{CouponId, Epoch, Incarnation, ShardId};
use crate::link::egress::EgressCommand;
use crate::link::frame::{NOTICE_BYTES_MAX, PRELOAD_MAX};
use crate::link::hello::Hello;
use crate::link::hub::{Hub, HubCommand, Shared};
use crate::link::tls::Tls;
use crate::link::window::{COUPON_PLACES, PEER_PLACES};
use crate::owning::admission::Admission;
use crate::owning::message::{Request, Setback};
use crate::time::{self, Moment};

pub use tls::TlsFiles;

/// Time between heartbeats, unless it is said otherwise: four missed ones, and a link is given up.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long stopping waits for each link to answer its requests.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Who takes the requests of peers.
pub trait Requests: Send + Sync + 'static {
    /// Hands a request to the coupon's owner, if the shard is served here in that epoch, and under a lease;
    /// else answers [`Setback::Moved`]. Must not wait: a slow owner would hold up all others.
    fn ask(&self, coupon: CouponId, epoch: Epoch, request: Request);
}

/// Who speaks to peers besides: doors, changes, hand-offs. None of these may wait. What they say is bounded
/// by [`NOTICE_BYTES_MAX`].
pub trait Notices: Send + Sync + 'static {
    /// What to ask the peer with the heartbeat that goes now.
    fn heartbeat(&self, peer: Incarnation) -> Vec<u8>;
    /// What to answer to what the peer asked with its heartbeat.
    fn answer(&self, peer: Incarnation, asked: Vec<u8>) -> Vec<u8>;
    /// The peer answered; the heartbeat was not sent before `sent_at`, so the answer was true at some moment
    /// after it.
    fn answered(&self, peer: Incarnation, sent_at: Moment, answer: Vec<u8>);
    /// The peer has news. They count as heard when this returns that they were; news that make no sense are
    /// not.
    fn news(&self, peer: Incarnation, news: Vec<u8>) -> bool;
    /// The shard will be handed to this node: these coupons of it are worth loading ahead.
    fn preload(&self, peer: Incarnation, shard: ShardId, coupons: Vec<CouponId>);
}

/// How a node is linked.
#[derive(Clone)]
pub struct Options {
    /// Who it is.
    pub hello: Hello,
    /// What all nodes of the cluster know, and nobody else.
    pub cookie: String,
    /// Mutual TLS. Without it, whoever can listen on the network can read and change what nodes say.
    pub tls: Option<TlsFiles>,
    /// Time between heartbeats; [`HEARTBEAT`] is a good one.
    pub heartbeat: Duration,
    /// The queue of this node in which requests of peers take places as well.
    pub places: Admission,
    /// Most requests of this node on their way to one peer.
    pub peer_places: usize,
    /// Most of them for one coupon.
    pub coupon_places: usize,
}

impl Options {
    /// With the usual bounds and no TLS.
    pub fn new(hello: Hello, cookie: String, places: Admission) -> Self {
        Self {
            hello,
            cookie,
            tls: None,
            heartbeat: HEARTBEAT,
            places,
            peer_places: PEER_PLACES,
            coupon_places: COUPON_PLACES,
        }
    }
}

/// Why there are no links.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// A file for TLS is of no use.
    #[error("{path}: {error}", path = path.display())]
    Tls {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// The actors did not start.
    #[error("links did not start: {0}")]
    NotStarted(String),
}

/// The links of this node; cheap to clone.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
    hub: ActorRef<HubCommand>,
}

impl Links {
    /// Accepts peers on this socket, and dials those it is told of.
    pub async fn start(
        options: Options,
        listener: Arc<TcpListener>,
        requests: Arc<dyn Requests>,
        notices: Arc<dyn Notices>,
    ) -> Result<Self, LinksError> {
        let tls = options.tls.as_ref().map(Tls::load).transpose()?;
        let shared = Arc::new(Shared {
            options,
            requests,
            notices,
            routes: Arc::default(),
            links: Arc::default(),
            view: ArcSwap::default(),
            stopping: AtomicBool::new(false),
        });
        let arguments = hub::Arguments {
            shared: Arc::clone(&shared),
            listener,
            tls,
        };
        let started = Hub::spawn(None, Hub, arguments).await;
        let (hub, task) = started.map_err(|error| LinksError::NotStarted(error.to_string()))?;
        let stopping = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = task.await;
            // Without it nobody dials, and nobody is let in: a node that the others go on without, for as
            // long as it lives.
            if !stopping.stopping.load(Ordering::Acquire) {
                end_process("links to peers");
            }
        });
        Ok(Self { shared, hub })
    }

    /// These are the peers there are: all live ones but this node. Who is not named for a while is not linked
    /// any more.
    pub fn know(&self, peers: Vec<PeerAddress>) {
        let _ = self.hub.cast(HubCommand::Know(peers));
    }

    /// To whom there is a link on which both have heard each other.
    pub fn linked(&self) -> Vec<Incarnation> {
        self.shared.view.load().linked.clone()
    }

    /// Whether the system of this peer, which is not linked, refused a new connection within the last second.
    pub fn refuses(&self, peer: Incarnation) -> bool {
        self.shared.view.load().refuses(time::moment(), peer)
    }

    /// Asks an owner on another node. The request is answered in any case: [`Setback::Moved`] if there is no
    /// link.
    pub fn ask(&self, to: Incarnation, epoch: Epoch, coupon: CouponId, request: Request) {
        match self.shared.links.load().get(&to) {
            Some(link) => link.ask(coupon, epoch, request),
            None => request.set_back(Setback::Moved),
        }
    }

    /// Tells a peer news, and whether it is known to have heard them within `limit`. Cancel safe: it is told
    /// all the same.
    pub async fn tell(&self, to: Incarnation, news: Vec<u8>, limit: Duration) -> bool {
        debug_assert!(news.len() <= NOTICE_BYTES_MAX);
        let (heard, hearing) = oneshot::channel();
        match self.shared.links.load().get(&to) {
            Some(link) => link.tell(EgressCommand::Tell(news, heard)),
            None => return false,
        }
        matches!(tokio::time::timeout(limit, hearing).await, Ok(Ok(())))
    }

    /// Tells all linked peers news, and who is known to have heard them within `limit`. Cancel safe: they are
    /// told all the same.
    pub async fn tell_all(&self, news: &[u8], limit: Duration) -> Vec<Incarnation> {
        let told = self
            .linked()
            .into_iter()
            .map(async |peer| self.tell(peer, news.to_vec(), limit).await.then_some(peer));
        join_all(told).await.into_iter().flatten().collect()
    }

    /// Tells all linked peers news, whoever hears them. They arrive before all requests that are asked later.
    pub fn say(&self, news: &[u8]) {
        for link in self.shared.links.load().values() {
            link.tell(EgressCommand::Tell(news.to_vec(), oneshot::channel().0));
        }
    }

    /// Tells one of them news, if it is linked, whether it hears them or not.
    pub fn say_to(&self, to: Incarnation, news: Vec<u8>) {
        if let Some(link) = self.shared.links.load().get(&to) {
            link.tell(EgressCommand::Tell(news, oneshot::channel().0));
        }
    }

    /// Hints at the first [`PRELOAD_MAX`] of these coupons of a shard that will be handed over. Nothing rests
    /// on its arrival.
    pub fn preload(&self, to: Incarnation, shard: ShardId, mut coupons: Vec<CouponId>) {
        coupons.truncate(PRELOAD_MAX);
        if let Some(link) = self.shared.links.load().get(&to) {
            link.tell(EgressCommand::Preload(shard, coupons));
        }
    }

    /// Ends all links, and answers their requests; accepts nobody more.
    pub async fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        let links: Vec<_> = self.shared.routes.load().values().cloned().collect();
        links.iter().for_each(|link| link.tell(EgressCommand::Lost));
        let ends = links
            .iter()
            .map(|link| async { link.actor.get_cell().wait(Some(STOP_LIMIT)).await });
        join_all(ends).await;
        let _ = self.hub.stop_and_wait(None, Some(STOP_LIMIT)).await;
    }
}
