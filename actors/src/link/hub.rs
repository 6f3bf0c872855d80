//! The hub: dials whom the mesh says, follows every connection from its first byte to its end, and keeps who
//! is linked for others to read.
//!
//! A connection has its limit for becoming a link: cookie, the library's exchange and hello together. One
//! that takes longer is cut, whoever it is.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{
    IncomingEncryptionMode, NodeEventSubscription, NodeServer, NodeServerMessage, NodeSessionMessage,
};
use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::critical::end_process;
use crate::ids::{Incarnation, NodeId, PeerAddress};
use crate::link::egress::{self, EgressCommand, EgressHandle};
use crate::link::end::effect::{Reason, Role, Terms};
use crate::link::frame::FRAME_BYTES_MAX;
use crate::link::ingress::{self, INGRESSES, Routes};
use crate::link::mesh::{Cause, Mesh, MeshView, Step};
use crate::link::payload::Payload;
use crate::link::socket::{self, Socket};
use crate::link::tls::{Tls, closed_door};
use crate::link::{Handler, Options};
use crate::metrics::{PeerHandles, peer_handles};
use crate::time::{self, Moment};

/// How often the hub looks at the clock.
const TICK: Duration = Duration::from_millis(25);
/// How long a connection may take to become a link.
const LINK_LIMIT: Duration = Duration::from_secs(3);
/// What the library puts around a frame, and its own messages, which name our few actors.
const LIBRARY_BYTES_MAX: usize = 64 * 1024;
/// A silent peer is one that leaves so many heartbeats unanswered.
const HEARTBEATS_MISSED: u32 = 4;

/// Everything the hub takes.
pub(super) enum HubCommand {
    /// These are the peers.
    Know(Vec<PeerAddress>),
    /// A connection was accepted (`to` is nobody), or dialled.
    Opened {
        socket: Socket,
        to: Option<(Incarnation, u64)>,
    },
    /// A dial came to nothing.
    NotDialled {
        peer: PeerAddress,
        error: std::io::Error,
    },
    /// A probe came back.
    Probed { incarnation: Incarnation, refused: bool },
    /// The library made a session of a connection.
    SessionOpened(NodeServerSessionInformation),
    /// It exchanged cookies and actors.
    SessionReady(NodeServerSessionInformation),
    /// It is gone.
    SessionGone(NodeServerSessionInformation),
    /// Hello was exchanged.
    Up { ticket: u64, generation: u64 },
    /// The link is over.
    Down { ticket: u64, reason: Reason },
    /// Time went by.
    Tick,
}

impl ractor::Message for HubCommand {}

/// What the hub and those who hold the links share.
pub(super) struct Shared<P: Payload> {
    pub(super) options: Options,
    pub(super) handler: Arc<dyn Handler<P>>,
    /// Whose frames go where: links and those that are about to be.
    pub(super) routes: Routes<P>,
    /// Through which requests may be sent.
    pub(super) links: Routes<P>,
    pub(super) view: ArcSwap<MeshView>,
    /// The hub is told to end, and may.
    pub(super) stopping: AtomicBool,
}

pub(super) struct Hub<P>(pub(super) std::marker::PhantomData<P>);

pub(super) struct Arguments<P: Payload> {
    pub(super) shared: Arc<Shared<P>>,
    pub(super) listener: Arc<TcpListener>,
    pub(super) tls: Option<Tls>,
}

/// A connection, as far as it came.
struct Session<P: Payload> {
    cut: CancellationToken,
    /// Whom it was dialled for, and with which generation.
    to: Option<(Incarnation, u64)>,
    peer: String,
    /// When it is cut; never, once it is a link or told to end.
    deadline: Option<Moment>,
    actor: Option<ActorRef<NodeSessionMessage>>,
    linked: Option<(Incarnation, EgressHandle<P>)>,
    greeting: Option<OwnedSemaphorePermit>,
}

pub(super) struct State<P: Payload> {
    shared: Arc<Shared<P>>,
    tls: Option<Tls>,
    server: ActorRef<NodeServerMessage>,
    ingresses: Vec<ActorCell>,
    accepting: AbortHandle,
    mesh: Mesh,
    sessions: HashMap<u64, Session<P>>,
    /// The highest generation of each peer's links so far, of those that the mesh has.
    generations: HashMap<Incarnation, u64>,
    metrics: &'static PeerHandles,
}

impl<P: Payload> Actor for Hub<P> {
    type Msg = HubCommand;
    type State = State<P>;
    type Arguments = Arguments<P>;

    async fn pre_start(
        &self,
        myself: ActorRef<HubCommand>,
        arguments: Arguments<P>,
    ) -> Result<State<P>, ActorProcessingErr> {
        let Arguments {
            shared,
            listener,
            tls,
        } = arguments;
        let server = start_server(&shared.options, &myself).await?;
        let mut ingresses = Vec::with_capacity(INGRESSES);
        for _ in 0..INGRESSES {
            ingresses.push(ingress::spawn(Arc::clone(&shared.routes), &myself).await?);
        }
        let hub = myself.clone();
        let opened = move |socket| drop(hub.cast(HubCommand::Opened { socket, to: None }));
        let accepting = tokio::spawn(socket::accept(listener, tls.clone(), opened)).abort_handle();
        myself.send_interval(TICK, || HubCommand::Tick);
        let mesh = Mesh::new(shared.options.hello.node.clone());
        let metrics = peer_handles();
        Ok(State {
            shared,
            tls,
            server,
            ingresses,
            accepting,
            mesh,
            sessions: HashMap::new(),
            generations: HashMap::new(),
            metrics,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<HubCommand>,
        command: HubCommand,
        state: &mut State<P>,
    ) -> Result<(), ActorProcessingErr> {
        let now = time::moment();
        match command {
            HubCommand::Know(peers) => state.know(now, peers),
            HubCommand::Opened { socket, to } => state.opened(now, socket, to),
            HubCommand::NotDialled { peer, error } => {
                // A peer that is just not there is what membership knows best; one that is there and does not
                // fit is for people to mend.
                if error.kind() == std::io::ErrorKind::InvalidData {
                    state.metrics.refuse("handshake");
                    tracing::warn!(node = %peer.node, address = peer.address, %error, "a peer does not fit");
                } else {
                    tracing::debug!(node = %peer.node, address = peer.address, %error, "a peer was not reached");
                }
                state.mesh.down(now, peer.incarnation, Cause::Failed);
            }
            HubCommand::Probed { incarnation, refused } => state.mesh.probed(now, incarnation, refused),
            HubCommand::SessionOpened(session) => state.session_opened(&session),
            HubCommand::SessionReady(session) => state.session_ready(now, &myself, &session).await,
            HubCommand::SessionGone(session) => state.session_gone(now, &session),
            HubCommand::Up { ticket, generation } => state.up(now, ticket, generation),
            HubCommand::Down { ticket, reason } => state.down(now, ticket, &reason),
            HubCommand::Tick => state.tick(now, &myself),
        }
        state.shared.view.store(Arc::new(state.mesh.view()));
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<HubCommand>,
        event: SupervisionEvent,
        state: &mut State<P>,
    ) -> Result<(), ActorProcessingErr> {
        let (lost, failed) = match event {
            SupervisionEvent::ActorFailed(actor, _) => (actor.get_id(), true),
            SupervisionEvent::ActorTerminated(actor, ..) => (actor.get_id(), false),
            _ => return Ok(()),
        };
        if lost == state.server.get_id() {
            end_process("links to peers");
        } else if let Some(place) = state
            .ingresses
            .iter()
            .position(|ingress| ingress.get_id() == lost)
        {
            tracing::error!("an ingress was lost and is made anew");
            state.ingresses[place] = ingress::spawn(Arc::clone(&state.shared.routes), &myself).await?;
        } else if failed {
            // One that ended as it should has said so itself.
            state.egress_gone(time::moment(), lost);
        }
        Ok(())
    }
}

/// Ends with the hub, however it goes.
impl<P: Payload> Drop for State<P> {
    fn drop(&mut self) {
        self.accepting.abort();
        self.sessions.values().for_each(|session| session.cut.cancel());
        self.shared.links.store(Arc::default());
        self.shared.routes.store(Arc::default());
        self.shared.view.store(Arc::default());
        self.metrics.peers_up.set(0.0);
    }
}

/// Starts the library's server, as a child of the hub. It insists on a listener of its own, which is on
/// loopback, on a port that nobody knows, behind TLS without a certificate: nobody comes in there, and
/// connections of ours are handed to it.
async fn start_server(
    options: &Options,
    hub: &ActorRef<HubCommand>,
) -> Result<ActorRef<NodeServerMessage>, ActorProcessingErr> {
    // The library refuses a peer of the same name or the same `host:port`; an incarnation in place of the
    // host makes both its own.
    let (name, host) = (
        options.hello.node.to_string(),
        options.hello.incarnation.to_string(),
    );
    let encryption = IncomingEncryptionMode::Tls(closed_door()?);
    let server = NodeServer::new(
        0,
        options.cookie.clone(),
        name,
        host,
        Some(encryption),
        Some(NodeConnectionMode::Isolated),
    )
    .with_listen_addr(std::net::Ipv4Addr::LOCALHOST.into())
    .with_max_inbound_frame_size((FRAME_BYTES_MAX + LIBRARY_BYTES_MAX) as u64);
    let (server, _task) = Actor::spawn_linked(None, server, (), hub.get_cell()).await?;
    let subscription = Box::new(Subscription(hub.clone()));
    server.cast(NodeServerMessage::SubscribeToEvents {
        id: "hub".to_owned(),
        subscription,
    })?;
    Ok(server)
}

struct Subscription(ActorRef<HubCommand>);

impl NodeEventSubscription for Subscription {
    fn node_session_opened(&self, session: NodeServerSessionInformation) {
        let _ = self.0.cast(HubCommand::SessionOpened(session));
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        let _ = self.0.cast(HubCommand::SessionGone(session));
    }

    fn node_session_authenticated(&self, _session: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        let _ = self.0.cast(HubCommand::SessionReady(session));
    }
}

/// The number of the connection that a session is made of.
fn ticket(session: &NodeServerSessionInformation) -> u64 {
    session.peer_addr.parse().unwrap_or(0)
}

/// Who is at the other end, by the name under which it was let in.
fn incarnation(session: &NodeServerSessionInformation) -> Option<Incarnation> {
    let (node, incarnation) = session.peer_name.as_ref()?.name.split_once('@')?;
    NodeId::parse(node).ok()?;
    Incarnation::new(u64::from_str_radix(incarnation, 16).ok()?)
}

impl<P: Payload> State<P> {
    fn know(&mut self, now: Moment, peers: Vec<PeerAddress>) {
        self.mesh.know(now, peers);
        let in_vain = |session: &Session<P>| {
            session.linked.is_none() && session.to.is_some_and(|(peer, _)| !self.mesh.is_named(peer))
        };
        let in_vain: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| in_vain(session))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in in_vain {
            self.end(now, ticket, Cause::Failed);
        }
    }

    fn opened(&mut self, now: Moment, socket: Socket, to: Option<(Incarnation, u64)>) {
        if let Some((peer, _)) = to.filter(|(peer, _)| !self.mesh.is_named(*peer)) {
            // Whoever is there now is another, and may be linked already.
            return self.mesh.down(now, peer, Cause::Failed);
        }
        let Socket {
            ticket,
            cut,
            peer,
            greeting,
            stream,
        } = socket;
        let session = Session {
            cut,
            to,
            peer: peer.to_string(),
            deadline: Some(now + LINK_LIMIT),
            actor: None,
            linked: None,
            greeting,
        };
        self.sessions.insert(ticket, session);
        let _ = self.server.cast(NodeServerMessage::ConnectionOpenedExternal {
            stream,
            is_server: to.is_none(),
        });
    }

    fn session_opened(&mut self, session: &NodeServerSessionInformation) {
        match self.sessions.get_mut(&ticket(session)) {
            Some(known) => known.actor = Some(session.actor.clone()),
            // Cut already, or not by way of us.
            None => session.actor.stop(None),
        }
    }

    /// The cookie fits: makes the link's end here, which exchanges hello.
    async fn session_ready(
        &mut self,
        now: Moment,
        myself: &ActorRef<HubCommand>,
        information: &NodeServerSessionInformation,
    ) {
        let ticket = ticket(information);
        let Some(session) = self.sessions.get_mut(&ticket) else {
            return;
        };
        let peer = incarnation(information);
        let (Some(peer), true) = (
            peer,
            session.to.is_none_or(|(expected, _)| Some(expected) == peer),
        ) else {
            self.metrics.refuse("identity");
            tracing::warn!(peer = session.peer, name = ?information.peer_name, "a peer is not who it should be");
            return self.end(now, ticket, Cause::Failed);
        };
        let role = match session.to {
            Some((_, generation)) => Role::Dialler { generation },
            None => Role::Acceptor {
                above: self.generations.get(&peer).copied().unwrap_or(0),
            },
        };
        let options = &self.shared.options;
        let Some(ingress) = ingress::of_session(information.node_id, options.hello.incarnation) else {
            self.metrics.refuse("identity");
            tracing::warn!(peer = session.peer, "a peer has no ingress: it is none of ours");
            return self.end(now, ticket, Cause::Failed);
        };
        let terms = Terms {
            role,
            hello: options.hello.clone(),
            peer,
            heartbeat: options.heartbeat,
            silent_after: options.heartbeat * HEARTBEATS_MISSED,
            flow_places: options.flow_places,
        };
        let arguments = egress::Arguments {
            terms,
            peer_places: options.peer_places,
            ingress,
            ticket,
            hub: myself.clone(),
            handler: Arc::clone(&self.shared.handler),
        };
        match egress::spawn(arguments).await {
            Ok(egress) => {
                session.linked = Some((peer, egress.clone()));
                // The library keeps one session a name: what was routed before is of a session that is gone,
                // or about to be.
                if let Some(before) = replace(&self.shared.routes, peer, Some(egress)) {
                    before.command(EgressCommand::Lost);
                }
            }
            Err(error) => {
                tracing::error!(%error, "an egress did not start");
                self.end(now, ticket, Cause::Failed);
            }
        }
    }

    fn up(&mut self, now: Moment, ticket: u64, generation: u64) {
        let Some(session) = self.sessions.get_mut(&ticket) else {
            return;
        };
        let Some((peer, egress)) = session.linked.clone() else {
            return;
        };
        (session.deadline, session.greeting) = (None, None);
        self.generations.insert(peer, generation);
        self.mesh.up(now, peer);
        replace(&self.shared.links, peer, Some(egress));
        self.metrics.peers_up.set(self.shared.links.load().len() as f64);
        tracing::info!(%peer, generation, address = session.peer, "linked");
    }

    fn down(&mut self, now: Moment, ticket: u64, reason: &Reason) {
        let Some(session) = self.sessions.get(&ticket) else {
            return;
        };
        let peer = session.linked.as_ref().map(|(peer, _)| *peer);
        let cause = match reason {
            Reason::Mismatch(mismatch) => {
                self.metrics.refuse(mismatch.name());
                Cause::Mismatch
            }
            Reason::Refused(_) => {
                self.metrics.refuse("by_peer");
                Cause::Mismatch
            }
            Reason::Missing { .. } => {
                self.metrics.refuse("missing");
                Cause::Failed
            }
            Reason::Protocol(_) => {
                self.metrics.refuse("protocol");
                Cause::Failed
            }
            Reason::Silent | Reason::Lost => Cause::Failed,
        };
        tracing::warn!(peer = peer.map(tracing::field::display), address = session.peer, %reason, "a link is over");
        self.end(now, ticket, cause);
    }

    fn session_gone(&mut self, now: Moment, session: &NodeServerSessionInformation) {
        let ticket = ticket(session);
        let Some(session) = self.sessions.get(&ticket) else {
            return;
        };
        match &session.linked {
            // It says itself that it is down, once all its requests are answered.
            Some((_, egress)) => egress.command(EgressCommand::Lost),
            None => {
                self.metrics.refuse("not_let_in");
                tracing::warn!(
                    address = session.peer,
                    "a connection ended before it was a link: do both nodes have the same cookie?"
                );
                self.end(now, ticket, Cause::Failed);
            }
        }
    }

    /// An egress panicked: its requests answer by themselves that nothing is known of them.
    fn egress_gone(&mut self, now: Moment, actor: ActorId) {
        let is_it = |session: &Session<P>| {
            session
                .linked
                .as_ref()
                .is_some_and(|(_, egress)| egress.actor.get_id() == actor)
        };
        if let Some(ticket) = self
            .sessions
            .iter()
            .find(|(_, session)| is_it(session))
            .map(|(ticket, _)| *ticket)
        {
            tracing::error!("an egress was lost; its link is made anew");
            self.end(now, ticket, Cause::Failed);
        }
    }

    /// Cuts a connection; what follows from it goes by the session's end.
    fn cut(&self, ticket: u64) {
        if let Some(session) = self.sessions.get(&ticket) {
            session.cut.cancel();
            if let Some(actor) = &session.actor {
                actor.stop(None);
            }
        }
    }

    /// Forgets a connection that is over.
    fn end(&mut self, now: Moment, ticket: u64, cause: Cause) {
        self.cut(ticket);
        let Some(session) = self.sessions.remove(&ticket) else {
            return;
        };
        let dialled = session.to.map(|(peer, _)| peer);
        let mut replaced = false;
        if let Some((peer, egress)) = &session.linked {
            replaced = !remove(&self.shared.routes, *peer, egress);
            remove(&self.shared.links, *peer, egress);
            self.metrics.peers_up.set(self.shared.links.load().len() as f64);
        }
        let peer = session.linked.map(|(peer, _)| peer).or(dialled);
        if let (Some(peer), false) = (peer, replaced) {
            self.mesh.down(now, peer, cause);
        }
    }

    /// Cuts connections that are no links in time.
    fn cut_late(&mut self, now: Moment) {
        let is_late = |session: &Session<P>| session.deadline.is_some_and(|deadline| now >= deadline);
        let late: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_late(session))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in late {
            let Some(session) = self.sessions.get_mut(&ticket) else {
                continue;
            };
            session.deadline = None;
            self.metrics.refuse("late");
            tracing::warn!(
                address = session.peer,
                "a connection was not a link in time, and is cut"
            );
            match &session.linked {
                Some((_, egress)) => egress.command(EgressCommand::Lost),
                None => self.end(now, ticket, Cause::Failed),
            }
        }
    }

    fn tick(&mut self, now: Moment, myself: &ActorRef<HubCommand>) {
        self.cut_late(now);
        for step in self.mesh.tick(now) {
            let hub = myself.clone();
            match step {
                Step::Dial {
                    peer,
                    generation,
                    again,
                } => {
                    if again {
                        self.metrics.redials.increment(1);
                    }
                    let tls = self.tls.clone();
                    tokio::spawn(async move {
                        let command = match socket::dial(&peer.address, tls).await {
                            Ok(socket) => HubCommand::Opened {
                                socket,
                                to: Some((peer.incarnation, generation)),
                            },
                            Err(error) => HubCommand::NotDialled { peer, error },
                        };
                        let _ = hub.cast(command);
                    });
                }
                Step::Probe(peer) => {
                    tokio::spawn(async move {
                        let refused = socket::is_refused(&peer.address).await;
                        let _ = hub.cast(HubCommand::Probed {
                            incarnation: peer.incarnation,
                            refused,
                        });
                    });
                }
                Step::Forget(incarnation) => {
                    self.generations.remove(&incarnation);
                    if let Some(egress) = self.shared.routes.load().get(&incarnation) {
                        egress.command(EgressCommand::Lost);
                    }
                }
            }
        }
    }
}

/// Puts a route in place, and gives back the one before.
fn replace<P: Payload>(
    routes: &Routes<P>,
    peer: Incarnation,
    egress: Option<EgressHandle<P>>,
) -> Option<EgressHandle<P>> {
    let mut table = HashMap::clone(&routes.load());
    let before = match egress {
        Some(egress) => table.insert(peer, egress),
        None => table.remove(&peer),
    };
    routes.store(Arc::new(table));
    before
}

/// Takes a route away, unless another took its place.
fn remove<P: Payload>(routes: &Routes<P>, peer: Incarnation, egress: &EgressHandle<P>) -> bool {
    let is_it = routes
        .load()
        .get(&peer)
        .is_some_and(|current| current.actor.get_id() == egress.actor.get_id());
    if is_it {
        replace(routes, peer, None);
    }
    is_it
}
