//! The hub dials the peers that the mesh names, follows every connection from its first byte to its end, and
//! publishes which peers are linked.
//!
//! A connection must become a link within a time limit, which covers the cookie, the library's exchange and
//! hello together. A connection that takes longer is cut, whatever is at the other end.

mod routes;
mod server;
mod sessions;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_cluster::NodeServerMessage;
use ractor_cluster::node::NodeServerSessionInformation;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::critical::{critical, end_process};
use crate::ids::{Incarnation, PeerAddress};
use crate::link::egress::EgressCommand;
use crate::link::end::effect::Reason;
use crate::link::greetings::Greetings;
use crate::link::hub::sessions::Session;
use crate::link::ingress::{self, INGRESSES, Routes};
use crate::link::mesh::{Cause, Mesh, MeshView, Step};
use crate::link::payload::Payload;
use crate::link::socket::{self, Socket};
use crate::link::tls::Tls;
use crate::link::{Handler, Options};
use crate::metrics::{PeerHandles, peer_handles};
use crate::time::{self, Moment};

/// Interval at which the hub reads the clock.
const TICK: Duration = Duration::from_millis(25);

/// The messages of the hub.
pub(super) enum HubCommand {
    /// Names all peers.
    Know(Vec<PeerAddress>),
    /// A connection was dialled, or accepted if `to` is `None`.
    Opened {
        socket: Socket,
        to: Option<(Incarnation, u64)>,
    },
    /// A dial failed.
    NotDialled {
        peer: PeerAddress,
        error: std::io::Error,
    },
    /// A probe ended.
    Probed { incarnation: Incarnation, refused: bool },
    /// The library made a session from a connection.
    SessionOpened(NodeServerSessionInformation),
    /// The session exchanged cookies and actors.
    SessionReady(NodeServerSessionInformation),
    /// The session ended.
    SessionGone(NodeServerSessionInformation),
    /// The link of this connection exchanged hello.
    Up { ticket: u64, generation: u64 },
    /// The link of this connection ended.
    Down { ticket: u64, reason: Reason },
    /// The interval [`TICK`] passed.
    Tick,
}

impl ractor::Message for HubCommand {}

/// The state shared by the hub and the holders of the links.
pub(super) struct Shared<P: Payload> {
    pub(super) options: Options,
    pub(super) handler: Arc<dyn Handler<P>>,
    /// The egress for the frames of each peer, both of links and of sessions that exchange hello.
    pub(super) routes: Routes<P>,
    /// The egresses through which requests may be sent.
    pub(super) links: Routes<P>,
    pub(super) view: ArcSwap<MeshView>,
    /// True once the hub was told to stop. Then its end is not a failure.
    pub(super) stopping: AtomicBool,
}

pub(super) struct Hub<P>(pub(super) std::marker::PhantomData<P>);

pub(super) struct Arguments<P: Payload> {
    pub(super) shared: Arc<Shared<P>>,
    pub(super) listener: Arc<TcpListener>,
    pub(super) tls: Option<Tls>,
}

pub(super) struct State<P: Payload> {
    shared: Arc<Shared<P>>,
    tls: Option<Tls>,
    server: ActorRef<NodeServerMessage>,
    ingresses: Vec<ActorCell>,
    accepting: AbortHandle,
    mesh: Mesh,
    /// The addresses of all peers, whose connections are accepted before those of strangers.
    members: watch::Sender<Vec<String>>,
    sessions: HashMap<u64, Session<P>>,
    /// By peer of the mesh: the highest generation that a link to the peer has had.
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
        let server = server::start(&shared.options, &myself).await?;
        let mut ingresses = Vec::with_capacity(INGRESSES);
        for _ in 0..INGRESSES {
            ingresses.push(ingress::spawn(Arc::clone(&shared.routes), &myself).await?);
        }
        let hub = myself.clone();
        let opened = move |socket| drop(hub.cast(HubCommand::Opened { socket, to: None }));
        let (greetings, members) = (Greetings::default(), watch::Sender::default());
        let following = greetings.clone().follow_members(members.subscribe());
        tokio::spawn(critical("the addresses of members", following));
        let accepting = socket::accept(listener, tls.clone(), greetings, opened);
        let accepting = tokio::spawn(critical("accepting peers", accepting)).abort_handle();
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
            members,
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
            HubCommand::NotDialled { peer, error } => state.not_dialled(now, &peer, &error),
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
            tracing::error!("an ingress failed and is started again");
            state.ingresses[place] = ingress::spawn(Arc::clone(&state.shared.routes), &myself).await?;
        } else if failed {
            // This is done only after a failure, because an egress that ends normally has already told the
            // hub that its link is down.
            state.egress_gone(time::moment(), lost);
        }
        Ok(())
    }
}

/// Releases everything with the hub, however the hub ends.
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

impl<P: Payload> State<P> {
    fn not_dialled(&mut self, now: Moment, peer: &PeerAddress, error: &std::io::Error) {
        let (node, address) = (&peer.node, &peer.address);
        // A failed handshake is logged as a warning, because an operator has to fix it. An absent peer needs
        // no warning, because membership will notice that it is gone.
        if error.kind() == std::io::ErrorKind::InvalidData {
            self.metrics.refuse("handshake");
            tracing::warn!(%node, address, %error, "handshake with a peer failed");
        } else {
            tracing::debug!(%node, address, %error, "peer was not reached");
        }
        self.mesh.down(now, peer.incarnation, Cause::Failed);
    }

    fn tick(&mut self, now: Moment, myself: &ActorRef<HubCommand>) {
        self.cut_late(now);
        for step in self.mesh.tick(now) {
            self.take(step, myself.clone());
        }
    }

    /// Carries out what the mesh decided. Dials and probes report to the hub when they end.
    fn take(&mut self, step: Step, hub: ActorRef<HubCommand>) {
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
                // The task is critical: if it panicked, the mesh would wait for this dial for ever.
                tokio::spawn(critical("a dial of a peer", async move {
                    let command = match socket::dial(&peer.address, tls).await {
                        Ok(socket) => HubCommand::Opened {
                            socket,
                            to: Some((peer.incarnation, generation)),
                        },
                        Err(error) => HubCommand::NotDialled { peer, error },
                    };
                    let _ = hub.cast(command);
                }));
            }
            Step::Probe(peer) => {
                tokio::spawn(critical("a probe of a peer", async move {
                    let refused = socket::is_refused(&peer.address).await;
                    let _ = hub.cast(HubCommand::Probed {
                        incarnation: peer.incarnation,
                        refused,
                    });
                }));
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
