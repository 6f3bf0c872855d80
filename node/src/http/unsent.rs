//! Bounds the memory of responses that clients have not read yet.
//!
//! Each connection has a buffer of its own, which holds small responses. The body of a larger response is
//! counted from the moment it exists until its last part is in that buffer. What exists once for all clients,
//! like a file in the program, takes no memory and is not counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::Gauge;

use crate::metrics::HTTP_UNSENT_BYTES;

/// Default of `limits.unsent_bytes_max`: about a thousand of the longest lists.
pub const UNSENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Size above which the body of a response is counted. hyper also gets at most this many bytes of a body at
/// once, which is a fraction of its buffer.
pub(super) const PORTION_BYTES: usize = 16 * 1024;

/// Number of parts into which the bound is divided. One address may take one part, so that other clients can
/// read lists while one client reads none of its own.
const ADDRESS_PARTS: usize = 2;

/// The bytes of all responses that are not sent.
#[derive(Debug)]
pub(super) struct Unsent {
    bytes_max: usize,
    bytes: AtomicUsize,
    gauge: Gauge,
}

/// The bytes of one response, until it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    unsent: Arc<Unsent>,
    of_address: Option<Arc<AtomicUsize>>,
    bytes: usize,
}

impl Unsent {
    /// Makes a bound of `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
            gauge: metrics::gauge!(HTTP_UNSENT_BYTES),
        })
    }

    /// Reserves room for a response; `None` if there is none. `of_address` counts the unsent bytes of the
    /// client's address, if that is limited.
    pub(super) fn reserve(
        self: &Arc<Self>,
        bytes: usize,
        of_address: Option<&Arc<AtomicUsize>>,
    ) -> Option<Reservation> {
        add(&self.bytes, bytes, self.bytes_max)?;
        if let Some(of_address) = of_address
            && add(of_address, bytes, self.bytes_max / ADDRESS_PARTS).is_none()
        {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(self.reservation(bytes, of_address))
    }

    /// Counts a response that is sent even if it exceeds the bound.
    pub(super) fn count(
        self: &Arc<Self>,
        bytes: usize,
        of_address: Option<&Arc<AtomicUsize>>,
    ) -> Reservation {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(of_address) = of_address {
            of_address.fetch_add(bytes, Ordering::Relaxed);
        }
        self.reservation(bytes, of_address)
    }

    fn reservation(self: &Arc<Self>, bytes: usize, of_address: Option<&Arc<AtomicUsize>>) -> Reservation {
        self.gauge.increment(bytes as f64);
        Reservation {
            unsent: Arc::clone(self),
            of_address: of_address.cloned(),
            bytes,
        }
    }
}

/// Adds to a counter, unless the sum exceeds `max`.
fn add(counter: &AtomicUsize, bytes: usize, max: usize) -> Option<()> {
    let added = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= max);
    let result = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    result.ok().map(drop)
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.unsent.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(of_address) = &self.of_address {
            of_address.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.unsent.gauge.decrement(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_stay_within_the_bound_and_dropping_one_makes_room() {
        let unsent = Unsent::new(100);
        let first = unsent.reserve(60, None);
        assert!(first.is_some() && unsent.reserve(41, None).is_none());
        let second = unsent.reserve(40, None);
        assert!(second.is_some() && unsent.reserve(1, None).is_none());
        drop(first);
        assert!(unsent.reserve(60, None).is_some());
        // Counting may exceed the bound.
        let counted = unsent.count(1000, None);
        assert!(unsent.reserve(1, None).is_none());
        drop((second, counted));
        assert_eq!(unsent.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_address_gets_half_of_the_room() {
        let unsent = Unsent::new(100);
        let (one, other) = (Arc::default(), Arc::default());
        let first = unsent.reserve(50, Some(&one));
        assert!(first.is_some() && unsent.reserve(1, Some(&one)).is_none());
        assert!(unsent.reserve(50, Some(&other)).is_some());
        drop(first);
        assert!(unsent.reserve(50, Some(&one)).is_some());
        assert_eq!(unsent.bytes.load(Ordering::Relaxed), 0, "a refusal takes nothing");
    }
}
