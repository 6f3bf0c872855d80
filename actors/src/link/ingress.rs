//! The ingress: a few fixed actors, the only ones that peers can reach. All frames of a peer go to the same
//! ingress, which reads the frames and hands them to the peer's link.
//!
//! Ingresses are few and fixed, because every actor that peers can reach is announced to every peer and
//! monitored by every session. Their only state is which peers are linked. So an ingress that failed can be
//! started again: frames are then missing, and its peers link again.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, pg};

use crate::ids::Incarnation;
use crate::link::egress::{EgressCommand, EgressHandle};
use crate::link::frame::Frame;
use crate::link::hub::HubCommand;
use crate::link::payload::Payload;
use crate::metrics::{PeerHandles, peer_handles};
use crate::time::{self, Moment};

/// Number of ingresses, which read frames in parallel. It is small because the cores of a large machine have
/// other work as well.
pub(super) const INGRESSES: usize = 4;
/// Minimum time between two log lines of an ingress about refused frames. Metrics count every refused frame.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// The process group by which peers find each other's ingresses.
const SCOPE: &str = "firstcome";
const GROUP: &str = "ingress";

/// The bytes of a frame.
pub(super) struct Arrival(pub(super) Vec<u8>);

impl ractor::Message for Arrival {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        Ok(SerializedMessage::Cast {
            variant: String::new(),
            args: self.0,
            metadata: None,
        })
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        match message {
            SerializedMessage::Cast { args, .. } => Ok(Self(args)),
            SerializedMessage::Call { .. } | SerializedMessage::CallReply(..) => Err(BoxedDowncastErr),
        }
    }
}

/// The egress for the frames of each peer that is linked or about to be.
pub(super) type Routes<P> = Arc<ArcSwap<HashMap<Incarnation, EgressHandle<P>>>>;

/// Starts an ingress as a child of the hub, in the process group where peers find it.
pub(super) async fn spawn<P: Payload>(
    routes: Routes<P>,
    hub: &ActorRef<HubCommand>,
) -> Result<ActorCell, SpawnErr> {
    let (actor, _task) =
        Ingress::spawn_linked(None, Ingress(std::marker::PhantomData), routes, hub.get_cell()).await?;
    pg::join_scoped(SCOPE.to_owned(), GROUP.to_owned(), vec![actor.get_cell()]);
    Ok(actor.get_cell())
}

/// Returns the ingress at the other end of this session that receives the frames of `from`.
pub(super) fn of_session(session: u64, from: Incarnation) -> Option<ActorRef<Arrival>> {
    let members = pg::get_scoped_members(&SCOPE.to_owned(), &GROUP.to_owned());
    let mut theirs: Vec<ActorCell> = members
        .into_iter()
        .filter(|cell| matches!(cell.get_id(), ActorId::Remote { node_id, .. } if node_id == session))
        .collect();
    theirs.sort_by_key(|cell| cell.get_id().pid());
    let place = usize::try_from(from.get())
        .unwrap_or(0)
        .checked_rem(theirs.len())?;
    Some(theirs.swap_remove(place).into())
}

struct Ingress<P>(std::marker::PhantomData<P>);

struct State<P: Payload> {
    routes: Routes<P>,
    metrics: &'static PeerHandles,
    logged_at: Option<Moment>,
}

impl<P: Payload> Actor for Ingress<P> {
    type Msg = Arrival;
    type State = State<P>;
    type Arguments = Routes<P>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Arrival>,
        routes: Routes<P>,
    ) -> Result<State<P>, ActorProcessingErr> {
        Ok(State {
            routes,
            metrics: peer_handles(),
            logged_at: None,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Arrival>,
        Arrival(bytes): Arrival,
        state: &mut State<P>,
    ) -> Result<(), ActorProcessingErr> {
        state.metrics.frames_received.increment(1);
        state.metrics.bytes_received.increment(bytes.len() as u64);
        match Frame::<P>::read(bytes) {
            Ok(frame) => match state.routes.load().get(&frame.header.from) {
                Some(egress) => egress.command(EgressCommand::Arrived(frame)),
                None => state.metrics.refuse("no_link"),
            },
            Err(error) => {
                state.metrics.refuse("unreadable");
                let now = time::moment();
                if state.logged_at.is_none_or(|at| now.since(at) >= LOG_EVERY) {
                    state.logged_at = Some(now);
                    tracing::warn!(%error, "a frame was refused, so its link will be replaced");
                }
            }
        }
        Ok(())
    }
}
