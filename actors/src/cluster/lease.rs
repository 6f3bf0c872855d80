//! A node's time-bounded leave to decide, shared by everybody who must ask for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ids::Incarnation;
use crate::time::Moment;

/// The lease of a node's present incarnation; cheap to clone, all clones are one.
///
/// It belongs to one incarnation at a time: what an ended incarnation left running never takes its
/// successor's lease for its own.
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
    /// Whether this incarnation may decide and confirm at `now`.
    pub fn holds_for(&self, incarnation: Incarnation, now: Moment) -> bool {
        // In this order: a reader that sees a new incarnation's time sees the new incarnation too, as that
        // was written before.
        self.holds(now) && self.shared.incarnation.load(Ordering::Acquire) == incarnation.get()
    }

    /// Whether the node may decide at `now`, in whatever incarnation.
    pub fn holds(&self, now: Moment) -> bool {
        now.as_nanos() < self.shared.until_nanos.load(Ordering::Acquire)
    }

    /// Whose it is at `now`, if it holds.
    pub fn holder(&self, now: Moment) -> Option<Incarnation> {
        let incarnation = Incarnation::new(self.shared.incarnation.load(Ordering::Acquire))?;
        // Asked after that, so that another's time is not taken for this one's.
        self.holds_for(incarnation, now).then_some(incarnation)
    }

    /// How long it still holds.
    pub fn remaining(&self, now: Moment) -> Duration {
        Moment::from_nanos(self.shared.until_nanos.load(Ordering::Acquire)).since(now)
    }

    /// It holds for this incarnation until `until`, exclusive.
    pub fn set(&self, incarnation: Incarnation, until: Moment) {
        if self.shared.incarnation.load(Ordering::Acquire) != incarnation.get() {
            self.end();
            self.shared
                .incarnation
                .store(incarnation.get(), Ordering::Release);
        }
        self.shared.until_nanos.store(until.as_nanos(), Ordering::Release);
    }

    /// It holds no more.
    pub fn end(&self) {
        self.shared.until_nanos.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_one_incarnations_and_ends_at_its_time() {
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
