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

/// A call of the lane to the database that is not answered yet.
pub(super) enum Call {
    Write(Batch<Both>),
    ReadBack(Batch<Both>),
    Pause,
}

/// An owner's actor.
pub(super) struct Home {
    pub(super) driver: OwnerDriver<Both>,
    pub(super) queue: OwnerQueue<Both>,
    pub(super) mailbox: VecDeque<OwnerMail<Both>>,
    /// True if the mailbox accepts nothing more. The mail in it is still handled.
    pub(super) closed: bool,
    /// Tells the owner apart from its successors, which must not receive its mail.
    pub(super) number: u64,
}

impl Home {
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
    pub(super) homes: HashMap<Id, Home>,
    /// Owners that stopped and still have mail.
    pub(super) stopped: Vec<Home>,
    pub(super) board: Board<Both>,
    pub(super) door: Knowledge<Both>,
    /// Messages of boards on their way to the door, each with the time of its request.
    pub(super) heartbeats: Vec<(Moment, Heartbeat)>,
    pub(super) ownership: Ownership,
    pub(super) lane: Lane<Both, (Id, u64)>,
    pub(super) call: Option<Call>,
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
            homes: HashMap::new(),
            stopped: Vec::new(),
            board: Board::default(),
            door: Knowledge::default(),
            heartbeats: Vec::new(),
            ownership: Ownership::default(),
            lane: Lane::default(),
            call: None,
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
        let homes = self.homes.values().chain(&self.stopped);
        let mut homes = homes.map(|home| home.is_busy() || home.driver.owner().unstored() > 0);
        !homes.any(|busy| busy)
            && self.shard_mailbox.is_empty()
            && self.call.is_none()
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
        let request = match self.homes.get_mut(&id) {
            Some(home) => {
                let (queue, mailbox, closed) = (&home.queue, &mut home.mailbox, home.closed);
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
        if let Some(home) = self.homes.get_mut(&id) {
            home.send(command.into());
        }
    }

    pub(super) fn command_home(&mut self, (id, number): (Id, u64), command: OwnerCommand<Both>) {
        let home = self.homes.get_mut(&id).filter(|home| home.number == number);
        if let Some(home) = home {
            home.send(command.into());
        }
    }
}
