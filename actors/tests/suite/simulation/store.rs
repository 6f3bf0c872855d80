//! The calls to the database and their answers: reads, claims, hand-offs, batches.

use actors::admission::{Admission, Permit};
use actors::ids::{Fence, Incarnation};
use actors::owning::kind::Kind;
use actors::owning::pair::Either::{First, Second};
use actors::owning::request::OwnerCommand;
use actors::owning::shard::ShardCommand;
use actors::owning::shard::lifecycle::Raise;
use actors::owning::shard::load::{AheadRows, LoadResult, OwnerParts};
use actors::owning::write_back::lane;
use actors::store::batch::{Batch, Fate, Found, Settlement};
use actors::store::{ShardRow, StoreError};
use rand::Rng;
use rand::seq::IndexedRandom;

use super::node::{Both, Call, Id, LANES, Reading};
use super::world::{Breakage, World};

fn place() -> Permit {
    Admission::new(1).admit().unwrap()
}

impl World {
    pub(super) fn step_read(&mut self, n: usize) {
        let (cut, goes_on) = (self.node(n).cut, self.rng.random());
        if !self.node(n).read.is_empty() && goes_on {
            let ended = self.node(n).read.remove(0);
            self.shard_command(n, ended);
        } else if !self.node(n).readings.is_empty() {
            let reading = self.node(n).readings.remove(0);
            if cut || self.faults && self.rng.random_ratio(1, 10) {
                let failed = match reading {
                    Reading::Whole(id) | Reading::Rest(id, _) => ShardCommand::Loaded(id, LoadResult::Failed),
                    Reading::Ahead(id) => ShardCommand::LoadedAhead(id, None),
                };
                return self.shard_command(n, failed);
            }
            let ended = match reading {
                Reading::Whole(id) => self.loaded(id, place(), None),
                Reading::Rest(id, AheadRows { rows, place }) => self.loaded(id, place, Some(rows)),
                Reading::Ahead(id) => {
                    let rows = self.db.rows(id, None).expect("nothing was loaded ahead before");
                    let place = place();
                    ShardCommand::LoadedAhead(id, Some(AheadRows { rows, place }))
                }
            };
            self.node(n).read.push(ended);
        }
    }

    fn loaded(&self, id: Id, place: Permit, ahead: Option<<Both as Kind>::Rows>) -> ShardCommand<Both> {
        let rows = match ahead {
            Some(ahead) if self.breakage == Breakage::NoTail => ahead,
            ahead => self.db.rows(id, ahead).expect("this database never goes back"),
        };
        let head = match id {
            First(id) => First(self.db.coupons[&id].clone().into()),
            Second(id) => Second(self.db.tallies[&id]),
        };
        let state = Box::new(Both::state(head, rows));
        ShardCommand::Loaded(id, LoadResult::Read(OwnerParts { state, place }))
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
            return self.raise_too_late(n, from, seen);
        }
        let raise = if cut || lost {
            // The answer is lost. The claim may be stored.
            if !cut && self.rng.random() {
                self.db.claim(seen, from.owner);
            }
            Raise::Failed
        } else {
            let ShardRow { owner, epoch, .. } = self.db.claim(seen, from.owner);
            match owner {
                Some(owner) if owner == from.owner => Raise::Ours(Fence { epoch, owner }),
                _ => Raise::Lost,
            }
        };
        self.shard_command(n, ShardCommand::Raised(from, raise));
    }

    /// Commits the claim too late: owners may have been loaded before.
    fn raise_too_late(&mut self, n: usize, from: Fence, seen: ShardRow) {
        let epoch = from.epoch.next();
        let raise = Raise::Ours(Fence { epoch, ..from });
        self.shard_command(n, ShardCommand::Raised(from, raise));
        while !self.node(n).readings.is_empty() {
            self.step_read(n);
        }
        for batch in std::mem::take(&mut self.zombies) {
            drop(self.db.write(&batch));
        }
        self.db.claim(seen, from.owner);
    }

    /// Runs the compare-and-set that names the next owner. The statement may succeed, the statement or its
    /// answer may be lost, or the statement may be executed later.
    pub(super) fn step_hand_off(&mut self, n: usize) {
        if self.node(n).hand_offs.is_empty() {
            return;
        }
        let (from, to) = self.node(n).hand_offs.remove(0);
        let fault = if self.faults {
            self.rng.random_range(0..6)
        } else {
            9
        };
        let done = match fault {
            _ if self.node(n).cut => false,
            0 => false,
            1 => {
                self.late_hand_offs.push((from, to));
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
        self.shard_command(n, ShardCommand::HandedOff(from, done));
        if let (true, Some(owner)) = (done, self.db.shard.owner)
            && self.rng.random()
        {
            let epoch = self.db.shard.epoch;
            self.publish_hand_off(Fence { epoch, owner });
        }
    }

    /// Lets the new owner learn of the hand-off over a link.
    pub(super) fn publish_hand_off(&mut self, fence: Fence) {
        let shard = self.db.shard.id;
        let is_new_owner = |incarnation: Incarnation| incarnation == fence.owner;
        for node in self.nodes.iter_mut().flatten() {
            if is_new_owner(node.member.incarnation()) {
                node.ownership.learn(shard, fence);
                node.send_to_shard(ShardCommand::Claimed(fence));
            }
        }
    }

    /// Lets the lane with this index handle an event.
    pub(super) fn lane_event(
        &mut self,
        n: usize,
        index: usize,
        event: lane::Event<Both, (Id, u64)>,
    ) -> Result<(), String> {
        let (mut effects, mut given_back) = (Vec::new(), Vec::new());
        let breakage = self.breakage;
        let node = self.node(n);
        node.lanes[index].lane.handle(event, &mut effects);
        for effect in effects {
            let task = &mut node.lanes[index];
            match effect {
                lane::Effect::Write(batch) => task.call = Some(Call::Write(batch)),
                lane::Effect::ReadBack(batch) => task.call = Some(Call::ReadBack(batch)),
                lane::Effect::Pause(_) => task.call = Some(Call::Pause),
                lane::Effect::Settle(submission, Fate::Contradicted) => {
                    return Err(format!("contradicted: {:?}", submission.portion));
                }
                lane::Effect::Settle(submission, fate) => {
                    let fence = submission.portion.fence;
                    let settle = OwnerCommand::Settle(Settlement {
                        fence,
                        fate,
                        batch: None,
                    });
                    if breakage != Breakage::AnswersBeforeStored {
                        node.command_actor(submission.mailbox, settle);
                    }
                }
                lane::Effect::GiveBack(submission) => given_back.push(submission),
                lane::Effect::Delay(submission) => {
                    node.command_actor(submission.mailbox, OwnerCommand::Delayed);
                }
                lane::Effect::EndProcess(why) => return Err(why),
            }
        }
        for submission in given_back {
            let lane = self.rng.random_range(0..LANES);
            self.lane_event(n, lane, lane::Event::Submitted(submission))?;
        }
        Ok(())
    }

    /// Ends a call of one of the lanes.
    pub(super) fn step_call(&mut self, n: usize) -> Result<(), String> {
        let lanes = &self.node(n).lanes;
        let busy: Vec<usize> = (0..LANES).filter(|lane| lanes[*lane].call.is_some()).collect();
        let Some(&index) = busy.choose(&mut self.rng) else {
            return Ok(());
        };
        if self.rng.random_ratio(1, 10) {
            return self.lane_event(n, index, lane::Event::TakesLong);
        }
        let task = &mut self.node(n).lanes[index];
        let call = task.call.take().expect("the lane is busy");
        let event = match call {
            Call::Pause => {
                let incarnations: Vec<Incarnation> = task.lane.incarnations().collect();
                let lease_holds = incarnations
                    .into_iter()
                    .all(|incarnation| self.lease_holds(n, incarnation));
                lane::Event::RetryDue { lease_holds }
            }
            Call::Write(batch) => lane::Event::Written(self.answer_write(n, batch)),
            Call::ReadBack(batch) => lane::Event::ReadBack(self.answer_read_back(n, &batch)),
        };
        self.lane_event(n, index, event)
    }

    fn answer_write(&mut self, n: usize, batch: Batch<Both>) -> Result<u64, StoreError> {
        if self.node(n).cut {
            return Err(StoreError::NotStored("refused".to_owned()));
        }
        if !self.faults {
            return self.db.write(&batch);
        }
        match self.rng.random_range(0..10) {
            0 => Err(StoreError::NotStored("a lock".to_owned())),
            1 => {
                // The batch is stored, and the answer is lost.
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

    fn answer_read_back(&mut self, n: usize, batch: &Batch<Both>) -> Result<Vec<Found>, StoreError> {
        if self.node(n).cut || self.faults && self.rng.random_ratio(1, 5) {
            return Err(StoreError::NotStored("refused".to_owned()));
        }
        Ok(self.db.read_back(batch))
    }
}
