//! Places in a bounded queue. A sender takes a place before it sends, because a mailbox has no bound of its
//! own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bit of the count that is set once the queue is closed.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The entrance of a queue: the number of its places, and whether it is closed.
#[derive(Debug, Clone)]
pub struct Admission {
    taken: Arc<AtomicUsize>,
    places: usize,
}

/// Reasons why a place is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// All places are taken.
    Full,
    /// The queue was closed.
    Closed,
}

/// One place, which is returned when dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Admission {
    /// Makes a queue with this many places.
    pub fn new(places: usize) -> Self {
        Self {
            taken: Arc::new(AtomicUsize::new(0)),
            places,
        }
    }

    /// Takes a place.
    pub fn admit(&self) -> Result<Permit, NotAdmitted> {
        let before = self.taken.fetch_add(1, Ordering::AcqRel);
        let permit = Permit(Arc::clone(&self.taken));
        if before & CLOSED != 0 {
            Err(NotAdmitted::Closed)
        } else if before >= self.places {
            Err(NotAdmitted::Full)
        } else {
            Ok(permit)
        }
    }

    /// Closes the queue if it is empty. Once this returns true, the queue is empty and stays so.
    pub fn close_if_empty(&self) -> bool {
        self.taken
            .compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Closes the queue. Places that are taken stay taken.
    pub fn close(&self) {
        self.taken.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Returns how many places there are.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Returns how many places are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire) & !CLOSED
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_admits_nothing_until_a_place_is_returned() {
        let queue = Admission::new(1);
        let place = queue.admit().unwrap();
        assert_eq!(queue.admit().unwrap_err(), NotAdmitted::Full);
        drop(place);
        assert!(queue.admit().is_ok());
        assert_eq!(queue.taken(), 0);
    }

    #[test]
    fn a_queue_with_a_taken_place_is_not_closed_as_empty() {
        let queue = Admission::new(2);
        let place = queue.admit().unwrap();
        assert!(!queue.close_if_empty());
        drop(place);
        assert!(queue.close_if_empty());
        assert_eq!(queue.admit().unwrap_err(), NotAdmitted::Closed);
        assert_eq!(queue.taken(), 0);
    }

    #[test]
    fn a_closed_queue_keeps_its_taken_places() {
        let queue = Admission::new(2);
        let place = queue.admit().unwrap();
        queue.close();
        assert_eq!(queue.taken(), 1);
        assert_eq!(queue.admit().unwrap_err(), NotAdmitted::Closed);
        drop(place);
        assert_eq!(queue.taken(), 0);
    }
}
