//! The owner as a state machine: state, entries, gate and fence together. `(command, now) → effects`.
//!
//! Three rules: an answer leaves through the gate; at most one portion is in flight; a decision is never
//! taken back. A portion may pass entries that a statement cannot store with it, but no answer passes them.
//! When the owner stops, waiting callers are told that the outcome is unknown. If nothing was decided for a
//! caller, it is told to ask again.
//!
//! When a portion is stored, the owner may send the next portion either before or after it answers the
//! callers of the stored portion. If it answers them first, the owner *gathers*: requests that arrive
//! meanwhile join the next portion. With few callers, gathering is faster. The callers just answered may ask
//! again at once, and one commit for all requests takes less time than two commits in turn. With many
//! callers, gathering would only keep the store idle.

pub mod actor;
pub mod driver;
mod undelivered;

use std::sync::Arc;
use std::time::Duration;

use self::undelivered::Undelivered;
use crate::ids::{Epoch, Fence, Incarnation, ShardId};
use crate::owning::door::Notice;
use crate::owning::gate::{Gate, Position};
use crate::owning::kind::{COUNTS, Kind, Run, Verdict};
use crate::owning::request::{Answer, OwnerCommand, Reply, Request, Setback};
use crate::store::batch::{BATCH_ROWS_MAX, Fate, Portion, Settlement};
use crate::time::{Moment, Now, Timestamp};
use crate::trace::{TraceContext, TraceParent};

/// Effects that the owner's driver carries out.
#[derive(Debug)]
pub enum Effect<K: Kind> {
    /// Send an answer.
    Answer(Reply<K>, Answer<K>),
    /// Store these entries, which are of these traced requests.
    Submit(Portion<K>, Vec<TraceParent>),
    /// Let the callers just answered have their turn, decide the requests that arrive meanwhile, and then
    /// send [`OwnerCommand::Submit`].
    Gather,
    /// Post a notice for doors.
    Post(Arc<Notice<K>>),
    /// Withdraw the notice. No door may use a notice below the floor, because the change may be stored at any
    /// moment from now on.
    Withdraw {
        /// The version after the change that was just decided; `None` if the owner only stops.
        floor: Option<u64>,
    },
    /// Tell the shard that the store refused this epoch. The owner waits for a new epoch, or for a command to
    /// stop.
    ReportFenced(Epoch),
    /// Close the mailbox if it is empty, and then send [`OwnerCommand::Stop`].
    CloseIfEmpty,
    /// Close the mailbox and stop.
    Stop {
        /// True if the outcome of a decision is unknown. The id may then be loaded again only after the
        /// shard's epoch is raised.
        unsettled: bool,
    },
}

/// An answer that waits at the gate, with the reply that will send it.
#[derive(Debug)]
struct Held<K: Kind> {
    reply: Reply<K>,
    outcome: K::Outcome,
}

/// The portion that was handed to a lane and has not come back.
#[derive(Debug)]
struct PortionInFlight<K: Kind> {
    run: K::Run,
    /// The position up to which everything is stored once the run is.
    upto: Position,
    /// When the oldest entry of the run was decided.
    decided_at: Moment,
    /// How many entries of the run the kind counts.
    counted: u64,
    /// The spans of those requests in it that are traced.
    traces: Vec<TraceParent>,
    /// True if the portion came back fenced, and waits for the shard's next epoch.
    fenced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnerStage {
    Serving,
    /// The owner stores what it has decided, and decides nothing more.
    Draining,
    Stopped,
}

/// The state machine; see the module.
#[derive(Debug)]
pub struct Owner<K: Kind> {
    shard: ShardId,
    fence: Fence,
    state: K::State,
    gate: Gate<Held<K>>,
    decided: Position,
    undelivered: Undelivered<K>,
    /// The spans of those requests of undelivered entries that are traced, with the position of each entry.
    traces: Vec<(Position, TraceParent)>,
    in_flight: Option<PortionInFlight<K>>,
    /// True while undelivered entries wait for further entries. They wait until [`OwnerCommand::Submit`], or
    /// until the portion cannot or need not grow.
    gathering: bool,
    /// A portion with this many entries does not wait for more.
    gather_below: usize,
    /// True if the store does not accept the portion in flight. Nothing new is decided until the portion is
    /// stored.
    delayed: bool,
    posted: Option<Arc<Notice<K>>>,
    stage: OwnerStage,
    last_asked: Moment,
    /// Number of requests that reached the owner.
    requests: u64,
    idle: Duration,
}

impl<K: Kind> Owner<K> {
    /// Makes the owner of a state that was just loaded under `fence`. It passivates after `idle` without
    /// requests. A portion of `gather_below` entries does not wait for more.
    pub fn new(state: K::State, fence: Fence, idle: Duration, gather_below: usize, now: Moment) -> Self {
        Self {
            shard: K::shard(K::id(&state)),
            fence,
            state,
            gate: Gate::default(),
            decided: Position::default(),
            undelivered: Undelivered::default(),
            traces: Vec::new(),
            in_flight: None,
            gathering: false,
            gather_below,
            delayed: false,
            posted: None,
            stage: OwnerStage::Serving,
            last_asked: now,
            requests: 0,
            idle,
        }
    }

    /// Returns the id of what the owner owns.
    pub fn id(&self) -> K::Id {
        K::id(&self.state)
    }

    /// Returns the epoch under which the owner writes.
    pub fn epoch(&self) -> Epoch {
        self.fence.epoch
    }

    /// Returns the incarnation for which the owner decides.
    pub fn incarnation(&self) -> Incarnation {
        self.fence.owner
    }

    /// Returns how many answers wait at the gate.
    pub fn waiting(&self) -> usize {
        self.gate.waiting()
    }

    /// Returns how many entries are decided, and are not stored or wait for one before them that is not.
    pub fn unstored(&self) -> u64 {
        self.decided.after(self.gate.stored())
    }

    /// Returns when the oldest entry that is not stored was decided; `None` if all entries are stored.
    pub fn unstored_since(&self) -> Option<Moment> {
        self.in_flight
            .as_ref()
            .map(|portion| portion.decided_at)
            .or(self.undelivered.oldest_at())
    }

    /// Returns how many requests reached the owner.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Returns how many entries are stored, including those that were there when the owner was loaded, as far
    /// as the kind counts them. Never falls.
    pub fn stored_entries(&self) -> u64 {
        let in_flight = self.in_flight.as_ref().map_or(0, |portion| portion.counted);
        K::entries(&self.state).saturating_sub(self.undelivered.counted() + in_flight)
    }

    /// Returns how many entries there may be; `None` if there is no bound.
    pub fn entries_max(&self) -> Option<u64> {
        K::entries_max(&self.state)
    }

    /// Returns the counts that the kind chooses, at `now`.
    pub fn counts(&mut self, now: Timestamp) -> [u64; COUNTS] {
        K::counts(&mut self.state, now)
    }

    /// Returns true if the owner stores what it has decided, and decides nothing more.
    pub fn is_draining(&self) -> bool {
        self.stage != OwnerStage::Serving
    }

    /// Returns true if the owner waits for further entries, after [`Effect::Gather`].
    pub fn is_gathering(&self) -> bool {
        self.gathering
    }

    /// Takes a command. `lease_holds` is true if this node may decide and confirm at `now`.
    pub fn handle(
        &mut self,
        command: OwnerCommand<K>,
        now: Now,
        lease_holds: bool,
        effects: &mut Vec<Effect<K>>,
    ) {
        match command {
            OwnerCommand::Decide(request) => self.decide(request, now, lease_holds, effects),
            OwnerCommand::Settle(settlement) => self.settle(settlement, lease_holds, effects),
            OwnerCommand::Submit => {
                self.gathering = false;
                self.submit(effects);
            }
            OwnerCommand::Delayed => self.delayed = self.in_flight.is_some(),
            OwnerCommand::Refence(epoch) => self.refence(epoch, effects),
            OwnerCommand::Announce => self.post(effects),
            OwnerCommand::Count => {}
            OwnerCommand::Sweep => self.gate.retain(|held| held.reply.is_waited_for()),
            OwnerCommand::Passivate => self.passivate(now.moment, effects),
            OwnerCommand::Drain => self.drain(effects),
            OwnerCommand::Stop => self.stop(effects),
            #[cfg(test)]
            OwnerCommand::Panic => panic!("on purpose"),
        }
    }

    fn decide(&mut self, request: Request<K>, now: Now, lease_holds: bool, effects: &mut Vec<Effect<K>>) {
        let Request { ask, expires, reply } = request;
        self.requests += 1;
        let setback = if self.stage != OwnerStage::Serving {
            Some(Setback::Moved)
        } else if now.moment >= expires {
            Some(Setback::Expired)
        } else if !lease_holds {
            Some(Setback::StoreUnavailable)
        } else {
            None
        };
        if let Some(setback) = setback {
            effects.push(Effect::Answer(reply, Err(setback)));
            return;
        }
        self.last_asked = now.moment;
        let outcome = match K::judge(&self.state, now.timestamp, &ask) {
            Verdict::Known(outcome) => outcome,
            // Nothing was decided for this request, and a refusal cannot be confirmed now. This answer is
            // better than to let the caller wait.
            Verdict::Refused(_) | Verdict::Enter(_) if self.delayed => {
                effects.push(Effect::Answer(reply, Err(Setback::StoreUnavailable)));
                return;
            }
            Verdict::Refused(outcome) => outcome,
            Verdict::Enter(entry) => {
                let outcome = self.enter(entry, now.moment, effects);
                let trace = reply.span().as_parent();
                self.traces.extend(trace.map(|trace| (self.decided, trace)));
                outcome
            }
        };
        reply.span().edit(|record| record.event("decided", now.timestamp));
        if let Some(Held { reply, outcome }) = self.gate.hold(self.decided, Held { reply, outcome }) {
            effects.push(Effect::Answer(reply, Ok(outcome)));
        }
        self.submit(effects);
    }

    fn enter(&mut self, entry: K::Entry, now: Moment, effects: &mut Vec<Effect<K>>) -> K::Outcome {
        let before = K::entries(&self.state);
        let outcome = K::apply(&mut self.state, &entry);
        let counted = K::entries(&self.state).saturating_sub(before);
        let floor = K::version_of(&entry);
        if floor.is_some() {
            self.posted = None;
            effects.push(Effect::Withdraw { floor });
        }
        self.decided = self.decided.plus(1);
        self.undelivered.push(self.decided, now, counted, entry);
        outcome
    }

    /// Hands over the undelivered entries, if no portion is in flight and the owner does not gather. So
    /// batches grow with load, and an idle owner's entry does not wait. All entries were decided under a
    /// lease. The fence decides whether they may still be stored.
    fn submit(&mut self, effects: &mut Vec<Effect<K>>) {
        self.gathering = self.gathering && self.may_grow();
        if self.in_flight.is_some() || self.gathering || self.stage == OwnerStage::Stopped {
            return;
        }
        let Some(decided_at) = self.undelivered.oldest_at() else {
            return;
        };
        let counted = self.undelivered.counted();
        let Some(run) = self.undelivered.take_run(BATCH_ROWS_MAX) else {
            return;
        };
        let undelivered = &self.undelivered;
        let is_submitted = |(position, _): &mut (Position, TraceParent)| !undelivered.holds(*position);
        let traces = self.traces.extract_if(.., is_submitted);
        let traces: Vec<_> = traces.map(|(_, trace)| trace).collect();
        effects.push(Effect::Submit(self.portion(run.clone()), traces.clone()));
        self.in_flight = Some(PortionInFlight {
            run,
            // Some of the run may have passed entries that are still undelivered.
            upto: self.undelivered.position_before().unwrap_or(self.decided),
            decided_at,
            counted: counted - self.undelivered.counted(),
            traces,
            fenced: false,
        });
    }

    /// Returns true if the next portion is small and later entries may join it.
    fn may_grow(&self) -> bool {
        self.stage == OwnerStage::Serving
            && self.undelivered.len() < self.gather_below
            && self.undelivered.iter().all(K::may_be_joined)
            && !K::is_exhausted(&self.state)
    }

    fn portion(&self, run: K::Run) -> Portion<K> {
        Portion {
            id: self.id(),
            shard: self.shard,
            fence: self.fence,
            run,
        }
    }

    fn settle(&mut self, settlement: Settlement, lease_holds: bool, effects: &mut Vec<Effect<K>>) {
        if self.stage == OwnerStage::Stopped {
            return;
        }
        let Some(portion) = self.in_flight.as_mut() else {
            return;
        };
        match settlement.fate {
            Fate::Stored if lease_holds => {
                let (rows, upto) = (portion.run.rows(), portion.upto);
                self.stored(rows, upto, settlement.batch, effects);
            }
            Fate::Fenced if settlement.fence != self.fence => self.submit_again(effects),
            // A draining shard does not raise its epoch.
            Fate::Fenced if self.stage == OwnerStage::Draining => self.stop(effects),
            Fate::Fenced => {
                portion.fenced = true;
                effects.push(Effect::ReportFenced(self.fence.epoch));
            }
            Fate::Stored | Fate::Contradicted | Fate::Unknown => self.stop(effects),
        }
    }

    fn stored(
        &mut self,
        rows: usize,
        upto: Position,
        batch: Option<TraceContext>,
        effects: &mut Vec<Effect<K>>,
    ) {
        self.in_flight = None;
        self.delayed = false;
        // A single caller does not wait for others.
        self.gathering = rows + self.undelivered.len() > 1 && self.may_grow();
        // With many callers, the next portion is sent before they are answered, so that the store is not idle
        // meanwhile.
        self.submit(effects);
        let answers = self.gate.raise(upto);
        effects.extend(answers.map(|Held { reply, outcome }| {
            if let Some(batch) = batch {
                reply.span().edit(|record| record.link(batch));
            }
            Effect::Answer(reply, Ok(outcome))
        }));
        effects.extend(self.gathering.then_some(Effect::Gather));
        self.post(effects);
        self.stop_if_drained(effects);
    }

    /// Sends the fenced portion again, under the present fence.
    fn submit_again(&mut self, effects: &mut Vec<Effect<K>>) {
        let Some(portion) = self.in_flight.as_mut() else {
            return;
        };
        portion.fenced = false;
        let (run, traces) = (portion.run.clone(), portion.traces.clone());
        effects.push(Effect::Submit(self.portion(run), traces));
    }

    fn refence(&mut self, epoch: Epoch, effects: &mut Vec<Effect<K>>) {
        if epoch <= self.fence.epoch || self.stage == OwnerStage::Stopped {
            return;
        }
        self.fence.epoch = epoch;
        if self.in_flight.as_ref().is_some_and(|portion| portion.fenced) {
            self.submit_again(effects);
        }
    }

    /// Posts a notice for doors, if no notice is posted and everything decided is stored.
    fn post(&mut self, effects: &mut Vec<Effect<K>>) {
        let all_stored = self.gate.stored() == self.decided;
        if self.posted.is_some() || !all_stored || self.stage != OwnerStage::Serving {
            return;
        }
        if let Some(notice) = K::notice(&mut self.state) {
            let notice = Arc::new(Notice::new(notice));
            self.posted = Some(Arc::clone(&notice));
            effects.push(Effect::Post(notice));
        }
    }

    fn passivate(&mut self, now: Moment, effects: &mut Vec<Effect<K>>) {
        if self.posted.as_ref().is_some_and(|notice| notice.take_used()) {
            self.last_asked = now;
        }
        let nothing_to_do =
            self.in_flight.is_none() && self.undelivered.len() == 0 && self.gate.waiting() == 0;
        let idle = now.since(self.last_asked) >= self.idle;
        if self.stage == OwnerStage::Serving && nothing_to_do && idle {
            effects.push(Effect::CloseIfEmpty);
        }
    }

    fn drain(&mut self, effects: &mut Vec<Effect<K>>) {
        if self.stage != OwnerStage::Serving {
            return;
        }
        self.stage = OwnerStage::Draining;
        // A draining shard does not raise its epoch, so a portion that waits for the next epoch would wait
        // for ever.
        if self.in_flight.as_ref().is_some_and(|portion| portion.fenced) {
            self.stop(effects);
        }
        self.stop_if_drained(effects);
    }

    fn stop_if_drained(&mut self, effects: &mut Vec<Effect<K>>) {
        if self.stage == OwnerStage::Draining && self.gate.stored() == self.decided {
            self.stop(effects);
        }
    }

    fn stop(&mut self, effects: &mut Vec<Effect<K>>) {
        if self.stage == OwnerStage::Stopped {
            return;
        }
        self.stage = OwnerStage::Stopped;
        if self.posted.take().is_some() {
            effects.push(Effect::Withdraw { floor: None });
        }
        effects.extend(self.gate.abandon().map(|held| {
            // A refusal changed nothing, so it is safe to ask the next owner. Any other decision may still be
            // stored.
            let is_refusal = K::is_refusal(&held.outcome);
            let setback = if is_refusal {
                Setback::Moved
            } else {
                Setback::Unknown
            };
            Effect::Answer(held.reply, Err(setback))
        }));
        let unsettled = self.gate.stored() != self.decided;
        effects.push(Effect::Stop { unsettled });
    }
}

#[cfg(test)]
mod tests;
