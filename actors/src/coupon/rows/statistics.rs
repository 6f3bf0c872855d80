//! Statistics of a coupon: how often something happened, by time. They are computed from rows, which are only
//! added. So a computation goes on where an earlier one ended, and one step reads a bounded number of rows.

use std::collections::BTreeMap;

use crate::coupon::ids::CouponId;
use crate::coupon::uses::UseKind;
use crate::store::Result;
use crate::store::columns::{StoredRow, number, readable};
use crate::time::Timestamp;

/// Maximum number of buckets, of which the newest are shown: as many as a chart shows.
pub const BUCKETS_MAX: usize = 1_000;

/// Number of rows that one step reads: few enough that no step takes longer than some milliseconds.
pub(crate) const ROWS_MAX: u64 = 10_000;

/// Number of bits by which the sum of discounts is divided into two, so that no sum of a step overflows.
const LOW_BITS: u32 = 26;

/// Which statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatisticsQuery {
    /// The coupon.
    pub coupon: CouponId,
    /// The length of a bucket in microseconds, at least 1. Buckets begin at multiples of it since 1970.
    pub bucket_micros: i64,
    /// Only what happened then or later.
    pub from: Option<Timestamp>,
    /// Only what happened before.
    pub to: Option<Timestamp>,
}

/// How often something happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatisticsCounts {
    /// Issuances.
    pub issued: u64,
    /// Reservations.
    pub reserved: u64,
    /// Redemptions.
    pub redeemed: u64,
    /// Reservations that were given back.
    pub released: u64,
    /// Redemptions that were given back.
    pub refunded: u64,
    /// Revocations.
    pub revoked: u64,
    /// The sum of the discounts of all redemptions, in the currency's smallest unit.
    pub discount_given: u128,
    /// The sum of the discounts of redemptions that were refunded, in the same unit.
    pub discount_refunded: u128,
}

/// The statistics of a coupon up to the rows that were read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// By the number of the bucket since 1970; only buckets in which something happened, and of these the
    /// newest [`BUCKETS_MAX`].
    pub buckets: BTreeMap<i64, StatisticsCounts>,
    /// The sum of the buckets that were dropped because newer ones are too many.
    dropped: StatisticsCounts,
    /// The newest bucket that was dropped.
    dropped_up_to: Option<i64>,
    /// The sequence of the last issuance that was read, and the number of the last use.
    issued: u64,
    used: u64,
    /// True once all rows are read.
    pub is_complete: bool,
}

/// The rows that one step reads: those after a number, up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatisticsRange {
    Issuances(u64, u64),
    Uses(u64, u64),
}

impl StatisticsQuery {
    /// Returns the earliest time, and the time before which it must be, in microseconds since 1970.
    pub(crate) fn times(&self) -> (i64, i64) {
        let micros = |time: Option<Timestamp>, without| time.map_or(without, Timestamp::as_micros);
        (micros(self.from, i64::MIN), micros(self.to, i64::MAX))
    }
}

impl Statistics {
    /// Returns the sum of all buckets, with those that were dropped.
    pub fn total(&self) -> StatisticsCounts {
        self.buckets
            .values()
            .copied()
            .fold(self.dropped, StatisticsCounts::plus)
    }

    /// Returns the first bucket that is there, if earlier ones were dropped.
    pub fn first_after_dropped(&self) -> Option<i64> {
        self.dropped_up_to?;
        self.buckets.keys().next().copied()
    }

    /// Returns which rows the next step reads, at most [`ROWS_MAX`]; `None` if all are read. `row` has the
    /// numbers of the coupon's issuances and uses, in the columns `issued` and `used`. If there are fewer
    /// than were read before, the database went back in time, and the statistics begin anew.
    pub(crate) fn next(&mut self, row: &impl StoredRow) -> Result<Option<StatisticsRange>> {
        let (issued, used): (u64, u64) = (number(row, "issued")?, number(row, "used")?);
        if issued < self.issued || used < self.used {
            *self = Self::default();
        }
        let range = |read: u64, last: u64| (read < last).then(|| (read, last.min(read + ROWS_MAX)));
        let issuances = range(self.issued, issued).map(|(a, b)| StatisticsRange::Issuances(a, b));
        let range = issuances.or_else(|| range(self.used, used).map(|(a, b)| StatisticsRange::Uses(a, b)));
        self.is_complete = range.is_none();
        Ok(range)
    }

    /// Adds what a step has read: rows with the columns `bucket`, `kind` (unless they are of issuances),
    /// `number`, `high` and `low`.
    pub(crate) fn add<R: StoredRow>(&mut self, range: StatisticsRange, rows: &[R]) -> Result<()> {
        for row in rows {
            let counts = self.counts_of(row.integer("bucket")?);
            let count: u64 = number(row, "number")?;
            match range {
                StatisticsRange::Issuances(..) => counts.issued += count,
                StatisticsRange::Uses(..) => {
                    let kind = readable(UseKind::parse(row.text("kind")?), "kind")?;
                    let (high, low): (u64, u64) = (number(row, "high")?, number(row, "low")?);
                    counts.add(kind, count, (u128::from(high) << LOW_BITS) + u128::from(low));
                }
            }
        }
        match range {
            StatisticsRange::Issuances(_, last) => self.issued = last,
            StatisticsRange::Uses(_, last) => self.used = last,
        }
        while self.buckets.len() > BUCKETS_MAX
            && let Some((bucket, counts)) = self.buckets.pop_first()
        {
            self.dropped = self.dropped.plus(counts);
            self.dropped_up_to = Some(bucket);
        }
        Ok(())
    }

    /// Returns the counts to which what happened in this bucket is added. A bucket that was dropped does not
    /// come back, because it would lack what was counted before.
    fn counts_of(&mut self, bucket: i64) -> &mut StatisticsCounts {
        if self.dropped_up_to.is_some_and(|last| bucket <= last) {
            &mut self.dropped
        } else {
            self.buckets.entry(bucket).or_default()
        }
    }
}

impl StatisticsCounts {
    fn plus(self, other: Self) -> Self {
        Self {
            issued: self.issued + other.issued,
            reserved: self.reserved + other.reserved,
            redeemed: self.redeemed + other.redeemed,
            released: self.released + other.released,
            refunded: self.refunded + other.refunded,
            revoked: self.revoked + other.revoked,
            discount_given: self.discount_given + other.discount_given,
            discount_refunded: self.discount_refunded + other.discount_refunded,
        }
    }

    fn add(&mut self, kind: UseKind, number: u64, discount: u128) {
        match kind {
            UseKind::Reserved => self.reserved += number,
            UseKind::Released => self.released += number,
            UseKind::Revoked => self.revoked += number,
            UseKind::Redeemed => {
                self.redeemed += number;
                self.discount_given += discount;
            }
            UseKind::Refunded => {
                self.refunded += number;
                self.discount_refunded += discount;
            }
        }
    }
}

/// The columns of a step over uses beyond `bucket`. The sum of discounts is in two parts, split at
/// [`LOW_BITS`].
macro_rules! use_statistics_columns {
    ($integer:literal) => {
        concat!(
            "kind, COUNT(*) AS number, ",
            "CAST(COALESCE(SUM(discount >> 26), 0) AS ",
            $integer,
            ") AS high, CAST(COALESCE(SUM(discount & 67108863), 0) AS ",
            $integer,
            ") AS low"
        )
    };
}
pub(crate) use use_statistics_columns;

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of a coupon's last issuance and last use.
    struct Last(i64, i64);

    impl StoredRow for Last {
        fn integer(&self, column: &str) -> Result<i64> {
            Ok(if column == "issued" { self.0 } else { self.1 })
        }

        fn optional_integer(&self, column: &str) -> Result<Option<i64>> {
            self.integer(column).map(Some)
        }

        fn text(&self, _column: &str) -> Result<&str> {
            Ok("")
        }

        fn optional_text(&self, _column: &str) -> Result<Option<&str>> {
            Ok(None)
        }
    }

    #[test]
    fn a_computation_begins_anew_if_the_database_went_back_in_time() {
        let read = Statistics {
            buckets: BTreeMap::from([(1, StatisticsCounts::default())]),
            issued: 20_000,
            used: 3,
            ..Statistics::default()
        };
        let next = |last| {
            let mut so_far = read.clone();
            let range = so_far.next(&last).unwrap();
            (range, so_far.buckets.len(), so_far.is_complete)
        };
        let issuances = |after, up_to| Some(StatisticsRange::Issuances(after, up_to));
        assert_eq!(next(Last(20_000, 3)), (None, 1, true));
        assert_eq!(next(Last(20_001, 4)), (issuances(20_000, 20_001), 1, false));
        assert_eq!(
            next(Last(20_000, 4)),
            (Some(StatisticsRange::Uses(3, 4)), 1, false)
        );
        // These rows are not those that were counted.
        assert_eq!(next(Last(19_999, 4)), (issuances(0, 10_000), 0, false));
        assert_eq!(next(Last(20_001, 2)), (issuances(0, 10_000), 0, false));
    }

    #[test]
    fn the_sum_of_buckets_counts_every_kind() {
        let mut statistics = Statistics::default();
        for (bucket, kind, discount) in [
            (1, UseKind::Reserved, 5),
            (1, UseKind::Redeemed, 7),
            (2, UseKind::Refunded, 7),
            (2, UseKind::Released, 5),
            (3, UseKind::Revoked, 0),
        ] {
            statistics
                .buckets
                .entry(bucket)
                .or_default()
                .add(kind, 2, discount);
        }
        let expected = StatisticsCounts {
            issued: 0,
            reserved: 2,
            redeemed: 2,
            released: 2,
            refunded: 2,
            revoked: 2,
            discount_given: 7,
            discount_refunded: 7,
        };
        assert_eq!(statistics.total(), expected);
    }
}
