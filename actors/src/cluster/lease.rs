//! A node's time-bounded permission to decide, shared by everything that must check it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ids::Incarnation;
use crate::time::Moment;

/// The lease of a node's present incarnation; cheap to clone, and all clones share it.
///
/// The lease belongs to one incarnation at a time, so that a task of an ended incarnation never takes the
/// next incarnation's lease for its own.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    until_nanos: AtomicU64,
    incarnation: AtomicU64,
}

impl Lease {
    /// Returns true if this incarnation may decide and confirm at `now`.
    pub fn holds_for(&self, incarnation: Incarnation, now: Moment) -> bool {
        // The time is read before the incarnation, and is written after the incarnation. So a reader that
        // sees the time of a new incarnation also sees that incarnation.
        self.holds(now) && self.shared.incarnation.load(Ordering::Acquire) == incarnation.get()
    }

    /// Returns true if the node may decide at `now`, whatever its incarnation.
    pub fn holds(&self, now: Moment) -> bool {
        now.as_nanos() < self.shared.until_nanos.load(Ordering::Acquire)
    }

    /// Returns the incarnation that the lease belongs to, if it holds at `now`.
    pub fn holder(&self, now: Moment) -> Option<Incarnation> {
        let incarnation = Incarnation::new(self.shared.incarnation.load(Ordering::Acquire))?;
        // The lease is checked after the incarnation is read. In the other order, the lease time of one
        // incarnation could be taken for the lease time of another incarnation.
        self.holds_for(incarnation, now).then_some(incarnation)
    }

    /// Returns how long the lease still holds.
    pub fn remaining(&self, now: Moment) -> Duration {
        Moment::from_nanos(self.shared.until_nanos.load(Ordering::Acquire)).since(now)
    }

    /// Lets the lease hold for this incarnation until `until`, exclusive.
    pub fn set(&self, incarnation: Incarnation, until: Moment) {
        if self.shared.incarnation.load(Ordering::Acquire) != incarnation.get() {
            self.end();
            self.shared
                .incarnation
                .store(incarnation.get(), Ordering::Release);
        }
        self.shared.until_nanos.store(until.as_nanos(), Ordering::Release);
    }

    /// Ends the lease.
    pub fn end(&self) {
        self.shared.until_nanos.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_belongs_to_one_incarnation_and_ends_at_its_time() {
        let (first, second) = (Incarnation::new(1).unwrap(), Incarnation::new(2).unwrap());
        let (lease, end) = (Lease::default(), Moment::at(Duration::from_secs(3)));
        assert!(!lease.holds(Moment::ORIGIN));
        lease.set(first, end);
        assert!(lease.holds_for(first, Moment::ORIGIN));
        assert_eq!(
            (lease.holder(Moment::ORIGIN), lease.holder(end)),
            (Some(first), None)
        );
        assert!(!lease.holds_for(first, end));
        lease.set(second, end);
        assert!(!lease.holds_for(first, Moment::ORIGIN));
        assert!(lease.holds_for(second, Moment::ORIGIN));
        lease.end();
        assert!(!lease.holds(Moment::ORIGIN));
    }
}
