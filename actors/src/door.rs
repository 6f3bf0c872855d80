//! The door: what this node knows about sold-out coupons, so that a refusal need not travel to the owner.
//!
//! Owners tell it what is *stored*; what they tell counts for a while from before they were asked. Being sold out holds until an administrator
//! widens the coupon, and a widening change is answered only once every door has forgotten what it made untrue: so no refusal is ever untrue.
//! Whoever may have a coupon (the filter has no false negatives) is sent on to the owner.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use roaring::RoaringBitmap;
use tokio::sync::Notify;

use crate::coupon::ledger;
use crate::coupon::message::Refusal;
use crate::ids::{CouponId, Incarnation, Sequence, UserId};
use crate::offer::Coupon;
use crate::time::{Moment, Now};

/// How long what an owner told counts, from before it was asked.
pub const DOOR_TTL: Duration = Duration::from_secs(2);

/// Most sold-out coupons that doors are told of; beyond it owners answer themselves. At some MB for a million winners, and a hundred bytes for a
/// few, this bounds the door's memory and the time to copy its table.
pub const NOTICES_MAX: usize = 10_000;

/// What an owner tells doors about its sold-out coupon. All of it is stored.
#[derive(Debug)]
pub struct Notice {
    coupon: Coupon,
    issued: Sequence,
    winners: Winners,
    /// A door answered by it since the owner last looked: the coupon is in demand, though its owner hears nothing of it.
    used: AtomicBool,
}

impl Notice {
    /// The notice of a coupon that is sold out, and of whom it went to.
    pub fn new<'a>(coupon: Coupon, issued: Sequence, winners: impl Iterator<Item = &'a str>) -> Self {
        Self { coupon, issued, winners: Winners::of(winners), used: AtomicBool::new(false) }
    }

    /// Which coupon.
    pub fn coupon(&self) -> CouponId {
        self.coupon.id
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.coupon.version
    }

    /// Whether a door answered by it since this was last asked.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

/// The users who may have a coupon, by 32 bits of a stable hash: never wrong about who has one, and wrong about one in 4,000 others at a million.
#[derive(Debug)]
struct Winners(RoaringBitmap);

impl Winners {
    fn of<'a>(users: impl Iterator<Item = &'a str>) -> Self {
        let mut hashes: Vec<u32> = users.map(hash).collect();
        hashes.sort_unstable();
        Self(hashes.into_iter().collect())
    }

    fn may_hold(&self, user: &UserId) -> bool {
        self.0.contains(hash(user.as_str()))
    }
}

/// The low half of xxh3-64 of the id: the same on every node.
fn hash(user: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(user.as_bytes()) as u32
}

/// The door's knowledge; a value, cheap to copy but for its tables.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    notices: HashMap<CouponId, Arc<Notice>>,
    /// Before when the owners were asked that told the notices.
    asked_at: Option<Moment>,
    /// What was asked before counts no more: the database went backwards.
    forgotten_at: Option<Moment>,
    /// Versions below which nothing counts any more, and when each was raised.
    floors: HashMap<CouponId, (u64, Moment)>,
}

impl Knowledge {
    /// Takes all that owners tell now, who were asked after `asked_at`.
    pub fn hear(&mut self, asked_at: Moment, notices: impl IntoIterator<Item = Arc<Notice>>) {
        if self.asked_at.is_some_and(|latest| asked_at < latest) || self.forgotten_at.is_some_and(|forgotten| asked_at <= forgotten) {
            return;
        }
        self.asked_at = Some(asked_at);
        // What was asked before a floor was raised counts no longer than this.
        self.floors.retain(|_, (_, raised_at)| asked_at.since(*raised_at) < DOOR_TTL);
        let floors = &self.floors;
        let counts = |notice: &Arc<Notice>| floors.get(&notice.coupon()).is_none_or(|(floor, _)| notice.version() >= *floor);
        self.notices = notices.into_iter().filter(counts).map(|notice| (notice.coupon(), notice)).collect();
    }

    /// Forgets all, and does not learn again what owners were asked for before `now`.
    pub fn forget(&mut self, now: Moment) {
        self.notices.clear();
        self.forgotten_at = Some(now);
    }

    /// Forgets everything about the coupon below `version`, and does not learn it again.
    pub fn raise_floor(&mut self, coupon: CouponId, version: u64, now: Moment) {
        let floor = self.floors.entry(coupon).or_insert((version, now));
        *floor = (floor.0.max(version), now);
        if self.notices.get(&coupon).is_some_and(|notice| notice.version() < version) {
            self.notices.remove(&coupon);
        }
    }

    /// The refusal for this user, if the coupon is known to be sold out and the user surely has none.
    pub fn answer(&self, coupon: CouponId, user: &UserId, now: Now) -> Option<Refusal> {
        let notice = self.notices.get(&coupon)?;
        let fresh = self.asked_at.is_some_and(|asked_at| now.moment.since(asked_at) < DOOR_TTL);
        if !fresh || notice.winners.may_hold(user) {
            return None;
        }
        // Read first: a write by every request would move this line between cores.
        if !notice.used.load(Ordering::Relaxed) {
            notice.used.store(true, Ordering::Relaxed);
        }
        ledger::refusal(&notice.coupon, now.timestamp, notice.issued)
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
        if knowledge.notices.is_empty() { None } else { knowledge.answer(coupon, user, now()) }
    }

    /// See [`Knowledge::hear`].
    pub fn hear(&self, asked_at: Moment, notices: impl IntoIterator<Item = Arc<Notice>>) {
        self.rewrite(|knowledge| knowledge.hear(asked_at, notices));
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

/// Where the owners of this node post their notices, for the doors to be told.
#[derive(Debug, Default)]
pub struct Board {
    /// And who posted it: an owner of an incarnation that is over may not have taken its notice down yet.
    posted: Mutex<HashMap<CouponId, (Incarnation, Arc<Notice>)>>,
    changed: Notify,
}

impl Board {
    /// Posts a notice of an owner of this incarnation in place of the coupon's former; not one more than [`NOTICES_MAX`].
    pub fn post(&self, by: Incarnation, notice: Arc<Notice>) {
        let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        if posted.len() < NOTICES_MAX || posted.contains_key(&notice.coupon()) {
            posted.insert(notice.coupon(), (by, notice));
            self.changed.notify_one();
        }
    }

    /// Returns once something was posted since the last time. Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the coupon's notice down.
    pub fn withdraw(&self, coupon: CouponId) {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).remove(&coupon);
    }

    /// Takes everything down.
    pub fn clear(&self) {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// All that is posted now by owners of this incarnation. What those of an ended one posted, others may have made untrue since.
    pub fn read(&self, of: Incarnation) -> Vec<Arc<Notice>> {
        let posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        posted.values().filter(|(by, _)| *by == of).map(|(_, notice)| Arc::clone(notice)).collect()
    }
}

#[cfg(test)]
mod tests;
