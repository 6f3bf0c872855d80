//! Links: sessions between this node and every other node of its cluster, over which requests go to their
//! owners and answers come back. This is transport only: it carries a [`payload::Payload`].
//!
//! ```text
//!   Links::send ──► egress ──► frame ──► the peer's ingress ──► its egress ──► Handler::handle
//!         reply ◄── egress ◄── ingress ◄── frame ◄── the peer's egress ◄── AnswerPath::send
//! ```
//!
//! [`mesh`] decides which peers to dial, [`hello`] says what two nodes must agree on, [`end`] is one end of a
//! link from hello to its loss, [`window`] bounds what is in flight, [`frame`] is what links carry. These
//! modules decide and do no IO. The hub, an egress for each link and a few ingresses are actors around them.
//! They use sessions of `ractor_cluster`, but with sockets of this program, so that every handshake has a
//! time limit and every connection can be cut.
//!
//! A request that is accepted gets exactly one answer. At the peer, the request has as much time as was left
//! when it was sent: the time in transit is not subtracted.
//!
//! A process can have only one set of links at a time, because the library keeps its actors in statics of the
//! process.

mod egress;
pub mod end;
pub mod frame;
mod greetings;
mod handshake;
pub mod hello;
mod hub;
mod ingress;
pub mod mesh;
pub mod payload;
#[cfg(test)]
pub(crate) mod probe;
mod socket;
pub(crate) mod tls;
pub mod window;

use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use ractor::{Actor, ActorRef};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::critical::end_process;
use crate::ids::{Incarnation, PeerAddress};
use crate::link::egress::{EgressCommand, EgressHandle};
use crate::link::frame::MESSAGE_BYTES_MAX;
use crate::link::hello::Hello;
use crate::link::hub::{Hub, HubCommand, Shared};
use crate::link::payload::{Outgoing, Payload, Undelivered};
use crate::link::tls::Tls;
use crate::link::window::{FLOW_PLACES, PEER_PLACES};
use crate::time::{self, Moment};

pub use tls::TlsFiles;

/// Default time between heartbeats. A link is closed after four missed heartbeats.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long stopping waits for each link to answer its requests.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Handles the requests and messages of peers. No call may wait: a slow call would delay all others. A call
/// returns at most [`MESSAGE_BYTES_MAX`] bytes.
pub trait Handler<P: Payload>: Send + Sync + 'static {
    /// Handles a request, which expires at `expires`. The answer goes to `path`.
    fn handle(&self, ask: P::Ask, expires: Moment, path: AnswerPath<P>);

    /// Returns the content of the heartbeat that goes to the peer now.
    fn heartbeat(&self, peer: Incarnation) -> Vec<u8>;

    /// Returns the answer to the content of a heartbeat of the peer.
    fn heartbeat_answer(&self, peer: Incarnation, content: Vec<u8>) -> Vec<u8>;

    /// Takes the peer's answer to a heartbeat that was sent at `sent_at` or later. So the answer was true at
    /// some moment after `sent_at`.
    fn heartbeat_answered(&self, peer: Incarnation, sent_at: Moment, content: Vec<u8>);

    /// Takes news from the peer. The news are acknowledged if this returns true. It returns false for news
    /// that it cannot read.
    fn news(&self, peer: Incarnation, news: Vec<u8>) -> bool;
}

/// The path of one answer to a peer. The answer goes into the mailbox of the link's egress, and is sent with
/// everything else that waits there. A path that is dropped sends nothing.
#[derive(Debug)]
pub struct AnswerPath<P: Payload> {
    egress: ActorRef<EgressCommand<P>>,
    id: u64,
    expires: Moment,
    gone: Arc<AtomicBool>,
}

impl<P: Payload> AnswerPath<P> {
    fn new(egress: ActorRef<EgressCommand<P>>, id: u64, expires: Moment, gone: Arc<AtomicBool>) -> Self {
        Self {
            egress,
            id,
            expires,
            gone,
        }
    }

    /// Returns true if the peer may still wait.
    pub fn is_waiting(&self) -> bool {
        !self.gone.load(Ordering::Acquire) && time::moment() < self.expires
    }

    /// Sends the answer. If the link is gone, nothing is sent.
    pub fn send(self, answer: P::Answer) {
        let _ = self.egress.cast(EgressCommand::Answer(self.id, answer));
    }
}

/// Options of a node's links.
#[derive(Clone)]
pub struct Options {
    /// The hello that this node sends.
    pub hello: Hello,
    /// The secret that all nodes of the cluster share.
    pub cookie: String,
    /// Mutual TLS. Without it, anything on the network can read and change what nodes exchange.
    pub tls: Option<TlsFiles>,
    /// Time between heartbeats; [`HEARTBEAT`] is a good value.
    pub heartbeat: Duration,
    /// Maximum number of requests of this node in flight to one peer.
    pub peer_places: usize,
    /// Maximum number of requests of this node in flight in one flow.
    pub flow_places: usize,
}

impl Options {
    /// Returns options with the default bounds and no TLS.
    pub fn new(hello: Hello, cookie: String) -> Self {
        Self {
            hello,
            cookie,
            tls: None,
            heartbeat: HEARTBEAT,
            peer_places: PEER_PLACES,
            flow_places: FLOW_PLACES,
        }
    }
}

/// Reasons why links cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// A file for TLS cannot be used.
    #[error("{path}: {error}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        error: String,
    },
    /// The actors did not start.
    #[error("links did not start: {0}")]
    NotStarted(String),
}

/// The links of this node; cheap to clone.
#[derive(Clone)]
pub struct Links<P: Payload> {
    shared: Arc<Shared<P>>,
    hub: ActorRef<HubCommand>,
}

impl<P: Payload> Links<P> {
    /// Accepts peers on this socket, and dials the peers that [`Self::know`] names.
    ///
    /// # Errors
    ///
    /// If a file for TLS cannot be used, or the actors do not start.
    pub async fn start(
        options: Options,
        listener: Arc<TcpListener>,
        handler: Arc<dyn Handler<P>>,
    ) -> Result<Self, LinksError> {
        let tls = options.tls.as_ref().map(Tls::load).transpose()?;
        let shared = Arc::new(Shared {
            options,
            handler,
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
        let started = Hub::spawn(None, Hub(PhantomData), arguments).await;
        let (hub, task) = started.map_err(|error| LinksError::NotStarted(error.to_string()))?;
        let stopping = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = task.await;
            // Without the hub no peer is dialled or accepted, and the node would stay outside the cluster.
            if !stopping.stopping.load(Ordering::Acquire) {
                end_process("links to peers");
            }
        });
        Ok(Self { shared, hub })
    }

    /// Names all peers: every live node but this one. A peer that is not named for a while loses its link.
    pub fn know(&self, peers: Vec<PeerAddress>) {
        let _ = self.hub.cast(HubCommand::Know(peers));
    }

    /// Returns the peers with a link on which both ends have received a frame.
    pub fn linked(&self) -> Vec<Incarnation> {
        self.shared.view.load().linked.clone()
    }

    /// Returns the highest number of requests that are in flight to one peer, and the maximum.
    pub fn fullest(&self) -> (usize, usize) {
        let links = self.shared.links.load();
        let in_flight = links.values().map(EgressHandle::in_flight).max();
        (in_flight.unwrap_or(0), self.shared.options.peer_places)
    }

    /// Returns true if this peer is not linked, and its operating system refused a new connection within the
    /// last second.
    pub fn refuses(&self, peer: Incarnation) -> bool {
        self.shared.view.load().refuses(time::moment(), peer)
    }

    /// Sends a request to a peer. It is always answered: with [`Undelivered::NotSent`] if there is no link.
    pub fn send(&self, to: Incarnation, request: Outgoing<P>) {
        match self.shared.links.load().get(&to) {
            Some(link) => link.send(request),
            None => request.undelivered(Undelivered::NotSent),
        }
    }

    /// Sends news to a peer, and returns true if the peer acknowledged them within `limit`.
    ///
    /// Cancel safe: the news are sent even if this future is dropped.
    pub async fn tell(&self, to: Incarnation, news: Vec<u8>, limit: Duration) -> bool {
        debug_assert!(news.len() <= MESSAGE_BYTES_MAX);
        let (sender, acknowledged) = oneshot::channel();
        match self.shared.links.load().get(&to) {
            Some(link) => link.command(EgressCommand::Tell(news, sender)),
            None => return false,
        }
        matches!(tokio::time::timeout(limit, acknowledged).await, Ok(Ok(())))
    }

    /// Sends news to all linked peers, without waiting. They arrive before all requests that are sent later.
    pub fn say(&self, news: &[u8]) {
        for link in self.shared.links.load().values() {
            link.command(EgressCommand::Tell(news.to_vec(), oneshot::channel().0));
        }
    }

    /// Sends news to one peer, if it is linked, without waiting.
    pub fn say_to(&self, to: Incarnation, news: Vec<u8>) {
        if let Some(link) = self.shared.links.load().get(&to) {
            link.command(EgressCommand::Tell(news, oneshot::channel().0));
        }
    }

    /// Ends all links, answers their requests, and stops accepting peers.
    pub async fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        let links: Vec<_> = self.shared.routes.load().values().cloned().collect();
        for link in &links {
            link.command(EgressCommand::Lost);
        }
        let ends = links
            .iter()
            .map(|link| async { link.actor.get_cell().wait(Some(STOP_LIMIT)).await });
        join_all(ends).await;
        let _ = self.hub.stop_and_wait(None, Some(STOP_LIMIT)).await;
    }
}
