//! How a shard stands, for those who look from outside, and whether that changed while they were looking
//! elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cluster::claim::Here;
use crate::ids::Epoch;
use crate::owning::shard::lifecycle::Shown;

/// In place of an epoch, of which there will be fewer.
const UNSERVED: u64 = 0;
const MOVING: u64 = u64::MAX;
const DRAINED: u64 = u64::MAX - 1;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Standing {
    shown: AtomicU64,
    /// Changes that were asked for and are not done.
    under_way: AtomicU64,
    changes: AtomicU64,
}

impl Standing {
    /// A change is about to be asked for.
    pub(super) fn begin_change(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    /// It was done, or is not going to be.
    pub(super) fn end_change(&self) {
        // In this order: whoever sees nothing under way sees that there was a change.
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many changes there were.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Shows how it stands now; whether it was served before, and whether it is.
    pub(super) fn show(&self, shown: Shown) -> (bool, bool) {
        let number = match shown {
            Shown::Unserved => UNSERVED,
            Shown::Serving(epoch) => epoch.get(),
            Shown::Moving => MOVING,
            Shown::Drained => DRAINED,
        };
        let before = self.shown.swap(number, Ordering::AcqRel);
        if before != number {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        let is_served = |number| !matches!(number, UNSERVED | MOVING | DRAINED);
        (is_served(before), is_served(number))
    }

    /// Whether it is served, or being given up.
    pub(super) fn is_here(&self) -> bool {
        !matches!(self.shown.load(Ordering::Acquire), UNSERVED | DRAINED)
    }

    /// How it stands, if there were just so many changes and none is under way.
    pub(super) fn here(&self, changes: u64) -> Here {
        let shown = self.shown.load(Ordering::Acquire);
        let is_settled = self.under_way.load(Ordering::Acquire) == 0 && self.changes() == changes;
        match shown {
            MOVING => Here::Moving,
            _ if !is_settled => Here::Unjudged,
            UNSERVED => Here::Unserved,
            DRAINED => Here::Unjudged,
            epoch => Here::Serving(Epoch::new(epoch)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changed_since_the_rows_began_to_be_read_is_not_judged() {
        let standing = Standing::default();
        let read = standing.changes();
        assert_eq!(standing.here(read), Here::Unserved);
        standing.begin_change();
        assert_eq!(standing.here(read), Here::Unjudged, "a change is under way");
        assert_eq!(standing.show(Shown::Serving(Epoch::new(4))), (false, true));
        standing.end_change();
        assert_eq!(standing.here(read), Here::Unjudged, "it was done since");
        let read = standing.changes();
        assert_eq!(standing.here(read), Here::Serving(Epoch::new(4)));
        standing.show(Shown::Serving(Epoch::new(5)));
        assert_eq!(
            standing.here(read),
            Here::Unjudged,
            "it raised its epoch by itself"
        );
    }

    #[test]
    fn a_shard_that_moves_is_seen_to_and_one_that_is_drained_is_left_alone() {
        let standing = Standing::default();
        standing.show(Shown::Serving(Epoch::new(4)));
        let read = standing.changes();
        assert_eq!(standing.show(Shown::Moving), (true, false));
        assert_eq!(standing.here(read), Here::Moving);
        standing.show(Shown::Drained);
        assert_eq!(standing.here(standing.changes()), Here::Unjudged);
    }
}
