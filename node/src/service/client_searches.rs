//! Bounds the searches that each client has in progress.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client_address::client_of;

/// Searches in progress, by client. It has no more entries than there are searches in progress.
#[derive(Debug, Clone)]
pub(super) struct ClientSearches {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    searches_max: usize,
}

/// One search of a client, counted until this is dropped.
#[derive(Debug)]
pub(super) struct ClientSearch {
    client: IpAddr,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl ClientSearches {
    /// Allows each client this many searches at the same time.
    pub(super) fn new(searches_max: usize) -> Self {
        Self {
            counts: Arc::default(),
            searches_max,
        }
    }

    /// Counts a search; `None` if the client has too many in progress.
    pub(super) fn begin(&self, client: IpAddr) -> Option<ClientSearch> {
        let client = client_of(client);
        let mut counts = lock(&self.counts);
        let count = counts.entry(client).or_default();
        if *count >= self.searches_max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(ClientSearch {
            client,
            counts: Arc::clone(&self.counts),
        })
    }
}

impl Drop for ClientSearch {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

fn lock(counts: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_bound_and_leaves_nothing_behind() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let searches = ClientSearches::new(2);
        for (one, same, other) in [
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
        ] {
            let first = searches.begin(address(one)).unwrap();
            let _second = searches.begin(address(same)).unwrap();
            assert!(searches.begin(address(one)).is_none());
            assert!(searches.begin(address(other)).is_some());
            drop(first);
            assert!(searches.begin(address(same)).is_some());
        }
        assert!(lock(&searches.counts).is_empty());
    }
}
