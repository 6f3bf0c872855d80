//! A lane as a state machine: it joins portions into batches, sends one batch at a time, and brings every
//! portion to one fate. `event → effects`.
//!
//! ```text
//! stored whole ──────────────► stored
//! stored fewer, clashed ─────► read back: stored · fenced · contradicted;
//!                              clashed, but absent: each is written alone
//! unreadable ────────────────► read back; if unreadable again: each is written alone, then contradicted
//! not stored, unknown ───────► the same batch again, after a pause, while the lease holds
//! lease over ────────────────► unknown
//! ```
//!
//! Once a batch takes long, or must be sent again, the portions that wait behind it are given back, so that
//! another lane takes them. They were in no batch yet, so nothing about them is in doubt.
//!
//! It does no harm to send a batch again: rows that are stored already clash, and a read-back shows that they
//! are the same.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use backon::ExponentialBackoff;

use crate::backoff::backoff;
use crate::ids::Incarnation;
use crate::owning::kind::{Kind, Run};
use crate::store::StoreError;
use crate::store::batch::{BATCH_ROWS_MAX, Batch, Fate, Found, FoundRows, Portion};
use crate::trace::TraceParent;

/// First pause before a batch is sent again. It doubles each time.
const RETRY_FIRST: Duration = Duration::from_millis(10);
/// Longest pause. It is also about the longest time until a lane notices that the store is available again.
const RETRY_LONGEST: Duration = Duration::from_millis(500);

/// A portion, and the mailbox that its fate goes to (`M`).
#[derive(Debug, Clone)]
pub struct Submission<K: Kind, M> {
    /// The portion.
    pub portion: Portion<K>,
    /// The spans of those requests in it that are traced.
    pub traces: Vec<TraceParent>,
    /// The mailbox of the owner, which the fate goes to.
    pub mailbox: M,
}

/// What happens to a lane.
#[derive(Debug)]
pub enum Event<K: Kind, M> {
    /// An owner submitted a portion.
    Submitted(Submission<K, M>),
    /// The write ended.
    Written(Result<u64, StoreError>),
    /// The reads ended.
    ReadBack(Result<Vec<Found>, StoreError>),
    /// The pause is over.
    RetryDue {
        /// True if the lease holds for every incarnation that [`Lane::incarnations`] returns.
        lease_holds: bool,
    },
    /// The batch takes long, and another lane is idle.
    TakesLong,
}

/// Effects that the lane's task carries batch.
#[derive(Debug)]
pub enum Effect<K: Kind, M> {
    /// Send this batch.
    Write(Batch<K>),
    /// Read back what is stored of this batch.
    ReadBack(Batch<K>),
    /// Send [`Event::RetryDue`] after this pause.
    Pause(Duration),
    /// Tell the owner the fate of its portion.
    Settle(Submission<K, M>, Fate),
    /// Tell the owner that the store does not accept its portion at present.
    Delay(Submission<K, M>),
    /// Hand this submission to another lane if one is free. If none is, submit it to this lane again.
    GiveBack(Submission<K, M>),
    /// End the process, because the disk lost writes that it had accepted.
    EndProcess(String),
}

/// The call to the store that is under way, or that follows the pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Write,
    ReadBack,
}

/// The batch that was sent, or that is sent again after a pause.
#[derive(Debug)]
struct BatchInFlight<K: Kind, M> {
    submissions: Vec<Submission<K, M>>,
    /// The call that is under way, or that follows the pause.
    next: Next,
    /// True if the last write clashed. Then absent rows do not yet mean that a guard refused.
    clashed: bool,
    /// True if this is one portion that is written alone, after its batch clashed or could not be read.
    alone: bool,
    delayed: bool,
    backoff: ExponentialBackoff,
}

/// The state machine; see the module.
#[derive(Debug)]
pub struct Lane<K: Kind, M> {
    /// Submissions in order of arrival. Their number is bounded, because each owner has at most one portion
    /// in flight. Two portions of one id may wait: that of an owner that stopped, and that of the next owner.
    queue: VecDeque<Submission<K, M>>,
    /// Portions of a batch that clashed or could not be read. Each portion is written alone, before the
    /// queue.
    alone: VecDeque<Submission<K, M>>,
    in_flight: Option<BatchInFlight<K, M>>,
}

impl<K: Kind, M> Default for Lane<K, M> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            alone: VecDeque::new(),
            in_flight: None,
        }
    }
}

impl<K: Kind, M: Clone> Lane<K, M> {
    /// Handles an event.
    pub fn handle(&mut self, event: Event<K, M>, effects: &mut Vec<Effect<K, M>>) {
        match event {
            Event::Submitted(submission) => {
                if self.in_flight.as_ref().is_some_and(|batch| batch.delayed) {
                    effects.push(Effect::Delay(submission.clone()));
                }
                self.queue.push_back(submission);
            }
            Event::Written(result) => self.written(result, effects),
            Event::ReadBack(Ok(found))
                if self
                    .in_flight
                    .as_ref()
                    .is_some_and(|batch| batch.submissions.len() == found.len()) =>
            {
                self.read_back(&found, effects);
            }
            Event::ReadBack(Err(StoreError::Fatal(why))) => effects.push(Effect::EndProcess(why)),
            Event::ReadBack(Err(StoreError::Unreadable(_))) => self.isolate_portions(effects),
            Event::ReadBack(Ok(_) | Err(_)) => self.pause(Next::ReadBack, effects),
            Event::RetryDue { lease_holds: true } => self.resume(effects),
            Event::RetryDue { lease_holds: false } => self.give_up(effects),
            Event::TakesLong => self.give_back(effects),
        }
        if self.in_flight.is_none() {
            self.start_next(effects);
        }
    }

    /// Returns the incarnations that decided the portions in flight. A portion of an ended incarnation is not
    /// sent again under the lease of the next incarnation.
    pub fn incarnations(&self) -> impl Iterator<Item = Incarnation> {
        let in_flight = self.in_flight.iter().flat_map(|batch| &batch.submissions);
        in_flight.map(|submission| submission.portion.fence.owner)
    }

    /// Returns how many rows are in flight.
    pub fn rows(&self) -> u64 {
        self.in_flight
            .as_ref()
            .map_or(0, |batch| rows_of(&batch.submissions))
    }

    /// Returns the spans of those requests in flight that are traced.
    pub fn traces(&self) -> impl Iterator<Item = &TraceParent> {
        let in_flight = self.in_flight.iter().flat_map(|batch| &batch.submissions);
        in_flight.flat_map(|submission| &submission.traces)
    }

    /// Returns true if the portion in flight is written alone, after its batch clashed or could not be read.
    pub fn writes_alone(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|batch| batch.alone)
    }

    /// Returns true if the store does not accept what this lane sends.
    pub fn is_delayed(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|batch| batch.delayed)
    }

    fn written(&mut self, result: Result<u64, StoreError>, effects: &mut Vec<Effect<K, M>>) {
        let Some(batch) = self.in_flight.as_mut() else {
            return;
        };
        match result {
            Ok(rows) if rows == rows_of(&batch.submissions) => {
                let stored = std::mem::take(&mut batch.submissions);
                self.in_flight = None;
                effects.extend(
                    stored
                        .into_iter()
                        .map(|submission| Effect::Settle(submission, Fate::Stored)),
                );
            }
            Ok(_fewer) => {
                batch.clashed = false;
                self.begin_read_back(effects);
            }
            // Unreadable rows stay unreadable. To send the batch again would only delay the lane.
            Err(StoreError::Clash(_) | StoreError::Unreadable(_)) => {
                batch.clashed = true;
                self.begin_read_back(effects);
            }
            Err(StoreError::Fatal(why)) => effects.push(Effect::EndProcess(why)),
            Err(StoreError::NotStored(_) | StoreError::Unknown(_)) => self.pause(Next::Write, effects),
        }
    }

    fn begin_read_back(&mut self, effects: &mut Vec<Effect<K, M>>) {
        if let Some(batch) = self.in_flight.as_mut() {
            batch.next = Next::ReadBack;
            effects.push(Effect::ReadBack(batch_of(&batch.submissions)));
        }
    }

    fn read_back(&mut self, found: &[Found], effects: &mut Vec<Effect<K, M>>) {
        let Some(batch) = self.in_flight.take() else {
            return;
        };
        for (submission, found) in batch.submissions.into_iter().zip(found) {
            let fate = match (found.rows, found.fence_holds) {
                (FoundRows::Stored, _) => Fate::Stored,
                // If rows are there, a later owner wrote them.
                (FoundRows::Absent | FoundRows::Different, false) => Fate::Fenced,
                (FoundRows::Different, true) => Fate::Contradicted,
                // Another portion of the batch clashed. This one is written alone.
                (FoundRows::Absent, true) if batch.clashed && !batch.alone => {
                    self.alone.push_back(submission);
                    continue;
                }
                // The fence holds and the place is free, and yet the store refused the portion. Only a guard
                // does that.
                (FoundRows::Absent, true) => Fate::Contradicted,
            };
            effects.push(Effect::Settle(submission, fate));
        }
    }

    /// Handles rows that cannot be read back. A retry would not help, so each portion is written alone. A
    /// portion that was already alone is contradicted. Loading its owner again, under a raised epoch, shows
    /// whether it is stored.
    fn isolate_portions(&mut self, effects: &mut Vec<Effect<K, M>>) {
        let Some(batch) = self.in_flight.take() else {
            return;
        };
        if batch.alone {
            effects.extend(
                batch
                    .submissions
                    .into_iter()
                    .map(|submission| Effect::Settle(submission, Fate::Contradicted)),
            );
        } else {
            self.alone.extend(batch.submissions);
        }
    }

    fn pause(&mut self, next: Next, effects: &mut Vec<Effect<K, M>>) {
        let Some(batch) = self.in_flight.as_mut() else {
            return;
        };
        batch.next = next;
        if !batch.delayed {
            batch.delayed = true;
            let kept_waiting = batch.submissions.iter().chain(&self.alone);
            effects.extend(kept_waiting.map(|submission| Effect::Delay(submission.clone())));
            effects.extend(self.queue.drain(..).map(Effect::GiveBack));
        }
        effects.push(Effect::Pause(batch.backoff.next().unwrap_or(RETRY_LONGEST)));
    }

    /// Gives back what waits behind the batch. What was in the batch stays, also if it is now written alone.
    fn give_back(&mut self, effects: &mut Vec<Effect<K, M>>) {
        if self.in_flight.is_some() {
            effects.extend(self.queue.drain(..).map(Effect::GiveBack));
        }
    }

    fn resume(&mut self, effects: &mut Vec<Effect<K, M>>) {
        if let Some(in_flight) = &self.in_flight {
            let batch = batch_of(&in_flight.submissions);
            effects.push(match in_flight.next {
                Next::Write => Effect::Write(batch),
                Next::ReadBack => Effect::ReadBack(batch),
            });
        }
    }

    /// Gives up, because the lease is over. The portions in flight may be stored or not. A load under a
    /// raised epoch shows which.
    fn give_up(&mut self, effects: &mut Vec<Effect<K, M>>) {
        let in_flight = self
            .in_flight
            .take()
            .map(|batch| batch.submissions)
            .unwrap_or_default();
        let all = in_flight
            .into_iter()
            .chain(self.alone.drain(..))
            .chain(self.queue.drain(..));
        effects.extend(all.map(|submission| Effect::Settle(submission, Fate::Unknown)));
    }

    fn start_next(&mut self, effects: &mut Vec<Effect<K, M>>) {
        let (submissions, alone) = match self.alone.pop_front() {
            Some(submission) => (vec![submission], true),
            None => (self.join(), false),
        };
        if submissions.is_empty() {
            return;
        }
        effects.push(Effect::Write(batch_of(&submissions)));
        let backoff = backoff(RETRY_FIRST, RETRY_LONGEST);
        self.in_flight = Some(BatchInFlight {
            submissions,
            next: Next::Write,
            clashed: false,
            alone,
            delayed: false,
            backoff,
        });
    }

    /// Takes the oldest submission, and all others that one statement can store with it. Portions of
    /// different owners may be stored in any order.
    ///
    /// A portion of an id that is in the batch already waits for the next batch: both name the same places of
    /// rows, so what is read back could not be told apart.
    fn join(&mut self) -> Vec<Submission<K, M>> {
        let Some(oldest) = self.queue.pop_front() else {
            return Vec::new();
        };
        let mut rows = oldest.portion.run.rows();
        let mut is_full = !oldest.portion.run.is_joinable();
        let mut ids = HashSet::from([oldest.portion.id]);
        let mut joined = vec![oldest];
        for next in std::mem::take(&mut self.queue) {
            let run = &next.portion.run;
            let fits = !is_full && run.is_joinable() && joined[0].portion.run.joins(run);
            if !fits || !ids.insert(next.portion.id) {
                self.queue.push_back(next);
                continue;
            }
            // Later portions do not pass one that would only be too large.
            is_full = rows + run.rows() > BATCH_ROWS_MAX;
            if is_full {
                self.queue.push_back(next);
            } else {
                rows += run.rows();
                joined.push(next);
            }
        }
        joined
    }
}

/// Returns how many rows these submissions store if all of them pass their guards.
fn rows_of<K: Kind, M>(submissions: &[Submission<K, M>]) -> u64 {
    submissions
        .iter()
        .map(|submission| submission.portion.run.rows() as u64)
        .sum()
}

fn batch_of<K: Kind, M>(submissions: &[Submission<K, M>]) -> Batch<K> {
    Batch {
        portions: submissions
            .iter()
            .map(|submission| submission.portion.clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests;
