//! Owners: the port through which the driver of production acts on the simulated node.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use actors::coupon::uses::{LatestUse, UseKind};
use actors::ids::{Epoch, Incarnation};
use actors::owning::door::Notice;
use actors::owning::owner::driver::OwnerPort;
use actors::owning::request::{Answer, OwnerCommand, OwnerMail, Reply};
use actors::owning::shard::ShardCommand;
use actors::owning::write_back::lane::{self, Submission};
use actors::store::batch::{Fate, Portion, Settlement};
use actors::time::{Moment, Now};
use actors::trace::TraceParent;
use ractor::ActorId;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::node::{Both, Id, LANES, OwnerActor};
use super::world::{Breakage, World};

/// What an owner did that concerns other parts of the node.
enum Action {
    Submit(Portion<Both>),
    Post(Incarnation, Arc<Notice<Both>>),
    Withdraw(Id, Option<u64>),
    Report(ShardCommand<Both>),
}

struct Port<'a> {
    now: Now,
    lease_holds: bool,
    number: u64,
    mailbox: &'a mut VecDeque<OwnerMail<Both>>,
    closed: &'a mut bool,
    actions: Vec<Action>,
    /// Number of decisions that were answered.
    answered: usize,
}

impl OwnerPort<Both> for Port<'_> {
    fn now(&self) -> Now {
        self.now
    }

    fn lease_holds(&self, _incarnation: Incarnation, _now: Moment) -> bool {
        self.lease_holds
    }

    fn send_to_self(&mut self, mail: OwnerMail<Both>) -> bool {
        if !*self.closed {
            self.mailbox.push_back(mail);
        }
        !*self.closed
    }

    fn close_mailbox(&mut self) {
        *self.closed = true;
    }

    fn answer(&mut self, reply: Reply<Both>, answer: Answer<Both>) {
        self.answered += usize::from(answer.is_ok());
        reply.send(answer);
    }

    fn submit(&mut self, portion: Portion<Both>, _traces: Vec<TraceParent>) -> bool {
        self.actions.push(Action::Submit(portion));
        true
    }

    fn post(&mut self, by: Incarnation, notice: Arc<Notice<Both>>) {
        self.actions.push(Action::Post(by, notice));
    }

    fn withdraw(&mut self, id: Id, floor: Option<u64>) {
        self.actions.push(Action::Withdraw(id, floor));
    }

    fn report_fenced(&mut self, epoch: Epoch) {
        self.actions.push(Action::Report(ShardCommand::Fenced(epoch)));
    }

    fn report_stopped(&mut self, id: Id, epoch: Epoch, unsettled: bool) {
        self.actions.push(Action::Report(ShardCommand::OwnerStopped {
            id,
            actor: ActorId::Local(self.number),
            epoch,
            unsettled,
        }));
    }
}

/// Lets an owner take one step. A gathering owner takes its turn; any other owner handles its next mail.
/// Returns the owner's actions, and true if the owner decided.
fn step(actor: &mut OwnerActor, now: Now, lease_holds: bool) -> (Vec<Action>, bool) {
    let mut port = Port {
        now,
        lease_holds,
        number: actor.number,
        mailbox: &mut actor.mailbox,
        closed: &mut actor.closed,
        actions: Vec::new(),
        answered: 0,
    };
    let unstored = actor.driver.owner().unstored();
    let mut decides = true;
    if actor.driver.is_gathering() {
        actor.driver.take_turn(&mut port);
    } else if let Some(mail) = port.mailbox.pop_front() {
        decides = matches!(mail, OwnerMail::Requests);
        actor.driver.handle(mail, &mut port);
    }
    let (actions, answered) = (port.actions, port.answered);
    let decided = decides && (answered > 0 || actor.driver.owner().unstored() > unstored);
    (actions, decided)
}

impl World {
    pub(super) fn step_owner(&mut self, n: usize) -> Result<(), String> {
        let (now, node) = (self.now(), self.node(n));
        let busy = node.owners.iter().filter(|(_, actor)| actor.is_busy());
        let mut ready: Vec<Id> = busy.map(|(id, _)| *id).collect();
        ready.sort_unstable();
        let Some(&id) = ready.choose(&mut self.rng) else {
            return self.step_stopped(n);
        };
        let incarnation = self.node(n).owners[&id].driver.owner().incarnation();
        let decides_lapses = self.breakage == Breakage::LapsesWithoutLease && self.has_lapsed_hold(id);
        let holds = self.lease_holds(n, incarnation) || decides_lapses;
        let owner_by_row = self.db.shard.owner;
        let actor = self.node(n).owners.get_mut(&id).expect("it is ready");
        let (actions, decided) = step(actor, now, holds);
        let number = actor.number;
        // Only the owner hands a live shard off, and an incarnation that was ended has no lease any more. So
        // a node that decides must also be the owner in the shard's row.
        if decided && holds && owner_by_row != Some(incarnation) {
            return Err(format!(
                "{incarnation} decides, but the shard's owner is {owner_by_row:?}"
            ));
        }
        self.carry_out(n, (id, number), actions)
    }

    /// Returns true if an issuance is held until a time that has passed.
    fn has_lapsed_hold(&self, id: Id) -> bool {
        let now = self.now().timestamp;
        let uses = id.first().map_or(&[][..], |coupon| &self.db.uses[&coupon]);
        let latest: HashMap<_, _> = uses.iter().map(|made| (made.sequence, &made.shown)).collect();
        let is_lapsed = |latest: &&LatestUse| latest.kind == UseKind::Reserved && latest.holds(now).is_none();
        latest.into_values().any(|latest| is_lapsed(&latest))
    }

    /// Lets a stopped owner answer the mail that is left in its mailbox.
    fn step_stopped(&mut self, n: usize) -> Result<(), String> {
        let now = self.now();
        let Some(mut actor) = self.node(n).stopped.pop() else {
            return Ok(());
        };
        let (actions, decided) = step(&mut actor, now, false);
        let number = actor.number;
        if decided {
            return Err("an owner that stopped decides".to_owned());
        }
        let id = actor.driver.id();
        if actor.is_busy() {
            self.node(n).stopped.push(actor);
        }
        self.carry_out(n, (id, number), actions)
    }

    fn carry_out(&mut self, n: usize, (id, number): (Id, u64), actions: Vec<Action>) -> Result<(), String> {
        for action in actions {
            match action {
                Action::Submit(portion) => {
                    if self.breakage == Breakage::AnswersBeforeStored {
                        let settlement = Settlement {
                            fence: portion.fence,
                            fate: Fate::Stored,
                            batch: None,
                        };
                        if let Some(actor) = self.node(n).owners.get_mut(&id) {
                            let settle = OwnerCommand::Settle(settlement).into();
                            actor.mailbox.push_front(settle);
                        }
                    }
                    let mailbox = (id, number);
                    let submission = Submission {
                        portion,
                        traces: Vec::new(),
                        mailbox,
                    };
                    let lane = self.rng.random_range(0..LANES);
                    self.lane_event(n, lane, lane::Event::Submitted(submission))?;
                }
                Action::Post(by, notice) => self.node(n).board.post(by, notice),
                Action::Withdraw(..) if self.breakage == Breakage::StaleDoor => {}
                Action::Withdraw(id, floor) => {
                    self.node(n).board.withdraw(id);
                    if let Some(version) = floor {
                        self.raise_floors(id, version);
                    }
                }
                Action::Report(command) => self.node(n).send_to_shard(command),
            }
        }
        Ok(())
    }
}
