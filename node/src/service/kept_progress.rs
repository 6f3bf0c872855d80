//! The progress of searches that took longer than a request, so that the next request for the same list goes
//! on there. It is forgotten once the search ends, if no request comes for it, or if there are too many
//! others. Then a search begins anew, which takes longer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::time::Moment;

/// Maximum number of searches whose progress is kept. Each takes at most 8 KiB.
const PROGRESS_MAX: usize = 1_024;

/// How long progress is kept for a client that retries. Each retry comes further and keeps it anew, so a
/// search ends however many requests it takes.
const KEPT: Duration = Duration::from_secs(30);

/// The progress `V` of each search, by its list.
#[derive(Debug)]
pub(super) struct KeptProgress<K, V>(Mutex<HashMap<K, (V, Moment)>>);

impl<K, V> Default for KeptProgress<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> KeptProgress<K, V> {
    /// Returns how far an earlier search for the list came, if it is still kept.
    pub(super) fn find(&self, key: &K, now: Moment) -> Option<V> {
        let searches = self.searches();
        let kept = searches
            .get(key)
            .filter(|(_, kept_at)| now.since(*kept_at) < KEPT);
        kept.map(|(progress, _)| progress.clone())
    }

    /// Keeps how far a search came. If there is no room, forgets the oldest progress.
    pub(super) fn keep(&self, key: &K, progress: V, now: Moment) {
        let mut searches = self.searches();
        if searches.len() >= PROGRESS_MAX && !searches.contains_key(key) {
            let oldest = searches.iter().min_by_key(|(_, (_, kept_at))| *kept_at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                searches.remove(&oldest);
            }
        }
        searches.insert(key.clone(), (progress, now));
    }

    /// Forgets a search, because it has ended.
    pub(super) fn end(&self, key: &K) {
        self.searches().remove(key);
    }

    fn searches(&self) -> MutexGuard<'_, HashMap<K, (V, Moment)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::at(Duration::from_secs(seconds))
    }

    #[test]
    fn progress_is_found_until_half_a_minute_passes_without_any_or_the_search_ends() {
        let progress = KeptProgress::default();
        assert_eq!(progress.find(&'a', at(0)), None);
        for seconds in [0, 29, 58] {
            progress.keep(&'a', seconds, at(seconds));
            assert_eq!(progress.find(&'a', at(seconds + 29)), Some(seconds));
        }
        assert_eq!(progress.find(&'b', at(58)), None);
        assert_eq!(progress.find(&'a', at(88)), None);
        progress.keep(&'a', 90, at(90));
        progress.end(&'a');
        assert_eq!(progress.find(&'a', at(90)), None);
    }

    #[test]
    fn of_too_many_searches_the_oldest_is_forgotten() {
        let progress = KeptProgress::default();
        for number in 0..=PROGRESS_MAX {
            progress.keep(&number, (), at(number as u64));
        }
        assert_eq!(progress.searches().len(), PROGRESS_MAX);
        assert!(!progress.searches().contains_key(&0));
        assert!(progress.searches().contains_key(&1));
    }
}
