//! The node: the shells around the state machines, and the calls to the database between them.

use std::collections::VecDeque;
use std::time::Duration;

use actors::coupon::issued::Issued;
use actors::coupon::ledger::Ledger;
use actors::coupon::message::OwnerCommand;
use actors::coupon::owner::{self, Owner};
use actors::ids::{CouponId, Fence};
use actors::offer::Issuance;
use actors::shard::life::{self, Load, Raise};
use actors::store::{LoadedIssuance, StoreError};
use actors::time::{Moment, Now, Timestamp};
use actors::write_back::batch::{Batch, Fate, Found, Settlement};
use actors::write_back::lane::{self, Submission};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::world::{Breakage, Call, Home, World};

impl World {
    pub(super) fn step_owner(&mut self) -> Result<(), String> {
        let mut ready: Vec<CouponId> = self.homes.iter().filter(|(_, home)| !home.mailbox.is_empty()).map(|(id, _)| *id).collect();
        ready.sort_unstable();
        let Some(&id) = ready.choose(&mut self.rng) else { return Ok(()) };
        let (now, mut effects) = (self.now(), Vec::new());
        let holds = self.homes.get(&id).is_some_and(|home| self.lease_holds(home.owner.incarnation()));
        if let Some(home) = self.homes.get_mut(&id)
            && let Some(command) = home.mailbox.pop_front()
        {
            home.owner.handle(command, now, holds, &mut effects);
        }
        self.carry_out_owner(id, effects)
    }

    pub(super) fn carry_out_owner(&mut self, id: CouponId, effects: Vec<owner::Effect>) -> Result<(), String> {
        for effect in effects {
            match effect {
                owner::Effect::Answer(answer) => answer.send(),
                owner::Effect::Submit(portion) => {
                    let home = (id, self.homes[&id].number);
                    if self.breakage == Breakage::AnswersBeforeStored {
                        let settlement = Settlement { fence: portion.fence, fate: Fate::Stored };
                        if let Some(home) = self.homes.get_mut(&id) {
                            home.mailbox.push_front(OwnerCommand::Settle(settlement));
                        }
                    }
                    self.lane_event(lane::Event::Submitted(Submission { portion, home }))?;
                }
                owner::Effect::Post(notice) => self.board.post(notice),
                owner::Effect::Withdraw { .. } if self.breakage == Breakage::StaleDoor => {}
                owner::Effect::Withdraw { floor } => {
                    self.board.withdraw(id);
                    if let Some(version) = floor {
                        self.door.raise_floor(id, version, self.now().moment);
                    }
                }
                owner::Effect::ReportFenced(epoch) => self.shard_mailbox.push_back(life::Event::Fenced(epoch)),
                owner::Effect::CloseIfEmpty => {
                    if let Some(home) = self.homes.get_mut(&id)
                        && home.mailbox.is_empty()
                    {
                        home.draining = true;
                        home.mailbox.push_back(OwnerCommand::Stop);
                    }
                }
                owner::Effect::Stop { unsettled } => {
                    if let Some(mut home) = self.homes.remove(&id) {
                        // As a drained mailbox: whoever is in it is sent on.
                        let mut rest = Vec::new();
                        for command in home.mailbox.drain(..) {
                            home.owner.handle(
                                command,
                                Now { moment: Moment::ORIGIN, timestamp: Timestamp::from_micros(0).unwrap() },
                                true,
                                &mut rest,
                            );
                        }
                        self.shard_mailbox.push_back(life::Event::Stopped { coupon: id, epoch: home.owner.epoch(), unsettled });
                        for effect in rest {
                            if let owner::Effect::Answer(answer) = effect {
                                answer.send();
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn step_shard(&mut self) {
        let Some(event) = self.shard_mailbox.pop_front() else { return };
        self.shard_event(event, None);
    }

    pub(super) fn shard_event(&mut self, event: life::Event, mut read: Option<Ledger>) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.life.handle(event, &mut effects);
            for effect in effects {
                match effect {
                    life::Effect::Load(id) => self.loads.push(id),
                    life::Effect::Activate(id, fence) => {
                        let ledger = read.take().expect("only what was read is activated");
                        self.homes_made += 1;
                        let owner = Owner::new(ledger, fence, Duration::ZERO, Moment::ORIGIN);
                        let mailbox = VecDeque::from([OwnerCommand::Announce]);
                        let home = Home { owner, mailbox, draining: false, number: self.homes_made };
                        self.homes.insert(id, home);
                    }
                    life::Effect::Deliver(id, request) => match self.homes.get_mut(&id) {
                        Some(home) if !home.draining => home.mailbox.push_back(OwnerCommand::Decide(request)),
                        _ => events.push(life::Event::Bounced(id, request)),
                    },
                    life::Effect::SetBack(request, setback) => request.set_back(setback),
                    life::Effect::UnknownCoupon(request) => request.unknown_coupon(),
                    life::Effect::Refence(id, epoch) => self.tell(id, OwnerCommand::Refence(epoch)),
                    life::Effect::Stop(id) => self.tell(id, OwnerCommand::Stop),
                    life::Effect::Drain(id) => self.tell(id, OwnerCommand::Drain),
                    life::Effect::Raise { from, .. } => self.raises.push(from),
                    life::Effect::Drained(_) => {}
                }
            }
        }
    }

    pub(super) fn tell(&mut self, id: CouponId, command: OwnerCommand) {
        if let Some(home) = self.homes.get_mut(&id) {
            home.mailbox.push_back(command);
        }
    }

    pub(super) fn step_load(&mut self) {
        if !self.loaded.is_empty() && self.rng.random() {
            let (id, ledger) = self.loaded.remove(0);
            self.shard_event(life::Event::Loaded(id, Load::Read), Some(ledger));
        } else if !self.loads.is_empty() {
            let id = self.loads.remove(0);
            if self.faults && self.rng.random_ratio(1, 10) {
                self.shard_event(life::Event::Loaded(id, Load::Failed), None);
                return;
            }
            let mut issued = Issued::new(id);
            for row in &self.db.issuances[&id] {
                let (user, key) = (row.user.as_str(), row.key.as_str());
                let Issuance { nth, issued_at, expires_at, .. } = *row;
                let loaded = LoadedIssuance { sequence: row.id.sequence, user, nth, key, issued_at, expires_at };
                issued.push(&loaded).expect("the database is dense");
            }
            self.loaded.push((id, Ledger::new(self.db.coupons[&id].clone(), issued)));
        }
    }

    pub(super) fn step_raise(&mut self) {
        if self.raises.is_empty() {
            return;
        }
        let from = self.raises.remove(self.rng.random_range(0..self.raises.len()));
        let raise = if self.faults && self.rng.random_ratio(1, 4) {
            // The answer is lost; the claim may have been made.
            if self.db.fence == from && self.rng.random() {
                self.db.claim(from.owner);
            }
            Raise::Failed
        } else if self.breakage == Breakage::LoadBeforeClaim {
            Raise::Ours(Fence { epoch: from.epoch.next(), ..from })
        } else if self.db.fence.owner != from.owner {
            Raise::Lost
        } else {
            Raise::Ours(if self.db.fence.epoch > from.epoch { self.db.fence } else { self.db.claim(from.owner) })
        };
        if self.breakage == Breakage::LoadBeforeClaim && self.db.fence == from {
            // Committed only after the coupon may have been read.
            self.shard_event(life::Event::Raised { from, raise }, None);
            while !self.loads.is_empty() {
                self.step_load();
            }
            self.zombies.drain(..).for_each(|batch| drop(self.db.write(&batch)));
            self.db.claim(from.owner);
        } else {
            self.shard_event(life::Event::Raised { from, raise }, None);
        }
    }

    pub(super) fn lane_event(&mut self, event: lane::Event<(CouponId, u64)>) -> Result<(), String> {
        let mut effects = Vec::new();
        self.lane.handle(event, &mut effects);
        for effect in effects {
            match effect {
                lane::Effect::Write(batch) => self.call = Some(Call::Write(batch)),
                lane::Effect::ReadBack(batch) => self.call = Some(Call::ReadBack(batch)),
                lane::Effect::Pause(_) => self.call = Some(Call::Pause),
                lane::Effect::Settle(submission, Fate::Contradicted) => return Err(format!("contradicted: {:?}", submission.portion)),
                lane::Effect::Settle(submission, fate) => {
                    let settlement = Settlement { fence: submission.portion.fence, fate };
                    if self.breakage != Breakage::AnswersBeforeStored {
                        self.tell_home(submission.home, OwnerCommand::Settle(settlement));
                    }
                }
                lane::Effect::Delay(submission) => self.tell_home(submission.home, OwnerCommand::Delayed),
                lane::Effect::Die(why) => return Err(why),
            }
        }
        Ok(())
    }

    pub(super) fn tell_home(&mut self, (id, number): (CouponId, u64), command: OwnerCommand) {
        if let Some(home) = self.homes.get_mut(&id).filter(|home| home.number == number) {
            home.mailbox.push_back(command);
        }
    }

    pub(super) fn step_call(&mut self) -> Result<(), String> {
        let Some(call) = self.call.take() else { return Ok(()) };
        let event = match call {
            Call::Pause => lane::Event::RetryDue { lease_holds: self.lease.is_some() },
            Call::Write(batch) => lane::Event::Written(self.answer_write(batch)),
            Call::ReadBack(batch) => lane::Event::ReadBack(self.answer_read_back(&batch)),
        };
        self.lane_event(event)
    }

    pub(super) fn answer_write(&mut self, batch: Batch) -> Result<u64, StoreError> {
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

    pub(super) fn answer_read_back(&mut self, batch: &Batch) -> Result<Vec<Found>, StoreError> {
        if self.faults && self.rng.random_ratio(1, 5) {
            return Err(StoreError::NotStored("refused".to_owned()));
        }
        Ok(self.db.read_back(batch))
    }

    pub(super) fn step_zombie(&mut self) {
        let batch = self.zombies.remove(0);
        drop(self.db.write(&batch));
    }
}
