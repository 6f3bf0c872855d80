//! Bounds the memory of responses that clients have not read yet.
//!
//! Each connection has a buffer of its own, which holds small responses. The body of a larger response is
//! counted from the moment it exists until its last part is in that buffer. What exists once for all clients,
//! like a file in the program, takes no memory and is not counted. A part of the bound is reserved for
//! operators, who must see what holds the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use metrics::Gauge;

use crate::metrics::HTTP_UNSENT_BYTES;

/// Default of `limits.unsent_bytes_max`: about a thousand of the longest lists of coupons that have only
/// titles. No page of a list has more than half a mebibyte.
pub const UNSENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Size above which the body of a response is counted. hyper also gets at most this many bytes of a body at
/// once, which is a fraction of its buffer.
pub(super) const PORTION_BYTES: usize = 16 * 1024;

/// Number of parts into which the bound is divided. One part is the reserve for operators: their responses
/// show which clients hold the rest and do not read.
const PARTS: usize = 4;

/// Number of parts into which what is not reserved is divided. One address may take one part, so that other
/// clients can read lists while one client reads none of its own.
const ADDRESS_PARTS: usize = 2;

/// Marks a response for operators, like the metrics, which may take room in the reserve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForOperators;

/// The bytes of all responses that are not sent.
#[derive(Debug)]
pub(super) struct Unsent {
    shared: Room,
    reserve: Room,
    gauge: Gauge,
}

/// A part of the bound.
#[derive(Debug)]
struct Room {
    bytes_max: usize,
    bytes: AtomicUsize,
}

/// What the clients of one address have not read.
#[derive(Debug, Default)]
pub(super) struct OfAddress {
    /// Bytes that are not in the reserve.
    bytes: AtomicUsize,
    /// True if a response to this address is in the reserve.
    is_in_reserve: AtomicBool,
}

/// The bytes of one response, until it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    unsent: Arc<Unsent>,
    of_address: Option<Arc<OfAddress>>,
    bytes: usize,
    is_in_reserve: bool,
}

impl Unsent {
    /// Makes a bound of `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        let reserve = bytes_max / PARTS;
        Arc::new(Self {
            shared: Room::new(bytes_max - reserve),
            reserve: Room::new(reserve),
            gauge: metrics::gauge!(HTTP_UNSENT_BYTES),
        })
    }

    /// Takes room for a response; `None` if there is none. `of_address` is what the client's address has not
    /// read, if that is limited.
    pub(super) fn take(
        self: &Arc<Self>,
        bytes: usize,
        of_address: Option<&Arc<OfAddress>>,
    ) -> Option<Reservation> {
        add(&self.shared.bytes, bytes, self.shared.bytes_max)?;
        if let Some(of_address) = of_address
            && add(&of_address.bytes, bytes, self.shared.bytes_max / ADDRESS_PARTS).is_none()
        {
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(self.reservation(bytes, of_address, false))
    }

    /// Takes room for a response to an operator, in the reserve if there is no other. An address gets room in
    /// the reserve for one response at a time. So only many addresses together can take the whole reserve.
    pub(super) fn take_for_operator(
        self: &Arc<Self>,
        bytes: usize,
        of_address: Option<&Arc<OfAddress>>,
    ) -> Option<Reservation> {
        if let Some(reservation) = self.take(bytes, of_address) {
            return Some(reservation);
        }
        if of_address.is_some_and(|of_address| of_address.is_in_reserve.swap(true, Ordering::Relaxed)) {
            return None;
        }
        if add(&self.reserve.bytes, bytes, self.reserve.bytes_max).is_none() {
            if let Some(of_address) = of_address {
                of_address.is_in_reserve.store(false, Ordering::Relaxed);
            }
            return None;
        }
        Some(self.reservation(bytes, of_address, true))
    }

    /// Counts a response that is sent even if it exceeds the bound.
    pub(super) fn count(self: &Arc<Self>, bytes: usize, of_address: Option<&Arc<OfAddress>>) -> Reservation {
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(of_address) = of_address {
            of_address.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.reservation(bytes, of_address, false)
    }

    fn reservation(
        self: &Arc<Self>,
        bytes: usize,
        of_address: Option<&Arc<OfAddress>>,
        is_in_reserve: bool,
    ) -> Reservation {
        self.gauge.increment(bytes as f64);
        Reservation {
            unsent: Arc::clone(self),
            of_address: of_address.cloned(),
            bytes,
            is_in_reserve,
        }
    }
}

impl Room {
    const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: AtomicUsize::new(0),
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
        let of_address = self.of_address.as_deref();
        if self.is_in_reserve {
            self.unsent.reserve.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            if let Some(of_address) = of_address {
                of_address.is_in_reserve.store(false, Ordering::Relaxed);
            }
        } else {
            self.unsent.shared.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            if let Some(of_address) = of_address {
                of_address.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            }
        }
        self.unsent.gauge.decrement(self.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bound with room for 100 bytes, and 33 in the reserve.
    fn unsent() -> Arc<Unsent> {
        Unsent::new(133)
    }

    fn assert_empty(unsent: &Unsent) {
        let bytes = [&unsent.shared, &unsent.reserve].map(|room| room.bytes.load(Ordering::Relaxed));
        assert_eq!(bytes, [0, 0]);
    }

    #[test]
    fn reservations_stay_within_the_bound_and_dropping_one_makes_room() {
        let unsent = unsent();
        let first = unsent.take(60, None);
        assert!(first.is_some() && unsent.take(41, None).is_none());
        let second = unsent.take(40, None);
        assert!(second.is_some() && unsent.take(1, None).is_none());
        drop(first);
        assert!(unsent.take(60, None).is_some());
        // Counting may exceed the bound.
        let counted = unsent.count(1000, None);
        assert!(unsent.take(1, None).is_none());
        drop((second, counted));
        assert_empty(&unsent);
    }

    #[test]
    fn one_address_gets_half_of_the_room() {
        let unsent = unsent();
        let (one, other) = (Arc::default(), Arc::default());
        let first = unsent.take(50, Some(&one));
        assert!(first.is_some() && unsent.take(1, Some(&one)).is_none());
        assert!(unsent.take(50, Some(&other)).is_some());
        drop(first);
        assert!(unsent.take(50, Some(&one)).is_some());
        assert_empty(&unsent);
    }

    #[test]
    fn an_operator_gets_room_in_the_reserve_and_one_address_does_not_get_all_of_it() {
        let unsent = unsent();
        let (one, other) = (Arc::default(), Arc::default());
        let lists = [unsent.take(50, Some(&one)), unsent.take(50, Some(&other))];
        assert!(lists.iter().all(Option::is_some) && unsent.take(1, None).is_none());
        let first = unsent.take_for_operator(16, Some(&one));
        assert!(first.is_some() && unsent.take_for_operator(1, Some(&one)).is_none());
        let second = unsent.take_for_operator(17, Some(&other));
        // The reserve is full. A refusal takes nothing from the address.
        let third = Arc::default();
        assert!(second.is_some() && unsent.take_for_operator(1, Some(&third)).is_none());
        drop(second);
        let third = unsent.take_for_operator(17, Some(&third));
        assert!(third.is_some() && unsent.take_for_operator(1, None).is_none());
        drop(first);
        assert!(unsent.take_for_operator(16, Some(&one)).is_some());
        drop((lists, third));
        assert_empty(&unsent);
    }

    #[test]
    fn an_operator_takes_the_reserve_only_if_there_is_no_other_room() {
        let unsent = unsent();
        let taken = unsent.take_for_operator(100, None);
        assert!(taken.is_some_and(|taken| !taken.is_in_reserve));
        assert!(unsent.take_for_operator(101, None).is_none());
        assert_empty(&unsent);
    }
}
