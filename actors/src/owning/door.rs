//! The door: what this node knows about things whose owners refuse nearly all requests, such as sold-out
//! coupons. The door refuses such requests itself, so that they need not travel to the owner.
//!
//! Owners send notices to the door. A notice says only what is *stored*. It counts for a limited time, which
//! begins before the door asks for the notice, and it is true until a change widens what users may have. Such
//! a change is answered only after every door has forgotten the notices that the change made untrue, so no
//! refusal of a door is untrue. Owners on other nodes send their notices in the answers to heartbeats. If the
//! owner might give another answer than a refusal, for instance to a user who may have a coupon already, the
//! door leaves the request to the owner.

pub mod board;
pub mod filter;
pub mod notice;
pub mod peers;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use crate::ids::Incarnation;
pub use crate::owning::door::board::Board;
use crate::owning::door::board::Changes;
pub use crate::owning::door::notice::Notice;
use crate::owning::kind::Kind;
use crate::time::{Moment, Now};

/// How long a notice counts. The time begins before the door asks for the notice.
pub const DOOR_TTL: Duration = Duration::from_secs(2);

/// Maximum number of notices that the owners of a node post. Owners beyond this number answer all requests
/// themselves. A notice takes some megabytes for a million winners and a hundred bytes for a few winners. So
/// this number bounds the door's memory and the time to copy its table.
pub const NOTICES_MAX: usize = 10_000;

/// Maximum number of notices that a door keeps, from all nodes together: as many as three nodes may post.
const KNOWN_MAX: usize = 3 * NOTICES_MAX;

/// How long a floor is kept. An older version can come only from an owner that does not know yet that its
/// incarnation was ended. Such an owner loses its lease long before this time is over.
const FLOORS_KEPT: Duration = Duration::from_secs(60);

/// Maximum lease of a node in a cluster, which is shorter than the time for which floors are kept.
pub const LEASE_MAX: Duration = Duration::from_secs(30);
const _: () = assert!(LEASE_MAX.as_secs() < FLOORS_KEPT.as_secs());

/// Where a notice comes from: an owner on this node (`None`), or an owner on a peer.
type Source = Option<Incarnation>;

/// The door's knowledge, as a value. A copy has tables of its own.
#[derive(Debug, Clone)]
pub struct Knowledge<K: Kind> {
    notices: HashMap<K::Id, Known<K>>,
    sources: HashMap<Source, Confirmed>,
    /// Notices that were asked for at this moment or earlier do not count, because the database went
    /// backwards.
    forgotten_at: Option<Moment>,
    /// True if the door is closed: it learns and refuses nothing any more.
    is_closed: bool,
    /// For each id, the version below which no notice counts, and when that version was last raised.
    floors: HashMap<K::Id, (u64, Moment)>,
}

#[derive(Debug, Clone)]
struct Known<K: Kind> {
    notice: Arc<Notice<K>>,
    by: Source,
}

#[derive(Debug, Clone, Copy)]
struct Confirmed {
    /// A moment before the source was asked for its notices.
    at: Moment,
    /// The last change of the source's board that the door knows.
    upto: u64,
}

impl<K: Kind> Default for Knowledge<K> {
    fn default() -> Self {
        Self {
            notices: HashMap::new(),
            sources: HashMap::new(),
            forgotten_at: None,
            is_closed: false,
            floors: HashMap::new(),
        }
    }
}

impl<K: Kind> Knowledge<K> {
    /// Learns all present notices of this node's owners, which were asked for after `asked_at`.
    pub fn hear(&mut self, asked_at: Moment, notices: impl IntoIterator<Item = Arc<Notice<K>>>) {
        if self.takes(None, asked_at) {
            self.drop_of(None);
            notices.into_iter().for_each(|notice| self.learn(None, notice));
            self.sources.insert(
                None,
                Confirmed {
                    at: asked_at,
                    upto: 0,
                },
            );
            self.forget_stale(asked_at);
        }
    }

    /// Learns what changed on a peer's board. The peer was asked after `asked_at`, and its answer also
    /// confirms all its other notices.
    pub fn hear_peer(&mut self, peer: Incarnation, asked_at: Moment, changes: Changes<K>) {
        let by = Some(peer);
        let Changes {
            since,
            upto,
            withdrawn,
            posted,
        } = changes;
        // If the changes begin at a state that the door no longer has, they are ignored. The next heartbeat
        // asks for what is missing.
        if !self.takes(by, asked_at) || (since != 0 && since != self.upto(peer)) {
            return;
        }
        if since == 0 {
            self.drop_of(by);
        }
        for id in withdrawn {
            if self.notices.get(&id).is_some_and(|known| known.by == by) {
                self.notices.remove(&id);
            }
        }
        posted.into_iter().for_each(|notice| self.learn(by, notice));
        self.sources.insert(by, Confirmed { at: asked_at, upto });
        self.forget_stale(asked_at);
    }

    /// Returns the last change of this peer's board that the door knows; 0 if it knows none.
    pub fn upto(&self, peer: Incarnation) -> u64 {
        self.sources.get(&Some(peer)).map_or(0, |asked| asked.upto)
    }

    fn takes(&self, by: Source, asked_at: Moment) -> bool {
        !self.is_closed
            && self.sources.get(&by).is_none_or(|asked| asked_at >= asked.at)
            && self.forgotten_at.is_none_or(|forgotten| asked_at > forgotten)
    }

    fn learn(&mut self, by: Source, notice: Arc<Notice<K>>) {
        let id = notice.id();
        let is_old = self
            .floors
            .get(&id)
            .is_some_and(|(floor, _)| notice.version() < *floor);
        let is_known_better = match self.notices.get(&id) {
            Some(known) => known.by != by && known.notice.version() > notice.version(),
            None => self.notices.len() >= KNOWN_MAX,
        };
        if !is_old && !is_known_better {
            self.notices.insert(id, Known { notice, by });
        }
    }

    fn drop_of(&mut self, by: Source) {
        self.notices.retain(|_, known| known.by != by);
    }

    /// Drops notices that were not confirmed in time. They count again only if they are sent again.
    fn forget_stale(&mut self, now: Moment) {
        self.floors
            .retain(|_, (_, raised_at)| now.since(*raised_at) < FLOORS_KEPT);
        self.sources.retain(|_, asked| now.since(asked.at) < DOOR_TTL);
        let sources = &self.sources;
        self.notices.retain(|_, known| sources.contains_key(&known.by));
    }

    /// Forgets everything. From then on, ignores notices that were asked for at `now` or earlier.
    pub fn forget(&mut self, now: Moment) {
        self.notices.clear();
        self.sources.clear();
        self.forgotten_at = Some(now);
    }

    /// Closes the door: forgets everything, and learns and refuses nothing from then on. No change needs to
    /// wait for a closed door.
    pub fn close(&mut self, now: Moment) {
        self.forget(now);
        self.is_closed = true;
    }

    /// Forgets the notice of this id if it is below `version`, and does not learn such a notice again.
    pub fn raise_floor(&mut self, id: K::Id, version: u64, now: Moment) {
        let floor = self.floors.entry(id).or_insert((version, now));
        *floor = (floor.0.max(version), now);
        if self
            .notices
            .get(&id)
            .is_some_and(|known| known.notice.version() < version)
        {
            self.notices.remove(&id);
        }
    }

    /// Returns the refusal that the owner would give; `None` if only the owner can answer.
    pub fn refusal(&self, id: K::Id, ask: &K::Ask, now: Now) -> Option<K::Outcome> {
        let Known { notice, by } = self.notices.get(&id)?;
        let fresh = self
            .sources
            .get(by)
            .is_some_and(|asked| now.moment.since(asked.at) < DOOR_TTL);
        if fresh {
            notice.refusal(ask, now.timestamp)
        } else {
            None
        }
    }

    /// Returns how many notices the door knows.
    pub fn notices(&self) -> usize {
        self.notices.len()
    }
}

/// A node's door. Every request reads it, without a lock. Writes are rare.
#[derive(Debug)]
pub struct Door<K: Kind> {
    writing: Mutex<()>,
    knowledge: ArcSwap<Knowledge<K>>,
}

impl<K: Kind> Default for Door<K> {
    fn default() -> Self {
        Self {
            writing: Mutex::default(),
            knowledge: ArcSwap::default(),
        }
    }
}

impl<K: Kind> Door<K> {
    /// Returns the refusal that the owner would give, if the door knows it; see [`Knowledge::refusal`]. Reads
    /// the clocks only if there are notices.
    pub fn refusal(&self, id: K::Id, ask: &K::Ask, now: impl FnOnce() -> Now) -> Option<K::Outcome> {
        let knowledge = self.knowledge.load();
        if knowledge.notices.is_empty() {
            None
        } else {
            knowledge.refusal(id, ask, now())
        }
    }

    /// See [`Knowledge::hear`].
    pub fn hear(&self, asked_at: Moment, notices: impl IntoIterator<Item = Arc<Notice<K>>>) {
        self.rewrite(|knowledge| knowledge.hear(asked_at, notices));
    }

    /// See [`Knowledge::hear_peer`].
    pub fn hear_peer(&self, peer: Incarnation, asked_at: Moment, changes: Changes<K>) {
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

    /// See [`Knowledge::close`].
    pub fn close(&self, now: Moment) {
        self.rewrite(|knowledge| knowledge.close(now));
    }

    /// See [`Knowledge::raise_floor`].
    pub fn raise_floor(&self, id: K::Id, version: u64, now: Moment) {
        self.rewrite(|knowledge| knowledge.raise_floor(id, version, now));
    }

    /// Returns how many notices the door knows.
    pub fn notices(&self) -> usize {
        self.knowledge.load().notices()
    }

    fn rewrite(&self, write: impl FnOnce(&mut Knowledge<K>)) {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut knowledge = Knowledge::clone(&self.knowledge.load());
        write(&mut knowledge);
        self.knowledge.store(Arc::new(knowledge));
    }
}

#[cfg(test)]
mod tests;
