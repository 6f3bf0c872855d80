//! The clients: they send requests, retry, and compare each answer with the database at the moment it comes.

use std::time::Duration;

use actors::admission::Admission;
use actors::cluster::ownership::Holder;
use actors::coupon::change::{Change, ChangeRequest};
use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::issue::IssueRequest;
use actors::coupon::offer::OfferPatch;
use actors::coupon::uses::UseRequest;
use actors::coupon::uses::decide::Step;
use actors::ids::{Author, OrderId, RequestKey, UserId};
use actors::owning::kind::Kind;
use actors::owning::pair::Either::{First, Second};
use actors::owning::request::{Reply, Request, Setback};
use actors::time::Moment;
use rand::Rng;
use rand::seq::IndexedRandom;
use tokio::sync::oneshot::error::TryRecvError;

use super::node::{Both, Heartbeat, Id};
use super::world::{Client, NODES, Since, USERS, Want, World};
use crate::tally::{Add, TallyId};

/// Room for notices in an answer to the door of a peer. The longest notice of the simulation fits, but all
/// notices at once do not.
const NOTICE_ROOM: usize = 256;

/// Holds, in seconds: one lapses at once, one after fifty steps, and one does not lapse.
const HOLDS: [u32; 3] = [0, 1, 86_400];

impl World {
    pub(super) fn any_coupon(&mut self) -> CouponId {
        let mut ids: Vec<CouponId> = self.db.coupons.keys().copied().collect();
        ids.sort_unstable();
        *ids.choose(&mut self.rng).unwrap()
    }

    fn any_tally(&mut self) -> TallyId {
        let mut ids: Vec<TallyId> = self.db.tallies.keys().copied().collect();
        ids.sort_unstable();
        *ids.choose(&mut self.rng).unwrap()
    }

    pub(super) fn any_id(&mut self) -> Id {
        if self.rng.random_ratio(2, 3) {
            First(self.any_coupon())
        } else {
            Second(self.any_tally())
        }
    }

    /// Returns a new key, or sometimes an earlier one.
    fn any_key(&mut self) -> RequestKey {
        let key = if self.keys_made > 0 && self.rng.random_ratio(1, 4) {
            self.rng.random_range(0..self.keys_made)
        } else {
            self.keys_made += 1;
            self.keys_made
        };
        RequestKey::parse(&format!("key-{key}")).unwrap()
    }

    /// Returns the answer of a random node's door, if it has one.
    fn door_answer(&mut self, id: Id, ask: &<Both as Kind>::Ask) -> Option<<Both as Kind>::Outcome> {
        let now = self.now();
        let node = self.rng.random_range(0..NODES);
        let node = self.nodes[node]
            .as_ref()
            .filter(|node| node.hangs_until < self.micros);
        node.and_then(|node| node.door.refusal(id, ask, now))
    }

    pub(super) fn ask(&mut self) -> Result<(), String> {
        let coupon = self.any_coupon();
        let user = UserId::parse(&format!("user-{}", self.rng.random_range(0..USERS))).unwrap();
        let key = self.any_key();
        let want = Want::Issue { coupon, user, key };
        let since = self.since(coupon);
        match self.door_answer(First(coupon), &want.ask()) {
            Some(outcome) => self.check(since, &want, outcome),
            None => {
                self.send_want(want, since);
                Ok(())
            }
        }
    }

    pub(super) fn ask_addition(&mut self) -> Result<(), String> {
        let (tally, key) = (self.any_tally(), self.any_key());
        // The amount follows from the key, so that a retry asks for the same amount.
        let amount = 1 + key.as_str().len() as u64 % 3;
        let add = Add { key, amount };
        let want = Want::Add { tally, add };
        let since = self.since_no_coupon();
        match self.door_answer(Second(tally), &want.ask()) {
            Some(outcome) => self.check(since, &want, outcome),
            None => {
                self.send_want(want, since);
                Ok(())
            }
        }
    }

    pub(super) fn ask_change(&mut self) {
        let coupon = self.any_coupon();
        let change = match self.rng.random_range(0..4) {
            0 => Change::Pause,
            1 | 2 => Change::Resume,
            _ => Change::Patch(Box::new(OfferPatch {
                total_quantity: Some(Some(self.rng.random_range(1..12))),
                ..OfferPatch::default()
            })),
        };
        let since = self.since(coupon);
        self.send_want(Want::Change { coupon, change }, since);
    }

    /// Asks for a use by one of few orders.
    pub(super) fn ask_use(&mut self) {
        let coupon = self.any_coupon();
        let order = OrderId::parse(&format!("order-{}", self.rng.random_range(0..3))).unwrap();
        let amount = self.rng.random_range(1..3);
        let step = match self.rng.random_range(0..11) {
            0..4 => Step::Reserve {
                order,
                amount,
                hold_seconds: *HOLDS.choose(&mut self.rng).unwrap(),
            },
            4..7 => Step::Redeem {
                order,
                amount: self.rng.random::<bool>().then_some(amount),
            },
            7 | 8 => Step::Release { order },
            9 => Step::Refund { order },
            _ => Step::Revoke {
                reason: None,
                returns: self.rng.random(),
            },
        };
        let request = Box::new(UseRequest {
            sequence: Sequence::new(self.rng.random_range(1..5)),
            of_user: None,
            author: Author::parse("key:admin").unwrap(),
            step,
        });
        let since = self.since(coupon);
        self.send_want(Want::Use { coupon, request }, since);
    }

    fn since(&self, coupon: CouponId) -> Since {
        Since {
            version: self.db.coupons[&coupon].version,
            returned: self.db.returned(coupon),
            uses: self.db.uses[&coupon].len(),
            ..self.since_no_coupon()
        }
    }

    /// Returns what [`Self::since`] does, for a request about something else.
    fn since_no_coupon(&self) -> Since {
        Since {
            version: 0,
            returned: 0,
            uses: 0,
            at: self.now().timestamp,
        }
    }

    /// Sends a message of a board to a door, delivers such a message, or drops one. A board answers only
    /// while its node holds a lease. Messages arrive later, in any order, or never.
    pub(super) fn step_door(&mut self, n: usize) {
        let now = self.now().moment;
        let waiting = self.node(n).heartbeats.len();
        let place = self.rng.random_range(0..waiting.max(1));
        match self.rng.random_range(0..3) {
            0 => {
                let incarnation = self.node(n).member.incarnation();
                if self.lease_holds(n, incarnation) {
                    let listener = self.rng.random_range(0..NODES);
                    let upto = self.nodes[listener]
                        .as_ref()
                        .map(|node| node.door.upto(incarnation));
                    let Some(upto) = upto else { return };
                    let board = &self.node(n).board;
                    let heartbeat = match listener == n {
                        true => Heartbeat::Own(board.read(incarnation)),
                        false => {
                            Heartbeat::OfPeer(incarnation, board.changes(incarnation, upto, NOTICE_ROOM))
                        }
                    };
                    self.node(listener).heartbeats.push((now, heartbeat));
                }
            }
            1 if waiting > 0 => {
                let node = self.node(n);
                match node.heartbeats.remove(place) {
                    (asked_at, Heartbeat::Own(notices)) => node.door.hear(asked_at, notices),
                    (asked_at, Heartbeat::OfPeer(peer, changes)) => {
                        node.door.hear_peer(peer, asked_at, changes);
                    }
                }
            }
            2 if waiting > 3 => drop(self.node(n).heartbeats.remove(0)),
            _ => {}
        }
    }

    /// Lets all doors learn of a change when it is decided. The engine answers a change only once no door has
    /// older knowledge. How the engine waits for the doors is not simulated.
    pub(super) fn raise_floors(&mut self, id: Id, version: u64) {
        let now = self.now().moment;
        for node in self.nodes.iter_mut().flatten() {
            node.door.raise_floor(id, version, now);
        }
    }

    fn send_want(&mut self, want: Want, since: Since) {
        let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
        let request = Request {
            ask: want.ask(),
            expires: Moment::at(Duration::from_secs(1_000_000)),
            reply,
        };
        self.send(want.id(), request);
        self.clients.push(Client { since, want, answer });
    }

    /// Sends a request to a random node, or to the node that the random node takes for the owner of the
    /// shard. A node that is not running does not answer.
    fn send(&mut self, id: Id, request: Request<Both>) {
        let mut asked = self.rng.random_range(0..NODES);
        if let Some(node) = &self.nodes[asked]
            && let Holder::Peer(owner) = node.ownership.location(Both::shard(id)).holder
            && self.rng.random()
        {
            let is_owner = |node: &Option<super::node::Node>| {
                node.as_ref()
                    .is_some_and(|node| node.member.incarnation() == owner)
            };
            asked = self.nodes.iter().position(is_owner).unwrap_or(asked);
        }
        if let Some(node) = &mut self.nodes[asked] {
            node.deliver(id, request);
        }
    }

    pub(super) fn take_answers(&mut self) -> Result<(), String> {
        for mut client in std::mem::take(&mut self.clients) {
            match client.answer.try_recv() {
                Err(TryRecvError::Empty) => self.clients.push(client),
                Ok(Ok(outcome)) => self.check(client.since, &client.want, outcome)?,
                Ok(Err(setback)) => self.retry(client, setback),
                Err(TryRecvError::Closed) => self.retry(client, Setback::Unknown),
            }
        }
        Ok(())
    }

    /// Retries as the router does: with the same key, until an owner gives an outcome. A change has no key,
    /// so it is retried only if it was certainly not decided.
    fn retry(&mut self, client: Client, setback: Setback) {
        let Client { since, want, .. } = client;
        match &want {
            Want::Issue { .. } | Want::Add { .. } | Want::Use { .. } => self.send_want(want, since),
            Want::Change { coupon, .. } if setback == Setback::Moved => {
                let since = self.since(*coupon);
                self.send_want(want, since);
            }
            Want::Change { .. } => {}
        }
    }
}

impl Want {
    fn id(&self) -> Id {
        match self {
            Self::Issue { coupon, .. } | Self::Change { coupon, .. } | Self::Use { coupon, .. } => {
                First(*coupon)
            }
            Self::Add { tally, .. } => Second(*tally),
        }
    }

    fn ask(&self) -> <Both as Kind>::Ask {
        match self {
            Self::Issue { user, key, .. } => {
                let (user, key) = (user.clone(), key.clone());
                First(IssueRequest { user, key }.into())
            }
            Self::Change { change, .. } => First(ChangeRequest::from(change.clone()).into()),
            Self::Use { request, .. } => First(UseRequest::clone(request).into()),
            Self::Add { add, .. } => Second(add.clone()),
        }
    }
}
