//! The library's server, and the events of its sessions.

use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_cluster::node::{NodeConnectionMode, NodeServerSessionInformation};
use ractor_cluster::{IncomingEncryptionMode, NodeEventSubscription, NodeServer, NodeServerMessage};

use crate::link::Options;
use crate::link::frame::FRAME_BYTES_MAX;
use crate::link::hub::HubCommand;
use crate::link::tls::closed_acceptor;

/// Room for what the library adds to a frame, and for the library's own messages. These messages list the
/// actors that peers can reach, and a node has only a few of these.
const LIBRARY_BYTES_MAX: usize = 64 * 1024;

/// Starts the library's server as a child of the hub.
///
/// The library insists on a listener of its own. It is on loopback, on a random port, behind TLS without a
/// certificate, so that no connection is accepted there. Connections of this node's own sockets are handed to
/// the server.
pub(super) async fn start(
    options: &Options,
    hub: &ActorRef<HubCommand>,
) -> Result<ActorRef<NodeServerMessage>, ActorProcessingErr> {
    // The library refuses a peer of the same name or the same `host:port`. An incarnation in place of the
    // host makes both unique.
    let (name, host) = (
        options.hello.node.to_string(),
        options.hello.incarnation.to_string(),
    );
    let encryption = IncomingEncryptionMode::Tls(closed_acceptor()?);
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

/// Forwards the events of sessions to the hub.
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
