//! The progress of searches that took longer than a request, so that the next request for the same list goes
//! on there. It is forgotten once the list was answered, if no request comes for it, or if there are too many
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

#[derive(Debug)]
struct Kept<V> {
    /// `None` once the list was answered.
    progress: Option<V>,
    /// When the progress was kept, or the list was answered.
    at: Moment,
}

/// The progress `V` of each search, by its list.
#[derive(Debug)]
pub(super) struct KeptProgress<K, V>(Mutex<HashMap<K, Kept<V>>>);

impl<K, V> Default for KeptProgress<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> KeptProgress<K, V> {
    /// Returns how far an earlier search for the list came, if it is still kept.
    pub(super) fn find(&self, key: &K, now: Moment) -> Option<V> {
        let searches = self.searches();
        let kept = searches.get(key).filter(|kept| now.since(kept.at) < KEPT);
        kept.and_then(|kept| kept.progress.clone())
    }

    /// Keeps how far a search came that looked for earlier progress at `begun`. Does nothing if the list was
    /// answered since: the search goes on only because its request was not answered in time, and what it
    /// knows is older than that answer.
    pub(super) fn keep(&self, key: &K, progress: V, begun: Moment, now: Moment) {
        let mut searches = self.searches();
        let is_answered = |kept: &Kept<V>| kept.progress.is_none() && kept.at >= begun;
        if !searches.get(key).is_some_and(is_answered) {
            let progress = Some(progress);
            insert(&mut searches, key, Kept { progress, at: now });
        }
    }

    /// Forgets the progress of a search, because the list was answered.
    pub(super) fn end(&self, key: &K, now: Moment) {
        let kept = Kept {
            progress: None,
            at: now,
        };
        insert(&mut self.searches(), key, kept);
    }

    fn searches(&self) -> MutexGuard<'_, HashMap<K, Kept<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inserts an entry. If there is no room, removes the oldest one of a list that was answered, or the oldest
/// one.
fn insert<K: Clone + Eq + Hash, V>(searches: &mut HashMap<K, Kept<V>>, key: &K, kept: Kept<V>) {
    if searches.len() >= PROGRESS_MAX && !searches.contains_key(key) {
        let oldest = searches
            .iter()
            .min_by_key(|(_, kept)| (kept.progress.is_some(), kept.at));
        if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
            searches.remove(&oldest);
        }
    }
    searches.insert(key.clone(), kept);
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
            progress.keep(&'a', seconds, at(seconds), at(seconds));
            assert_eq!(progress.find(&'a', at(seconds + 29)), Some(seconds));
        }
        assert_eq!(progress.find(&'b', at(58)), None);
        assert_eq!(progress.find(&'a', at(88)), None);
        progress.keep(&'a', 90, at(90), at(90));
        progress.end(&'a', at(91));
        assert_eq!(progress.find(&'a', at(91)), None);
    }

    /// What such a search knows is older than the answer.
    #[test]
    fn a_search_that_goes_on_after_its_list_was_answered_keeps_nothing() {
        let progress = KeptProgress::default();
        progress.end(&'a', at(3));
        progress.keep(&'a', 0, at(2), at(4));
        assert_eq!(progress.find(&'a', at(4)), None);
        progress.keep(&'a', 1, at(4), at(5));
        assert_eq!(progress.find(&'a', at(5)), Some(1));
    }

    #[test]
    fn of_too_many_searches_the_oldest_is_forgotten() {
        let progress = KeptProgress::default();
        for number in 0..=PROGRESS_MAX {
            let now = at(number as u64);
            progress.keep(&number, (), now, now);
        }
        assert_eq!(progress.searches().len(), PROGRESS_MAX);
        assert!(!progress.searches().contains_key(&0));
        assert!(progress.searches().contains_key(&1));
        progress.end(&2, at(5_000));
        progress.keep(&0, (), at(5_000), at(5_000));
        assert!(
            progress.searches().contains_key(&1),
            "that of an answered list is forgotten first"
        );
    }
}
