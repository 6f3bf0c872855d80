//! The shard: the port through which the driver of production acts on the simulated node.

use std::collections::VecDeque;
use std::time::Duration;

use actors::ids::{Fence, Incarnation};
use actors::owning::owner::Owner;
use actors::owning::owner::driver::{OwnerDriver, OwnerQueue};
use actors::owning::request::{OwnerCommand, OwnerMail, Request};
use actors::owning::shard::ShardCommand;
use actors::owning::shard::driver::{NotDelivered, ShardPort};
use actors::owning::shard::lifecycle::ServingState;
use actors::owning::shard::load::{AheadRows, OwnerParts};
use actors::time::Moment;
use futures_util::FutureExt;
use ractor::ActorId;
use tokio::sync::oneshot;

use super::node::{Both, Id, Node, OwnerActor, Reading};
use super::world::{Breakage, World};

/// Maximum number of requests in an owner's queue: few enough that some are refused.
pub(super) const REQUESTS_MAX: usize = 8;

struct Port<'a> {
    now: Moment,
    owners_made: &'a mut u64,
    node: &'a mut Node,
    /// The hand-offs that were begun.
    begun: Vec<(Fence, Option<Incarnation>)>,
    /// The fence that was released.
    released: Option<Fence>,
}

impl ShardPort<Both> for Port<'_> {
    fn moment(&self) -> Moment {
        self.now
    }

    fn load(&mut self, id: Id, ahead: Option<AheadRows<Both>>) -> bool {
        self.node.readings.push(match ahead {
            Some(rows) => Reading::Rest(id, rows),
            None => Reading::Whole(id),
        });
        true
    }

    fn load_ahead(&mut self, id: Id) {
        self.node.readings.push(Reading::Ahead(id));
    }

    /// Drops the report, as a link may do.
    fn report_loaded_ahead(&mut self, _to: Incarnation) {}

    async fn activate(&mut self, id: Id, fence: Fence, parts: OwnerParts<Both>) -> Result<(), String> {
        *self.owners_made += 1;
        let number = *self.owners_made;
        // Owners gather no portions, small portions, or all portions.
        let gather_below = [0, 2, 16][number as usize % 3];
        let owner = Owner::new(*parts.state, fence, Duration::ZERO, gather_below, Moment::ORIGIN);
        let queue = OwnerQueue::new(REQUESTS_MAX);
        let actor = OwnerActor {
            driver: OwnerDriver::new(owner, queue.clone()),
            queue,
            mailbox: VecDeque::from([OwnerCommand::Announce.into()]),
            closed: false,
            number,
        };
        self.node.owners.insert(id, actor);
        Ok(())
    }

    fn deliver(&mut self, id: Id, request: Request<Both>) -> Result<(), (Request<Both>, NotDelivered)> {
        let Some(actor) = self.node.owners.get_mut(&id) else {
            return Err((request, NotDelivered::NoOwner));
        };
        let (queue, mailbox, closed) = (&actor.queue, &mut actor.mailbox, actor.closed);
        let wake = || {
            if !closed {
                mailbox.push_back(OwnerMail::Requests);
            }
            !closed
        };
        let entered = queue.enter(request, wake);
        entered.map_err(|(request, reason)| (request, reason.into()))
    }

    fn command(&mut self, id: Id, command: OwnerCommand<Both>) {
        self.node.command(id, command);
    }

    fn command_each(&mut self, busy: bool, command: fn() -> OwnerCommand<Both>) {
        let owners = self.node.owners.values_mut();
        for actor in owners.filter(|actor| !busy || actor.queue.is_busy()) {
            actor.send(command().into());
        }
    }

    fn raise(&mut self, from: Fence, _pause: bool) {
        self.node.raises.push(from);
    }

    fn hand_off(&mut self, from: Fence, to: Option<Incarnation>, _closed_at: Option<Moment>) {
        self.node.hand_offs.push((from, to));
        self.begun.push((from, to));
    }

    fn release(&mut self, fence: Option<Fence>, _drained: Vec<oneshot::Sender<()>>) {
        self.node.drained = true;
        self.released = fence;
    }

    fn show(&mut self, serving: ServingState) {
        self.node.status.show(serving);
    }

    fn end_change(&mut self) {
        self.node.status.end_change();
    }
}

impl World {
    pub(super) fn step_shard(&mut self, n: usize) {
        if let Some(command) = self.node(n).shard_mailbox.pop_front() {
            self.shard_command(n, command);
        }
    }

    pub(super) fn shard_command(&mut self, n: usize, command: ShardCommand<Both>) {
        if let ShardCommand::OwnerStopped { id, actor, .. } = &command
            && !self.forget(n, *id, *actor)
        {
            return;
        }
        let now = self.now().moment;
        let node = self.nodes[n]
            .as_mut()
            .expect("the caller has checked that the process exists");
        let mut shard = std::mem::replace(
            &mut node.shard,
            actors::owning::shard::driver::ShardDriver::new(self.db.shard.id, REQUESTS_MAX),
        );
        let mut port = Port {
            now,
            owners_made: &mut self.owners_made,
            node,
            begun: Vec::new(),
            released: None,
        };
        let handled = shard.handle(command, &mut port).now_or_never();
        handled.expect("no call of this port waits");
        let (begun, released) = (port.begun, port.released);
        self.node(n).shard = shard;
        if let Some(from) = released {
            self.db.give(from, None);
        }
        if self.breakage == Breakage::HandedOffBeforeStored {
            for (from, to) in begun {
                if let Some(owner) = to {
                    let epoch = from.epoch.next();
                    self.publish_hand_off(Fence { epoch, owner });
                }
            }
        }
    }

    /// Removes a stopped owner from the table, as the shard's actor does. Returns false if the table has
    /// another owner or no owner.
    fn forget(&mut self, n: usize, id: Id, actor: ActorId) -> bool {
        let node = self.node(n);
        let is_there = |owner: &OwnerActor| ActorId::Local(owner.number) == actor;
        if !node.owners.get(&id).is_some_and(is_there) {
            return false;
        }
        if let Some(actor) = node.owners.remove(&id).filter(OwnerActor::is_busy) {
            node.stopped.push(actor);
        }
        true
    }
}
