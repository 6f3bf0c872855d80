//! How far searches have come that found nothing in the time of a request, so that the next request for the same
//! list goes on there.
//!
//! The coupons that a search has examined in vain are one interval of ids. The newest coupons are not in it:
//! they are examined again each time, because coupons are created there. Coupons of the interval that this node
//! changed meanwhile are read again one by one. What other nodes change there is missed until the interval is
//! forgotten.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::coupon::ids::CouponId;
use actors::time::Moment;

use super::coupon_lists::ListKey;

/// Maximum number of searches whose progress is kept. Each takes at most 4 KiB and its title.
const PROGRESS_MAX: usize = 1_024;

/// Maximum number of changed coupons that a search reads again. If more were changed, the search begins anew.
const CHANGED_MAX: usize = 256;

/// How long progress is kept for a client that retries.
const KEPT: Duration = Duration::from_secs(30);

/// Searches, by what they are for.
#[derive(Debug, Default)]
pub(super) struct SearchProgress(Mutex<HashMap<ListKey, Progress>>);

#[derive(Debug)]
struct Progress {
    examined: Option<Examined>,
    /// Coupons that were changed since the search began.
    changed: BTreeSet<CouponId>,
    noted_at: Moment,
}

/// The coupons that were examined, in an interval, and none of them is what is searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Examined {
    /// They have lower ids than this.
    below: CouponId,
    /// They have this id or higher ids.
    down_to: CouponId,
}

/// What a search need not examine again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Skip {
    examined: Examined,
    changed: BTreeSet<CouponId>,
}

impl Skip {
    /// A search has examined everything down to this coupon. If what comes next can be skipped, returns where
    /// the search goes on, and the coupons to be read again, newest first.
    pub(super) fn after(&self, next: CouponId) -> Option<(CouponId, Vec<CouponId>)> {
        let Examined { below, down_to } = self.examined;
        let changed = self.changed.range(down_to..).rev();
        let changed = changed.copied().skip_while(|id| *id >= next).collect();
        (down_to < next && next <= below).then_some((down_to, changed))
    }
}

impl SearchProgress {
    /// Begins a search, or goes on with it. Returns what it may skip, if anything.
    pub(super) fn begin(&self, key: &ListKey, now: Moment) -> Option<Skip> {
        let mut searches = self.searches();
        let is_kept = |progress: &Progress| now.since(progress.noted_at) < KEPT;
        if let Some(progress) = searches.get(key).filter(|progress| is_kept(progress)) {
            let examined = progress.examined?;
            let changed = progress.changed.clone();
            return Some(Skip { examined, changed });
        }
        if searches.len() >= PROGRESS_MAX {
            searches.retain(|_, progress| is_kept(progress));
        }
        if searches.len() >= PROGRESS_MAX {
            let oldest = searches.iter().min_by_key(|(_, progress)| progress.noted_at);
            let oldest = oldest.map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                searches.remove(&oldest);
            }
        }
        searches.insert(key.clone(), Progress::new(now));
        None
    }

    /// Notes that a search has examined everything down to this coupon, in a step that began after
    /// [`Self::begin`], and found nothing.
    pub(super) fn advance(&self, key: &ListKey, next: CouponId, now: Moment) {
        let mut searches = self.searches();
        let Some(progress) = searches.get_mut(key) else {
            return;
        };
        progress.noted_at = now;
        let examined = progress.examined.get_or_insert(Examined {
            below: next,
            down_to: next,
        });
        examined.down_to = examined.down_to.min(next);
    }

    /// Forgets a search, because it has ended.
    pub(super) fn end(&self, key: &ListKey) {
        self.searches().remove(key);
    }

    /// Notes that a coupon was created or changed.
    pub(super) fn changed(&self, coupon: CouponId) {
        for progress in self.searches().values_mut() {
            if progress.changed.len() >= CHANGED_MAX {
                *progress = Progress::new(progress.noted_at);
            }
            progress.changed.insert(coupon);
        }
    }

    fn searches(&self) -> MutexGuard<'_, HashMap<ListKey, Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn new(now: Moment) -> Self {
        Self {
            examined: None,
            changed: BTreeSet::new(),
            noted_at: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::engine::CouponFilter;

    fn id(number: u64) -> CouponId {
        CouponId::new(number).unwrap()
    }

    fn key(title: &str) -> ListKey {
        ListKey {
            filter: CouponFilter {
                phase: None,
                title: Some(title.to_owned()),
            },
            before: None,
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    /// Returns what a search skips from 900 on, as numbers.
    fn skipped(skip: &Skip, next: u64) -> Option<(u64, Vec<u64>)> {
        let (down_to, changed) = skip.after(id(next))?;
        Some((down_to.get(), changed.into_iter().map(CouponId::get).collect()))
    }

    #[test]
    fn a_search_goes_on_where_it_was_and_reads_again_what_was_changed() {
        let progress = SearchProgress::default();
        assert_eq!(progress.begin(&key("a"), at(0)), None);
        for next in [900, 800, 700] {
            progress.advance(&key("a"), id(next), at(1));
        }
        for changed in [650, 701, 899, 950] {
            progress.changed(id(changed));
        }
        let skip = progress.begin(&key("a"), at(2)).unwrap();
        assert_eq!(skipped(&skip, 950), None, "newer coupons are examined");
        assert_eq!(skipped(&skip, 900), Some((700, vec![899, 701])));
        assert_eq!(
            skipped(&skip, 850),
            Some((700, vec![701])),
            "the first step came further"
        );
        assert_eq!(skipped(&skip, 700), None);
        assert_eq!(progress.begin(&key("b"), at(2)), None, "another search");
        // The search that goes on examines what follows.
        progress.advance(&key("a"), id(900), at(3));
        progress.advance(&key("a"), id(600), at(3));
        let skip = progress.begin(&key("a"), at(4)).unwrap();
        assert_eq!(skipped(&skip, 900), Some((600, vec![899, 701, 650])));
    }

    #[test]
    fn progress_ends_with_its_search_or_after_a_while_or_under_too_many_changes() {
        let progress = SearchProgress::default();
        let advanced = |now| {
            progress.begin(&key("a"), now);
            progress.advance(&key("a"), id(900), now);
            progress.advance(&key("a"), id(800), now);
            progress.begin(&key("a"), now).is_some()
        };
        assert!(advanced(at(0)));
        progress.end(&key("a"));
        assert_eq!(progress.begin(&key("a"), at(0)), None);
        assert!(advanced(at(1)));
        assert_eq!(progress.begin(&key("a"), at(1) + KEPT), None);
        assert!(advanced(at(50)));
        for number in 1..=CHANGED_MAX as u64 {
            progress.changed(id(number));
            assert!(progress.begin(&key("a"), at(50)).is_some());
        }
        progress.changed(id(1_000));
        assert_eq!(progress.begin(&key("a"), at(50)), None);
    }

    #[test]
    fn of_too_many_searches_the_oldest_is_forgotten() {
        let progress = SearchProgress::default();
        for number in 0..=PROGRESS_MAX as u64 {
            let key = key(&number.to_string());
            let now = Moment::at(Duration::from_millis(number));
            progress.begin(&key, now);
            progress.advance(&key, id(900), now);
        }
        assert_eq!(progress.searches().len(), PROGRESS_MAX);
        assert!(!progress.searches().contains_key(&key("0")));
        assert!(progress.searches().contains_key(&key("1")));
    }
}
