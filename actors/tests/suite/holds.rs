//! How many issuances orders hold, as each read of a coupon counts them.

use std::collections::HashMap;

use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::offer::CouponView;
use actors::coupon::rows::{CouponFilter, CouponQuery, CouponRows, IssuanceQuery, IssuancesOf};
use actors::coupon::uses::{LatestUse, Use, UseCounts, UseKind};
use actors::store::Loaded;
use actors::time::{Timestamp, timestamp};

use crate::support::{CouponStore, Database, Owned, batch, user};
use crate::using;

const HOUR: i64 = 3_600_000_000;

/// A coupon whose issuances are used.
struct Held {
    owned: Owned,
    latest: HashMap<u64, LatestUse>,
    counts: UseCounts,
    number: u64,
}

impl Held {
    /// Makes a coupon with seven issuances.
    async fn make(store: &dyn CouponStore) -> Self {
        let owned = Owned::make(store, None, 1).await;
        store.write(&batch([owned.strangers(1..=7)])).await.unwrap();
        Self {
            owned,
            latest: HashMap::new(),
            counts: UseCounts::default(),
            number: 0,
        }
    }

    /// Stores the next use, of this issuance.
    async fn store(
        &mut self,
        store: &dyn CouponStore,
        sequence: u64,
        kind: UseKind,
        hold_until: Option<Timestamp>,
    ) {
        let made = self.next(sequence, kind, hold_until);
        let stored = store
            .write(&batch([using::portion(&self.owned, vec![made])]))
            .await;
        assert_eq!(stored.unwrap(), 1);
    }

    /// Returns the next use, of this issuance.
    fn next(&mut self, sequence: u64, kind: UseKind, hold_until: Option<Timestamp>) -> Use {
        self.number += 1;
        let reserved = using::reserved(&self.owned, self.number, sequence);
        let shown = LatestUse {
            kind,
            hold_until,
            ..reserved.shown
        };
        let before = self.latest.insert(sequence, shown.clone());
        self.counts = self
            .counts
            .after(before.as_ref().map(|before| before.kind), kind, false);
        Use {
            lapses_at: hold_until.or(before.and_then(|before| before.hold_until)),
            counts: self.counts,
            shown,
            ..reserved
        }
    }

    /// Returns what a read at this time counts.
    fn counts_at(&self, now: Timestamp) -> UseCounts {
        UseCounts {
            reserved: self.held_at(now),
            ..self.counts
        }
    }

    fn held_at(&self, now: Timestamp) -> u64 {
        let latest = self.latest.values();
        latest
            .filter(|latest| latest.hold_until.is_some_and(|until| now < until))
            .count() as u64
    }
}

/// Returns what each read of the coupon counts, and what an owner that is loaded counts.
async fn counted(store: &dyn CouponStore, owned: &Owned) -> [UseCounts; 7] {
    let (id, query) = (owned.id(), CouponQuery::all(None, 1));
    let snapshot = store.snapshot().await.unwrap();
    let first = IssuanceId {
        coupon: id,
        sequence: Sequence::new(1),
    };
    let with_coupons = IssuanceQuery {
        with_coupons: true,
        ..IssuanceQuery::all(IssuancesOf::Id(first), 1)
    };
    let loaded = match store.load(id, None).await.unwrap() {
        Loaded::Read(_, rows) => rows,
        other => panic!("{other:?}"),
    };
    [
        store.coupon(id).await.unwrap().unwrap().uses,
        store.coupons(&query).await.unwrap().coupons[0].uses,
        snapshot.coupon(id).await.unwrap().unwrap().uses,
        snapshot.coupons(&query).await.unwrap().coupons[0].uses,
        snapshot.coupons_of(&[id]).await.unwrap()[&id].uses,
        store.issuances(&with_coupons).await.unwrap().unwrap().coupons[&id].uses,
        loaded.uses.counts_at(timestamp()),
    ]
}

pub async fn exactly_the_holds_that_have_not_lapsed_are_counted(database: &impl Database) {
    use UseKind::{Redeemed, Refunded, Released, Reserved};

    let store = database.store();
    let mut held = Held::make(&*store).await;
    let now = timestamp();
    let at = |micros: i64| Timestamp::from_micros(now.as_micros() + micros).unwrap();
    let (lapsed, live) = (Some(at(-HOUR)), Some(at(HOUR)));
    for (sequence, kind, hold_until) in [
        (1, Reserved, lapsed),
        (2, Reserved, live),
        (3, Reserved, live),
        (3, Redeemed, None),
        (4, Reserved, lapsed),
        (4, Reserved, live),
        (5, Reserved, live),
        (5, Released, None),
        (5, Reserved, Some(at(2 * HOUR))),
        (6, Reserved, lapsed),
        (6, Redeemed, None),
        (7, Redeemed, None),
        (7, Refunded, None),
        (7, Reserved, lapsed),
        (2, Released, None),
    ] {
        held.store(&*store, sequence, kind, hold_until).await;
        let expected = held.counts_at(now);
        let counted = counted(&*store, &held.owned).await;
        assert_eq!(counted, [expected; 7], "after use {}", held.number);
    }
    assert_eq!((held.held_at(now), held.counts.reserved), (2, 4));
    // A list counts at the time of its search.
    for hours in [-2, 0, 1, 2] {
        let query = CouponQuery {
            now: at(hours * HOUR),
            ..CouponQuery::all(None, 1)
        };
        let listed = store.coupons(&query).await.unwrap();
        let expected = held.held_at(query.now);
        assert_eq!(listed.coupons[0].uses.reserved, expected, "at hour {hours}");
    }
}

/// Returns these coupons, all that there are, as each read of several coupons shows them.
async fn read_together(store: &dyn CouponStore, ids: &[CouponId]) -> [(&'static str, Vec<CouponView>); 6] {
    let query = CouponQuery::all(None, 4);
    let by_title = CouponQuery {
        filter: CouponFilter {
            title: Some("black friday".to_owned()),
            ..CouponFilter::default()
        },
        ..query.clone()
    };
    let of_user = IssuancesOf::User {
        user: user("user-1"),
        coupon: None,
        after: None,
    };
    let with_coupons = IssuanceQuery {
        with_coupons: true,
        ..IssuanceQuery::all(of_user, 4)
    };
    let snapshot = store.snapshot().await.unwrap();
    [
        ("list", store.coupons(&query).await.unwrap().coupons),
        ("search", store.coupons(&by_title).await.unwrap().coupons),
        (
            "list of a snapshot",
            snapshot.coupons(&query).await.unwrap().coupons,
        ),
        (
            "search of a snapshot",
            snapshot.coupons(&by_title).await.unwrap().coupons,
        ),
        (
            "coupons of a snapshot",
            snapshot.coupons_of(ids).await.unwrap().into_values().collect(),
        ),
        (
            "coupons of issuances",
            store
                .issuances(&with_coupons)
                .await
                .unwrap()
                .unwrap()
                .coupons
                .into_values()
                .collect(),
        ),
    ]
}

pub async fn each_of_several_coupons_counts_its_own_holds(database: &impl Database) {
    use UseKind::{Redeemed, Reserved};

    let store = database.store();
    let now = timestamp();
    let at = |micros: i64| Some(Timestamp::from_micros(now.as_micros() + micros).unwrap());
    let mut expected = HashMap::new();
    // The first coupon has no use at all.
    for live in [None, Some(0), Some(1), Some(2)] {
        let mut held = Held::make(&*store).await;
        for (sequence, kind, hold_until) in [
            (1, Reserved, at(-HOUR)),
            (2, Reserved, at(-2 * HOUR)),
            (3, Reserved, at(HOUR)),
            (3, Redeemed, None),
        ] {
            if live.is_some() {
                held.store(&*store, sequence, kind, hold_until).await;
            }
        }
        for sequence in (4..).take(live.unwrap_or_default()) {
            held.store(&*store, sequence, Reserved, at(HOUR)).await;
        }
        assert_eq!(held.held_at(now), live.unwrap_or_default() as u64);
        expected.insert(held.owned.id(), held.counts_at(now));
    }
    let ids: Vec<_> = expected.keys().copied().collect();
    for (read, views) in read_together(&*store, &ids).await {
        let counted = views.iter().map(|view| (view.coupon.id, view.uses));
        assert_eq!(counted.collect::<HashMap<_, _>>(), expected, "{read}");
    }
}
