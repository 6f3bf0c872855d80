//! The progress of searches for issuances that found nothing in the time of a request. The next request for
//! the same list goes on from there.
//!
//! What happened to the examined issuances meanwhile is in the rows of uses, which are only added: the
//! issuances that were used since are examined again, whichever node decided it. A change by time alone (a
//! hold that lapsed, an end of use that passed) is missed until the progress is forgotten.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::uses::{UseNumber, UseState};
use actors::time::Moment;

/// Maximum number of searches whose progress is kept. Each takes less than 100 bytes.
const PROGRESS_MAX: usize = 1_024;

/// How long progress is kept for a client that retries, from the beginning of the search.
const KEPT: Duration = Duration::from_secs(30);

/// A list of a coupon's issuances in a state, after a sequence.
pub(super) type ListKey = (CouponId, UseState, Sequence);

/// The issuances that were examined, up to a sequence, and are not in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Examined {
    /// The last of them.
    pub(super) up_to: Sequence,
    /// The last use that was taken into account for all of them.
    pub(super) used: UseNumber,
    /// When the search began.
    pub(super) begun: Moment,
}

/// The progress of each search, by its list.
#[derive(Debug, Default)]
pub(super) struct IssuanceProgress(Mutex<HashMap<ListKey, Examined>>);

impl IssuanceProgress {
    /// Returns what an earlier search for the list has examined, if it is still kept.
    pub(super) fn find(&self, key: &ListKey, now: Moment) -> Option<Examined> {
        let examined = self.searches().get(key).copied();
        examined.filter(|examined| now.since(examined.begun) < KEPT)
    }

    /// Stores the progress of a search that has found nothing so far.
    pub(super) fn advance(&self, key: ListKey, examined: Examined) {
        let mut searches = self.searches();
        if searches.len() >= PROGRESS_MAX && !searches.contains_key(&key) {
            let oldest = searches.iter().min_by_key(|(_, examined)| examined.begun);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                searches.remove(&oldest);
            }
        }
        searches.insert(key, examined);
    }

    /// Forgets a search, because it has ended.
    pub(super) fn end(&self, key: &ListKey) {
        self.searches().remove(key);
    }

    fn searches(&self) -> MutexGuard<'_, HashMap<ListKey, Examined>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> ListKey {
        (CouponId::new(number).unwrap(), UseState::Issued, Sequence::NONE)
    }

    fn examined(seconds: u64) -> Examined {
        Examined {
            up_to: Sequence::new(5),
            used: UseNumber::NONE,
            begun: Moment::at(Duration::from_secs(seconds)),
        }
    }

    #[test]
    fn progress_is_found_until_its_search_ends_or_half_a_minute_is_over() {
        let (progress, at) = (IssuanceProgress::default(), |seconds| {
            Moment::at(Duration::from_secs(seconds))
        });
        assert_eq!(progress.find(&key(1), at(0)), None);
        progress.advance(key(1), examined(0));
        assert_eq!(progress.find(&key(1), at(29)), Some(examined(0)));
        assert_eq!(progress.find(&key(1), at(30)), None);
        assert_eq!(progress.find(&key(2), at(0)), None);
        progress.end(&key(1));
        assert_eq!(progress.find(&key(1), at(0)), None);
    }

    #[test]
    fn of_too_many_searches_the_oldest_is_forgotten() {
        let progress = IssuanceProgress::default();
        for number in 0..=PROGRESS_MAX as u64 {
            progress.advance(key(number + 1), examined(number));
        }
        assert_eq!(progress.searches().len(), PROGRESS_MAX);
        assert!(!progress.searches().contains_key(&key(1)));
    }
}
