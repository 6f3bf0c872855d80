//! The serving state of a shard, which can be read without a message to its actor, and whether it has changed
//! since a reader last looked.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cluster::claim::LocalState;
use crate::ids::Epoch;
use crate::owning::shard::lifecycle::ServingState;

/// Values in place of an epoch. The epoch of a served shard is never 0 and never this large.
const UNSERVED: u64 = 0;
const MOVING: u64 = u64::MAX;
const DRAINED: u64 = u64::MAX - 1;

/// A shard's serving state, in atomics; see the module.
#[derive(Debug, Default)]
pub struct ServingStatus {
    shown: AtomicU64,
    /// Number of changes that have begun and not ended.
    under_way: AtomicU64,
    changes: AtomicU64,
}

impl ServingStatus {
    /// Begins a change: a command that may change the serving state is about to be sent.
    pub fn begin_change(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends a change: its command was handled, or could not be sent.
    pub fn end_change(&self) {
        // The order matters: a reader that sees no change under way must see that there was a change.
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// Returns how many changes there have been.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Sets the shard's serving state. Returns whether the shard was served before, and whether it is now.
    pub fn show(&self, serving: ServingState) -> (bool, bool) {
        let number = match serving {
            ServingState::Unserved => UNSERVED,
            ServingState::Serving(epoch) => epoch.get(),
            ServingState::Moving => MOVING,
            ServingState::Drained => DRAINED,
        };
        let before = self.shown.swap(number, Ordering::AcqRel);
        if before != number {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        let is_served = |number| !matches!(number, UNSERVED | MOVING | DRAINED);
        (is_served(before), is_served(number))
    }

    /// Returns true if the shard is served, or is being handed off.
    pub fn is_here(&self) -> bool {
        !matches!(self.shown.load(Ordering::Acquire), UNSERVED | DRAINED)
    }

    /// Returns the shard's local state. Unless the shard is moving, this is [`LocalState::Unsettled`] if the
    /// state has changed since [`Self::changes`] returned `changes`, or if a change is under way.
    pub fn local_state(&self, changes: u64) -> LocalState {
        let shown = self.shown.load(Ordering::Acquire);
        let is_settled = self.under_way.load(Ordering::Acquire) == 0 && self.changes() == changes;
        match shown {
            MOVING => LocalState::Moving,
            _ if !is_settled => LocalState::Unsettled,
            UNSERVED => LocalState::Unserved,
            DRAINED => LocalState::Unsettled,
            epoch => LocalState::Serving(Epoch::new(epoch)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_changed_since_the_read_of_the_rows_began_is_not_judged() {
        let status = ServingStatus::default();
        let read = status.changes();
        assert_eq!(status.local_state(read), LocalState::Unserved);
        status.begin_change();
        assert_eq!(
            status.local_state(read),
            LocalState::Unsettled,
            "a change is under way"
        );
        assert_eq!(status.show(ServingState::Serving(Epoch::new(4))), (false, true));
        status.end_change();
        assert_eq!(
            status.local_state(read),
            LocalState::Unsettled,
            "the change was made after the read began"
        );
        let read = status.changes();
        assert_eq!(status.local_state(read), LocalState::Serving(Epoch::new(4)));
        status.show(ServingState::Serving(Epoch::new(5)));
        assert_eq!(
            status.local_state(read),
            LocalState::Unsettled,
            "the shard raised its epoch itself"
        );
    }

    #[test]
    fn a_moving_shard_is_reported_as_moving_and_a_drained_shard_is_not_judged() {
        let status = ServingStatus::default();
        status.show(ServingState::Serving(Epoch::new(4)));
        let read = status.changes();
        assert_eq!(status.show(ServingState::Moving), (true, false));
        assert_eq!(status.local_state(read), LocalState::Moving);
        status.show(ServingState::Drained);
        assert_eq!(status.local_state(status.changes()), LocalState::Unsettled);
    }
}
