//! Which lane takes a portion: the first one that is idle or whose batch began a moment ago.
//!
//! The lanes are in a fixed order, so while batches are short, all portions take the first lane and share its
//! batches. The other lanes are for batches that take long: a slow database, a large batch, a batch that is
//! sent again. They keep one batch from holding up all owners, and use several processors of the database.
//! What began to wait for a batch that then takes very long is moved to a lane that is idle.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::ids::ShardId;
use crate::time::Moment;

/// A portion shares the next batch of a lane whose batch began less than this long ago. It waits for that batch
/// even if it then takes longer; only later portions take another lane. Commits of a database nearby take less.
const SHARED_TIME: Duration = Duration::from_millis(10);

/// When the batch of a lane began.
#[derive(Debug)]
pub(super) struct BatchStart {
    /// Nanoseconds from the clock's origin; [`IDLE`] if no batch is under way.
    begun: AtomicU64,
}

/// No batch is under way.
const IDLE: u64 = u64::MAX;

impl Default for BatchStart {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(IDLE),
        }
    }
}

impl BatchStart {
    /// A batch begins.
    pub(super) fn begin(&self, now: Moment) {
        self.begun.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// No batch follows the one that ended.
    pub(super) fn end(&self) {
        self.begun.store(IDLE, Ordering::Relaxed);
    }

    /// Returns for how long the batch has been under way; `None` if the lane is idle.
    pub(super) fn age(&self, now: Moment) -> Option<Duration> {
        match self.begun.load(Ordering::Relaxed) {
            IDLE => None,
            begun => Some(now.since(Moment::from_nanos(begun))),
        }
    }
}

/// Returns the index of the lane for a portion of this shard, by the ages of the lanes' batches. If all
/// batches take long, the shards are spread over the lanes.
pub(super) fn lane(mut ages: impl ExactSizeIterator<Item = Option<Duration>>, shard: ShardId) -> usize {
    let count = ages.len();
    ages.position(is_free).unwrap_or_else(|| spread(count, shard))
}

/// Returns the index of the lane for a portion of this shard that is moved: an idle one, or one whose batch is
/// young if none is idle; `None` if all batches take long. A portion that shares no batch takes any of these
/// lanes, because many of them in one lane would hold up all others.
pub(super) fn free_lane(
    ages: impl Iterator<Item = Option<Duration>>,
    shard: ShardId,
    shares_batches: bool,
) -> Option<usize> {
    let free: Vec<_> = ages.enumerate().filter(|(_, age)| is_free(*age)).collect();
    let is_any_idle = free.iter().any(|(_, age)| age.is_none());
    let free = free.iter().filter(|(_, age)| age.is_none() || !is_any_idle);
    let free: Vec<usize> = free.map(|(lane, _)| *lane).collect();
    let place = if shares_batches {
        0
    } else {
        spread(free.len(), shard)
    };
    free.get(place).copied()
}

/// True if a lane whose batch has this age takes portions.
fn is_free(age: Option<Duration>) -> bool {
    age.is_none_or(|age| age < SHARED_TIME)
}

/// Returns the index of the lane for a portion of this shard, if the shards are spread over so many lanes.
pub(super) fn spread(count: usize, shard: ShardId) -> usize {
    usize::from(shard.get()) % count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YOUNG: Option<Duration> = Some(Duration::ZERO);
    const OLD: Option<Duration> = Some(SHARED_TIME);

    fn lane_for<const N: usize>(ages: [Option<Duration>; N], shard: u16) -> usize {
        lane(ages.into_iter(), ShardId::new(shard).unwrap())
    }

    #[test]
    fn portions_share_the_next_batch_while_batches_are_short() {
        for shard in 0..8 {
            assert_eq!(lane_for([None, None, None, None], shard), 0);
            assert_eq!(lane_for([YOUNG, None, None, None], shard), 0);
        }
    }

    #[test]
    fn a_batch_that_takes_long_holds_up_no_portion_that_another_lane_could_take() {
        for shard in 0..8 {
            assert_eq!(lane_for([OLD, None, None, None], shard), 1);
            assert_eq!(lane_for([OLD, YOUNG, None, None], shard), 1);
            assert_eq!(lane_for([OLD, OLD, YOUNG, None], shard), 2);
        }
    }

    #[test]
    fn portions_are_spread_if_all_batches_take_long() {
        let lanes: Vec<usize> = (0..6).map(|shard| lane_for([OLD; 3], shard)).collect();
        assert_eq!(lanes, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_portion_that_is_moved_takes_an_idle_lane_or_one_whose_batch_is_young() {
        let free =
            |ages: [_; 4], shard, shares| free_lane(ages.into_iter(), ShardId::new(shard).unwrap(), shares);
        for shard in 0..8 {
            for shares in [true, false] {
                assert_eq!(free([OLD, OLD, OLD, OLD], shard, shares), None);
                assert_eq!(free([OLD, OLD, YOUNG, OLD], shard, shares), Some(2));
            }
            assert_eq!(free([OLD, YOUNG, None, None], shard, true), Some(2));
        }
        let spread: Vec<_> = (0..4)
            .map(|shard| free([OLD, None, YOUNG, None], shard, false))
            .collect();
        assert_eq!(spread, [1, 3, 1, 3].map(Some));
    }

    #[test]
    fn the_age_is_that_of_the_batch_under_way() {
        let at = |millis| Moment::at(Duration::from_millis(millis));
        let start = BatchStart::default();
        assert_eq!(start.age(at(1_000)), None);
        start.begin(at(1_000));
        assert_eq!(start.age(at(1_003)), Some(Duration::from_millis(3)));
        start.begin(at(1_004));
        assert_eq!(start.age(at(1_004)), YOUNG, "the next batch follows at once");
        start.end();
        assert_eq!(start.age(at(1_005)), None);
    }
}
