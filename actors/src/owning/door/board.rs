//! The board: the notices that the owners of a node post, and what changed since a reader last looked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::ids::Incarnation;
use crate::owning::door::{NOTICES_MAX, Notice};
use crate::owning::kind::Kind;

/// Maximum number of withdrawals that are remembered. A reader that missed a forgotten withdrawal gets the
/// whole board again.
pub const WITHDRAWN_MAX: usize = 4_096;

/// Maximum number of bytes that an answer to a heartbeat adds to each notice: a tag and a length.
pub const NOTICE_AROUND_BYTES: usize = 8;

/// Where the owners of this node post their notices for doors.
#[derive(Debug)]
pub struct Board<K: Kind> {
    posted: Mutex<Posted<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct Posted<K: Kind> {
    /// Each notice is kept with the incarnation that posted it, because an owner of an ended incarnation may
    /// not have withdrawn its notice yet.
    notices: HashMap<K::Id, Post<K>>,
    /// Ids whose notice was withdrawn or replaced, with the number of that change, oldest first.
    withdrawn: VecDeque<(u64, K::Id)>,
    /// The number of the last change.
    changes: u64,
    /// Withdrawals up to this change are forgotten.
    forgotten: u64,
}

#[derive(Debug)]
struct Post<K: Kind> {
    by: Incarnation,
    change: u64,
    notice: Arc<Notice<K>>,
}

/// A notice with the number of the change that posted it.
type NumberedNotice<K> = (u64, Arc<Notice<K>>);

/// What changed on a board.
#[derive(Debug)]
pub struct Changes<K: Kind> {
    /// The number of the change after which these changes begin; 0 if they describe the whole board.
    pub since: u64,
    /// The number of the change up to which `posted` is complete. Later notices follow in a later answer.
    /// `withdrawn` is always complete.
    pub upto: u64,
    /// Ids whose notice was withdrawn or replaced. A reader applies them before `posted`.
    pub withdrawn: Vec<K::Id>,
    /// Notices that were posted, oldest first.
    pub posted: Vec<Arc<Notice<K>>>,
}

impl<K: Kind> Posted<K> {
    fn withdraw(&mut self, id: K::Id) {
        if self.notices.remove(&id).is_some() {
            self.changes += 1;
            self.withdrawn.push_back((self.changes, id));
            if self.withdrawn.len() > WITHDRAWN_MAX
                && let Some((change, _)) = self.withdrawn.pop_front()
            {
                self.forgotten = change;
            }
        }
    }
}

impl<K: Kind> Posted<K> {
    /// Returns the withdrawals since this change, and the notices that were posted since then, oldest first.
    fn since(&self, of: Incarnation, since: u64) -> (Changes<K>, Vec<NumberedNotice<K>>) {
        let since = if since < self.forgotten || since > self.changes {
            0
        } else {
            since
        };
        let withdrawn = match since {
            0 => Vec::new(),
            _ => self
                .withdrawn
                .iter()
                .filter(|(change, _)| *change > since)
                .map(|(_, id)| *id)
                .collect(),
        };
        let news = self
            .notices
            .values()
            .filter(|post| post.by == of && post.change > since);
        let mut news: Vec<NumberedNotice<K>> =
            news.map(|post| (post.change, Arc::clone(&post.notice))).collect();
        news.sort_unstable_by_key(|(change, _)| *change);
        (
            Changes {
                since,
                upto: self.changes,
                withdrawn,
                posted: Vec::new(),
            },
            news,
        )
    }
}

impl<K: Kind> Default for Board<K> {
    fn default() -> Self {
        Self {
            posted: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl<K: Kind> Default for Posted<K> {
    fn default() -> Self {
        Self {
            notices: HashMap::new(),
            withdrawn: VecDeque::new(),
            changes: 0,
            forgotten: 0,
        }
    }
}

impl<K: Kind> Board<K> {
    /// Posts a notice of an owner of this incarnation, in place of an earlier notice of the same id. If there
    /// are [`NOTICES_MAX`] notices already, the new notice is dropped.
    pub fn post(&self, by: Incarnation, notice: Arc<Notice<K>>) {
        let mut posted = self.posted();
        posted.withdraw(notice.id());
        if posted.notices.len() < NOTICES_MAX {
            posted.changes += 1;
            let change = posted.changes;
            posted.notices.insert(notice.id(), Post { by, change, notice });
            self.changed.notify_one();
        }
    }

    /// Waits until a notice is posted. Returns at once if a notice was posted since the last call returned.
    /// Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Withdraws the notice of this id.
    pub fn withdraw(&self, id: K::Id) {
        self.posted().withdraw(id);
    }

    /// Withdraws all notices.
    pub fn clear(&self) {
        let mut posted = self.posted();
        posted.notices.clear();
        posted.withdrawn.clear();
        posted.changes += 1;
        posted.forgotten = posted.changes;
    }

    /// Returns all notices of owners of this incarnation. Notices of an ended incarnation are left out,
    /// because owners on other nodes may have made them untrue.
    pub fn read(&self, of: Incarnation) -> Vec<Arc<Notice<K>>> {
        self.posted()
            .notices
            .values()
            .filter(|post| post.by == of)
            .map(|post| Arc::clone(&post.notice))
            .collect()
    }

    /// Returns what changed after `since`: all withdrawals, and the oldest posted notices that fit into
    /// `bytes_max` bytes. Only notices of owners of this incarnation are returned. A reader that applies
    /// these changes may still miss notices, but keeps none that has been withdrawn.
    pub fn changes(&self, of: Incarnation, since: u64, bytes_max: usize) -> Changes<K> {
        let (mut changes, news) = self.posted().since(of, since);
        // The lock is not held here, because owners must be able to post meanwhile. A notice is encoded when
        // it is first read, and for a million winners that takes long.
        let mut room = bytes_max;
        for (change, notice) in news {
            let bytes = notice.encoded().len() + NOTICE_AROUND_BYTES;
            if bytes > room {
                changes.upto = change - 1;
                break;
            }
            room -= bytes;
            changes.posted.push(notice);
        }
        changes
    }

    fn posted(&self) -> MutexGuard<'_, Posted<K>> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
