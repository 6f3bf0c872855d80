//! A node: the drivers of one shard and its owners, their mailboxes, and their calls to the database.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use actors::cluster::ownership::Ownership;
use actors::coupon::CouponKind;
use actors::ids::{Fence, Incarnation};
use actors::owning::door::board::Changes;
use actors::owning::door::{Board, Knowledge, Notice};
use actors::owning::kind::Kind;
use actors::owning::owner::driver::{OwnerDriver, OwnerQueue};
use actors::owning::pair::Pair;
use actors::owning::request::{OwnerCommand, OwnerMail, Request};
use actors::owning::shard::ShardCommand;
use actors::owning::shard::driver::ShardDriver;
use actors::owning::shard::load::AheadRows;
use actors::owning::shard::status::ServingStatus;
use actors::owning::write_back::lane::Lane;
use actors::store::batch::Batch;
use actors::time::Moment;

use super::member::{Claiming, Member};
use super::shard::REQUESTS_MAX;
use crate::tally::Tally;

/// The kinds that the simulated engine serves.
pub(super) type Both = Pair<CouponKind, Tally>;
pub(super) type Id = <Both as Kind>::Id;

/// How many lanes a node has. The seed chooses the lane of each portion.
pub(super) const LANES: usize = 2;

/// A call of a lane to the database that is not answered yet.
pub(super) enum Call {
    Write(Batch<Both>),
    ReadBack(Batch<Both>),
    Pause,
}

/// A lane, and its call that is under way.
#[derive(Default)]
pub(super) struct LaneTask {
    pub(super) lane: Lane<Both, (Id, u64)>,
    pub(super) call: Option<Call>,
}

/// An owner's actor.
pub(super) struct OwnerActor {
    pub(super) driver: OwnerDriver<Both>,
    pub(super) queue: OwnerQueue<Both>,
    pub(super) mailbox: VecDeque<OwnerMail<Both>>,
    /// True if the mailbox accepts nothing more. The mail in it is still handled.
    pub(super) closed: bool,
    /// Tells the owner apart from its successors, which must not receive its mail.
    pub(super) number: u64,
}

impl OwnerActor {
    /// Puts mail into the mailbox. Returns false if the mailbox is closed.
    pub(super) fn send(&mut self, mail: OwnerMail<Both>) -> bool {
        if !self.closed {
            self.mailbox.push_back(mail);
        }
        !self.closed
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.mailbox.is_empty() || self.driver.is_gathering()
    }
}

/// A read that was requested.
pub(super) enum Reading {
    Whole(Id),
    Ahead(Id),
    Rest(Id, AheadRows<Both>),
}

/// A message of a board to a door.
pub(super) enum Heartbeat {
    /// All posted notices, for the door of the same node.
    Own(Vec<Arc<Notice<Both>>>),
    /// The changes since the last message, for the door of a peer.
    OfPeer(Incarnation, Changes<Both>),
}

/// One process.
pub(super) struct Node {
    pub(super) member: Member,
    pub(super) claiming: Claiming,
    pub(super) shard: ShardDriver<Both>,
    pub(super) shard_mailbox: VecDeque<ShardCommand<Both>>,
    pub(super) status: ServingStatus,
    pub(super) owners: HashMap<Id, OwnerActor>,
    /// Owners that stopped and still have mail.
    pub(super) stopped: Vec<OwnerActor>,
    pub(super) board: Board<Both>,
    pub(super) door: Knowledge<Both>,
    /// Messages of boards on their way to the door, each with the time of its request.
    pub(super) heartbeats: Vec<(Moment, Heartbeat)>,
    pub(super) ownership: Ownership,
    pub(super) lanes: [LaneTask; LANES],
    pub(super) readings: Vec<Reading>,
    /// Results of reads that the shard has not handled.
    pub(super) read: Vec<ShardCommand<Both>>,
    pub(super) raises: Vec<Fence>,
    pub(super) hand_offs: Vec<(Fence, Option<Incarnation>)>,
    /// The node does nothing until this time.
    pub(super) hangs_until: i64,
    /// True if the node does not reach the database.
    pub(super) cut: bool,
    /// True if the shard is drained, so that the node may stop.
    pub(super) drained: bool,
}

impl Node {
    pub(super) fn new(member: Member, shard: actors::ids::ShardId) -> Self {
        Self {
            member,
            claiming: Claiming::default(),
            shard: ShardDriver::new(shard, REQUESTS_MAX),
            shard_mailbox: VecDeque::new(),
            status: ServingStatus::default(),
            owners: HashMap::new(),
            stopped: Vec::new(),
            board: Board::default(),
            door: Knowledge::default(),
            heartbeats: Vec::new(),
            ownership: Ownership::default(),
            lanes: Default::default(),
            readings: Vec::new(),
            read: Vec::new(),
            raises: Vec::new(),
            hand_offs: Vec::new(),
            hangs_until: 0,
            cut: false,
            drained: false,
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        let owners = self.owners.values().chain(&self.stopped);
        let mut owners = owners.map(|actor| actor.is_busy() || actor.driver.owner().unstored() > 0);
        !owners.any(|busy| busy)
            && self.shard_mailbox.is_empty()
            && self.lanes.iter().all(|task| task.call.is_none())
            && self.raises.is_empty()
            && self.claiming.is_idle()
            && self.hand_offs.is_empty()
            && self.readings.is_empty()
            && self.read.is_empty()
    }

    /// Sends the shard a command, as its handle does.
    pub(super) fn send_to_shard(&mut self, command: ShardCommand<Both>) {
        if command.is_change() {
            self.status.begin_change();
        }
        self.shard_mailbox.push_back(command);
    }

    /// Delivers a request, as the shard's handle does.
    pub(super) fn deliver(&mut self, id: Id, request: Request<Both>) {
        let request = match self.owners.get_mut(&id) {
            Some(actor) => {
                let (queue, mailbox, closed) = (&actor.queue, &mut actor.mailbox, actor.closed);
                let wake = || {
                    if !closed {
                        mailbox.push_back(OwnerMail::Requests);
                    }
                    !closed
                };
                match queue.enter(request, wake) {
                    Ok(()) => return,
                    Err((request, _closed)) => request,
                }
            }
            None => request,
        };
        self.send_to_shard(ShardCommand::Deliver(id, request));
    }

    pub(super) fn command(&mut self, id: Id, command: OwnerCommand<Both>) {
        if let Some(actor) = self.owners.get_mut(&id) {
            actor.send(command.into());
        }
    }

    pub(super) fn command_actor(&mut self, (id, number): (Id, u64), command: OwnerCommand<Both>) {
        let actor = self.owners.get_mut(&id).filter(|actor| actor.number == number);
        if let Some(actor) = actor {
            actor.send(command.into());
        }
    }
}
