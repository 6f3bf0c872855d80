//! How many issuances orders hold, as each read of a coupon counts them.

use std::collections::HashMap;

use actors::coupon::ids::{IssuanceId, Sequence};
use actors::coupon::rows::{CouponQuery, CouponRows, IssuanceQuery, IssuancesOf};
use actors::coupon::uses::{LatestUse, Use, UseCounts, UseKind};
use actors::store::{EntryStore, Loaded};
use actors::time::{Timestamp, timestamp};

use crate::support::{CouponStore, Database, Owned, batch};
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
    let owned = Owned::make(&*store, None, 1).await;
    store.write(&batch([owned.strangers(1..=7)])).await.unwrap();
    let now = timestamp();
    let at = |micros: i64| Timestamp::from_micros(now.as_micros() + micros).unwrap();
    let (lapsed, live) = (Some(at(-HOUR)), Some(at(HOUR)));
    let mut held = Held {
        owned,
        latest: HashMap::new(),
        counts: UseCounts::default(),
        number: 0,
    };
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
        let made = held.next(sequence, kind, hold_until);
        let stored = store
            .write(&batch([using::portion(&held.owned, vec![made])]))
            .await;
        assert_eq!(stored.unwrap(), 1);
        let expected = UseCounts {
            reserved: held.held_at(now),
            ..held.counts
        };
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
