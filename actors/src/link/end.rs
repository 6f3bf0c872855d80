//! One link, from hello to its loss, as a state machine: generation and numbers, what waits to be sent, which
//! requests wait for an answer, and heartbeats.
//!
//! ```text
//! dialler   Greeting ── their hello fits ─────────────► Up ──┐
//! acceptor  Greeting ── hello fits ──► Greeted ── first ► Up ─┤ missing number, silence, loss ► Closed
//!              └── it does not: refusal ──► Refused ──────────┘
//! ```
//!
//! The dialler sends hello with the link's generation until it is answered. The acceptor answers with its own
//! hello, or with the reason for a refusal. From then on, frames are numbered from 1 in both directions. The
//! dialler's first numbered frame tells the acceptor that the acceptor's hello arrived. Every accepted
//! request gets one answer. It is the owner's answer, or [`Undelivered::Unanswered`] if the link is lost
//! after the request was sent, or [`Undelivered::NotSent`] if the link is lost before the request was sent. A
//! request that was not sent was certainly not decided.

pub mod effect;

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;

use crate::admission::Permit;
use crate::link::end::effect::{Effect, Effects, Reason, Role, Terms, bounded};
use crate::link::frame::{
    Frame, Header, Item, MESSAGE_BYTES_MAX, Numbered, RemoteRequest, VERSION_OF_HELLO, Writer, Written,
};
use crate::link::hello::{Hello, Mismatch};
use crate::link::payload::{Outgoing, Payload, Undelivered};
use crate::link::window::Window;
use crate::time::Moment;

/// Interval at which a dialler repeats hello until it is answered. The first hello may arrive before the
/// acceptor has made its end of the link.
const HELLO_EVERY: Duration = Duration::from_millis(25);
/// Time for which an acceptor keeps the link open after a refusal, so that the peer can read the reason.
const REFUSAL_LINGERS: Duration = Duration::from_millis(500);
/// Time for which an unanswered request keeps its place after it expired. Its caller has gone, but a slightly
/// late answer still finds the place.
const EXPIRED_ANSWER_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum LinkStage {
    Greeting,
    Greeted { version: u32 },
    Up { version: u32 },
    Refused { mismatch: Mismatch, since: Moment },
    Closed,
}

#[derive(Debug)]
enum Queued<P: Payload> {
    Request(Outgoing<P>, Permit),
    Item(Item<P>),
}

#[derive(Debug)]
struct InFlight<P: Payload> {
    reply: P::Reply,
    flow: u64,
    expires: Moment,
    /// Its place among the requests in flight to the peer.
    _place: Permit,
}

/// One end of a link.
#[derive(Debug)]
pub struct LinkEnd<P: Payload> {
    terms: Terms,
    stage: LinkStage,
    generation: u64,
    next_out: u64,
    next_in: u64,
    hello_at: Option<Moment>,
    /// Heartbeats without an answer, oldest first: at most as many as fit in the time after which the link is
    /// closed.
    beats: VecDeque<(u64, Moment)>,
    beat_at: Option<Moment>,
    next_id: u64,
    queue: VecDeque<Queued<P>>,
    in_flight: HashMap<u64, InFlight<P>>,
    window: Window,
}

impl<P: Payload> LinkEnd<P> {
    /// Makes the end of a link whose session has just become ready.
    pub fn new(terms: Terms) -> Self {
        let generation = match terms.role {
            Role::Dialler { generation } => generation,
            Role::Acceptor { .. } => 0,
        };
        Self {
            stage: LinkStage::Greeting,
            generation,
            next_out: 1,
            next_in: 1,
            hello_at: None,
            beats: VecDeque::new(),
            beat_at: None,
            next_id: 1,
            queue: VecDeque::new(),
            in_flight: HashMap::new(),
            window: Window::new(terms.flow_places),
            terms,
        }
    }

    /// Returns true if requests may be sent.
    pub fn is_up(&self) -> bool {
        matches!(self.stage, LinkStage::Up { .. })
    }

    /// Returns the link's generation; 0 while it has none.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns true if there is something to [`Self::flush`].
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Returns how many requests were sent and have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Queues a request for the peer. `place` is its place among the requests in flight to the peer.
    pub fn send(&mut self, request: Outgoing<P>, place: Permit, effects: &mut Effects<P>) {
        if !self.is_up() {
            effects.push(Effect::Reply(request.reply, Err(Undelivered::NotSent)));
        } else if self.window.enter(request.flow) {
            self.queue.push_back(Queued::Request(request, place));
        } else {
            effects.push(Effect::Full(request));
        }
    }

    /// Queues the answer to a request of the peer.
    pub fn answer(&mut self, id: u64, answer: P::Answer) {
        self.say(Item::Answer(id, answer));
    }

    /// Queues the heartbeat that is due, with this content. `now` was read before `content` was made.
    pub fn beat(&mut self, now: Moment, content: Vec<u8>) {
        if self.is_up() {
            let id = self.next_id();
            self.beats.push_back((id, now));
            self.say(Item::Heartbeat(Numbered {
                id,
                content: bounded(content),
            }));
        }
    }

    /// Queues the answer to the heartbeat of this number, with this content.
    pub fn answer_heartbeat(&mut self, id: u64, content: Vec<u8>) {
        self.say(Item::HeartbeatAnswer(Numbered {
            id,
            content: bounded(content),
        }));
    }

    /// Queues news for the peer, and returns the number by which they will be acknowledged; `None` if they
    /// cannot be sent.
    pub fn tell(&mut self, content: Vec<u8>) -> Option<u64> {
        if !self.is_up() || content.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        let id = self.next_id();
        self.say(Item::News(Numbered { id, content }));
        Some(id)
    }

    /// Acknowledges the peer's news of this number.
    pub fn acknowledge(&mut self, id: u64) {
        self.say(Item::Acknowledgement(id));
    }

    /// Handles the passing of time.
    pub fn tick(&mut self, now: Moment, effects: &mut Effects<P>) {
        match &self.stage {
            LinkStage::Greeting => self.greet(now, effects),
            LinkStage::Greeted { .. } | LinkStage::Closed => {}
            LinkStage::Refused { mismatch, since } => {
                if now.since(*since) >= REFUSAL_LINGERS {
                    let reason = Reason::Mismatch(mismatch.clone());
                    self.reset(reason, effects);
                }
            }
            LinkStage::Up { .. } => {
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

    /// Handles a frame from the peer.
    pub fn arrived(&mut self, now: Moment, frame: Frame<P>, effects: &mut Effects<P>) {
        let header = frame.header;
        if (header.from, header.to) != (self.terms.peer, self.terms.hello.incarnation) {
            return effects.push(Effect::Dropped("stranger"));
        }
        if header.number == 0 {
            return self.greeted(now, header.generation, frame.items, effects);
        }
        let (LinkStage::Greeted { version } | LinkStage::Up { version }) = self.stage else {
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
            self.come_up(now, version, effects);
        }
        for item in frame.items {
            self.take(now, item, effects);
        }
    }

    /// Makes frames of everything that waits.
    pub fn flush(&mut self, now: Moment, effects: &mut Effects<P>) {
        let LinkStage::Up { version } = self.stage else {
            return;
        };
        while !self.queue.is_empty() {
            let mut frame = Writer::new(self.header(version, self.next_out));
            let (mut items, mut requests) = (0_usize, 0);
            while !frame.is_full() {
                let Some(queued) = self.queue.pop_front() else {
                    break;
                };
                let is_request = matches!(queued, Queued::Request(..));
                if let Some(item) = self.departing(now, version, queued, effects) {
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

    /// Ends the link. The outcome of requests that were sent is unknown; requests that were not sent are not
    /// decided. Nothing more is sent or received.
    pub fn reset(&mut self, reason: Reason, effects: &mut Effects<P>) {
        let reason = match std::mem::replace(&mut self.stage, LinkStage::Closed) {
            LinkStage::Closed => return,
            // If the peer left after reading a refusal, the reason is the refusal and not the loss.
            LinkStage::Refused { mismatch, .. } => Reason::Mismatch(mismatch),
            LinkStage::Greeting | LinkStage::Greeted { .. } | LinkStage::Up { .. } => reason,
        };
        for (_, in_flight) in self.in_flight.drain() {
            effects.push(Effect::Reply(in_flight.reply, Err(Undelivered::Unanswered)));
        }
        for queued in self.queue.drain(..) {
            if let Queued::Request(request, _place) = queued {
                effects.push(Effect::Reply(request.reply, Err(Undelivered::NotSent)));
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

    fn say(&mut self, item: Item<P>) {
        if self.is_up() {
            self.queue.push_back(Queued::Item(item));
        }
    }

    fn say_unnumbered(&self, item: Item<P>, effects: &mut Effects<P>) {
        let mut frame = Writer::new(self.header(VERSION_OF_HELLO, 0));
        if let Some(item) = Written::new(item) {
            frame.add(&item);
            effects.push(Effect::Send {
                bytes: frame.finish(),
                requests: 0,
            });
        }
    }

    /// Sends a dialler's hello, if it is due.
    fn greet(&mut self, now: Moment, effects: &mut Effects<P>) {
        let due = self.hello_at.is_none_or(|at| now.since(at) >= HELLO_EVERY);
        if due && matches!(self.terms.role, Role::Dialler { .. }) {
            self.hello_at = Some(now);
            self.say_unnumbered(Item::Hello(self.terms.hello.clone()), effects);
        }
    }

    /// Handles a frame without number: hello, or the refusal of this node's hello.
    fn greeted(&mut self, now: Moment, generation: u64, mut items: Vec<Item<P>>, effects: &mut Effects<P>) {
        match (items.pop(), items.is_empty()) {
            (Some(Item::Hello(hello)), true) => self.greeted_with(now, generation, &hello, effects),
            (Some(Item::Refusal(reason)), true) if generation == self.generation => {
                self.reset(Reason::Refused(reason), effects);
            }
            (Some(Item::Refusal(_)), true) => effects.push(Effect::Dropped("generation")),
            _ => effects.push(Effect::Dropped("out_of_place")),
        }
    }

    fn greeted_with(&mut self, now: Moment, generation: u64, hello: &Hello, effects: &mut Effects<P>) {
        match (&self.stage, self.terms.role) {
            (LinkStage::Greeting, Role::Dialler { generation: ours }) if ours == generation => {
                match self.terms.hello.agree(hello, self.terms.peer) {
                    Ok(version) => self.come_up(now, version, effects),
                    Err(mismatch) => self.refuse(now, mismatch, effects),
                }
            }
            (LinkStage::Greeting, Role::Acceptor { above }) if generation > above => {
                self.generation = generation;
                match self.terms.hello.agree(hello, self.terms.peer) {
                    Ok(version) => {
                        self.stage = LinkStage::Greeted { version };
                        self.say_unnumbered(Item::Hello(self.terms.hello.clone()), effects);
                    }
                    Err(mismatch) => self.refuse(now, mismatch, effects),
                }
            }
            // This is a repeated hello: this node's answer arrived before the dialler's end was ready, or is
            // still in transit.
            (LinkStage::Greeted { .. }, Role::Acceptor { .. }) if generation == self.generation => {
                self.say_unnumbered(Item::Hello(self.terms.hello.clone()), effects);
            }
            (LinkStage::Greeted { .. } | LinkStage::Up { .. }, _) if generation == self.generation => {}
            _ => effects.push(Effect::Dropped("generation")),
        }
    }

    fn refuse(&mut self, now: Moment, mismatch: Mismatch, effects: &mut Effects<P>) {
        self.say_unnumbered(Item::Refusal(mismatch.to_string()), effects);
        self.stage = LinkStage::Refused { mismatch, since: now };
    }

    fn come_up(&mut self, now: Moment, version: u32, effects: &mut Effects<P>) {
        self.stage = LinkStage::Up { version };
        effects.push(Effect::Up);
        self.beat_due(now, effects);
    }

    fn beat_due(&mut self, now: Moment, effects: &mut Effects<P>) {
        self.beat_at = Some(now);
        effects.push(Effect::BeatDue);
    }

    fn take(&mut self, now: Moment, item: Item<P>, effects: &mut Effects<P>) {
        match item {
            Item::Request(request) => {
                let expires = now + request.remaining;
                effects.push(Effect::Handle(request, expires));
            }
            Item::Answer(id, answer) => self.answered(id, answer, effects),
            Item::Heartbeat(message) => effects.push(Effect::HeartbeatReceived(message)),
            Item::HeartbeatAnswer(message) => {
                // Answers come in order of their heartbeats. If an earlier heartbeat has no answer, this
                // answer counts for it too.
                while let Some((id, sent_at)) = self.beats.pop_front_if(|(id, _)| *id <= message.id) {
                    if id == message.id {
                        effects.push(Effect::HeartbeatAnswered {
                            sent_at,
                            content: message.content,
                        });
                        break;
                    }
                }
            }
            Item::News(message) => effects.push(Effect::News(message)),
            Item::Acknowledgement(id) => effects.push(Effect::Acknowledged(id)),
            Item::Hello(_) | Item::Refusal(_) => {
                self.reset(Reason::Protocol("hello among numbered frames"), effects);
            }
        }
    }

    /// Handles an answer of the peer. It is dropped if its request no longer waits.
    fn answered(&mut self, id: u64, answer: P::Answer, effects: &mut Effects<P>) {
        if let Some(InFlight { reply, flow, .. }) = self.in_flight.remove(&id) {
            self.window.leave(flow);
            effects.push(Effect::Reply(reply, Ok(answer)));
        }
    }

    /// Returns the item that goes into the next frame; `None` if the request or answer is no longer needed.
    fn departing(
        &mut self,
        now: Moment,
        version: u32,
        queued: Queued<P>,
        effects: &mut Effects<P>,
    ) -> Option<Written> {
        let (request, place) = match queued {
            Queued::Item(item) => return Written::new(item),
            Queued::Request(request, place) => (request, place),
        };
        let Outgoing {
            flow,
            expires,
            ask,
            reply,
        } = request;
        let is_overdue = now >= expires || !P::is_waited_for(&reply);
        if is_overdue || P::version_of(&ask) > version {
            let why = if is_overdue {
                Undelivered::Expired
            } else {
                Undelivered::NotSent
            };
            self.window.leave(flow);
            effects.push(Effect::Reply(reply, Err(why)));
            return None;
        }
        let id = self.next_id();
        let remaining = expires.since(now);
        let Some(written) = Written::new::<P>(Item::Request(RemoteRequest { id, remaining, ask })) else {
            // The HTTP API accepts no request of this length.
            self.window.leave(flow);
            effects.push(Effect::Reply(reply, Err(Undelivered::NoRoom)));
            return None;
        };
        let in_flight = InFlight {
            reply,
            flow,
            expires,
            _place: place,
        };
        self.in_flight.insert(id, in_flight);
        Some(written)
    }

    fn forget_overdue(&mut self, now: Moment, effects: &mut Effects<P>) {
        let overdue = self
            .in_flight
            .extract_if(|_, in_flight| now >= in_flight.expires + EXPIRED_ANSWER_GRACE);
        for (_, InFlight { reply, flow, .. }) in overdue {
            self.window.leave(flow);
            effects.push(Effect::Reply(reply, Err(Undelivered::Unanswered)));
        }
    }
}

#[cfg(test)]
mod tests;
