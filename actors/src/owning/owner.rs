//! The owner as a state machine: ledger, entries, gate and fence together. `(command, now) → effects`.
//!
//! One rule each: an answer leaves through the gate; at most one portion is out; what is decided is never
//! taken back. When the owner stops, whoever waits is told that the outcome is unknown, or, where nothing was
//! decided for them, to ask again.
//!
//! When a portion is stored, the next may go before those are answered who waited for the last, or after
//! them, and then it takes along who comes meanwhile: it *gathers*. With few in it that is better: who is
//! answered may ask again, for the next user, and one commit for both halves of a small crowd is sooner back
//! than two in turn. With many it only makes the store wait.

pub mod actor;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::coupon::ledger::{Changed, Ledger, Verdict};
use crate::coupon::offer::Issuance;
use crate::ids::{CouponId, Epoch, Fence, Incarnation, ShardId};
use crate::owning::door::Notice;
use crate::owning::gate::{Gate, Position};
use crate::owning::message::{
    ChangeAnswer, ChangeOutcome, ChangeRequest, IssueAnswer, IssueOutcome, IssueRequest, OwnerCommand,
    Refusal, Reply, Request, Setback,
};
use crate::store::batch::{BATCH_ROWS_MAX, CouponChange, Entries, Fate, Portion, Settlement};
use crate::time::{Moment, Now};

/// What an owner wants done.
#[derive(Debug)]
pub enum Effect {
    /// Tell somebody something.
    Answer(Answer),
    /// Store these entries.
    Submit(Portion),
    /// Send [`OwnerCommand::Submit`] when those just answered have had their turn and who comes meanwhile is
    /// decided for.
    Gather,
    /// Tell the doors that the coupon is sold out.
    Post(Arc<Notice>),
    /// Tell them no more: from this version on something else holds. No door may count what it knows below
    /// it, as an administrator's change may be stored at any moment from now on.
    Withdraw {
        /// The coupon's version after the change that was just decided; `None` if the owner only goes.
        floor: Option<u64>,
    },
    /// Tell the shard that the store refused this epoch; the owner waits for a new one or for the end.
    ReportFenced(Epoch),
    /// Close the mailbox if nobody is in it, and then send [`OwnerCommand::Stop`].
    CloseIfEmpty,
    /// Close the mailbox and stop; `unsettled` if something decided may yet be stored or not.
    Stop {
        /// Whether the coupon may be loaded again only after its shard's epoch was raised.
        unsettled: bool,
    },
}

/// An answer with its way back.
#[derive(Debug)]
pub enum Answer {
    /// To an issue request.
    Issue(Reply<IssueAnswer>, IssueAnswer),
    /// To a change.
    Change(Reply<ChangeAnswer>, ChangeAnswer),
}

impl Answer {
    /// Sends it.
    pub fn send(self) {
        match self {
            Self::Issue(reply, answer) => reply.send(answer),
            Self::Change(reply, answer) => reply.send(answer),
        }
    }

    fn is_waited_for(&self) -> bool {
        match self {
            Self::Issue(reply, _) => reply.is_waited_for(),
            Self::Change(reply, _) => reply.is_waited_for(),
        }
    }

    fn is_setback(&self) -> bool {
        matches!(self, Self::Issue(_, Err(_)) | Self::Change(_, Err(_)))
    }

    /// What is told in its place when what it rests on may never be stored.
    fn abandoned(self) -> Self {
        match self {
            Self::Issue(reply, Ok(IssueOutcome::Refused(_))) => Self::Issue(reply, Err(Setback::Moved)),
            Self::Issue(reply, _) => Self::Issue(reply, Err(Setback::Unknown)),
            Self::Change(reply, Ok(ChangeOutcome::Refused(_))) => Self::Change(reply, Err(Setback::Moved)),
            Self::Change(reply, _) => Self::Change(reply, Err(Setback::Unknown)),
        }
    }
}

/// One decided thing.
#[derive(Debug)]
enum Entry {
    Issuance(Issuance),
    Change(Arc<CouponChange>),
}

/// The portion that was handed to a lane and has not come back.
#[derive(Debug)]
struct Out {
    entries: Entries,
    rows: usize,
    /// It came back fenced, and waits for the shard's next epoch.
    fenced: bool,
}

/// How the owner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Serving,
    /// Stores what is decided, decides nothing more.
    Draining,
    Stopped,
}

/// The state machine; see the module.
#[derive(Debug)]
pub struct Owner {
    shard: ShardId,
    fence: Fence,
    ledger: Ledger,
    gate: Gate<Answer>,
    decided: Position,
    undelivered: VecDeque<Entry>,
    out: Option<Out>,
    /// What is undelivered waits for more, until [`OwnerCommand::Submit`] or until nothing more can join it.
    gathering: bool,
    /// With so many entries a portion waits for nobody.
    goes_at_once: usize,
    /// The store does not take what is out: nothing new is decided until it does.
    delayed: bool,
    posted: Option<Arc<Notice>>,
    standing: Standing,
    last_asked: Moment,
    idle: Duration,
}

impl Owner {
    /// The owner of a coupon just loaded under `fence`, to be unloaded after `idle` without requests. With
    /// `goes_at_once` entries a portion waits for nobody.
    pub fn new(ledger: Ledger, fence: Fence, idle: Duration, goes_at_once: usize, now: Moment) -> Self {
        Self {
            shard: ledger.coupon().id.shard(),
            fence,
            ledger,
            gate: Gate::default(),
            decided: Position::default(),
            undelivered: VecDeque::new(),
            out: None,
            gathering: false,
            goes_at_once,
            delayed: false,
            posted: None,
            standing: Standing::Serving,
            last_asked: now,
            idle,
        }
    }

    /// Whose owner this is.
    pub fn coupon(&self) -> CouponId {
        self.ledger.coupon().id
    }

    /// The epoch it writes under.
    pub fn epoch(&self) -> Epoch {
        self.fence.epoch
    }

    /// The incarnation it decides for.
    pub fn incarnation(&self) -> Incarnation {
        self.fence.owner
    }

    /// Answers that wait at the gate.
    pub fn waiting(&self) -> usize {
        self.gate.waiting()
    }

    /// Entries decided and not stored.
    pub fn unstored(&self) -> u64 {
        self.decided.after(self.gate.stored())
    }

    /// Whether it waits for more to hand over, after [`Effect::Gather`].
    pub fn is_gathering(&self) -> bool {
        self.gathering
    }

    /// Takes a command. `lease_holds`: whether this node may decide and confirm at `now`.
    pub fn handle(&mut self, command: OwnerCommand, now: Now, lease_holds: bool, effects: &mut Vec<Effect>) {
        match command {
            OwnerCommand::Decide(request) => self.decide(request, now, lease_holds, effects),
            OwnerCommand::Settle(settlement) => self.settle(settlement, lease_holds, effects),
            OwnerCommand::Submit => {
                self.gathering = false;
                self.submit(effects);
            }
            OwnerCommand::Delayed => self.delayed = self.out.is_some(),
            OwnerCommand::Refence(epoch) => self.refence(epoch, effects),
            OwnerCommand::Announce => self.post_if_sold_out(effects),
            OwnerCommand::Sweep => self.gate.retain(Answer::is_waited_for),
            OwnerCommand::Passivate => self.passivate(now.moment, effects),
            OwnerCommand::Drain => self.drain(effects),
            OwnerCommand::Stop => self.stop(effects),
            #[cfg(test)]
            OwnerCommand::Panic => panic!("on purpose"),
        }
    }

    fn decide(&mut self, request: Request, now: Now, lease_holds: bool, effects: &mut Vec<Effect>) {
        let expires = match &request {
            Request::Issue(request, _) => request.expires,
            Request::Change(request, _) => request.expires,
        };
        let setback = if self.standing != Standing::Serving {
            Some(Setback::Moved)
        } else if now.moment >= expires {
            Some(Setback::Expired)
        } else if !lease_holds {
            Some(Setback::StoreUnavailable)
        } else {
            None
        };
        if let Some(setback) = setback {
            effects.push(Effect::Answer(set_back(request, setback)));
            return;
        }
        self.last_asked = now.moment;
        let answer = match request {
            Request::Issue(request, reply) => self.decide_issue(&request, reply, now),
            Request::Change(request, reply) => self.decide_change(&request, reply, now, effects),
        };
        // A setback rests on nothing that would have to be stored.
        let free = if answer.is_setback() {
            Some(answer)
        } else {
            self.gate.hold(self.decided, answer)
        };
        effects.extend(free.map(Effect::Answer));
        self.submit(effects);
    }

    fn decide_issue(&mut self, request: &IssueRequest, reply: Reply<IssueAnswer>, now: Now) -> Answer {
        let outcome = match self.ledger.judge(now.timestamp, &request.user, &request.key) {
            Verdict::Replay(issuance) => IssueOutcome::Replayed(issuance),
            Verdict::Refuse(refusal @ Refusal::AlreadyIssued(_)) => IssueOutcome::Refused(refusal),
            // Nothing was decided for this one, and what a refusal rests on cannot be confirmed now: better
            // told so than left waiting.
            Verdict::Refuse(_) | Verdict::Grant if self.delayed => {
                return Answer::Issue(reply, Err(Setback::StoreUnavailable));
            }
            Verdict::Refuse(refusal) => IssueOutcome::Refused(refusal),
            Verdict::Grant => {
                let issuance = self.ledger.issue(now.timestamp, &request.user, &request.key);
                self.append(Entry::Issuance(issuance.clone()));
                IssueOutcome::Issued(issuance)
            }
        };
        Answer::Issue(reply, Ok(outcome))
    }

    fn decide_change(
        &mut self,
        request: &ChangeRequest,
        reply: Reply<ChangeAnswer>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        if self.delayed {
            return Answer::Change(reply, Err(Setback::StoreUnavailable));
        }
        let outcome = match self
            .ledger
            .change(now.timestamp, &request.change, request.if_version)
        {
            Changed::Kept(outcome) => outcome,
            Changed::Made(done) => {
                self.append(Entry::Change(Arc::new(CouponChange {
                    coupon: done.coupon.clone(),
                    issued: done.issued,
                })));
                self.posted = None;
                effects.push(Effect::Withdraw {
                    floor: Some(done.coupon.version),
                });
                ChangeOutcome::Done(Box::new(done))
            }
        };
        Answer::Change(reply, Ok(outcome))
    }

    fn append(&mut self, entry: Entry) {
        self.undelivered.push_back(entry);
        self.decided = self.decided.plus(1);
    }

    /// Hands over what is undelivered, if nothing is out and it does not gather: so batches grow with load,
    /// and an idle coupon waits for nothing. All of it was decided under a lease; that it may still be
    /// stored, the fence says.
    fn submit(&mut self, effects: &mut Vec<Effect>) {
        self.gathering = self.gathering && self.may_grow();
        if self.out.is_some() || self.gathering || self.standing == Standing::Stopped {
            return;
        }
        let Some(entries) = self.next_entries() else {
            return;
        };
        let rows = entries.len();
        effects.push(Effect::Submit(self.portion(entries.clone())));
        self.out = Some(Out {
            entries,
            rows,
            fenced: false,
        });
    }

    /// Whether the next portion is small, and who comes may join it: a change goes by itself, and nobody
    /// joins where there is nothing left.
    fn may_grow(&self) -> bool {
        self.standing == Standing::Serving
            && self.undelivered.len() < self.goes_at_once
            && self
                .undelivered
                .iter()
                .all(|entry| matches!(entry, Entry::Issuance(_)))
            && !self.ledger.is_sold_out()
    }

    /// The next run of entries of one kind.
    fn next_entries(&mut self) -> Option<Entries> {
        if let Some(Entry::Change(_)) = self.undelivered.front()
            && let Some(Entry::Change(change)) = self.undelivered.pop_front()
        {
            return Some(Entries::Change(change));
        }
        let mut issuances = Vec::new();
        while issuances.len() < BATCH_ROWS_MAX {
            match self.undelivered.pop_front() {
                Some(Entry::Issuance(issuance)) => issuances.push(issuance),
                Some(change @ Entry::Change(_)) => {
                    self.undelivered.push_front(change);
                    break;
                }
                None => break,
            }
        }
        (!issuances.is_empty()).then(|| Entries::Issuances(issuances.into()))
    }

    fn portion(&self, entries: Entries) -> Portion {
        Portion {
            coupon: self.ledger.coupon().id,
            shard: self.shard,
            fence: self.fence,
            entries,
        }
    }

    fn settle(&mut self, settlement: Settlement, lease_holds: bool, effects: &mut Vec<Effect>) {
        if self.standing == Standing::Stopped {
            return;
        }
        let Some(out) = self.out.as_mut() else { return };
        match settlement.fate {
            Fate::Stored if lease_holds => {
                let rows = out.rows;
                self.out = None;
                self.delayed = false;
                // Who was alone waits for nobody.
                self.gathering = rows + self.undelivered.len() > 1 && self.may_grow();
                // With many, the next portion first: it is on its way while these are answered.
                self.submit(effects);
                let stored = self.gate.stored().plus(rows);
                effects.extend(self.gate.raise(stored).map(Effect::Answer));
                effects.extend(self.gathering.then_some(Effect::Gather));
                self.post_if_sold_out(effects);
                self.stop_if_drained(effects);
            }
            Fate::Fenced if settlement.fence != self.fence => self.submit_again(effects),
            // Its shard raises no epoch any more.
            Fate::Fenced if self.standing == Standing::Draining => self.stop(effects),
            Fate::Fenced => {
                out.fenced = true;
                effects.push(Effect::ReportFenced(self.fence.epoch));
            }
            Fate::Stored | Fate::Contradicted | Fate::Unknown => self.stop(effects),
        }
    }

    /// What was fenced goes out again under the present fence.
    fn submit_again(&mut self, effects: &mut Vec<Effect>) {
        let Some(out) = self.out.as_mut() else { return };
        out.fenced = false;
        let entries = out.entries.clone();
        effects.push(Effect::Submit(self.portion(entries)));
    }

    fn refence(&mut self, epoch: Epoch, effects: &mut Vec<Effect>) {
        if epoch <= self.fence.epoch || self.standing == Standing::Stopped {
            return;
        }
        self.fence.epoch = epoch;
        if self.out.as_ref().is_some_and(|out| out.fenced) {
            self.submit_again(effects);
        }
    }

    fn post_if_sold_out(&mut self, effects: &mut Vec<Effect>) {
        let all_stored = self.gate.stored() == self.decided;
        if self.posted.is_some()
            || !all_stored
            || !self.ledger.is_sold_out()
            || self.standing != Standing::Serving
        {
            return;
        }
        let notice = Arc::new(Notice::new(
            self.ledger.coupon().clone(),
            self.ledger.last(),
            self.ledger.users(),
        ));
        self.posted = Some(Arc::clone(&notice));
        effects.push(Effect::Post(notice));
    }

    fn passivate(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.posted.as_ref().is_some_and(|notice| notice.take_used()) {
            self.last_asked = now;
        }
        let nothing_to_do = self.out.is_none() && self.undelivered.is_empty() && self.gate.waiting() == 0;
        if self.standing == Standing::Serving && nothing_to_do && now.since(self.last_asked) >= self.idle {
            effects.push(Effect::CloseIfEmpty);
        }
    }

    fn drain(&mut self, effects: &mut Vec<Effect>) {
        if self.standing != Standing::Serving {
            return;
        }
        self.standing = Standing::Draining;
        // What waits for the shard's next epoch waits in vain: a shard that drains raises none.
        if self.out.as_ref().is_some_and(|out| out.fenced) {
            self.stop(effects);
        }
        self.stop_if_drained(effects);
    }

    fn stop_if_drained(&mut self, effects: &mut Vec<Effect>) {
        if self.standing == Standing::Draining && self.gate.stored() == self.decided {
            self.stop(effects);
        }
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) {
        if self.standing == Standing::Stopped {
            return;
        }
        self.standing = Standing::Stopped;
        if self.posted.take().is_some() {
            effects.push(Effect::Withdraw { floor: None });
        }
        effects.extend(
            self.gate
                .abandon()
                .map(|answer| Effect::Answer(answer.abandoned())),
        );
        let unsettled = self.gate.stored() != self.decided;
        effects.push(Effect::Stop { unsettled });
    }
}

fn set_back(request: Request, setback: Setback) -> Answer {
    match request {
        Request::Issue(_, reply) => Answer::Issue(reply, Err(setback)),
        Request::Change(_, reply) => Answer::Change(reply, Err(setback)),
    }
}

#[cfg(test)]
mod tests;
