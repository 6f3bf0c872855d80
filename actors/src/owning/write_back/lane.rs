//! A lane as a state machine: it joins portions into batches, one batch at a time, and brings every portion
//! to one fate. `event → effects`.
//!
//! ```text
//! stored whole ──────────────► stored
//! stored fewer, clashed ─────► read back: stored · fenced · contradicted · (clashed, but absent) each alone once more
//! unreadable ────────────────► read back; what cannot be read either: each alone once more, and then contradicted
//! not stored, unknown ───────► the same batch again, after a pause, while the lease holds
//! lease over ────────────────► unknown
//! ```
//!
//! Sending a batch again does no harm: rows that are there already clash, and reading back shows that they
//! are the same.

use std::collections::VecDeque;
use std::time::Duration;

use backon::ExponentialBackoff;

use crate::backoff::pauses;
use crate::ids::Incarnation;
use crate::store::StoreError;
use crate::store::batch::{BATCH_ROWS_MAX, Batch, Entries, Fate, Found, FoundRows, Portion};

/// First pause before a batch is sent again; it doubles with each.
const RETRY_FIRST: Duration = Duration::from_millis(10);
/// Longest pause: a store that is back is noticed within this.
const RETRY_LONGEST: Duration = Duration::from_millis(500);

/// A portion, and whom to tell (`H`) what becomes of it.
#[derive(Debug, Clone)]
pub struct Submission<H> {
    /// The entries.
    pub portion: Portion,
    /// Whose they are.
    pub home: H,
}

/// What happens to a lane.
#[derive(Debug)]
pub enum Event<H> {
    /// An owner hands over a portion.
    Submitted(Submission<H>),
    /// The write came back.
    Written(Result<u64, StoreError>),
    /// The reads came back.
    ReadBack(Result<Vec<Found>, StoreError>),
    /// The pause is over.
    RetryDue {
        /// Whether the node may still try, in every incarnation that [`Lane::incarnations`] names.
        lease_holds: bool,
    },
}

/// What a lane wants done.
#[derive(Debug)]
pub enum Effect<H> {
    /// Send this batch.
    Write(Batch),
    /// Read back what is stored of this batch.
    ReadBack(Batch),
    /// Come back after this pause.
    Pause(Duration),
    /// Tell the owner the end of its portion's story.
    Settle(Submission<H>, Fate),
    /// Tell the owner that the store does not take its portion for now.
    Delay(Submission<H>),
    /// The disk lost what it had taken: nothing more may be told.
    Die(String),
}

/// What the lane waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Write,
    ReadBack,
}

#[derive(Debug)]
struct Out<H> {
    submissions: Vec<Submission<H>>,
    /// What to do when the pause is over, and what is under way when there is none.
    next: Next,
    /// The last write clashed: absence does not yet mean that a guard refused.
    clashed: bool,
    /// It holds one portion, written alone because a batch clashed.
    alone: bool,
    delayed: bool,
    pauses: ExponentialBackoff,
}

/// The state machine; see the module.
#[derive(Debug)]
pub struct Lane<H> {
    /// In order of arrival. Bounded, as each owner has at most one portion out.
    queue: VecDeque<Submission<H>>,
    /// Portions of a batch that clashed, each to be written by itself first.
    alone: VecDeque<Submission<H>>,
    out: Option<Out<H>>,
}

impl<H> Default for Lane<H> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            alone: VecDeque::new(),
            out: None,
        }
    }
}

impl<H: Clone> Lane<H> {
    /// Takes an event.
    pub fn handle(&mut self, event: Event<H>, effects: &mut Vec<Effect<H>>) {
        match event {
            Event::Submitted(submission) => {
                if self.out.as_ref().is_some_and(|out| out.delayed) {
                    effects.push(Effect::Delay(submission.clone()));
                }
                self.queue.push_back(submission);
            }
            Event::Written(result) => self.written(result, effects),
            Event::ReadBack(Ok(found))
                if self
                    .out
                    .as_ref()
                    .is_some_and(|out| out.submissions.len() == found.len()) =>
            {
                self.read_back(&found, effects);
            }
            Event::ReadBack(Err(StoreError::Fatal(why))) => effects.push(Effect::Die(why)),
            Event::ReadBack(Err(StoreError::Unreadable(_))) => self.cannot_tell(effects),
            Event::ReadBack(Ok(_) | Err(_)) => self.pause(Next::ReadBack, effects),
            Event::RetryDue { lease_holds: true } => self.go_on(effects),
            Event::RetryDue { lease_holds: false } => self.give_up(effects),
        }
        if self.out.is_none() {
            self.start_next(effects);
        }
    }

    /// The incarnations that decided what is out: what one left behind is not tried under the lease of its
    /// successor.
    pub fn incarnations(&self) -> impl Iterator<Item = Incarnation> {
        let out = self.out.iter().flat_map(|out| &out.submissions);
        out.map(|submission| submission.portion.fence.owner)
    }

    /// Whether the store does not take what this lane sends.
    pub fn is_delayed(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.delayed)
    }

    fn written(&mut self, result: Result<u64, StoreError>, effects: &mut Vec<Effect<H>>) {
        let Some(out) = self.out.as_mut() else { return };
        match result {
            Ok(rows) if rows == rows_of(&out.submissions) => {
                let stored = std::mem::take(&mut out.submissions);
                self.out = None;
                effects.extend(
                    stored
                        .into_iter()
                        .map(|submission| Effect::Settle(submission, Fate::Stored)),
                );
            }
            Ok(_fewer) => {
                out.clashed = false;
                self.look(effects);
            }
            // What makes no sense today makes none tomorrow: sent again and again it would only keep the
            // others of this lane waiting.
            Err(StoreError::Clash(_) | StoreError::Unreadable(_)) => {
                out.clashed = true;
                self.look(effects);
            }
            Err(StoreError::Fatal(why)) => effects.push(Effect::Die(why)),
            Err(StoreError::NotStored(_) | StoreError::Unknown(_)) => self.pause(Next::Write, effects),
        }
    }

    fn look(&mut self, effects: &mut Vec<Effect<H>>) {
        if let Some(out) = self.out.as_mut() {
            out.next = Next::ReadBack;
            effects.push(Effect::ReadBack(batch_of(&out.submissions)));
        }
    }

    fn read_back(&mut self, found: &[Found], effects: &mut Vec<Effect<H>>) {
        let Some(out) = self.out.take() else { return };
        for (submission, found) in out.submissions.into_iter().zip(found) {
            let fate = match (found.rows, found.fence_holds) {
                (FoundRows::Stored, _) => Fate::Stored,
                // Whatever stands there was written by the owner after us.
                (FoundRows::Absent | FoundRows::Different, false) => Fate::Fenced,
                (FoundRows::Different, true) => Fate::Contradicted,
                // Another portion of the batch clashed; this one did nothing wrong and goes by itself.
                (FoundRows::Absent, true) if out.clashed && !out.alone => {
                    self.alone.push_back(submission);
                    continue;
                }
                // Its fence holds and its place is free, and yet the store refused it: only a guard does
                // that.
                (FoundRows::Absent, true) => Fate::Contradicted,
            };
            effects.push(Effect::Settle(submission, fate));
        }
    }

    /// The rows cannot be read back, and trying again is vain: each portion goes by itself, and of one that
    /// is by itself already, only loading its coupon anew, above a raised epoch, can tell.
    fn cannot_tell(&mut self, effects: &mut Vec<Effect<H>>) {
        let Some(out) = self.out.take() else { return };
        if out.alone {
            effects.extend(
                out.submissions
                    .into_iter()
                    .map(|submission| Effect::Settle(submission, Fate::Contradicted)),
            );
        } else {
            self.alone.extend(out.submissions);
        }
    }

    fn pause(&mut self, next: Next, effects: &mut Vec<Effect<H>>) {
        let Some(out) = self.out.as_mut() else { return };
        out.next = next;
        if !out.delayed {
            out.delayed = true;
            let kept_waiting = out.submissions.iter().chain(&self.alone).chain(&self.queue);
            effects.extend(kept_waiting.map(|submission| Effect::Delay(submission.clone())));
        }
        effects.push(Effect::Pause(out.pauses.next().unwrap_or(RETRY_LONGEST)));
    }

    fn go_on(&mut self, effects: &mut Vec<Effect<H>>) {
        if let Some(out) = &self.out {
            let batch = batch_of(&out.submissions);
            effects.push(match out.next {
                Next::Write => Effect::Write(batch),
                Next::ReadBack => Effect::ReadBack(batch),
            });
        }
    }

    /// The lease is over: what is out may be stored or not, and only raising the epoch and reading tells.
    fn give_up(&mut self, effects: &mut Vec<Effect<H>>) {
        let out = self.out.take().map(|out| out.submissions).unwrap_or_default();
        let all = out
            .into_iter()
            .chain(self.alone.drain(..))
            .chain(self.queue.drain(..));
        effects.extend(all.map(|submission| Effect::Settle(submission, Fate::Unknown)));
    }

    fn start_next(&mut self, effects: &mut Vec<Effect<H>>) {
        let (submissions, alone) = match self.alone.pop_front() {
            Some(submission) => (vec![submission], true),
            None => (self.join(), false),
        };
        if submissions.is_empty() {
            return;
        }
        effects.push(Effect::Write(batch_of(&submissions)));
        let pauses = pauses(RETRY_FIRST, RETRY_LONGEST);
        self.out = Some(Out {
            submissions,
            next: Next::Write,
            clashed: false,
            alone,
            delayed: false,
            pauses,
        });
    }

    /// The run of portions at the front that fit into one statement: a change by itself, or issuances up to
    /// the most rows.
    fn join(&mut self) -> Vec<Submission<H>> {
        let mut joined: Vec<Submission<H>> = Vec::new();
        let mut rows = 0;
        while let Some(next) = self.queue.front() {
            let is_change = matches!(next.portion.entries, Entries::Change(_));
            rows += next.portion.entries.len();
            if !joined.is_empty() && (is_change || rows > BATCH_ROWS_MAX) {
                break;
            }
            joined.extend(self.queue.pop_front());
            if is_change {
                break;
            }
        }
        joined
    }
}

/// How many rows they store if all pass their guards.
fn rows_of<H>(submissions: &[Submission<H>]) -> u64 {
    submissions
        .iter()
        .map(|submission| submission.portion.entries.len() as u64)
        .sum()
}

fn batch_of<H>(submissions: &[Submission<H>]) -> Batch {
    Batch {
        portions: submissions
            .iter()
            .map(|submission| submission.portion.clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests;
