//! Lists that clients read, page by page.

use std::time::{Duration, Instant};

use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::offer::{CouponView, Issuance, Offer, Phase, Status};
use actors::coupon::rows::{CouponFilter, CouponQuery, CouponRows, UserCursor};
use actors::store::EntryStore;
use actors::time::Timestamp;

use crate::support::{CouponStore, Database, Owned, after_noon, batch, claim, create, noon, offer, user};

/// Lists the coupons page by page, with at most two coupons on a page. Returns the coupons of all pages.
async fn coupons(store: &dyn CouponRows) -> Vec<CouponView> {
    let (mut views, mut before) = (Vec::new(), None);
    loop {
        let page = store.coupons(&CouponQuery::all(before, 2)).await.unwrap();
        assert!(page.coupons.len() <= 2);
        views.extend(page.coupons);
        match page.next {
            Some(next) => before = Some(next),
            None => return views,
        }
    }
}

/// Makes coupons with every combination of status, window, quantity and issued count, newest first.
async fn coupons_of_every_kind(store: &dyn CouponStore) -> Vec<CouponView> {
    let windows = [
        (None, None),
        (Some(10), None),
        (None, Some(10)),
        (Some(10), Some(20)),
        (Some(-5), Some(30)),
    ];
    let mut all = Vec::new();
    for status in [Status::Open, Status::Paused, Status::Closed] {
        for (starts, ends) in windows {
            for (quantity, issued) in [(None, 0), (Some(2), 1), (Some(2), 2)] {
                let offer = Offer {
                    starts_at: starts.map(after_noon),
                    ends_at: ends.map(after_noon),
                    ..offer(quantity, 1)
                };
                let coupon = create(store, offer).await;
                let mut owned = Owned {
                    fence: claim(store, coupon.id.shard()).await,
                    coupon,
                };
                if issued > 0 {
                    store.write(&batch([owned.strangers(1..=issued)])).await.unwrap();
                }
                if status != Status::Open {
                    let change = owned.change(issued, |coupon| coupon.status = status);
                    assert_eq!(store.write(&batch([change])).await.unwrap(), 1);
                    owned.coupon.status = status;
                }
                all.push(store.coupon(owned.id()).await.unwrap().unwrap());
                let (last, status_fits) = (all.last().unwrap(), owned.coupon.status == status);
                assert!(
                    status_fits && last.issued == Sequence::new(issued) && last.coupon.status == status,
                    "{last:?}"
                );
            }
        }
    }
    all.reverse();
    all
}

pub async fn coupons_come_newest_first_with_their_issued_counts(database: &impl Database) {
    let store = database.store();
    let all = coupons_of_every_kind(&*store).await;
    assert_eq!(coupons(&*store).await, all);
}

/// Searches with steps of this size until the list ends. Returns what is found and the number of steps.
async fn searched(
    store: &dyn CouponRows,
    filter: &CouponFilter,
    now: Timestamp,
    limit: u32,
    examine: u32,
) -> (Vec<CouponView>, usize) {
    let (mut found, mut before) = (Vec::new(), None);
    for steps in 1.. {
        let query = CouponQuery {
            filter: filter.clone(),
            now,
            before,
            limit,
            examine,
        };
        let page = store.coupons(&query).await.unwrap();
        assert!(page.coupons.len() <= limit as usize);
        found.extend(page.coupons);
        before = page.next;
        if before.is_none() {
            return (found, steps);
        }
    }
    unreachable!()
}

/// A search finds exactly the coupons that are in the phase by its definition. That holds at every edge of a
/// window, and however many coupons a step examines or finds.
pub async fn coupons_are_found_by_phase(database: &impl Database) {
    let store = database.store();
    let all = coupons_of_every_kind(&*store).await;
    for phase in Phase::ALL {
        let filter = CouponFilter {
            phase: Some(phase),
            title: None,
        };
        for now in [-6, -5, 9, 10, 19, 20, 29, 30].map(after_noon) {
            let of_phase = |view: &&CouponView| view.coupon.phase(now, view.issued) == phase;
            let expected: Vec<CouponView> = all.iter().filter(of_phase).cloned().collect();
            for (limit, examine) in [(200, 4_000), (2, 3), (1, 1)] {
                let (found, _) = searched(&*store, &filter, now, limit, examine).await;
                assert_eq!(found, expected, "{phase:?} at {now} by {limit} of {examine}");
            }
        }
    }
    // Each step examines at most four coupons that have the status.
    let live = CouponFilter {
        phase: Some(Phase::Live),
        title: None,
    };
    let open = all
        .iter()
        .filter(|view| view.coupon.status == Status::Open)
        .count();
    let (_, steps) = searched(&*store, &live, after_noon(15), 200, 4).await;
    assert_eq!(steps, open.div_ceil(4));
}

/// Titles that databases compare in different ways, and parts to search for.
const TITLES: [&str; 9] = [
    "Black Friday",
    "BLACK WEEK ",
    "Ärmel-Woche",
    "ärmel-woche",
    "50% off_all",
    "İstanbul",
    "Straße \\ 'quoted' \"twice\"",
    "검은 금요일 🎁",
    "Ki\u{301}lo \u{212a}elvin",
];
const PARTS: [&str; 22] = [
    "black",
    "BLACK",
    "week ",
    "Ä",
    "ä",
    "%",
    "_",
    "i",
    "ı",
    "\\",
    "'",
    "\"",
    "ss",
    "금요",
    "🎁",
    "k",
    "K",
    "\u{301}",
    "\u{212a}",
    " ",
    "black week  ",
    "x",
];

pub async fn coupons_are_found_by_a_part_of_their_title(database: &impl Database) {
    let store = database.store();
    let mut all = Vec::new();
    for title in TITLES {
        let offer = Offer {
            title: title.to_owned(),
            ..offer(None, 1)
        };
        let id = create(&*store, offer).await.id;
        all.push(store.coupon(id).await.unwrap().unwrap());
    }
    all.reverse();
    for text in PARTS {
        // The definition is written out here again, so that a mistake in the service's own is found.
        let has = |view: &&CouponView| {
            let title = view.coupon.offer.title.to_ascii_uppercase();
            title.contains(&text.to_ascii_uppercase())
        };
        let expected: Vec<CouponView> = all.iter().filter(has).cloned().collect();
        for phase in [None, Some(Phase::Live)] {
            let filter = CouponFilter {
                phase,
                title: Some(text.to_owned()),
            };
            for (limit, examine) in [(200, 4_000), (2, 3)] {
                let (found, _) = searched(&*store, &filter, noon(), limit, examine).await;
                assert_eq!(found, expected, "{text:?} by {limit} of {examine}");
            }
        }
        let closed = CouponFilter {
            phase: Some(Phase::Closed),
            title: Some(text.to_owned()),
        };
        assert_eq!(searched(&*store, &closed, noon(), 200, 3).await, (Vec::new(), 1));
    }
}

/// There is no index by time, so every page reads and sorts all rows of the user. This test prints and bounds
/// the cost.
pub async fn a_user_with_ten_thousand_issuances_is_listed_page_by_page(database: &impl Database) {
    const PAGE_MAX: Duration = Duration::from_millis(500);
    let store = database.store();
    for _ in 0..100 {
        let owned = Owned::make(&*store, None, 100).await;
        let rows = (1..=100)
            .map(|nth| owned.issuance(nth, "ann", u32::try_from(nth).unwrap()))
            .collect();
        assert_eq!(store.write(&batch([owned.portion(rows)])).await.unwrap(), 100);
    }
    let (mut read, mut after, mut took) = (Vec::new(), None, Vec::new());
    loop {
        let begun = Instant::now();
        let page = store
            .issuances_of_user(&user("ann"), None, after, 200)
            .await
            .unwrap();
        took.push(begun.elapsed());
        let Some(last) = page.last() else { break };
        after = Some(UserCursor {
            issued_at: last.issued_at,
            id: last.id,
        });
        read.extend(page.into_iter().map(|row| (row.issued_at, row.id)));
    }
    assert_eq!(read.len(), 10_000);
    assert!(read.is_sorted_by(
        |one, next| (one.0, one.1.coupon, one.1.sequence) > (next.0, next.1.coupon, next.1.sequence)
    ));
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("a page of 200 of 10,000 issuances: median {median:?}, longest {longest:?}");
    assert!(median < PAGE_MAX, "{median:?}");
}

pub async fn a_users_issuances_come_newest_first_across_coupons(database: &impl Database) {
    let store = database.store();
    let mut expected: Vec<Issuance> = Vec::new();
    for number in 0..4 {
        let owned = Owned::make(&*store, None, 3).await;
        // Times are repeated within a coupon and across coupons.
        let mut rows = vec![
            owned.issuance(1, "ann", 1),
            owned.issuance(2, "bob", 1),
            owned.issuance(3, "ann", 2),
            owned.issuance(4, "ann", 3),
        ];
        for (row, micros) in rows.iter_mut().zip([5, 5, 5, 6 + number % 2]) {
            row.issued_at = after_noon(micros);
        }
        store.write(&batch([owned.portion(rows.clone())])).await.unwrap();
        expected.extend(rows.into_iter().filter(|row| row.user == user("ann")));
    }
    expected.sort_by_key(|row| std::cmp::Reverse((row.issued_at, row.id.coupon, row.id.sequence)));
    for limit in [1, 2, 5, 12, 200] {
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = store
                .issuances_of_user(&user("ann"), None, after, limit)
                .await
                .unwrap();
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = Some(UserCursor {
                issued_at: last.issued_at,
                id: last.id,
            });
            read.extend(page);
        }
        assert_eq!(read, expected, "by {limit}");
    }
    assert_eq!(
        store
            .issuances_of_user(&user("Ann"), None, None, 10)
            .await
            .unwrap(),
        []
    );
    // The list of one coupon only: from its beginning, and from a place within it.
    let coupon = expected[0].id.coupon;
    expected.retain(|row| row.id.coupon == coupon);
    let after = Some(UserCursor {
        issued_at: expected[0].issued_at,
        id: expected[0].id,
    });
    for (after, rows) in [(None, &expected[..]), (after, &expected[1..])] {
        let page = store
            .issuances_of_user(&user("ann"), Some(coupon), after, 10)
            .await;
        assert_eq!(page.unwrap(), rows);
    }
    assert_eq!(expected.len(), 3);
}

pub async fn a_coupons_issuances_come_by_sequence_and_by_user(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 2).await;
    let other = Owned::make(&*store, None, 2).await;
    let rows = vec![
        owned.issuance(1, "ann", 1),
        owned.issuance(2, "bob", 1),
        owned.issuance(3, "ann", 2),
        owned.issuance(4, "cid", 1),
    ];
    let fence = claim(&*store, owned.id().shard()).await;
    let owned = Owned { fence, ..owned };
    store.write(&batch([owned.portion(rows)])).await.unwrap();
    let fence = claim(&*store, other.id().shard()).await;
    let other = Owned { fence, ..other };
    store.write(&batch([other.strangers(1..=2)])).await.unwrap();
    let page = async |name: Option<&str>, after: u64, limit: u32| -> Vec<u64> {
        let user = name.map(user);
        let page = store
            .issuances_of_coupon(owned.id(), user.as_ref(), Sequence::new(after), limit)
            .await
            .unwrap();
        page.iter().map(|row| row.id.sequence.get()).collect()
    };
    assert_eq!(page(None, 0, 10).await, [1, 2, 3, 4]);
    assert_eq!(page(None, 1, 2).await, [2, 3]);
    assert!(page(None, 4, 2).await.is_empty());
    assert_eq!(page(Some("ann"), 0, 10).await, [1, 3]);
    assert_eq!(page(Some("ann"), 0, 1).await, [1]);
    assert_eq!(page(Some("ann"), 1, 10).await, [3]);
    assert!(page(Some("Ann"), 0, 10).await.is_empty());
}

pub async fn what_is_not_stored_is_not_found(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let unknown = CouponId::new(actors::ids::ID_MAX).unwrap();
    assert_eq!(store.coupon(unknown).await.unwrap(), None);
    for coupon in [owned.id(), unknown] {
        assert_eq!(
            store
                .issuance(IssuanceId {
                    coupon,
                    sequence: Sequence::new(1)
                })
                .await
                .unwrap(),
            None
        );
        assert_eq!(
            store
                .issuances_of_coupon(coupon, None, Sequence::NONE, 10)
                .await
                .unwrap(),
            []
        );
    }
    assert_eq!(
        store
            .coupons(&CouponQuery::all(Some(owned.id()), 10))
            .await
            .unwrap()
            .coupons,
        []
    );
}
