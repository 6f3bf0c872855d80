//! One link, from hello to its loss, as a state machine: generation and numbers, what waits to be sent and
//! who waits for an answer, heartbeats.
//!
//! ```text
//! dialler   Greeting ── their hello fits ─────────────► Up ──┐
//! acceptor  Greeting ── hello fits ──► Greeted ── first ► Up ─┤ missing number, silence, loss ► Closed
//!              └── it does not: refusal ──► Refused ──────────┘
//! ```
//!
//! The dialler says hello with the link's generation until it is answered; the acceptor answers with its own,
//! or says why not. From then on frames are numbered from 1 in both directions, and the dialler's first one
//! tells the acceptor that its hello arrived. Every request taken gets one answer: its owner's;
//! [`Setback::Unknown`] if the link goes after it was sent; [`Setback::Moved`] if it goes before, as then
//! surely nobody decided.

pub mod effect;

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use crate::ids::{CouponId, Epoch, ShardId};
use crate::link::end::effect::{Effect, Effects, Reason, Role, Terms};
use crate::link::frame::{
    Answer, Asked, Frame, Header, Item, NOTICE_BYTES_MAX, Notice, RemoteRequest, VERSION_OF_HELLO, Writer,
    Written,
};
use crate::link::hello::{Hello, Mismatch};
use crate::link::window::Window;
use crate::owning::message::{ChangeAnswer, IssueAnswer, Reply, Request, Setback};
use crate::time::Moment;

/// How often a dialler says hello until it is answered: the first one may arrive before the acceptor has made
/// its end of the link.
const HELLO_EVERY: Duration = Duration::from_millis(25);
/// How long an acceptor that refused leaves the link open, so that the peer reads why.
const REFUSAL_LINGERS: Duration = Duration::from_millis(500);
/// How long after its time a request that nobody answers keeps its place. Its asker has gone; an answer that
/// is just late finds its place still.
const OVERDUE: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum Stage {
    Greeting,
    Greeted { version: u32 },
    Up { version: u32 },
    Refused { mismatch: Mismatch, since: Moment },
    Closed,
}

#[derive(Debug)]
enum Queued {
    Request {
        coupon: CouponId,
        epoch: Epoch,
        request: Request,
    },
    Item(Item),
}

#[derive(Debug)]
enum Waiting {
    Issue(Reply<IssueAnswer>),
    Change(Reply<ChangeAnswer>),
}

#[derive(Debug)]
struct InFlight {
    waiting: Waiting,
    coupon: CouponId,
    expires: Moment,
}

/// One end of a link.
#[derive(Debug)]
pub struct Link {
    terms: Terms,
    stage: Stage,
    generation: u64,
    next_out: u64,
    next_in: u64,
    hello_at: Option<Moment>,
    /// Heartbeats without an answer, oldest first: at most as many as fit in the time after which the link is
    /// given up.
    beats: VecDeque<(u64, Moment)>,
    beat_at: Option<Moment>,
    next_id: u64,
    queue: VecDeque<Queued>,
    in_flight: HashMap<u64, InFlight>,
    window: Window,
}

impl Link {
    /// A link whose session has just become ready.
    pub fn new(terms: Terms) -> Self {
        let generation = match terms.role {
            Role::Dialler { generation } => generation,
            Role::Acceptor { .. } => 0,
        };
        Self {
            stage: Stage::Greeting,
            generation,
            next_out: 1,
            next_in: 1,
            hello_at: None,
            beats: VecDeque::new(),
            beat_at: None,
            next_id: 1,
            queue: VecDeque::new(),
            in_flight: HashMap::new(),
            window: Window::new(terms.coupon_places),
            terms,
        }
    }

    /// Whether requests may be sent.
    pub fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up { .. })
    }

    /// Its generation; 0 while it has none.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether there is something to [`Self::flush`].
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// How many requests were sent and have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A request for an owner at the other end.
    pub fn ask(&mut self, coupon: CouponId, epoch: Epoch, request: Request, effects: &mut Effects) {
        if !self.is_up() {
            effects.push(Effect::SetBack(request, Setback::Moved));
        } else if self.window.enter(coupon) {
            self.queue.push_back(Queued::Request {
                coupon,
                epoch,
                request,
            });
        } else {
            effects.push(Effect::Full(request));
        }
    }

    /// The answer to a request of the peer.
    pub fn answer(&mut self, id: u64, answer: Answer) {
        self.say(Item::Answer(id, answer));
    }

    /// What goes with the heartbeat that is due. `now` is read before `content` was made.
    pub fn beat(&mut self, now: Moment, content: Vec<u8>) {
        if self.is_up() {
            let id = self.next_id();
            self.beats.push_back((id, now));
            self.say(Item::Heartbeat(Notice {
                id,
                content: bounded(content),
            }));
        }
    }

    /// What goes with the answer to the heartbeat of this number.
    pub fn answer_heartbeat(&mut self, id: u64, content: Vec<u8>) {
        self.say(Item::HeartbeatAnswer(Notice {
            id,
            content: bounded(content),
        }));
    }

    /// News for the peer: the number by which they will be acknowledged; `None` if there is no telling.
    pub fn tell(&mut self, content: Vec<u8>) -> Option<u64> {
        if !self.is_up() || content.len() > NOTICE_BYTES_MAX {
            return None;
        }
        let id = self.next_id();
        self.say(Item::News(Notice { id, content }));
        Some(id)
    }

    /// Acknowledges the peer's news of this number.
    pub fn heard(&mut self, id: u64) {
        self.say(Item::Heard(id));
    }

    /// Hints at coupons that the peer should load ahead.
    pub fn preload(&mut self, shard: ShardId, coupons: Vec<CouponId>) {
        self.say(Item::Preload(shard, coupons));
    }

    /// Time went by.
    pub fn tick(&mut self, now: Moment, effects: &mut Effects) {
        match &self.stage {
            Stage::Greeting => self.greet(now, effects),
            Stage::Greeted { .. } | Stage::Closed => {}
            Stage::Refused { mismatch, since } => {
                if now.since(*since) >= REFUSAL_LINGERS {
                    let reason = Reason::Mismatch(mismatch.clone());
                    self.reset(reason, effects);
                }
            }
            Stage::Up { .. } => {
                if self
                    .beats
                    .front()
                    .is_some_and(|(_, sent_at)| now.since(*sent_at) >= self.terms.silent_after)
                {
                    return self.reset(Reason::Silent, effects);
                }
                if self
                    .beat_at
                    .is_none_or(|at| now.since(at) >= self.terms.heartbeat)
                {
                    self.beat_due(now, effects);
                    self.forget_overdue(now, effects);
                }
            }
        }
    }

    /// A frame from the peer.
    pub fn arrived(&mut self, now: Moment, frame: Frame, effects: &mut Effects) {
        let header = frame.header;
        if (header.from, header.to) != (self.terms.peer, self.terms.hello.incarnation) {
            return effects.push(Effect::Dropped("stranger"));
        }
        if header.number == 0 {
            return self.greeted(now, header.generation, frame.items, effects);
        }
        let (Stage::Greeted { version } | Stage::Up { version }) = self.stage else {
            return effects.push(Effect::Dropped("early"));
        };
        if header.generation != self.generation {
            return effects.push(Effect::Dropped("generation"));
        }
        if header.number != self.next_in {
            return self.reset(
                Reason::Missing {
                    expected: self.next_in,
                    got: header.number,
                },
                effects,
            );
        }
        if header.version != version {
            return self.reset(
                Reason::Protocol("a frame is not of the version agreed upon"),
                effects,
            );
        }
        self.next_in += 1;
        if !self.is_up() {
            self.rise(now, version, effects);
        }
        for item in frame.items {
            self.take(now, item, effects);
        }
    }

    /// Makes frames of all that waits.
    pub fn flush(&mut self, now: Moment, effects: &mut Effects) {
        let Stage::Up { version } = self.stage else { return };
        while !self.queue.is_empty() {
            let mut frame = Writer::new(self.header(version, self.next_out));
            let (mut items, mut requests) = (0_usize, 0);
            while !frame.is_full() {
                let Some(queued) = self.queue.pop_front() else {
                    break;
                };
                let is_request = matches!(queued, Queued::Request { .. });
                if let Some(item) = self.departing(now, queued, effects) {
                    frame.add(&item);
                    items += 1;
                    requests += usize::from(is_request);
                }
            }
            if items > 0 {
                self.next_out += 1;
                effects.push(Effect::Send {
                    bytes: frame.finish(),
                    requests,
                });
            }
        }
    }

    /// Ends the link. What was sent is unknown, what was not is not decided; nothing more is sent or heard.
    pub fn reset(&mut self, reason: Reason, effects: &mut Effects) {
        let reason = match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Closed => return,
            // That the peer left having read why it was refused is not why.
            Stage::Refused { mismatch, .. } => Reason::Mismatch(mismatch),
            Stage::Greeting | Stage::Greeted { .. } | Stage::Up { .. } => reason,
        };
        for (_, in_flight) in self.in_flight.drain() {
            effects.push(in_flight.waiting.set_back(Setback::Unknown));
        }
        for queued in self.queue.drain(..) {
            if let Queued::Request { request, .. } = queued {
                effects.push(Effect::SetBack(request, Setback::Moved));
            }
        }
        effects.push(Effect::Reset(reason));
    }

    fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn header(&self, version: u32, number: u64) -> Header {
        let (from, to) = (self.terms.hello.incarnation, self.terms.peer);
        Header {
            version,
            from,
            to,
            generation: self.generation,
            number,
        }
    }

    fn say(&mut self, item: Item) {
        if self.is_up() {
            self.queue.push_back(Queued::Item(item));
        }
    }

    fn say_unnumbered(&self, item: Item, effects: &mut Effects) {
        let mut frame = Writer::new(self.header(VERSION_OF_HELLO, 0));
        if let Some(item) = Written::new(item) {
            frame.add(&item);
            effects.push(Effect::Send {
                bytes: frame.finish(),
                requests: 0,
            });
        }
    }

    /// A dialler's hello, if it is time for one.
    fn greet(&mut self, now: Moment, effects: &mut Effects) {
        let due = self.hello_at.is_none_or(|at| now.since(at) >= HELLO_EVERY);
        if due && matches!(self.terms.role, Role::Dialler { .. }) {
            self.hello_at = Some(now);
            self.say_unnumbered(Item::Hello(self.terms.hello.clone()), effects);
        }
    }

    /// A frame without number: hello, or the refusal of ours.
    fn greeted(&mut self, now: Moment, generation: u64, mut items: Vec<Item>, effects: &mut Effects) {
        match (items.pop(), items.is_empty()) {
            (Some(Item::Hello(hello)), true) => self.greeted_with(now, generation, &hello, effects),
            (Some(Item::Refusal(reason)), true) if generation == self.generation => {
                self.reset(Reason::Refused(reason), effects)
            }
            (Some(Item::Refusal(_)), true) => effects.push(Effect::Dropped("generation")),
            _ => effects.push(Effect::Dropped("out_of_place")),
        }
    }

    fn greeted_with(&mut self, now: Moment, generation: u64, hello: &Hello, effects: &mut Effects) {
        match (&self.stage, self.terms.role) {
            (Stage::Greeting, Role::Dialler { generation: ours }) if ours == generation => {
                match self.terms.hello.agree(hello, self.terms.peer) {
                    Ok(version) => self.rise(now, version, effects),
                    Err(mismatch) => self.refuse(now, mismatch, effects),
                }
            }
            (Stage::Greeting, Role::Acceptor { above }) if generation > above => {
                self.generation = generation;
                match self.terms.hello.agree(hello, self.terms.peer) {
                    Ok(version) => {
                        self.stage = Stage::Greeted { version };
                        self.say_unnumbered(Item::Hello(self.terms.hello.clone()), effects);
                    }
                    Err(mismatch) => self.refuse(now, mismatch, effects),
                }
            }
            // Said again: our answer came before the dialler's end was found, or is on its way.
            (Stage::Greeted { .. }, Role::Acceptor { .. }) if generation == self.generation => {
                self.say_unnumbered(Item::Hello(self.terms.hello.clone()), effects);
            }
            (Stage::Greeted { .. } | Stage::Up { .. }, _) if generation == self.generation => {}
            _ => effects.push(Effect::Dropped("generation")),
        }
    }

    fn refuse(&mut self, now: Moment, mismatch: Mismatch, effects: &mut Effects) {
        self.say_unnumbered(Item::Refusal(mismatch.to_string()), effects);
        self.stage = Stage::Refused { mismatch, since: now };
    }

    fn rise(&mut self, now: Moment, version: u32, effects: &mut Effects) {
        self.stage = Stage::Up { version };
        effects.push(Effect::Up);
        self.beat_due(now, effects);
    }

    fn beat_due(&mut self, now: Moment, effects: &mut Effects) {
        self.beat_at = Some(now);
        effects.push(Effect::BeatDue);
    }

    fn take(&mut self, now: Moment, item: Item, effects: &mut Effects) {
        match item {
            Item::Request(request) if request.remaining.is_zero() => {
                let expired = match request.what {
                    Asked::Issue { .. } => Answer::Issue(Err(Setback::Expired)),
                    Asked::Change { .. } => Answer::Change(Err(Setback::Expired)),
                };
                self.answer(request.id, expired);
            }
            Item::Request(request) => {
                let expires = now + request.remaining;
                effects.push(Effect::Ask(request, expires));
            }
            Item::Answer(id, answer) => self.answered(id, answer, effects),
            Item::Heartbeat(notice) => effects.push(Effect::HeartbeatAsked(notice)),
            Item::HeartbeatAnswer(notice) => {
                // Answers come in order; one that overtook others counts for them as well.
                while let Some((id, sent_at)) = self.beats.pop_front_if(|(id, _)| *id <= notice.id) {
                    if id == notice.id {
                        effects.push(Effect::HeartbeatAnswered {
                            sent_at,
                            content: notice.content,
                        });
                        break;
                    }
                }
            }
            Item::News(notice) => effects.push(Effect::News(notice)),
            Item::Heard(id) => effects.push(Effect::Heard(id)),
            Item::Preload(shard, coupons) => effects.push(Effect::Preload(shard, coupons)),
            Item::Hello(_) | Item::Refusal(_) => {
                self.reset(Reason::Protocol("hello among numbered frames"), effects)
            }
        }
    }

    /// An answer by the peer. One that nobody waits for any more is no news.
    fn answered(&mut self, id: u64, answer: Answer, effects: &mut Effects) {
        let Some(InFlight { waiting, coupon, .. }) = self.in_flight.remove(&id) else {
            return;
        };
        self.window.leave(coupon);
        match (waiting, answer) {
            (Waiting::Issue(reply), Answer::Issue(answer)) => effects.push(Effect::Issue(reply, answer)),
            (Waiting::Change(reply), Answer::Change(answer)) => effects.push(Effect::Change(reply, answer)),
            (waiting, Answer::Issue(_) | Answer::Change(_)) => {
                effects.push(waiting.set_back(Setback::Unknown));
                self.reset(Reason::Protocol("an answer does not fit its request"), effects);
            }
        }
    }

    /// What goes into a frame now; nothing if nobody waits for it any more.
    fn departing(&mut self, now: Moment, queued: Queued, effects: &mut Effects) -> Option<Written> {
        let (coupon, epoch, request) = match queued {
            Queued::Item(item) => return Written::new(item),
            Queued::Request {
                coupon,
                epoch,
                request,
            } => (coupon, epoch, request),
        };
        let (Request::Issue(crate::owning::message::IssueRequest { expires, .. }, _)
        | Request::Change(crate::owning::message::ChangeRequest { expires, .. }, _)) = &request;
        let expires = *expires;
        if now >= expires || !request.is_waited_for() {
            self.window.leave(coupon);
            effects.push(Effect::SetBack(request, Setback::Expired));
            return None;
        }
        let (what, waiting) = match request {
            Request::Issue(issue, reply) => (
                Asked::Issue {
                    user: issue.user,
                    key: issue.key,
                },
                Waiting::Issue(reply),
            ),
            Request::Change(change, reply) => (
                Asked::Change {
                    change: change.change,
                    if_version: change.if_version,
                },
                Waiting::Change(reply),
            ),
        };
        let id = self.next_id();
        let Some(written) = Written::new(Item::Request(RemoteRequest {
            id,
            coupon,
            epoch,
            remaining: expires.since(now),
            what,
        })) else {
            // No gateway takes so long a request: there is no room for it.
            self.window.leave(coupon);
            effects.push(waiting.set_back(Setback::Overloaded));
            return None;
        };
        self.in_flight.insert(
            id,
            InFlight {
                waiting,
                coupon,
                expires,
            },
        );
        Some(written)
    }

    fn forget_overdue(&mut self, now: Moment, effects: &mut Effects) {
        let overdue = self
            .in_flight
            .extract_if(|_, in_flight| now >= in_flight.expires + OVERDUE);
        for (_, InFlight { waiting, coupon, .. }) in overdue {
            self.window.leave(coupon);
            effects.push(waiting.set_back(Setback::Unknown));
        }
    }
}

impl Waiting {
    fn set_back(self, setback: Setback) -> Effect {
        match self {
            Self::Issue(reply) => Effect::Issue(reply, Err(setback)),
            Self::Change(reply) => Effect::Change(reply, Err(setback)),
        }
    }
}

/// Nothing, in place of what no frame carries: the handler was told how much fits.
fn bounded(content: Vec<u8>) -> Vec<u8> {
    if content.len() <= NOTICE_BYTES_MAX {
        return content;
    }
    tracing::error!(
        bytes = content.len(),
        "a heartbeat carries no notice of this length"
    );
    Vec::new()
}

#[cfg(test)]
mod tests;
