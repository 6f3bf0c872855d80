//! A node: the shells around the state machines of one shard, and the calls to the database between them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actors::cluster::ownership::Ownership;
use actors::coupon::issued::Issued;
use actors::coupon::ledger::Ledger;
use actors::coupon::offer::Issuance;
use actors::coupon::tail::Tail;
use actors::ids::{CouponId, Fence, Incarnation};
use actors::owning::door::board::Changes;
use actors::owning::door::{Board, Knowledge, Notice};
use actors::owning::message::OwnerCommand;
use actors::owning::owner::{self, Owner};
use actors::owning::shard::lifecycle::{self, Life, Load, Raise, Shown};
use actors::owning::write_back::lane::{self, Lane, Submission};
use actors::store::batch::{Batch, Fate, Found, Settlement};
use actors::store::{LoadedIssuance, ShardRow, StoreError};
use actors::time::{Moment, Now, Timestamp};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::member::Member;
use super::world::{Breakage, World};

/// A call of the lane to the database, not answered yet.
pub(super) enum Call {
    Write(Batch),
    ReadBack(Batch),
    Pause,
}

pub(super) struct Home {
    pub(super) owner: Owner,
    pub(super) mailbox: VecDeque<OwnerCommand>,
    pub(super) draining: bool,
    /// Told apart from its successors: what was sent to one is not for another.
    pub(super) number: u64,
}

/// A read that is to be done.
pub(super) enum Reading {
    Whole(CouponId),
    Ahead(CouponId),
    Tail(CouponId, Issued),
}

/// A read that is done and not heard of.
pub(super) enum Done {
    Loaded(CouponId, Ledger),
    Ahead(CouponId, Issued),
}

/// What came with an event.
enum Read {
    Nothing,
    Whole(Ledger),
    Ahead(Issued),
}

/// What a board says to a door.
pub(super) enum Told {
    /// All that is posted, to the door of its own node.
    Here(Vec<Arc<Notice>>),
    /// What changed since another's door last heard of it.
    ByPeer(Incarnation, Changes),
}

/// One life of a process.
pub(super) struct Node {
    pub(super) member: Member,
    pub(super) life: Life,
    pub(super) shard_mailbox: VecDeque<lifecycle::Event>,
    /// How often the shard has changed how it stands.
    pub(super) changes: u64,
    pub(super) homes: HashMap<CouponId, Home>,
    pub(super) board: Board,
    pub(super) door: Knowledge,
    /// What owners told when they were asked, on its way to the door.
    pub(super) heartbeats: Vec<(Moment, Told)>,
    pub(super) ownership: Ownership,
    pub(super) lane: Lane<(CouponId, u64)>,
    pub(super) call: Option<Call>,
    pub(super) readings: Vec<Reading>,
    pub(super) done: Vec<Done>,
    pub(super) ahead: HashMap<CouponId, Issued>,
    pub(super) raises: Vec<Fence>,
    pub(super) gives: Vec<(Fence, Option<Incarnation>)>,
    /// It does nothing until this step.
    pub(super) hangs_until: i64,
    /// The database does not hear it.
    pub(super) cut: bool,
    /// It stops for good once this is done.
    pub(super) drained: bool,
}

impl Node {
    pub(super) fn new(member: Member) -> Self {
        Self {
            member,
            life: Life::default(),
            shard_mailbox: VecDeque::new(),
            changes: 0,
            homes: HashMap::new(),
            board: Board::default(),
            door: Knowledge::default(),
            heartbeats: Vec::new(),
            ownership: Ownership::default(),
            lane: Lane::default(),
            call: None,
            readings: Vec::new(),
            done: Vec::new(),
            ahead: HashMap::new(),
            raises: Vec::new(),
            gives: Vec::new(),
            hangs_until: 0,
            cut: false,
            drained: false,
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.homes
            .values()
            .all(|home| home.mailbox.is_empty() && home.owner.unstored() == 0)
            && self.shard_mailbox.is_empty()
            && self.call.is_none()
            && self.raises.is_empty()
            && self.gives.is_empty()
            && self.readings.is_empty()
            && self.done.is_empty()
    }

    fn tell(&mut self, id: CouponId, command: OwnerCommand) {
        if let Some(home) = self.homes.get_mut(&id) {
            home.mailbox.push_back(command);
        }
    }

    fn tell_home(&mut self, (id, number): (CouponId, u64), command: OwnerCommand) {
        if let Some(home) = self.homes.get_mut(&id).filter(|home| home.number == number) {
            home.mailbox.push_back(command);
        }
    }
}

impl World {
    pub(super) fn step_owner(&mut self, n: usize) -> Result<(), String> {
        let node = self.node(n);
        let mut ready: Vec<CouponId> = node
            .homes
            .iter()
            .filter(|(_, home)| !home.mailbox.is_empty())
            .map(|(id, _)| *id)
            .collect();
        ready.sort_unstable();
        let Some(&id) = ready.choose(&mut self.rng) else {
            return Ok(());
        };
        let (now, mut effects) = (self.now(), Vec::new());
        let incarnation = self.node(n).homes[&id].owner.incarnation();
        let holds = self.lease_holds(n, incarnation);
        let owner_by_row = self.db.shard.owner;
        let home = self.node(n).homes.get_mut(&id).expect("it is ready");
        if let Some(command) = home.mailbox.pop_front() {
            let (decides, unstored) = (matches!(command, OwnerCommand::Decide(_)), home.owner.unstored());
            home.owner.handle(command, now, holds, &mut effects);
            let told = home.owner.unstored() > unstored
                || effects
                    .iter()
                    .any(|effect| matches!(effect, owner::Effect::Answer(_)));
            // Only the owner gives a living shard up, and who is ended has no lease any more: so whoever
            // decides owns by the row too.
            if decides && holds && told && owner_by_row != Some(incarnation) && !home.draining {
                return Err(format!(
                    "{incarnation} decides, and the shard is {owner_by_row:?}'s"
                ));
            }
        }
        self.carry_out_owner(n, id, incarnation, effects)
    }

    fn carry_out_owner(
        &mut self,
        n: usize,
        id: CouponId,
        incarnation: Incarnation,
        effects: Vec<owner::Effect>,
    ) -> Result<(), String> {
        for effect in effects {
            match effect {
                owner::Effect::Answer(answer) => answer.send(),
                owner::Effect::Submit(portion) => {
                    let home = (id, self.node(n).homes[&id].number);
                    if self.breakage == Breakage::AnswersBeforeStored {
                        let settlement = Settlement {
                            fence: portion.fence,
                            fate: Fate::Stored,
                        };
                        if let Some(home) = self.node(n).homes.get_mut(&id) {
                            home.mailbox.push_front(OwnerCommand::Settle(settlement));
                        }
                    }
                    self.lane_event(n, lane::Event::Submitted(Submission { portion, home }))?;
                }
                owner::Effect::Gather => {
                    if let Some(home) = self.node(n).homes.get_mut(&id) {
                        home.mailbox.push_back(OwnerCommand::Submit);
                    }
                }
                owner::Effect::Post(notice) => self.node(n).board.post(incarnation, notice),
                owner::Effect::Withdraw { .. } if self.breakage == Breakage::StaleDoor => {}
                owner::Effect::Withdraw { floor } => {
                    self.node(n).board.withdraw(id);
                    if let Some(version) = floor {
                        self.tell_doors(id, version);
                    }
                }
                owner::Effect::ReportFenced(epoch) => self
                    .node(n)
                    .shard_mailbox
                    .push_back(lifecycle::Event::Fenced(epoch)),
                owner::Effect::CloseIfEmpty => {
                    if let Some(home) = self.node(n).homes.get_mut(&id)
                        && home.mailbox.is_empty()
                    {
                        home.draining = true;
                        home.mailbox.push_back(OwnerCommand::Stop);
                    }
                }
                owner::Effect::Stop { unsettled } => self.stop_home(n, id, unsettled),
            }
        }
        Ok(())
    }

    fn stop_home(&mut self, n: usize, id: CouponId, unsettled: bool) {
        let Some(mut home) = self.node(n).homes.remove(&id) else {
            return;
        };
        self.node(n).shard_mailbox.push_back(lifecycle::Event::Stopped {
            coupon: id,
            epoch: home.owner.epoch(),
            unsettled,
        });
        // As a drained mailbox: whoever is in it is sent on.
        let mut rest = Vec::new();
        let never = Now {
            moment: Moment::ORIGIN,
            timestamp: Timestamp::from_micros(0).unwrap(),
        };
        for command in home.mailbox.drain(..) {
            home.owner.handle(command, never, false, &mut rest);
        }
        for effect in rest {
            if let owner::Effect::Answer(answer) = effect {
                answer.send();
            }
        }
    }

    pub(super) fn step_shard(&mut self, n: usize) {
        let Some(event) = self.node(n).shard_mailbox.pop_front() else {
            return;
        };
        self.shard_event(n, event, Read::Nothing);
    }

    fn shard_event(&mut self, n: usize, event: lifecycle::Event, mut read: Read) {
        let before = self.node(n).life.shown();
        let turns = matches!(
            event,
            lifecycle::Event::Claimed(_) | lifecycle::Event::Lost | lifecycle::Event::GiveUp { .. }
        );
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.node(n).life.handle(event, &mut effects);
            for effect in effects {
                events.extend(self.carry_out_shard(n, effect, &mut read));
            }
        }
        let node = self.node(n);
        node.changes += u64::from(turns || node.life.shown() != before);
    }

    fn carry_out_shard(
        &mut self,
        n: usize,
        effect: lifecycle::Effect,
        read: &mut Read,
    ) -> Option<lifecycle::Event> {
        self.homes_made += 1;
        let number = self.homes_made;
        // Portions that never gather, some that do, and all.
        let goes_at_once = [0, 2, 16][number as usize % 3];
        let node = self.node(n);
        match effect {
            lifecycle::Effect::Load(id) => node.readings.push(Reading::Whole(id)),
            lifecycle::Effect::Preload(id) => node.readings.push(Reading::Ahead(id)),
            lifecycle::Effect::Keep(id) => match std::mem::replace(read, Read::Nothing) {
                Read::Ahead(issued) => drop(node.ahead.insert(id, issued)),
                Read::Nothing | Read::Whole(_) => panic!("only what was read ahead is kept"),
            },
            // Whoever hands it over may hear of it or not.
            lifecycle::Effect::LoadedAhead => {}
            lifecycle::Effect::LoadTail(id) => {
                let issued = node.ahead.remove(&id).expect("only what is kept has a tail");
                node.readings.push(Reading::Tail(id, issued));
            }
            lifecycle::Effect::Forget(id) => drop(node.ahead.remove(&id)),
            lifecycle::Effect::Activate(id, fence) => {
                let Read::Whole(ledger) = std::mem::replace(read, Read::Nothing) else {
                    panic!("only what was read is activated")
                };
                let owner = Owner::new(ledger, fence, Duration::ZERO, goes_at_once, Moment::ORIGIN);
                let mailbox = VecDeque::from([OwnerCommand::Announce]);
                node.homes.insert(
                    id,
                    Home {
                        owner,
                        mailbox,
                        draining: false,
                        number,
                    },
                );
            }
            lifecycle::Effect::Deliver(id, request) => match node.homes.get_mut(&id) {
                Some(home) if !home.draining => home.mailbox.push_back(OwnerCommand::Decide(request)),
                _ => return Some(lifecycle::Event::Bounced(id, request)),
            },
            lifecycle::Effect::SetBack(request, setback) => request.set_back(setback),
            lifecycle::Effect::UnknownCoupon(request) => request.unknown_coupon(),
            lifecycle::Effect::Refence(id, epoch) => node.tell(id, OwnerCommand::Refence(epoch)),
            lifecycle::Effect::Stop(id) => node.tell(id, OwnerCommand::Stop),
            lifecycle::Effect::Drain(id) => node.tell(id, OwnerCommand::Drain),
            lifecycle::Effect::Raise { from, .. } => node.raises.push(from),
            lifecycle::Effect::Give { from, to } => {
                node.gives.push((from, to));
                if self.breakage == Breakage::HandedOverBeforeStored
                    && let Some(owner) = to
                {
                    self.hear_of_hand_over(Fence {
                        epoch: from.epoch.next(),
                        owner,
                    });
                }
            }
            lifecycle::Effect::Drained(fence) => {
                node.drained = true;
                if let Some(from) = fence {
                    self.db.give(from, None);
                }
            }
        }
        None
    }

    pub(super) fn step_read(&mut self, n: usize) {
        let (cut, goes_on) = (self.node(n).cut, self.rng.random());
        if !self.node(n).done.is_empty() && goes_on {
            match self.node(n).done.remove(0) {
                Done::Loaded(id, ledger) => {
                    self.shard_event(n, lifecycle::Event::Loaded(id, Load::Read), Read::Whole(ledger))
                }
                Done::Ahead(id, issued) => {
                    self.shard_event(n, lifecycle::Event::Preloaded(id, true), Read::Ahead(issued))
                }
            }
        } else if !self.node(n).readings.is_empty() {
            let reading = self.node(n).readings.remove(0);
            if cut || self.faults && self.rng.random_ratio(1, 10) {
                let failed = match reading {
                    Reading::Whole(id) | Reading::Tail(id, _) => lifecycle::Event::Loaded(id, Load::Failed),
                    Reading::Ahead(id) => lifecycle::Event::Preloaded(id, false),
                };
                return self.shard_event(n, failed, Read::Nothing);
            }
            let done = match reading {
                Reading::Whole(id) => {
                    Done::Loaded(id, Ledger::new(self.db.coupons[&id].clone(), self.issued(id)))
                }
                Reading::Ahead(id) => Done::Ahead(id, self.issued(id)),
                Reading::Tail(id, issued) => Done::Loaded(
                    id,
                    Ledger::new(self.db.coupons[&id].clone(), self.completed(id, issued)),
                ),
            };
            self.node(n).done.push(done);
        }
    }

    fn issued(&self, id: CouponId) -> Issued {
        let mut issued = Issued::new(id);
        self.db.issuances[&id]
            .iter()
            .for_each(|row| issued.push(&loaded(row)).expect("the database is dense"));
        issued
    }

    fn completed(&self, id: CouponId, ahead: Issued) -> Issued {
        if self.breakage == Breakage::NoTail {
            return ahead;
        }
        let mut tail = Tail::of(ahead);
        let after = usize::try_from(tail.after().get()).unwrap();
        self.db.issuances[&id]
            .iter()
            .skip(after)
            .for_each(|row| tail.take(&loaded(row)).expect("the database is dense"));
        tail.complete().expect("this database never goes back")
    }

    pub(super) fn step_raise(&mut self, n: usize) {
        if self.node(n).raises.is_empty() {
            return;
        }
        let from = self.node(n).raises.remove(0);
        let seen = ShardRow {
            epoch: from.epoch,
            owner: Some(from.owner),
            ..self.db.shard
        };
        let (cut, lost) = (self.node(n).cut, self.faults && self.rng.random_ratio(1, 4));
        if self.breakage == Breakage::LoadBeforeClaim {
            // Committed only after the coupon may have been read.
            let fence = Fence {
                epoch: from.epoch.next(),
                ..from
            };
            self.shard_event(
                n,
                lifecycle::Event::Raised {
                    from,
                    raise: Raise::Ours(fence),
                },
                Read::Nothing,
            );
            while !self.node(n).readings.is_empty() {
                self.step_read(n);
            }
            self.zombies
                .drain(..)
                .for_each(|batch| drop(self.db.write(&batch)));
            self.db.claim(seen, from.owner);
            return;
        }
        let raise = if cut || lost {
            // The answer is lost; the claim may have been made.
            if !cut && self.rng.random() {
                self.db.claim(seen, from.owner);
            }
            Raise::Failed
        } else {
            match self.db.claim(seen, from.owner) {
                ShardRow {
                    owner: Some(owner),
                    epoch,
                    ..
                } if owner == from.owner => Raise::Ours(Fence { epoch, owner }),
                _ => Raise::Lost,
            }
        };
        self.shard_event(n, lifecycle::Event::Raised { from, raise }, Read::Nothing);
    }

    /// The compare-and-set that names the next owner: it may be done, lost, or go on later by itself.
    pub(super) fn step_give(&mut self, n: usize) {
        if self.node(n).gives.is_empty() {
            return;
        }
        let (from, to) = self.node(n).gives.remove(0);
        let fault = if self.faults {
            self.rng.random_range(0..6)
        } else {
            9
        };
        let given = match fault {
            _ if self.node(n).cut => false,
            0 => false,
            1 => {
                self.late_gives.push((from, to));
                false
            }
            2 => {
                self.db.give(from, to);
                false
            }
            _ => {
                let row = self.db.give(from, to);
                (row.epoch, row.owner) != (from.epoch, Some(from.owner))
            }
        };
        self.shard_event(n, lifecycle::Event::Given { from, given }, Read::Nothing);
        if let (true, Some(owner)) = (given, self.db.shard.owner)
            && self.rng.random()
        {
            self.hear_of_hand_over(Fence {
                epoch: self.db.shard.epoch,
                owner,
            });
        }
    }

    /// Its new owner hears of it by a link.
    fn hear_of_hand_over(&mut self, fence: Fence) {
        for node in self
            .nodes
            .iter_mut()
            .flatten()
            .filter(|node| node.member.incarnation() == fence.owner)
        {
            node.ownership.learn(self.db.shard.id, fence);
            node.shard_mailbox.push_back(lifecycle::Event::Claimed(fence));
        }
    }

    pub(super) fn lane_event(&mut self, n: usize, event: lane::Event<(CouponId, u64)>) -> Result<(), String> {
        let mut effects = Vec::new();
        let breakage = self.breakage;
        let node = self.node(n);
        node.lane.handle(event, &mut effects);
        for effect in effects {
            match effect {
                lane::Effect::Write(batch) => node.call = Some(Call::Write(batch)),
                lane::Effect::ReadBack(batch) => node.call = Some(Call::ReadBack(batch)),
                lane::Effect::Pause(_) => node.call = Some(Call::Pause),
                lane::Effect::Settle(submission, Fate::Contradicted) => {
                    return Err(format!("contradicted: {:?}", submission.portion));
                }
                lane::Effect::Settle(submission, fate) => {
                    let settlement = Settlement {
                        fence: submission.portion.fence,
                        fate,
                    };
                    if breakage != Breakage::AnswersBeforeStored {
                        node.tell_home(submission.home, OwnerCommand::Settle(settlement));
                    }
                }
                lane::Effect::Delay(submission) => node.tell_home(submission.home, OwnerCommand::Delayed),
                lane::Effect::Die(why) => return Err(why),
            }
        }
        Ok(())
    }

    pub(super) fn step_call(&mut self, n: usize) -> Result<(), String> {
        let Some(call) = self.node(n).call.take() else {
            return Ok(());
        };
        let event = match call {
            Call::Pause => {
                let incarnation = self.node(n).member.incarnation();
                lane::Event::RetryDue {
                    lease_holds: self.lease_holds(n, incarnation),
                }
            }
            Call::Write(batch) => lane::Event::Written(self.answer_write(n, batch)),
            Call::ReadBack(batch) => lane::Event::ReadBack(self.answer_read_back(n, &batch)),
        };
        self.lane_event(n, event)
    }

    fn answer_write(&mut self, n: usize, batch: Batch) -> Result<u64, StoreError> {
        if self.node(n).cut {
            return Err(StoreError::NotStored("refused".to_owned()));
        }
        if !self.faults {
            return self.db.write(&batch);
        }
        match self.rng.random_range(0..10) {
            0 => Err(StoreError::NotStored("a lock".to_owned())),
            1 => {
                // Done, and the answer is lost.
                drop(self.db.write(&batch));
                Err(StoreError::Unknown("cut off after the commit".to_owned()))
            }
            2 => {
                self.zombies.push(batch);
                Err(StoreError::Unknown("cut off before the commit".to_owned()))
            }
            _ => self.db.write(&batch),
        }
    }

    fn answer_read_back(&mut self, n: usize, batch: &Batch) -> Result<Vec<Found>, StoreError> {
        if self.node(n).cut || self.faults && self.rng.random_ratio(1, 5) {
            return Err(StoreError::NotStored("refused".to_owned()));
        }
        Ok(self.db.read_back(batch))
    }

    /// How the shard stands on this node, as `changes` had been when the rows began to be read.
    pub(super) fn shown(&mut self, n: usize, changes: u64) -> Option<Shown> {
        let node = self.node(n);
        let is_turn = |event: &lifecycle::Event| {
            matches!(
                event,
                lifecycle::Event::Claimed(_) | lifecycle::Event::Lost | lifecycle::Event::GiveUp { .. }
            )
        };
        let settled = node.changes == changes && !node.shard_mailbox.iter().any(is_turn);
        Some(node.life.shown()).filter(|shown| settled || *shown == Shown::Moving)
    }
}

fn loaded(row: &Issuance) -> LoadedIssuance<'_> {
    let (user, key) = (row.user.as_str(), row.key.as_str());
    let Issuance {
        nth,
        issued_at,
        expires_at,
        ..
    } = *row;
    LoadedIssuance {
        sequence: row.id.sequence,
        user,
        nth,
        key,
        issued_at,
        expires_at,
    }
}
