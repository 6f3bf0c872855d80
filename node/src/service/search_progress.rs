//! How far searches have come that found nothing in the time of a request, so that the next request for the
//! same list goes on there.
//!
//! The coupons that a search has examined in vain are one interval of ids. The newest coupons are not in it:
//! they are examined again each time, because coupons are created there. Coupons of the interval that this
//! node changed meanwhile are read again one by one. What other nodes change there is missed until the
//! interval is forgotten.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
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

/// Distinguishes the progress of a search from that of a later search for the same list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProgressId(u64);

static LAST_ID: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct Progress {
    id: ProgressId,
    examined: Option<Examined>,
    /// Coupons that were changed since the search began.
    changed: BTreeSet<CouponId>,
    noted_at: Moment,
    /// True once a search had a result.
    has_result: bool,
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
    /// Begins a search, or goes on with it. Returns its progress, and what it may skip, if anything.
    pub(super) fn begin(&self, key: &ListKey, now: Moment) -> (ProgressId, Option<Skip>) {
        let mut searches = self.searches();
        let is_kept = |progress: &Progress| now.since(progress.noted_at) < KEPT;
        if let Some(progress) = searches.get(key).filter(|progress| is_kept(progress)) {
            let skip = progress.examined.map(|examined| Skip {
                examined,
                changed: progress.changed.clone(),
            });
            return (progress.id, skip);
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
        let progress = Progress::new(now);
        let id = progress.id;
        searches.insert(key.clone(), progress);
        (id, None)
    }

    /// Notes that a search has examined everything down to this coupon, in a step that began after
    /// [`Self::begin`], and found nothing. Progress that began later does not know what was changed before,
    /// so this search adds nothing to it.
    pub(super) fn advance(&self, key: &ListKey, id: ProgressId, next: CouponId, now: Moment) {
        let mut searches = self.searches();
        let Some(progress) = searches.get_mut(key).filter(|progress| progress.id == id) else {
            return;
        };
        if !progress.has_result {
            progress.noted_at = now;
        }
        let examined = progress.examined.get_or_insert(Examined {
            below: next,
            down_to: next,
        });
        examined.down_to = examined.down_to.min(next);
    }

    /// Notes that a search has a result, for which its client may not have waited. A retry may use the
    /// progress, which is kept no longer for that: otherwise a list that is read again and again would never
    /// show what other nodes, or time, changed in the interval.
    pub(super) fn found(&self, key: &ListKey) {
        if let Some(progress) = self.searches().get_mut(key) {
            progress.has_result = true;
        }
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
            id: ProgressId(LAST_ID.fetch_add(1, Ordering::Relaxed)),
            examined: None,
            changed: BTreeSet::new(),
            noted_at: now,
            has_result: false,
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

    /// Begins a search. Returns what it may skip.
    fn begin(progress: &SearchProgress, title: &str, now: Moment) -> Option<Skip> {
        progress.begin(&key(title), now).1
    }

    /// Notes that the latest search has examined everything down to this coupon.
    fn advance(progress: &SearchProgress, title: &str, next: u64, now: Moment) {
        let latest = progress.searches().get(&key(title)).map(|progress| progress.id);
        if let Some(latest) = latest {
            progress.advance(&key(title), latest, id(next), now);
        }
    }

    #[test]
    fn a_search_adds_nothing_to_progress_that_began_later() {
        let progress = SearchProgress::default();
        let (early, _) = progress.begin(&key("a"), at(0));
        progress.end(&key("a"));
        // The early search has examined this coupon before.
        progress.changed(id(750));
        let (late, _) = progress.begin(&key("a"), at(1));
        progress.advance(&key("a"), late, id(900), at(1));
        progress.advance(&key("a"), early, id(700), at(1));
        let skip = begin(&progress, "a", at(2)).unwrap();
        assert_eq!(skipped(&skip, 900), None);
    }

    #[test]
    fn a_search_goes_on_where_it_was_and_reads_again_what_was_changed() {
        let progress = SearchProgress::default();
        assert_eq!(begin(&progress, "a", at(0)), None);
        for next in [900, 800, 700] {
            advance(&progress, "a", next, at(1));
        }
        for changed in [650, 701, 899, 950] {
            progress.changed(id(changed));
        }
        let skip = begin(&progress, "a", at(2)).unwrap();
        assert_eq!(skipped(&skip, 950), None, "newer coupons are examined");
        assert_eq!(skipped(&skip, 900), Some((700, vec![899, 701])));
        assert_eq!(
            skipped(&skip, 850),
            Some((700, vec![701])),
            "the first step came further"
        );
        assert_eq!(skipped(&skip, 700), None);
        assert_eq!(begin(&progress, "b", at(2)), None, "another search");
        // The search that goes on examines what follows.
        advance(&progress, "a", 900, at(3));
        advance(&progress, "a", 600, at(3));
        let skip = begin(&progress, "a", at(4)).unwrap();
        assert_eq!(skipped(&skip, 900), Some((600, vec![899, 701, 650])));
    }

    #[test]
    fn progress_ends_with_its_search_or_after_a_while_or_under_too_many_changes() {
        let progress = SearchProgress::default();
        let advanced = |now| {
            begin(&progress, "a", now);
            advance(&progress, "a", 900, now);
            advance(&progress, "a", 800, now);
            begin(&progress, "a", now).is_some()
        };
        assert!(advanced(at(0)));
        progress.end(&key("a"));
        assert_eq!(begin(&progress, "a", at(0)), None);
        assert!(advanced(at(1)));
        assert_eq!(begin(&progress, "a", at(1) + KEPT), None);
        assert!(advanced(at(50)));
        for number in 1..=CHANGED_MAX as u64 {
            progress.changed(id(number));
            assert!(begin(&progress, "a", at(50)).is_some());
        }
        progress.changed(id(1_000));
        assert_eq!(begin(&progress, "a", at(50)), None);
    }

    #[test]
    fn progress_of_a_search_with_a_result_is_not_kept_longer_by_further_searches() {
        let progress = SearchProgress::default();
        begin(&progress, "a", at(0));
        for next in [900, 800] {
            advance(&progress, "a", next, at(0));
        }
        progress.found(&key("a"));
        for seconds in [10, 20, 29] {
            assert!(begin(&progress, "a", at(seconds)).is_some());
            advance(&progress, "a", 900, at(seconds));
            progress.found(&key("a"));
        }
        assert_eq!(begin(&progress, "a", at(0) + KEPT), None);
    }

    #[test]
    fn of_too_many_searches_the_oldest_is_forgotten() {
        let progress = SearchProgress::default();
        for number in 0..=PROGRESS_MAX as u64 {
            let (title, now) = (number.to_string(), Moment::at(Duration::from_millis(number)));
            begin(&progress, &title, now);
            advance(&progress, &title, 900, now);
        }
        assert_eq!(progress.searches().len(), PROGRESS_MAX);
        assert!(!progress.searches().contains_key(&key("0")));
        assert!(progress.searches().contains_key(&key("1")));
    }
}
