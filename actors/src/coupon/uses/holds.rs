//! The holds among the latest uses of one coupon, counted at any time. A hold lapses without a use, so they are
//! kept in the order in which they lapse.

use std::collections::BTreeSet;

use crate::time::{MICROS_PER_DAY, Timestamp};

/// How long a hold is kept after it has lapsed, in microseconds. No clock that was set back less than this
/// finds a hold missing.
const KEPT_MICROS: i64 = MICROS_PER_DAY;

/// Holds by the time at which they lapse.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// When each lapses, in microseconds, and its issuance.
    by_lapse: BTreeSet<(i64, u32)>,
    /// When they were last counted, in microseconds.
    counted_at: i64,
    /// How many had not lapsed then.
    live: u64,
}

impl Holds {
    /// Adds a hold.
    pub(super) fn begin(&mut self, sequence: u32, until: Timestamp) {
        let until = until.as_micros();
        self.live += u64::from(self.by_lapse.insert((until, sequence)) && until > self.counted_at);
    }

    /// Removes a hold, because its issuance has a later use.
    pub(super) fn end(&mut self, sequence: u32, until: Timestamp) {
        let until = until.as_micros();
        self.live -= u64::from(self.by_lapse.remove(&(until, sequence)) && until > self.counted_at);
    }

    /// Returns how many have not lapsed at `now`. This takes as long as there are holds that lapse between the
    /// last [`Self::count`] and `now`.
    pub(super) fn live(&self, now: Timestamp) -> u64 {
        let now = now.as_micros();
        let lapsing = |from: i64, to: i64| self.by_lapse.range((from + 1, 0)..(to + 1, 0)).count() as u64;
        if now >= self.counted_at {
            self.live - lapsing(self.counted_at, now)
        } else {
            self.live + lapsing(now, self.counted_at)
        }
    }

    /// Returns the same, and makes later counts faster. Drops holds that lapsed long ago.
    pub(super) fn count(&mut self, now: Timestamp) -> u64 {
        self.live = self.live(now);
        self.counted_at = now.as_micros();
        let kept = self.counted_at - KEPT_MICROS;
        while self.by_lapse.first().is_some_and(|(until, _)| *until < kept) {
            self.by_lapse.pop_first();
        }
        self.live
    }

    /// Returns about how many bytes of memory they take at most.
    pub(super) fn bytes(&self) -> usize {
        // A node of the tree is at least half full, and has some bytes beside its entries.
        self.by_lapse.len() * (2 * size_of::<(i64, u32)>() + 4)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000).unwrap()
    }

    #[derive(Debug, Clone)]
    enum Does {
        Begin(u32, i64),
        End(u32),
        Count,
    }

    fn does() -> impl Strategy<Value = (i64, Does)> {
        let does = prop_oneof![
            4 => (0..20_u32, 1..60_i64).prop_map(|(sequence, seconds)| Does::Begin(sequence, seconds)),
            1 => (0..20_u32).prop_map(Does::End),
            2 => Just(Does::Count),
        ];
        // The clock is set back now and then.
        (-20..40_i64, does)
    }

    proptest! {
        #[test]
        fn exactly_the_holds_that_have_not_lapsed_are_counted_whatever_the_clock_does(
            steps in proptest::collection::vec(does(), 1..80),
        ) {
            let (mut holds, mut model, mut now) = (Holds::default(), BTreeMap::new(), 1_000);
            for (passed, does) in steps {
                now += passed;
                match does {
                    Does::Begin(sequence, seconds) => {
                        if let Some(before) = model.insert(sequence, now + seconds) {
                            holds.end(sequence, at(before));
                        }
                        holds.begin(sequence, at(now + seconds));
                    }
                    Does::End(sequence) => {
                        if let Some(before) = model.remove(&sequence) {
                            holds.end(sequence, at(before));
                        }
                    }
                    Does::Count => drop(holds.count(at(now))),
                }
                for second in [now, now - 30, now + 30] {
                    let live = model.values().filter(|until| **until > second).count() as u64;
                    prop_assert_eq!(holds.live(at(second)), live);
                }
            }
        }
    }

    #[test]
    fn holds_that_lapsed_long_ago_take_no_memory() {
        let mut holds = Holds::default();
        for sequence in 1..=1_000 {
            holds.begin(sequence, at(900));
        }
        assert_eq!((holds.count(at(899)), holds.count(at(900))), (1_000, 0));
        assert_eq!(holds.live(at(899)), 1_000);
        assert!(holds.bytes() > 16_000);
        assert_eq!((holds.count(at(900 + 86_401)), holds.bytes()), (0, 0));
        holds.end(7, at(900));
        assert_eq!(holds.live(at(0)), 0);
    }
}
