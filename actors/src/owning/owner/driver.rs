//! What an owner's actor does with its mail and with the owner's effects, without the actor itself. This
//! includes gathering, the order in which requests are taken, and the order of the steps when an owner stops.
//!
//! The actor runs this code with real clocks, mailboxes and lanes. A simulation runs the same code with
//! clocks, mailboxes and lanes of its own.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::admission::{Admission, NotAdmitted};
use crate::ids::{Epoch, Incarnation};
use crate::metrics::handles;
use crate::owning::door::Notice;
use crate::owning::inbox::Inbox;
use crate::owning::kind::Kind;
use crate::owning::owner::{Effect, Owner};
use crate::owning::request::{Answer, OwnerCommand, OwnerMail, Reply, Request, Setback};
use crate::store::batch::Portion;
use crate::time::{Moment, Now};
use crate::trace::TraceParent;

/// Maximum number of requests that are decided before the owner looks at its other mail: a tenth of a
/// millisecond of work, so that answers to stored requests are not late.
const DECIDED_AT_ONCE: usize = 128;

/// How many turns other tasks get while an owner gathers. In a turn, the tasks that are ready on the owner's
/// thread run for at most 61 ticks of the runtime, and the sockets are mostly polled too. On an idle node,
/// all turns together take microseconds. Two turns are too few for callers just answered to ask again. More
/// than four turns help little, and take longer on a busy node.
const TURNS: usize = 4;

/// The queue before an owner: requests in order of arrival, bounded in number.
#[derive(Debug)]
pub struct OwnerQueue<K: Kind> {
    inbox: Inbox<Request<K>>,
    admission: Admission,
}

impl<K: Kind> Clone for OwnerQueue<K> {
    fn clone(&self) -> Self {
        Self {
            inbox: self.inbox.clone(),
            admission: self.admission.clone(),
        }
    }
}

impl<K: Kind> OwnerQueue<K> {
    /// Makes a queue for at most this many requests.
    pub fn new(requests_max: usize) -> Self {
        Self {
            inbox: Inbox::default(),
            admission: Admission::new(requests_max),
        }
    }

    /// Enters a request, or gives it back with the reason. A request that is given back was not decided and
    /// will not be. `wake` sends [`OwnerMail::Requests`] to the owner, and returns false if the owner's
    /// mailbox is closed. A request that enters just before the owner ends is answered [`Setback::Moved`].
    ///
    /// # Errors
    ///
    /// The request, if the queue is full or closed.
    pub fn enter(
        &self,
        mut request: Request<K>,
        wake: impl FnOnce() -> bool,
    ) -> Result<(), (Request<K>, NotAdmitted)> {
        match self.admission.admit() {
            Ok(place) => request.enter(place),
            Err(reason) => {
                if reason == NotAdmitted::Full {
                    handles().refused_by_owner.increment(1);
                }
                return Err((request, reason));
            }
        }
        if self.inbox.put(request) && !wake() {
            // The owner ended after it admitted this request. Requests that arrived meanwhile rely on this
            // request to wake the owner, so all of them are answered here.
            let left = self.inbox.take().into_iter();
            left.for_each(|request| request.set_back(Setback::Moved));
        }
        Ok(())
    }

    /// Returns how many requests are queued or wait for their answer.
    pub fn length(&self) -> usize {
        self.admission.taken()
    }

    /// Returns true if a request is queued or waits for its answer.
    pub fn is_busy(&self) -> bool {
        self.length() > 0
    }
}

/// What surrounds an owner: clocks, its own mailbox, a lane, doors and its shard. No call may wait.
pub trait OwnerPort<K: Kind> {
    /// Reads the clocks.
    fn now(&self) -> Now;

    /// Returns true if this incarnation may decide and confirm at `now`.
    fn lease_holds(&self, incarnation: Incarnation, now: Moment) -> bool;

    /// Puts mail at the end of the owner's own mailbox. Returns false if the mailbox is closed.
    fn send_to_self(&mut self, mail: OwnerMail<K>) -> bool;

    /// Closes the owner's mailbox. Mail that is already in it is still handled.
    fn close_mailbox(&mut self);

    /// Sends an answer.
    fn answer(&mut self, reply: Reply<K>, answer: Answer<K>) {
        reply.send(answer);
    }

    /// Hands a portion to a lane, with the spans of its traced requests. Returns false if no lane takes it.
    fn submit(&mut self, portion: Portion<K>, traces: Vec<TraceParent>) -> bool;

    /// Posts a notice for doors, by an owner of this incarnation.
    fn post(&mut self, by: Incarnation, notice: Arc<Notice<K>>);

    /// Withdraws the notice. With a floor, this node's door forgets a notice below that version.
    fn withdraw(&mut self, id: K::Id, floor: Option<u64>);

    /// Tells the shard that the store refused this epoch.
    fn report_fenced(&mut self, epoch: Epoch);

    /// Tells the shard that the owner stopped. The shard may load the same id again at once.
    fn report_stopped(&mut self, id: K::Id, epoch: Epoch, unsettled: bool);
}

/// Drives one owner.
#[derive(Debug)]
pub struct OwnerDriver<K: Kind> {
    owner: Owner<K>,
    id: K::Id,
    queue: OwnerQueue<K>,
    /// Requests that were taken out of the inbox. They come before all requests that are still in it.
    next: VecDeque<Request<K>>,
    effects: Vec<Effect<K>>,
    /// How many turns other tasks still get before the owner stops gathering; `None` if it does not gather.
    turns: Option<usize>,
}

impl<K: Kind> OwnerDriver<K> {
    /// Makes the driver of this owner with this queue.
    pub fn new(owner: Owner<K>, queue: OwnerQueue<K>) -> Self {
        let id = owner.id();
        Self {
            owner,
            id,
            queue,
            next: VecDeque::new(),
            effects: Vec::new(),
            turns: None,
        }
    }

    /// Returns the owner.
    pub fn owner(&self) -> &Owner<K> {
        &self.owner
    }

    /// Returns the owner, to read figures that it keeps.
    pub(super) fn owner_mut(&mut self) -> &mut Owner<K> {
        &mut self.owner
    }

    /// Returns the id of what the owner owns.
    pub fn id(&self) -> K::Id {
        self.id
    }

    /// Handles one piece of mail and carries out its effects. After that, while [`Self::is_gathering`]
    /// returns true, the caller gives other tasks a turn and then calls [`Self::take_turn`].
    pub fn handle(&mut self, mail: OwnerMail<K>, port: &mut impl OwnerPort<K>) {
        match mail {
            OwnerMail::Requests => self.decide(port),
            OwnerMail::Command(command) => self.command(command, port),
        }
        self.carry_out(port);
        self.stop_gathering_if_done(port);
    }

    /// Returns true if the owner waits for entries to join its next portion.
    pub fn is_gathering(&self) -> bool {
        self.turns.is_some()
    }

    /// Decides the requests that arrived during a turn of other tasks.
    pub fn take_turn(&mut self, port: &mut impl OwnerPort<K>) {
        self.turns = self.turns.map(|turns| turns.saturating_sub(1));
        self.decide(port);
        self.carry_out(port);
        self.stop_gathering_if_done(port);
    }

    fn stop_gathering_if_done(&mut self, port: &mut impl OwnerPort<K>) {
        let Some(turns) = self.turns else { return };
        if turns == 0 || !self.owner.is_gathering() {
            self.turns = None;
            self.command(OwnerCommand::Submit, port);
            self.carry_out(port);
        }
    }

    /// Decides some of the queued requests, and sends itself mail to decide the others later.
    fn decide(&mut self, port: &mut impl OwnerPort<K>) {
        self.next.extend(self.queue.inbox.take());
        for _ in 0..DECIDED_AT_ONCE {
            let Some(request) = self.next.pop_front() else {
                return;
            };
            self.command(OwnerCommand::Decide(request), port);
        }
        if !self.next.is_empty() && !port.send_to_self(OwnerMail::Requests) {
            // The owner has stopped, and answers each request [`Setback::Moved`].
            while let Some(request) = self.next.pop_front() {
                self.command(OwnerCommand::Decide(request), port);
            }
        }
    }

    fn command(&mut self, command: OwnerCommand<K>, port: &mut impl OwnerPort<K>) {
        let now = port.now();
        let lease_holds = port.lease_holds(self.owner.incarnation(), now.moment);
        self.owner.handle(command, now, lease_holds, &mut self.effects);
    }

    fn carry_out(&mut self, port: &mut impl OwnerPort<K>) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Answer(reply, answer) => port.answer(reply, answer),
                Effect::Submit(portion, traces) => {
                    if !port.submit(portion, traces) {
                        // Lanes end after owners, and have a place for each owner. So only a bug leads here,
                        // and stopping loses nothing.
                        tracing::error!(id = %self.id, "no lane accepts a portion");
                        port.send_to_self(OwnerCommand::Stop.into());
                    }
                }
                Effect::Gather => self.turns = Some(TURNS),
                Effect::Post(notice) => port.post(self.owner.incarnation(), notice),
                Effect::Withdraw { floor } => port.withdraw(self.id, floor),
                Effect::ReportFenced(epoch) => port.report_fenced(epoch),
                Effect::CloseIfEmpty => {
                    if self.queue.admission.close_if_empty() {
                        port.send_to_self(OwnerCommand::Stop.into());
                    }
                }
                Effect::Stop { unsettled } => self.stop(unsettled, port),
            }
        }
        self.effects = effects;
    }

    /// Admits no more requests and closes the mailbox; mail that is already in it is still handled. Then
    /// tells the shard, which may load the same id again only after that.
    fn stop(&self, unsettled: bool, port: &mut impl OwnerPort<K>) {
        self.queue.admission.close();
        port.close_mailbox();
        port.report_stopped(self.id, self.owner.epoch(), unsettled);
    }
}
