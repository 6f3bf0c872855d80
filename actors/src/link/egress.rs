//! The egress, one a link: the shell around [`Link`]. Requests and answers for one peer meet in its mailbox
//! and leave together.
//!
//! It never waits. What comes in is queued; the first to be queued sends the egress a `Flush`, which arrives
//! behind everything that was in the mailbox then, and so takes all of it into one frame. There is no timer
//! to tune: an idle link sends a request at once, a busy one hundreds at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::ids::{CouponId, Epoch, Incarnation, ShardId};
use crate::link::end::Link;
use crate::link::end::effect::{Effect, Effects, Reason, Terms};
use crate::link::frame::{Answer, Asked, Frame, RemoteRequest};
use crate::link::hub::HubCommand;
use crate::link::ingress::Arrival;
use crate::link::{Notices, Requests};
use crate::metrics::{PeerHandles, handles, peer_handles};
use crate::owning::admission::{Admission, NotAdmitted};
use crate::owning::message::{ChangeRequest, IssueRequest, RemoteAsker, Reply, Request, Setback};
use crate::time::{self, Moment};

/// Shortest time between looks at the clock; longest, so that a new link greets soon.
const TICK: std::ops::RangeInclusive<Duration> = Duration::from_millis(5)..=Duration::from_millis(25);

/// Everything an egress takes.
#[derive(Debug)]
pub(super) enum EgressCommand {
    /// A request of this node, for an owner at the other end.
    Ask {
        coupon: CouponId,
        epoch: Epoch,
        request: Request,
    },
    /// The answer to a request of the peer.
    Answer(u64, Answer),
    /// A frame from the peer.
    Arrived(Frame),
    /// News for the peer; acknowledged when it has heard them, dropped if that will never be known.
    Tell(Vec<u8>, oneshot::Sender<()>),
    /// A hint for the peer.
    Preload(ShardId, Vec<CouponId>),
    /// Send what waits.
    Flush,
    /// Time went by.
    Tick,
    /// The session is gone, or is to go.
    Lost,
}

impl ractor::Message for EgressCommand {}

/// A link, as those hold it who ask through it.
#[derive(Debug, Clone)]
pub(super) struct EgressHandle {
    pub(super) actor: ActorRef<EgressCommand>,
    places: Admission,
}

impl EgressHandle {
    /// Sends a request on its way; it is answered in any case.
    pub(super) fn ask(&self, coupon: CouponId, epoch: Epoch, mut request: Request) {
        match self.places.admit() {
            Ok(place) => request.admitted(place),
            Err(NotAdmitted::Closed) => return request.set_back(Setback::Moved),
            Err(NotAdmitted::Full) => {
                peer_handles().windows_full_peer.increment(1);
                handles().refused_by_link.increment(1);
                return request.set_back(Setback::Overloaded);
            }
        }
        if let Err(ractor::MessagingErr::SendErr(EgressCommand::Ask { request, .. })) =
            self.actor.cast(EgressCommand::Ask {
                coupon,
                epoch,
                request,
            })
        {
            request.set_back(Setback::Moved);
        }
    }

    /// Tells it something. An egress that is gone needs no telling.
    pub(super) fn tell(&self, command: EgressCommand) {
        let _ = self.actor.cast(command);
    }
}

/// What an egress is made of.
pub(super) struct Arguments {
    /// What its link is to be.
    pub(super) terms: Terms,
    /// Most requests of this node on their way through it.
    pub(super) peer_places: usize,
    /// The peer's ingress.
    pub(super) ingress: ActorRef<Arrival>,
    /// By which number the hub knows the session.
    pub(super) ticket: u64,
    pub(super) hub: ActorRef<HubCommand>,
    pub(super) requests: Arc<dyn Requests>,
    pub(super) notices: Arc<dyn Notices>,
    /// The queue in which the peer's requests take places.
    pub(super) places: Admission,
}

/// Makes the egress of a session that has just become ready, as a child of the hub.
pub(super) async fn spawn(arguments: Arguments) -> Result<EgressHandle, ractor::SpawnErr> {
    let places = Admission::new(arguments.peer_places);
    let hub = arguments.hub.get_cell();
    let (actor, _task) = Egress::spawn_linked(None, Egress, (arguments, places.clone()), hub).await?;
    Ok(EgressHandle { actor, places })
}

struct Egress;

struct State {
    link: Link,
    peer: Incarnation,
    ingress: ActorRef<Arrival>,
    ticket: u64,
    hub: ActorRef<HubCommand>,
    requests: Arc<dyn Requests>,
    notices: Arc<dyn Notices>,
    places: Admission,
    /// This node's requests that are on their way, closed with the link.
    own_places: Admission,
    /// Who waits for the peer to have heard news.
    told: HashMap<u64, oneshot::Sender<()>>,
    /// Set once nobody at the other end hears answers any more.
    gone: Arc<AtomicBool>,
    flushing: bool,
    metrics: &'static PeerHandles,
    shown_in_flight: usize,
}

impl Actor for Egress {
    type Msg = EgressCommand;
    type State = State;
    type Arguments = (Arguments, Admission);

    async fn pre_start(
        &self,
        myself: ActorRef<EgressCommand>,
        (arguments, own_places): Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let Arguments {
            terms,
            peer_places: _,
            ingress,
            ticket,
            hub,
            requests,
            notices,
            places,
        } = arguments;
        let tick = (terms.heartbeat / 4).clamp(*TICK.start(), *TICK.end());
        // It ends with the actor.
        myself.send_interval(tick, || EgressCommand::Tick);
        let _ = myself.cast(EgressCommand::Tick);
        Ok(State {
            peer: terms.peer,
            link: Link::new(terms),
            ingress,
            ticket,
            hub,
            requests,
            notices,
            places,
            own_places,
            told: HashMap::new(),
            gone: Arc::default(),
            flushing: false,
            metrics: peer_handles(),
            shown_in_flight: 0,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<EgressCommand>,
        command: EgressCommand,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let (now, mut effects) = (time::moment(), Effects::new());
        match command {
            EgressCommand::Ask {
                coupon,
                epoch,
                request,
            } => state.link.ask(coupon, epoch, request, &mut effects),
            EgressCommand::Answer(id, answer) => state.link.answer(id, answer),
            EgressCommand::Arrived(frame) => state.link.arrived(now, frame, &mut effects),
            EgressCommand::Tell(content, heard) => {
                if let Some(id) = state.link.tell(content) {
                    state.told.insert(id, heard);
                }
            }
            EgressCommand::Preload(shard, coupons) => state.link.preload(shard, coupons),
            EgressCommand::Flush => {
                state.flushing = false;
                state.link.flush(now, &mut effects);
            }
            EgressCommand::Tick => {
                state.told.retain(|_, heard| !heard.is_closed());
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

impl Drop for State {
    fn drop(&mut self) {
        self.show(0);
    }
}

impl State {
    fn show(&mut self, in_flight: usize) {
        if in_flight != self.shown_in_flight {
            self.metrics
                .in_flight
                .increment(in_flight as f64 - self.shown_in_flight as f64);
            self.shown_in_flight = in_flight;
        }
    }

    fn carry_out(&mut self, myself: &ActorRef<EgressCommand>, now: Moment, effect: Effect) {
        match effect {
            Effect::Send { bytes, requests } => {
                self.metrics.frames_sent.increment(1);
                self.metrics.bytes_sent.increment(bytes.len() as u64);
                if requests > 0 {
                    self.metrics.frame_requests.record(requests as f64);
                }
                // A session that is gone says so to the hub, and the hub to this egress.
                let _ = self.ingress.cast(Arrival(bytes));
            }
            Effect::Up => self.report(HubCommand::Up {
                ticket: self.ticket,
                generation: self.link.generation(),
            }),
            Effect::BeatDue => {
                let content = self.notices.heartbeat(self.peer);
                self.link.beat(now, content);
            }
            Effect::Ask(request, expires) => self.ask(myself, request, expires),
            Effect::Issue(reply, answer) => reply.send(answer),
            Effect::Change(reply, answer) => reply.send(answer),
            Effect::SetBack(request, setback) => request.set_back(setback),
            Effect::Full(request) => {
                self.metrics.windows_full_coupon.increment(1);
                handles().refused_by_link.increment(1);
                request.set_back(Setback::Overloaded);
            }
            Effect::HeartbeatAsked(notice) => {
                let content = self.notices.answer(self.peer, notice.content);
                self.link.answer_heartbeat(notice.id, content);
            }
            Effect::HeartbeatAnswered { sent_at, content } => {
                self.metrics.round_trip.record(now.since(sent_at).as_secs_f64());
                self.notices.answered(self.peer, sent_at, content);
            }
            Effect::News(notice) => {
                if self.notices.news(self.peer, notice.content) {
                    self.link.heard(notice.id);
                }
            }
            Effect::Heard(id) => {
                if let Some(heard) = self.told.remove(&id) {
                    let _ = heard.send(());
                }
            }
            Effect::Preload(shard, coupons) => self.notices.preload(self.peer, shard, coupons),
            Effect::Dropped(reason) => self.metrics.refuse(reason),
            Effect::Reset(reason) => self.end(myself, reason),
        }
    }

    /// Hands a request of the peer to its owner.
    fn ask(&mut self, myself: &ActorRef<EgressCommand>, request: RemoteRequest, expires: Moment) {
        let RemoteRequest {
            id,
            coupon,
            epoch,
            what,
            ..
        } = request;
        let place = self.places.admit();
        if place.is_err() {
            handles().refused_by_node.increment(1);
        }
        let place = match (place, &what) {
            (Ok(place), _) => place,
            (Err(_), Asked::Issue { .. }) => {
                return self.link.answer(id, Answer::Issue(Err(Setback::Overloaded)));
            }
            (Err(_), Asked::Change { .. }) => {
                return self.link.answer(id, Answer::Change(Err(Setback::Overloaded)));
            }
        };
        let way_back = WayBack {
            egress: myself.clone(),
            id,
            expires,
            gone: Arc::clone(&self.gone),
        };
        let request = match what {
            Asked::Issue { user, key } => {
                let asker = PeerAsker {
                    way_back: Some(way_back),
                    wrap: Answer::Issue,
                };
                Request::Issue(
                    IssueRequest { user, key, expires },
                    Reply::elsewhere(place, Box::new(asker)),
                )
            }
            Asked::Change { change, if_version } => {
                let asker = PeerAsker {
                    way_back: Some(way_back),
                    wrap: Answer::Change,
                };
                Request::Change(
                    ChangeRequest {
                        change,
                        if_version,
                        expires,
                    },
                    Reply::elsewhere(place, Box::new(asker)),
                )
            }
        };
        self.requests.ask(coupon, epoch, request);
    }

    /// Takes nobody more, lets those in the mailbox be set back, and ends.
    fn end(&mut self, myself: &ActorRef<EgressCommand>, reason: Reason) {
        self.gone.store(true, Ordering::Release);
        self.own_places.close();
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

#[derive(Debug)]
struct WayBack {
    egress: ActorRef<EgressCommand>,
    id: u64,
    expires: Moment,
    gone: Arc<AtomicBool>,
}

/// Somebody behind the peer. Its answer goes into the mailbox of the link's egress and leaves with whatever
/// else waits there.
#[derive(Debug)]
struct PeerAsker<T> {
    way_back: Option<WayBack>,
    wrap: fn(Result<T, Setback>) -> Answer,
}

impl<T> PeerAsker<T> {
    fn send(&mut self, answer: Result<T, Setback>) {
        if let Some(WayBack { egress, id, .. }) = self.way_back.take() {
            let _ = egress.cast(EgressCommand::Answer(id, (self.wrap)(answer)));
        }
    }
}

impl<T: std::fmt::Debug> RemoteAsker<Result<T, Setback>> for PeerAsker<T> {
    fn is_waited_for(&self) -> bool {
        self.way_back
            .as_ref()
            .is_some_and(|back| !back.gone.load(Ordering::Acquire) && time::moment() < back.expires)
    }

    fn answer(mut self: Box<Self>, answer: Result<T, Setback>) {
        self.send(answer);
    }
}

impl<T> Drop for PeerAsker<T> {
    fn drop(&mut self) {
        self.send(Err(Setback::Unknown));
    }
}
