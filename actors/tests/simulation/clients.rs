//! The clients: they ask, ask again, and hold every answer against the database at the moment it comes.

use std::collections::HashMap;
use std::time::Duration;

use actors::cluster::ownership::Owner;
use actors::coupon::offer::{Coupon, OfferPatch, Status};
use actors::ids::{CouponId, RequestKey, UserId};
use actors::owning::admission::Admission;
use actors::owning::message::{
    Change, ChangeOutcome, ChangeRequest, IssueOutcome, IssueRequest, OwnerCommand, Refusal, Reply, Request,
    Setback,
};
use actors::owning::shard::lifecycle::{self};
use actors::time::Moment;
use rand::Rng;
use rand::seq::IndexedRandom;
use tokio::sync::oneshot::error::TryRecvError;

use super::node::Told;
use super::world::{Client, NODES, USERS, Want, World};

/// Room for notices in an answer to another's door: for the longest of the coupons here, so that not all come
/// at once.
const NOTICE_ROOM: usize = 256;

impl World {
    pub(super) fn any_coupon(&mut self) -> CouponId {
        let mut ids: Vec<CouponId> = self.db.coupons.keys().copied().collect();
        ids.sort_unstable();
        *ids.choose(&mut self.rng).unwrap()
    }

    pub(super) fn ask(&mut self) -> Result<(), String> {
        let coupon = self.any_coupon();
        let user = UserId::parse(&format!("user-{}", self.rng.random_range(0..USERS))).unwrap();
        // Now and then a client repeats an earlier key of its own.
        let key = if self.keys_made > 0 && self.rng.random_ratio(1, 4) {
            self.rng.random_range(0..self.keys_made)
        } else {
            self.keys_made += 1;
            self.keys_made
        };
        let key = RequestKey::parse(&format!("key-{key}")).unwrap();
        let now = self.now();
        let node = self.rng.random_range(0..NODES);
        let door = self.nodes[node]
            .as_ref()
            .filter(|node| node.hangs_until < self.micros)
            .map(|node| &node.door);
        if let Some(refusal) = door.and_then(|door| door.answer(coupon, &user, now)) {
            let since = self.db.coupons[&coupon].version;
            return self.check_issue(coupon, since, &user, &key, IssueOutcome::Refused(refusal));
        }
        self.send_issue(coupon, user, key, None);
        Ok(())
    }

    /// Owners are asked under the lease; what they say arrives later, in any order, or never.
    pub(super) fn step_door(&mut self, n: usize) {
        let now = self.now().moment;
        let told = self.node(n).heartbeats.len();
        let place = self.rng.random_range(0..told.max(1));
        match self.rng.random_range(0..3) {
            0 => {
                let incarnation = self.node(n).member.incarnation();
                if self.lease_holds(n, incarnation) {
                    let listener = self.rng.random_range(0..NODES);
                    let Some(upto) = self.nodes[listener]
                        .as_ref()
                        .map(|node| node.door.upto(incarnation))
                    else {
                        return;
                    };
                    let board = &self.node(n).board;
                    let told = match listener == n {
                        true => Told::Here(board.read(incarnation)),
                        false => Told::ByPeer(incarnation, board.changes(incarnation, upto, NOTICE_ROOM)),
                    };
                    self.node(listener).heartbeats.push((now, told));
                }
            }
            1 if !self.node(n).heartbeats.is_empty() => {
                let node = self.node(n);
                match node.heartbeats.remove(place) {
                    (asked_at, Told::Here(notices)) => node.door.hear(asked_at, notices),
                    (asked_at, Told::ByPeer(peer, changes)) => node.door.hear_peer(peer, asked_at, changes),
                }
            }
            2 if self.node(n).heartbeats.len() > 3 => drop(self.node(n).heartbeats.remove(0)),
            _ => {}
        }
    }

    /// A change is answered only once no door knows less. How that is waited for is the engine's; here they
    /// all hear of it when it is decided.
    pub(super) fn tell_doors(&mut self, id: CouponId, version: u64) {
        let now = self.now().moment;
        self.nodes
            .iter_mut()
            .flatten()
            .for_each(|node| node.door.raise_floor(id, version, now));
    }

    pub(super) fn send_issue(&mut self, coupon: CouponId, user: UserId, key: RequestKey, since: Option<u64>) {
        let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
        let request = IssueRequest {
            user: user.clone(),
            key: key.clone(),
            expires: Moment::at(Duration::from_secs(1_000_000)),
        };
        self.send(coupon, Request::Issue(request, reply));
        let asked_at_version = since.unwrap_or(self.db.coupons[&coupon].version);
        self.clients.push(Client {
            coupon,
            asked_at_version,
            want: Want::Issue { user, key, answer },
        });
    }

    pub(super) fn ask_change(&mut self) {
        let coupon = self.any_coupon();
        let change = match self.rng.random_range(0..4) {
            0 => Change::Pause,
            1 | 2 => Change::Resume,
            _ => {
                let total = Some(Some(self.rng.random_range(1..12)));
                Change::Patch(Box::new(OfferPatch {
                    total_quantity: total,
                    ..OfferPatch::default()
                }))
            }
        };
        self.send_change(coupon, change);
    }

    pub(super) fn send_change(&mut self, coupon: CouponId, change: Change) {
        let (reply, answer) = Reply::new(Admission::new(1).admit().unwrap());
        let request = ChangeRequest {
            change: change.clone(),
            if_version: None,
            expires: Moment::at(Duration::from_secs(1_000_000)),
        };
        self.send(coupon, Request::Change(request, reply));
        let asked_at_version = self.db.coupons[&coupon].version;
        self.clients.push(Client {
            coupon,
            asked_at_version,
            want: Want::Change { change, answer },
        });
    }

    /// To any node, or to the one that it says has the shard; there straight to the owner, or by way of the
    /// shard. Who is not there answers nobody.
    pub(super) fn send(&mut self, coupon: CouponId, request: Request) {
        let mut asked = self.rng.random_range(0..NODES);
        if let Some(node) = &self.nodes[asked]
            && let Owner::Elsewhere(owner) = node.ownership.entry(coupon.shard()).owner
            && self.rng.random()
        {
            asked = self
                .nodes
                .iter()
                .position(|node| {
                    node.as_ref()
                        .is_some_and(|node| node.member.incarnation() == owner)
                })
                .unwrap_or(asked);
        }
        let Some(node) = &mut self.nodes[asked] else {
            return;
        };
        match node.homes.get_mut(&coupon) {
            Some(home) if !home.draining => home.mailbox.push_back(OwnerCommand::Decide(request)),
            _ => node
                .shard_mailbox
                .push_back(lifecycle::Event::Asked(coupon, request)),
        }
    }

    pub(super) fn hear_answers(&mut self) -> Result<(), String> {
        for client in std::mem::take(&mut self.clients) {
            let Client {
                coupon,
                asked_at_version,
                want,
            } = client;
            match want {
                Want::Issue {
                    user,
                    key,
                    mut answer,
                } => match answer.try_recv() {
                    Err(TryRecvError::Empty) => {
                        self.clients.push(Client {
                            coupon,
                            asked_at_version,
                            want: Want::Issue { user, key, answer },
                        });
                    }
                    Ok(Ok(outcome)) => self.check_issue(coupon, asked_at_version, &user, &key, outcome)?,
                    // As the router does: the same key again, until an owner says what became of it.
                    Ok(Err(_)) | Err(TryRecvError::Closed) => {
                        self.send_issue(coupon, user, key, Some(asked_at_version))
                    }
                },
                Want::Change { change, mut answer } => match answer.try_recv() {
                    Err(TryRecvError::Empty) => {
                        self.clients.push(Client {
                            coupon,
                            asked_at_version,
                            want: Want::Change { change, answer },
                        });
                    }
                    Ok(Ok(outcome)) => self.check_change(coupon, outcome)?,
                    Ok(Err(Setback::Moved)) => self.send_change(coupon, change),
                    Ok(Err(_)) | Err(TryRecvError::Closed) => {}
                },
            }
        }
        Ok(())
    }

    pub(super) fn check_issue(
        &mut self,
        id: CouponId,
        since: u64,
        user: &UserId,
        key: &RequestKey,
        outcome: IssueOutcome,
    ) -> Result<(), String> {
        let stored = &self.db.issuances[&id];
        let versions: Vec<&Coupon> = self.db.history[&id]
            .iter()
            .filter(|coupon| coupon.version >= since)
            .collect();
        let so = match &outcome {
            IssueOutcome::Issued(issuance) | IssueOutcome::Replayed(issuance) => {
                stored.contains(issuance) && issuance.user == *user && issuance.key == *key
            }
            IssueOutcome::Refused(Refusal::AlreadyIssued(latest)) => {
                stored.contains(latest) && latest.user == *user
            }
            IssueOutcome::Refused(Refusal::SoldOut { total_quantity }) => {
                stored.len() as u64 >= *total_quantity
                    && versions
                        .iter()
                        .any(|coupon| coupon.offer.total_quantity == Some(*total_quantity))
            }
            IssueOutcome::Refused(Refusal::Paused) => {
                versions.iter().any(|coupon| coupon.status == Status::Paused)
            }
            IssueOutcome::Refused(_) => false,
        };
        if let IssueOutcome::Issued(issuance) | IssueOutcome::Replayed(issuance) = &outcome {
            self.told.push(issuance.clone());
        }
        if so {
            Ok(())
        } else {
            Err(format!(
                "told {outcome:?}; stored: {stored:?}; versions since the call: {versions:?}"
            ))
        }
    }

    pub(super) fn check_change(&self, id: CouponId, outcome: ChangeOutcome) -> Result<(), String> {
        match outcome {
            ChangeOutcome::Done(done) if !self.db.history[&id].contains(&done.coupon) => {
                Err(format!("told of a change that is not stored: {done:?}"))
            }
            ChangeOutcome::Done(_) | ChangeOutcome::Refused(_) => Ok(()),
        }
    }

    pub(super) fn check_end(&self) -> Result<(), String> {
        for (id, rows) in &self.db.issuances {
            let coupon = &self.db.coupons[id];
            let dense = rows
                .iter()
                .enumerate()
                .all(|(place, row)| row.id.sequence.get() == place as u64 + 1);
            let within = coupon
                .offer
                .total_quantity
                .is_none_or(|total| rows.len() as u64 <= total);
            let mut counts: HashMap<&UserId, u8> = HashMap::new();
            rows.iter()
                .for_each(|row| *counts.entry(&row.user).or_default() += 1);
            let fair = counts.values().all(|count| *count <= coupon.offer.per_user_limit);
            if !(dense && within && fair) {
                return Err(format!(
                    "dense {dense}, within quantity {within}, within limit {fair}: {rows:?}"
                ));
            }
        }
        match self
            .told
            .iter()
            .find(|told| !self.db.issuances[&told.id.coupon].contains(told))
        {
            Some(lost) => Err(format!("told and lost: {lost:?}")),
            None => Ok(()),
        }
    }
}
