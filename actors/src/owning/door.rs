//! The door: what this node knows about sold-out coupons, so that a refusal need not travel to the owner.
//!
//! Owners tell it what is *stored*; what they tell counts for a while from before they were asked. Being sold
//! out holds until an administrator widens the coupon, and a widening change is answered only once every door
//! has forgotten what it made untrue: so no refusal is ever untrue. Owners of other nodes tell theirs in the
//! answers to heartbeats. Whoever may have a coupon (the filter has no false negatives) is sent on to the
//! owner.

pub mod board;
pub mod notice;
pub mod peers;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use crate::ids::{CouponId, Incarnation, UserId};
pub use crate::owning::door::board::Board;
use crate::owning::door::board::Changes;
pub use crate::owning::door::notice::Notice;
use crate::owning::message::Refusal;
use crate::time::{Moment, Now};

/// How long what an owner told counts, from before it was asked.
pub const DOOR_TTL: Duration = Duration::from_secs(2);

/// Most sold-out coupons that doors are told of; beyond it owners answer themselves. At some MB for a million
/// winners, and a hundred bytes for a few, this bounds the door's memory and the time to copy its table.
pub const NOTICES_MAX: usize = 10_000;

/// Most sold-out coupons that a door knows, of whatever node: those of a few nodes that have all the notices
/// they may.
const KNOWN_MAX: usize = 3 * NOTICES_MAX;

/// For how long versions that were made untrue stay so. Whoever could still tell of them, an owner that was
/// ended and does not know it yet, has lost its lease long before.
const FLOORS_KEPT: Duration = Duration::from_secs(60);

/// Longest lease of a node in a cluster, so that this is so.
pub const LEASE_MAX: Duration = Duration::from_secs(30);

/// Who told: an owner of this node, or of that peer.
type Source = Option<Incarnation>;

/// The door's knowledge; a value, cheap to copy but for its tables.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    notices: HashMap<CouponId, Known>,
    sources: HashMap<Source, Asked>,
    /// What was asked before counts no more: the database went backwards.
    forgotten_at: Option<Moment>,
    /// Versions below which nothing counts any more, and when each was raised.
    floors: HashMap<CouponId, (u64, Moment)>,
}

#[derive(Debug, Clone)]
struct Known {
    notice: Arc<Notice>,
    by: Source,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    /// Before when it was asked that told the notices.
    at: Moment,
    /// Up to which of its changes they were told.
    upto: u64,
}

impl Knowledge {
    /// Takes all that the owners of this node tell now, who were asked after `asked_at`.
    pub fn hear(&mut self, asked_at: Moment, notices: impl IntoIterator<Item = Arc<Notice>>) {
        if self.takes(None, asked_at) {
            self.drop_of(None);
            notices.into_iter().for_each(|notice| self.learn(None, notice));
            self.sources.insert(
                None,
                Asked {
                    at: asked_at,
                    upto: 0,
                },
            );
            self.forget_stale(asked_at);
        }
    }

    /// Takes what changed on a peer's board, which was asked after `asked_at`. All else that it told holds
    /// on.
    pub fn hear_peer(&mut self, peer: Incarnation, asked_at: Moment, changes: Changes) {
        let by = Some(peer);
        let Changes {
            since,
            upto,
            withdrawn,
            posted,
        } = changes;
        // Changes to what is not known any more change nothing; the next question asks for all.
        if !self.takes(by, asked_at) || (since != 0 && since != self.upto(peer)) {
            return;
        }
        if since == 0 {
            self.drop_of(by);
        }
        for coupon in withdrawn {
            if self.notices.get(&coupon).is_some_and(|known| known.by == by) {
                self.notices.remove(&coupon);
            }
        }
        posted.into_iter().for_each(|notice| self.learn(by, notice));
        self.sources.insert(by, Asked { at: asked_at, upto });
        self.forget_stale(asked_at);
    }

    /// Up to which of its changes this peer's board is known; 0: nothing is.
    pub fn upto(&self, peer: Incarnation) -> u64 {
        self.sources.get(&Some(peer)).map_or(0, |asked| asked.upto)
    }

    fn takes(&self, by: Source, asked_at: Moment) -> bool {
        self.sources.get(&by).is_none_or(|asked| asked_at >= asked.at)
            && self.forgotten_at.is_none_or(|forgotten| asked_at > forgotten)
    }

    fn learn(&mut self, by: Source, notice: Arc<Notice>) {
        let coupon = notice.coupon();
        let is_old = self
            .floors
            .get(&coupon)
            .is_some_and(|(floor, _)| notice.version() < *floor);
        let is_known_better = match self.notices.get(&coupon) {
            Some(known) => known.by != by && known.notice.version() > notice.version(),
            None => self.notices.len() >= KNOWN_MAX,
        };
        if !is_old && !is_known_better {
            self.notices.insert(coupon, Known { notice, by });
        }
    }

    fn drop_of(&mut self, by: Source) {
        self.notices.retain(|_, known| known.by != by);
    }

    /// What nobody confirmed in time counts no more, and never again without being told anew.
    fn forget_stale(&mut self, now: Moment) {
        self.floors
            .retain(|_, (_, raised_at)| now.since(*raised_at) < FLOORS_KEPT);
        self.sources.retain(|_, asked| now.since(asked.at) < DOOR_TTL);
        let sources = &self.sources;
        self.notices.retain(|_, known| sources.contains_key(&known.by));
    }

    /// Forgets all, and does not learn again what owners were asked for before `now`.
    pub fn forget(&mut self, now: Moment) {
        self.notices.clear();
        self.sources.clear();
        self.forgotten_at = Some(now);
    }

    /// Forgets everything about the coupon below `version`, and does not learn it again.
    pub fn raise_floor(&mut self, coupon: CouponId, version: u64, now: Moment) {
        let floor = self.floors.entry(coupon).or_insert((version, now));
        *floor = (floor.0.max(version), now);
        if self
            .notices
            .get(&coupon)
            .is_some_and(|known| known.notice.version() < version)
        {
            self.notices.remove(&coupon);
        }
    }

    /// The refusal for this user, if the coupon is known to be sold out and the user surely has none.
    pub fn answer(&self, coupon: CouponId, user: &UserId, now: Now) -> Option<Refusal> {
        let Known { notice, by } = self.notices.get(&coupon)?;
        let fresh = self
            .sources
            .get(by)
            .is_some_and(|asked| now.moment.since(asked.at) < DOOR_TTL);
        if fresh {
            notice.answer(user, now.timestamp)
        } else {
            None
        }
    }

    /// How many coupons it knows to be sold out.
    pub fn notices(&self) -> usize {
        self.notices.len()
    }
}

/// A node's door: read by every request without a lock, written by few.
#[derive(Debug, Default)]
pub struct Door {
    writing: Mutex<()>,
    knowledge: ArcSwap<Knowledge>,
}

impl Door {
    /// See [`Knowledge::answer`].
    pub fn answer(&self, coupon: CouponId, user: &UserId, now: impl FnOnce() -> Now) -> Option<Refusal> {
        let knowledge = self.knowledge.load();
        if knowledge.notices.is_empty() {
            None
        } else {
            knowledge.answer(coupon, user, now())
        }
    }

    /// See [`Knowledge::hear`].
    pub fn hear(&self, asked_at: Moment, notices: impl IntoIterator<Item = Arc<Notice>>) {
        self.rewrite(|knowledge| knowledge.hear(asked_at, notices));
    }

    /// See [`Knowledge::hear_peer`].
    pub fn hear_peer(&self, peer: Incarnation, asked_at: Moment, changes: Changes) {
        self.rewrite(|knowledge| knowledge.hear_peer(peer, asked_at, changes));
    }

    /// See [`Knowledge::upto`].
    pub fn upto(&self, peer: Incarnation) -> u64 {
        self.knowledge.load().upto(peer)
    }

    /// See [`Knowledge::forget`].
    pub fn forget(&self, now: Moment) {
        self.rewrite(|knowledge| knowledge.forget(now));
    }

    /// See [`Knowledge::raise_floor`].
    pub fn raise_floor(&self, coupon: CouponId, version: u64, now: Moment) {
        self.rewrite(|knowledge| knowledge.raise_floor(coupon, version, now));
    }

    /// How many coupons it knows to be sold out.
    pub fn notices(&self) -> usize {
        self.knowledge.load().notices()
    }

    fn rewrite(&self, write: impl FnOnce(&mut Knowledge)) {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut knowledge = Knowledge::clone(&self.knowledge.load());
        write(&mut knowledge);
        self.knowledge.store(Arc::new(knowledge));
    }
}

#[cfg(test)]
mod tests;
