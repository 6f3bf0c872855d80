//! Statistics of coupons: what is counted, and how a computation continues an earlier one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::rows::{CouponRows, Statistics, StatisticsCounts, StatisticsQuery};
use actors::coupon::uses::{UseKind, UseNumber};
use actors::store::EntryStore;
use actors::time::Timestamp;

use crate::reading::{COUNT, in_every_state, used};
use crate::support::{Database, Owned, after_noon, batch, claim};
use crate::using;

/// Far longer than any of these tests takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Computes statistics step by step, with a snapshot for each step, as if each step continued an earlier
/// computation.
async fn computed(store: &dyn CouponRows, query: StatisticsQuery) -> Statistics {
    let mut so_far = Statistics::default();
    let begun = Instant::now();
    loop {
        let snapshot = store.snapshot().await.unwrap();
        so_far = snapshot.statistics(&query, so_far).await.unwrap().unwrap();
        if so_far.is_complete {
            return so_far;
        }
        assert!(begun.elapsed() < LIMIT);
    }
}

/// Counts what happened from the history of each issuance, in buckets of this length in microseconds.
async fn counted_again(
    store: &dyn CouponRows,
    owned: &Owned,
    length: i64,
) -> BTreeMap<i64, StatisticsCounts> {
    let mut counted = BTreeMap::<i64, StatisticsCounts>::new();
    let bucket = |at: Timestamp| at.as_micros() / length;
    for sequence in 1..=COUNT {
        let issued_at = after_noon(sequence as i64);
        counted.entry(bucket(issued_at)).or_default().issued += 1;
        let id = IssuanceId {
            coupon: owned.id(),
            sequence: Sequence::new(sequence),
        };
        for made in store.uses_of(id, UseNumber::NONE, 10).await.unwrap() {
            let counts = counted.entry(bucket(made.shown.at)).or_default();
            let figures = made.shown.figures;
            let discount = figures.map_or(0, |figures| u128::from(figures.discount));
            match made.shown.kind {
                UseKind::Reserved => counts.reserved += 1,
                UseKind::Released => counts.released += 1,
                UseKind::Revoked => counts.revoked += 1,
                UseKind::Redeemed => {
                    counts.redeemed += 1;
                    counts.discount_given += discount;
                }
                UseKind::Refunded => {
                    counts.refunded += 1;
                    counts.discount_refunded += discount;
                }
            }
        }
    }
    counted
}

pub async fn statistics_count_every_row_once_by_time(database: &impl Database) {
    let store = database.store();
    let (owned, other) = (
        Owned::make(&*store, None, 100).await,
        Owned::make(&*store, None, 100).await,
    );
    let mut query = StatisticsQuery {
        coupon: owned.id(),
        bucket_micros: 10,
        from: None,
        to: None,
    };
    let nothing = computed(&*store, query).await;
    assert_eq!(
        (nothing.total(), nothing.buckets.len()),
        (StatisticsCounts::default(), 0)
    );
    let fence = claim(&*store, owned.id().shard()).await;
    let owned = Owned { fence, ..owned };
    in_every_state(&*store, &owned).await;
    let fence = claim(&*store, other.id().shard()).await;
    let other = Owned { fence, ..other };
    store.write(&batch([other.strangers(1..=9)])).await.unwrap();
    for length in [10, 1_000_000] {
        query.bucket_micros = length;
        let expected = counted_again(&*store, &owned, length).await;
        assert_eq!(computed(&*store, query).await.buckets, expected);
    }
    query.bucket_micros = 1;
    (query.from, query.to) = (Some(after_noon(5)), Some(after_noon(9)));
    let some = computed(&*store, query).await;
    let first = some.buckets.keys().next().copied();
    assert_eq!(
        (first, some.buckets.len(), some.total().issued),
        (Some(after_noon(5).as_micros()), 4, 4)
    );
    // A computation that continues an earlier one counts what was stored since, and nothing twice.
    (query.from, query.to, query.bucket_micros) = (None, None, 1_000_000);
    let before = computed(&*store, query).await;
    let next = owned.issuance(COUNT + 1, "ann", 85);
    store.write(&batch([owned.portion(vec![next])])).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    let mut after = before.clone();
    after.is_complete = false;
    while !after.is_complete {
        after = snapshot.statistics(&query, after).await.unwrap().unwrap();
    }
    let mut total = before.total();
    total.issued += 1;
    assert_eq!(after.total(), total);
}

/// What is stored between two steps is counted by the next computation, which counts nothing twice.
pub async fn statistics_count_what_was_stored_at_the_moment_of_their_snapshot(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let store_both = async |sequences: std::ops::RangeInclusive<u64>, number, sequence| {
        store.write(&batch([owned.strangers(sequences)])).await.unwrap();
        let made = using::portion(&owned, vec![using::reserved(&owned, number, sequence)]);
        store.write(&batch([made])).await.unwrap();
    };
    let query = StatisticsQuery {
        coupon: owned.id(),
        bucket_micros: 86_400_000_000,
        from: None,
        to: None,
    };
    store_both(1..=3, 1, 1).await;
    let mut so_far = Statistics::default();
    let mut counts = Vec::new();
    for (sequences, number) in [(4..=5, 2), (6..=6, 3)] {
        let snapshot = store.snapshot().await.unwrap();
        so_far = snapshot.statistics(&query, so_far).await.unwrap().unwrap();
        assert!(!so_far.is_complete, "the uses are not read yet");
        store_both(sequences, number, 4).await;
        while !so_far.is_complete {
            so_far = snapshot.statistics(&query, so_far).await.unwrap().unwrap();
        }
        let total = so_far.total();
        counts.push((total.issued, total.reserved));
    }
    assert_eq!(counts, [(3, 1), (5, 2)]);
}

/// Sums do not overflow, and of too many buckets only the newest are there. The total counts all.
pub async fn statistics_are_bounded(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    store.write(&batch([owned.strangers(1..=1_500)])).await.unwrap();
    let uses = (1..=1_500).map(|number| {
        let mut made = used(&owned, number, number, UseKind::Redeemed, None);
        if let Some(figures) = &mut made.shown.figures {
            (figures.amount, figures.discount) = (actors::ids::ID_MAX, actors::ids::ID_MAX);
        }
        made
    });
    store
        .write(&batch([using::portion(&owned, uses.collect())]))
        .await
        .unwrap();
    let mut query = StatisticsQuery {
        coupon: owned.id(),
        bucket_micros: 86_400_000_000,
        from: None,
        to: None,
    };
    let total = computed(&*store, query).await.total();
    assert_eq!(total.discount_given, 1_500 * u128::from(actors::ids::ID_MAX));
    query.bucket_micros = 1;
    let newest = computed(&*store, query).await;
    let (first, last) = (after_noon(501).as_micros(), after_noon(1_500).as_micros());
    assert!(newest.buckets.keys().copied().eq(first..=last));
    assert!(
        newest
            .buckets
            .values()
            .all(|counts| (counts.issued, counts.redeemed) == (1, 1))
    );
    assert_eq!(
        (newest.total(), newest.first_after_dropped()),
        (total, Some(first))
    );
    query.to = Some(after_noon(501));
    let earlier = computed(&*store, query).await;
    assert_eq!(
        (earlier.buckets.len(), earlier.first_after_dropped()),
        (500, None)
    );
    query.to = Some(after_noon(1_001));
    let most = computed(&*store, query).await;
    assert_eq!((most.buckets.len(), most.first_after_dropped()), (1_000, None));
    let unknown = CouponId::new(actors::ids::ID_MAX).unwrap();
    let snapshot = store.snapshot().await.unwrap();
    let query = StatisticsQuery {
        coupon: unknown,
        ..query
    };
    assert_eq!(
        snapshot.statistics(&query, Statistics::default()).await.unwrap(),
        None
    );
}
