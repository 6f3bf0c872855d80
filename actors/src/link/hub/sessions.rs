//! Connections that are about to become links, links, and how both end.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorId, ActorRef};
use ractor_cluster::node::NodeServerSessionInformation;
use ractor_cluster::{NodeServerMessage, NodeSessionMessage};
use tokio_util::sync::CancellationToken;

use crate::ids::{Incarnation, NodeId, PeerAddress};
use crate::link::egress::{self, EgressCommand, EgressHandle};
use crate::link::end::effect::{Reason, Role, Terms};
use crate::link::greetings::Greeting;
use crate::link::hub::routes::{remove, replace};
use crate::link::hub::{HubCommand, State};
use crate::link::ingress;
use crate::link::mesh::Cause;
use crate::link::payload::Payload;
use crate::link::socket::{Socket, limit};
use crate::log_limit::LogLimit;
use crate::peer_names;
use crate::time::Moment;

/// Longest time in which a connection must become a link.
const LINK_LIMIT: Duration = Duration::from_secs(3);
/// Number of unanswered heartbeats after which a peer is silent.
const HEARTBEATS_MISSED: u32 = 4;

static NOT_LET_IN: LogLimit = limit(|suppressed| {
    tracing::warn!(suppressed, "further connections ended before they became links");
});
static LATE: LogLimit = limit(|suppressed| {
    tracing::warn!(suppressed, "further connections did not become links in time");
});

/// A connection and what has become of it.
pub(super) struct Session<P: Payload> {
    pub(super) cut: CancellationToken,
    /// The peer for which it was dialled, and the generation of the link.
    to: Option<(Incarnation, u64)>,
    peer: String,
    /// The time at which it is cut. `None` once it is a link or was told to end.
    deadline: Option<Moment>,
    actor: Option<ActorRef<NodeSessionMessage>>,
    linked: Option<(Incarnation, EgressHandle<P>)>,
    greeting: Option<Greeting>,
}

/// Returns the number of a session's connection.
fn ticket(session: &NodeServerSessionInformation) -> u64 {
    session.peer_addr.parse().unwrap_or(0)
}

/// Returns the incarnation and the name of the peer, from the name under which the library accepted it.
fn identity(session: &NodeServerSessionInformation) -> Option<(Incarnation, NodeId)> {
    let (node, incarnation) = session.peer_name.as_ref()?.name.split_once('@')?;
    let node = NodeId::parse(node).ok()?;
    Some((
        Incarnation::new(u64::from_str_radix(incarnation, 16).ok()?)?,
        node,
    ))
}

impl<P: Payload> State<P> {
    pub(super) fn know(&mut self, now: Moment, peers: Vec<PeerAddress>) {
        let addresses = || peers.iter().map(|peer| peer.address.as_str());
        self.members.send_if_modified(|known| {
            let is_new = !addresses().eq(known.iter());
            if is_new {
                *known = addresses().map(str::to_owned).collect();
            }
            is_new
        });
        self.mesh.know(now, peers);
        let is_obsolete = |session: &Session<P>| {
            session.linked.is_none() && session.to.is_some_and(|(peer, _)| !self.mesh.is_named(peer))
        };
        let obsolete: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_obsolete(session))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in obsolete {
            self.end(now, ticket, Cause::Failed);
        }
    }

    pub(super) fn opened(&mut self, now: Moment, socket: Socket, to: Option<(Incarnation, u64)>) {
        if let Some((peer, _)) = to.filter(|(peer, _)| !self.mesh.is_named(*peer)) {
            // Another incarnation is at that address now, and may be linked already.
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

    pub(super) fn session_opened(&mut self, session: &NodeServerSessionInformation) {
        match self.sessions.get_mut(&ticket(session)) {
            Some(known) => known.actor = Some(session.actor.clone()),
            // The connection was cut already, or does not come from this node's sockets.
            None => session.actor.stop(None),
        }
    }

    /// Starts this end of the link, which exchanges hello. The cookies have been compared already.
    pub(super) async fn session_ready(
        &mut self,
        now: Moment,
        myself: &ActorRef<HubCommand>,
        information: &NodeServerSessionInformation,
    ) {
        let ticket = ticket(information);
        if !self.sessions.contains_key(&ticket) {
            return;
        }
        let Some((peer, arguments)) = self.terms_of(myself, ticket, information) else {
            return self.end(now, ticket, Cause::Failed);
        };
        match egress::spawn(arguments).await {
            Ok(egress) => {
                if let Some(session) = self.sessions.get_mut(&ticket) {
                    session.linked = Some((peer, egress.clone()));
                }
                // The library keeps one session for each name, so the session of the previous route has ended
                // or is about to end.
                if let Some(previous) = replace(&self.shared.routes, peer, Some(egress)) {
                    previous.command(EgressCommand::Lost);
                }
            }
            Err(error) => {
                tracing::error!(%error, "an egress did not start");
                self.end(now, ticket, Cause::Failed);
            }
        }
    }

    /// Returns the peer of a session and the arguments of its egress; `None` if the peer is not the expected
    /// one or has no ingress.
    fn terms_of(
        &self,
        myself: &ActorRef<HubCommand>,
        ticket: u64,
        information: &NodeServerSessionInformation,
    ) -> Option<(Incarnation, egress::Arguments<P>)> {
        let session = self.sessions.get(&ticket)?;
        let expected = session.to.map(|(expected, _)| expected);
        let peer = identity(information);
        let peer = peer.filter(|(peer, _)| expected.is_none_or(|expected| expected == *peer));
        let Some((peer, node)) = peer else {
            self.metrics.refuse("identity");
            let name = &information.peer_name;
            tracing::warn!(address = session.peer, ?name, "peer has an unexpected identity");
            return None;
        };
        peer_names::learn(peer, &node);
        let role = match session.to {
            Some((_, generation)) => Role::Dialler { generation },
            None => Role::Acceptor {
                above: self.generations.get(&peer).copied().unwrap_or(0),
            },
        };
        let options = &self.shared.options;
        let Some(ingress) = ingress::of_session(information.node_id, options.hello.incarnation) else {
            self.metrics.refuse("identity");
            tracing::warn!(
                address = session.peer,
                "peer has no ingress: it is not a node of this program"
            );
            return None;
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
        Some((peer, arguments))
    }

    pub(super) fn up(&mut self, now: Moment, ticket: u64, generation: u64) {
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
        let peer = peer_names::of(peer);
        tracing::info!(peer, generation, address = session.peer, "linked");
    }

    pub(super) fn down(&mut self, now: Moment, ticket: u64, reason: &Reason) {
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
        tracing::warn!(
            peer = peer.map(peer_names::of), address = session.peer, %reason,
            "link ended"
        );
        self.end(now, ticket, cause);
    }

    pub(super) fn session_gone(&mut self, now: Moment, session: &NodeServerSessionInformation) {
        let ticket = ticket(session);
        let Some(session) = self.sessions.get(&ticket) else {
            return;
        };
        match &session.linked {
            // The egress reports its end once all its requests are answered.
            Some((_, egress)) => egress.command(EgressCommand::Lost),
            None => {
                // A connection that this node cut is counted and logged where it was cut.
                if !session.cut.is_cancelled() {
                    self.metrics.refuse("not_let_in");
                    if NOT_LET_IN.admits() {
                        tracing::warn!(
                            address = session.peer,
                            "connection ended before it became a link: do both nodes have the same cookie?"
                        );
                    }
                }
                self.end(now, ticket, Cause::Failed);
            }
        }
    }

    /// Handles the panic of an egress. Its requests are dropped, and so their callers learn that the outcome
    /// is unknown.
    pub(super) fn egress_gone(&mut self, now: Moment, actor: ActorId) {
        let is_its = |session: &Session<P>| {
            session
                .linked
                .as_ref()
                .is_some_and(|(_, egress)| egress.actor.get_id() == actor)
        };
        if let Some(ticket) = self
            .sessions
            .iter()
            .find(|(_, session)| is_its(session))
            .map(|(ticket, _)| *ticket)
        {
            tracing::error!("an egress failed; its link will be replaced");
            self.end(now, ticket, Cause::Failed);
        }
    }

    /// Cuts a connection. Everything else happens when its session ends.
    fn cut(&self, ticket: u64) {
        if let Some(session) = self.sessions.get(&ticket) {
            session.cut.cancel();
            if let Some(actor) = &session.actor {
                actor.stop(None);
            }
        }
    }

    /// Cuts and forgets a connection.
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

    /// Cuts connections that did not become links in time.
    pub(super) fn cut_late(&mut self, now: Moment) {
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
            if LATE.admits() {
                tracing::warn!(
                    address = session.peer,
                    "connection did not become a link in time and is cut"
                );
            }
            match &session.linked {
                Some((_, egress)) => egress.command(EgressCommand::Lost),
                None => self.end(now, ticket, Cause::Failed),
            }
        }
    }
}
