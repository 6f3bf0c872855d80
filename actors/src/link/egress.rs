//! The egress, one for each link: the shell around [`LinkEnd`]. Requests and answers for one peer meet in the
//! egress's mailbox and are sent together.
//!
//! The egress never waits. It queues incoming messages, and with the first one it sends itself a `Flush`. The
//! `Flush` arrives behind everything that is already in the mailbox, and puts all of it into one frame. There
//! is no timer to tune: an idle link sends a request at once, and a busy link sends hundreds at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::admission::{Admission, NotAdmitted, Permit};
use crate::ids::Incarnation;
use crate::link::end::LinkEnd;
use crate::link::end::effect::{Effect, Effects, Reason, Terms};
use crate::link::frame::Frame;
use crate::link::hub::HubCommand;
use crate::link::ingress::Arrival;
use crate::link::payload::{Outgoing, Payload, Undelivered};
use crate::link::{AnswerPath, Handler};
use crate::metrics::{PeerHandles, handles, peer_handles};
use crate::time::{self, Moment};

/// Shortest and longest interval at which the clock is read. The longest is short enough for a new link to
/// send hello soon.
const TICK: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(25);

/// The messages of an egress.
#[derive(Debug)]
pub(super) enum EgressCommand<P: Payload> {
    /// Sends a request to the peer.
    Send(Outgoing<P>, Permit),
    /// Answers a request of the peer.
    Answer(u64, P::Answer),
    /// Handles a frame of the peer.
    Arrived(Frame<P>),
    /// Sends news to the peer. The channel is notified when the peer acknowledges them, and dropped if the
    /// peer can no longer acknowledge them.
    Tell(Vec<u8>, oneshot::Sender<()>),
    /// Sends what waits.
    Flush,
    /// Reads the clock.
    Tick,
    /// Ends the link: its session ended, or must end.
    Lost,
}

impl<P: Payload> ractor::Message for EgressCommand<P> {}

/// A handle through which requests and commands are sent on a link.
#[derive(Debug)]
pub(super) struct EgressHandle<P: Payload> {
    pub(super) actor: ActorRef<EgressCommand<P>>,
    places: Admission,
}

impl<P: Payload> Clone for EgressHandle<P> {
    fn clone(&self) -> Self {
        Self {
            actor: self.actor.clone(),
            places: self.places.clone(),
        }
    }
}

impl<P: Payload> EgressHandle<P> {
    /// Sends a request. It is always answered.
    pub(super) fn send(&self, request: Outgoing<P>) {
        let place = match self.places.admit() {
            Ok(place) => place,
            Err(NotAdmitted::Closed) => return request.undelivered(Undelivered::NotSent),
            Err(NotAdmitted::Full) => {
                peer_handles().windows_full_peer.increment(1);
                handles().refused_by_link.increment(1);
                return request.undelivered(Undelivered::NoRoom);
            }
        };
        if let Err(ractor::MessagingErr::SendErr(EgressCommand::Send(request, _))) =
            self.actor.cast(EgressCommand::Send(request, place))
        {
            request.undelivered(Undelivered::NotSent);
        }
    }

    /// Returns how many requests wait to be sent or answered.
    pub(super) fn in_flight(&self) -> usize {
        self.places.taken()
    }

    /// Sends a command. It is dropped if the egress has ended.
    pub(super) fn command(&self, command: EgressCommand<P>) {
        let _ = self.actor.cast(command);
    }
}

/// The arguments of an egress.
pub(super) struct Arguments<P: Payload> {
    /// The terms of its link.
    pub(super) terms: Terms,
    /// Maximum number of this node's requests in flight through the egress.
    pub(super) peer_places: usize,
    /// The peer's ingress.
    pub(super) ingress: ActorRef<Arrival>,
    /// The number by which the hub identifies the session.
    pub(super) ticket: u64,
    pub(super) hub: ActorRef<HubCommand>,
    pub(super) handler: Arc<dyn Handler<P>>,
}

/// Starts the egress of a session that has just become ready, as a child of the hub.
pub(super) async fn spawn<P: Payload>(arguments: Arguments<P>) -> Result<EgressHandle<P>, ractor::SpawnErr> {
    let places = Admission::new(arguments.peer_places);
    let hub = arguments.hub.get_cell();
    let egress = Egress(std::marker::PhantomData);
    let (actor, _task) = Egress::spawn_linked(None, egress, (arguments, places.clone()), hub).await?;
    Ok(EgressHandle { actor, places })
}

struct Egress<P>(std::marker::PhantomData<P>);

struct State<P: Payload> {
    link: LinkEnd<P>,
    peer: Incarnation,
    ingress: ActorRef<Arrival>,
    ticket: u64,
    hub: ActorRef<HubCommand>,
    handler: Arc<dyn Handler<P>>,
    /// Places of this node's requests in flight, closed with the link.
    places: Admission,
    /// News that are not yet acknowledged.
    told: HashMap<u64, oneshot::Sender<()>>,
    /// True once answers no longer reach the peer.
    gone: Arc<AtomicBool>,
    flushing: bool,
    metrics: &'static PeerHandles,
    shown_in_flight: usize,
}

impl<P: Payload> Actor for Egress<P> {
    type Msg = EgressCommand<P>;
    type State = State<P>;
    type Arguments = (Arguments<P>, Admission);

    async fn pre_start(
        &self,
        myself: ActorRef<EgressCommand<P>>,
        (arguments, places): Self::Arguments,
    ) -> Result<State<P>, ActorProcessingErr> {
        let Arguments {
            terms,
            peer_places: _,
            ingress,
            ticket,
            hub,
            handler,
        } = arguments;
        let tick = (terms.heartbeat / 4).clamp(*TICK.start(), *TICK.end());
        // The timer ends with the actor.
        myself.send_interval(tick, || EgressCommand::Tick);
        let _ = myself.cast(EgressCommand::Tick);
        Ok(State {
            peer: terms.peer,
            link: LinkEnd::new(terms),
            ingress,
            ticket,
            hub,
            handler,
            places,
            told: HashMap::new(),
            gone: Arc::default(),
            flushing: false,
            metrics: peer_handles(),
            shown_in_flight: 0,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<EgressCommand<P>>,
        command: EgressCommand<P>,
        state: &mut State<P>,
    ) -> Result<(), ActorProcessingErr> {
        let (now, mut effects) = (time::moment(), Effects::new());
        match command {
            EgressCommand::Send(request, place) => state.link.send(request, place, &mut effects),
            EgressCommand::Answer(id, answer) => state.link.answer(id, answer),
            EgressCommand::Arrived(frame) => state.link.arrived(now, frame, &mut effects),
            EgressCommand::Tell(content, acknowledged) => {
                if let Some(id) = state.link.tell(content) {
                    state.told.insert(id, acknowledged);
                }
            }
            EgressCommand::Flush => {
                state.flushing = false;
                state.link.flush(now, &mut effects);
            }
            EgressCommand::Tick => {
                state.told.retain(|_, acknowledged| !acknowledged.is_closed());
                state.link.tick(now, &mut effects);
            }
            EgressCommand::Lost => state.link.reset(Reason::Lost, &mut effects),
        }
        for effect in effects {
            state.carry_out(&myself, now, effect);
        }
        if state.link.is_up() && state.link.has_queued() && !state.flushing {
            state.flushing = true;
            let _ = myself.cast(EgressCommand::Flush);
        }
        state.show(state.link.in_flight());
        Ok(())
    }
}

impl<P: Payload> Drop for State<P> {
    fn drop(&mut self) {
        self.show(0);
    }
}

impl<P: Payload> State<P> {
    fn show(&mut self, in_flight: usize) {
        if in_flight != self.shown_in_flight {
            let change = in_flight as f64 - self.shown_in_flight as f64;
            self.metrics.in_flight.increment(change);
            self.shown_in_flight = in_flight;
        }
    }

    fn carry_out(&mut self, myself: &ActorRef<EgressCommand<P>>, now: Moment, effect: Effect<P>) {
        match effect {
            Effect::Send { bytes, requests } => self.send(bytes, requests),
            Effect::Up => self.report(HubCommand::Up {
                ticket: self.ticket,
                generation: self.link.generation(),
            }),
            Effect::BeatDue => {
                let content = self.handler.heartbeat(self.peer);
                self.link.beat(now, content);
            }
            Effect::Handle(request, expires) => {
                let path = AnswerPath::new(myself.clone(), request.id, expires, Arc::clone(&self.gone));
                self.handler.handle(request.ask, expires, path);
            }
            Effect::Reply(reply, answer) => P::reply(reply, answer),
            Effect::Full(request) => {
                self.metrics.windows_full_flow.increment(1);
                handles().refused_by_link.increment(1);
                request.undelivered(Undelivered::NoRoom);
            }
            Effect::HeartbeatReceived(message) => {
                let content = self.handler.heartbeat_answer(self.peer, message.content);
                self.link.answer_heartbeat(message.id, content);
            }
            Effect::HeartbeatAnswered { sent_at, content } => {
                let seconds = now.since(sent_at).as_secs_f64();
                self.metrics.round_trip.record(seconds);
                self.handler.heartbeat_answered(self.peer, sent_at, content);
            }
            Effect::News(message) => {
                if self.handler.news(self.peer, message.content) {
                    self.link.acknowledge(message.id);
                }
            }
            Effect::Acknowledged(id) => {
                if let Some(acknowledged) = self.told.remove(&id) {
                    let _ = acknowledged.send(());
                }
            }
            Effect::Dropped(reason) => self.metrics.refuse(reason),
            Effect::Reset(reason) => self.end(myself, reason),
        }
    }

    fn send(&self, bytes: Vec<u8>, requests: usize) {
        self.metrics.frames_sent.increment(1);
        self.metrics.bytes_sent.increment(bytes.len() as u64);
        if requests > 0 {
            self.metrics.frame_requests.record(requests as f64);
        }
        // The library reports the end of a session to the hub, and the hub tells this egress.
        let _ = self.ingress.cast(Arrival(bytes));
    }

    /// Admits nothing more, answers what is in the mailbox, and ends.
    fn end(&mut self, myself: &ActorRef<EgressCommand<P>>, reason: Reason) {
        self.gone.store(true, Ordering::Release);
        self.places.close();
        self.told.clear();
        self.report(HubCommand::Down {
            ticket: self.ticket,
            reason,
        });
        let _ = myself.drain();
    }

    fn report(&self, command: HubCommand) {
        let _ = self.hub.cast(command);
    }
}
