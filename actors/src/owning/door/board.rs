//! The board: where the owners of a node post their notices, and what changed on it since somebody looked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::ids::{CouponId, Incarnation};
use crate::owning::door::{NOTICES_MAX, Notice};

/// Most withdrawals that are remembered; who has not looked since is told everything anew.
pub const WITHDRAWN_MAX: usize = 4_096;

/// What an answer takes around a notice, at the most: a tag and a length.
pub const NOTICE_AROUND_BYTES: usize = 8;

/// Where the owners of this node post their notices, for the doors to be told.
#[derive(Debug, Default)]
pub struct Board {
    posted: Mutex<Posted>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Posted {
    /// And who posted it: an owner of an incarnation that is over may not have taken its notice down yet.
    notices: HashMap<CouponId, Post>,
    /// What was taken down or replaced, oldest first.
    withdrawn: VecDeque<(u64, CouponId)>,
    /// The number of the last change.
    changes: u64,
    /// Withdrawals up to this change are not remembered.
    forgotten: u64,
}

#[derive(Debug)]
struct Post {
    by: Incarnation,
    change: u64,
    notice: Arc<Notice>,
}

/// What changed on a board.
#[derive(Debug, Default)]
pub struct Changes {
    /// Since which change; 0: this is all there is.
    pub since: u64,
    /// Up to which change. What was posted after it comes later, what was taken down is told.
    pub upto: u64,
    /// Taken down, or replaced. Comes before what is posted.
    pub withdrawn: Vec<CouponId>,
    /// Posted, oldest first.
    pub posted: Vec<Arc<Notice>>,
}

impl Posted {
    fn withdraw(&mut self, coupon: CouponId) {
        if self.notices.remove(&coupon).is_some() {
            self.changes += 1;
            self.withdrawn.push_back((self.changes, coupon));
            if self.withdrawn.len() > WITHDRAWN_MAX
                && let Some((change, _)) = self.withdrawn.pop_front()
            {
                self.forgotten = change;
            }
        }
    }
}

impl Posted {
    /// What changed since this change but for what was posted, and that, oldest first.
    fn since(&self, of: Incarnation, since: u64) -> (Changes, Vec<(u64, Arc<Notice>)>) {
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
                .map(|(_, coupon)| *coupon)
                .collect(),
        };
        let news = self
            .notices
            .values()
            .filter(|post| post.by == of && post.change > since);
        let mut news: Vec<(u64, Arc<Notice>)> =
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

impl Board {
    /// Posts a notice of an owner of this incarnation in place of the coupon's former; not one more than
    /// [`NOTICES_MAX`].
    pub fn post(&self, by: Incarnation, notice: Arc<Notice>) {
        let mut posted = self.posted();
        posted.withdraw(notice.coupon());
        if posted.notices.len() < NOTICES_MAX {
            posted.changes += 1;
            let change = posted.changes;
            posted
                .notices
                .insert(notice.coupon(), Post { by, change, notice });
            self.changed.notify_one();
        }
    }

    /// Returns once something was posted since the last time. Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes the coupon's notice down.
    pub fn withdraw(&self, coupon: CouponId) {
        self.posted().withdraw(coupon);
    }

    /// Takes everything down.
    pub fn clear(&self) {
        let mut posted = self.posted();
        posted.notices.clear();
        posted.withdrawn.clear();
        posted.changes += 1;
        posted.forgotten = posted.changes;
    }

    /// All that is posted now by owners of this incarnation. What those of an ended one posted, others may
    /// have made untrue since.
    pub fn read(&self, of: Incarnation) -> Vec<Arc<Notice>> {
        self.posted()
            .notices
            .values()
            .filter(|post| post.by == of)
            .map(|post| Arc::clone(&post.notice))
            .collect()
    }

    /// What changed since this change for who reads what owners of this incarnation post: everything that was
    /// taken down, and as much of what was posted as has room in so many bytes, in the order in which it was.
    /// Whoever takes it knows nothing that is not posted now.
    pub fn changes(&self, of: Incarnation, since: u64, bytes_max: usize) -> Changes {
        let (mut changes, news) = self.posted().since(of, since);
        // Without the lock: a notice is written for the first who asks, one of a million winners takes its
        // time, and owners post meanwhile.
        let mut room = bytes_max;
        for (change, notice) in news {
            let bytes = notice.written().len() + NOTICE_AROUND_BYTES;
            if bytes > room {
                changes.upto = change - 1;
                break;
            }
            room -= bytes;
            changes.posted.push(notice);
        }
        changes
    }

    fn posted(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
