//! Reads of one moment, and lists of issuances by state.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::rows::{
    CouponQuery, CouponRows, CouponSnapshot, IssuancePage, IssuanceQuery, IssuancesOf, UserCursor,
};
use actors::coupon::uses::{LatestUse, Use, UseKind, UseNumber, UseState, UsedIssuance};
use actors::store::EntryStore;
use actors::time::Timestamp;

use crate::support::{CouponStore, Database, Owned, after_noon, batch, claim, user};
use crate::using;

/// How many issuances are stored in every state.
pub const COUNT: u64 = 84;

fn of_coupon(owned: &Owned, after: u64) -> IssuancesOf {
    of_coupon_and_user(owned, None, after)
}

fn of_coupon_and_user(owned: &Owned, name: Option<&str>, after: u64) -> IssuancesOf {
    IssuancesOf::Coupon {
        coupon: owned.id(),
        user: name.map(user),
        after: Sequence::new(after),
    }
}

pub async fn all_reads_in_a_snapshot_show_its_moment(database: &impl Database) {
    let store = database.store();
    let mut one = Owned::make(&*store, Some(5), 1).await;
    let other = Owned::make(&*store, Some(5), 1).await;
    if one.id().shard() == other.id().shard() {
        one.fence = other.fence;
    }
    let snapshot = store.snapshot().await.unwrap();
    let before = snapshot.coupon(one.id()).await.unwrap().unwrap();
    store.write(&batch([one.strangers(1..=3)])).await.unwrap();
    store.write(&batch([other.strangers(1..=2)])).await.unwrap();
    let raised = other.change(2, |coupon| coupon.offer.total_quantity = Some(9));
    store.write(&batch([raised])).await.unwrap();
    let later = Owned::make(&*store, None, 1).await;
    // No read in the snapshot shows what was stored since it began.
    assert_eq!(snapshot.coupon(one.id()).await.unwrap(), Some(before));
    assert_eq!(snapshot.coupon(later.id()).await.unwrap(), None);
    let views = snapshot
        .coupons(&CouponQuery::all(None, 10))
        .await
        .unwrap()
        .coupons;
    let seen: Vec<_> = views
        .iter()
        .map(|view| (view.coupon.id, view.issued.get(), view.coupon.version))
        .collect();
    assert_eq!(seen, [(other.id(), 0, 1), (one.id(), 0, 1)]);
    let query = IssuanceQuery::all(of_coupon(&one, 0), 10);
    let found = snapshot.issuances(&query).await.unwrap();
    assert_eq!(found, Some(IssuancePage::default()));
    drop(snapshot);
    assert_eq!(store.coupon(one.id()).await.unwrap().unwrap().issued.get(), 3);
}

/// A page shows the issuances of a coupon and the coupon itself, while issuances are stored. Both agree in
/// every page.
pub async fn a_page_and_its_coupons_are_of_one_moment(database: &impl Database) {
    const PAGES: usize = 200;
    const STORED: u64 = 20;
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    store.write(&batch([owned.strangers(1..=1)])).await.unwrap();
    let (stored, is_done) = (AtomicU64::new(1), AtomicBool::new(false));
    let writing = async {
        for sequence in 2.. {
            store
                .write(&batch([owned.strangers(sequence..=sequence)]))
                .await
                .unwrap();
            stored.store(sequence, Ordering::Relaxed);
            if is_done.load(Ordering::Relaxed) {
                return;
            }
        }
        unreachable!()
    };
    let reading = async {
        let (mut after, mut pages) = (0, 0);
        while pages < PAGES || stored.load(Ordering::Relaxed) <= STORED {
            let query = IssuanceQuery {
                with_coupons: true,
                ..IssuanceQuery::all(of_coupon(&owned, after), 200)
            };
            let page = store.issuances(&query).await.unwrap().unwrap();
            let Some(last) = page.issuances.last() else {
                continue;
            };
            let last = last.issuance.id.sequence;
            if page.issuances.len() < 200 {
                assert_eq!(page.coupons[&owned.id()].issued, last);
            }
            (after, pages) = (last.get() - 1, pages + 1);
        }
        is_done.store(true, Ordering::Relaxed);
    };
    tokio::join!(writing, reading);
}

/// If a caller goes away at any moment, its connection comes back without a snapshot: later reads show what
/// was stored last, and there can be as many snapshots as connections.
pub async fn a_snapshot_that_is_dropped_at_any_moment_leaves_nothing_behind(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    for round in 1..=40_u64 {
        // Polls the calls a few times, and drops them and the snapshot.
        let polls = (round % 8) as usize;
        let work = async {
            let snapshot = store.snapshot().await.unwrap();
            snapshot.coupon(owned.id()).await.unwrap();
            snapshot.coupons(&CouponQuery::all(None, 10)).await.unwrap();
        };
        polled(work, polls).await;
        let page = IssuanceQuery {
            with_coupons: true,
            ..IssuanceQuery::all(of_coupon(&owned, 0), 10)
        };
        polled(store.issuances(&page), polls).await;
        store
            .write(&batch([owned.strangers(round..=round)]))
            .await
            .unwrap();
        let reads = (0..8).map(async |_| store.coupon(owned.id()).await.unwrap().unwrap().issued.get());
        let seen = futures_util::future::join_all(reads).await;
        assert_eq!(seen, [round; 8]);
    }
    let snapshots = futures_util::future::join_all((0..7).map(|_| store.snapshot())).await;
    let issued = async |snapshot: actors::store::Result<Box<dyn CouponSnapshot>>| {
        let view = snapshot.unwrap().coupon(owned.id()).await;
        view.unwrap().unwrap().issued.get()
    };
    let seen = futures_util::future::join_all(snapshots.into_iter().map(issued)).await;
    assert_eq!(seen, [40; 7]);
}

/// Polls a future this many times, a millisecond apart, and drops it.
async fn polled<T>(work: impl Future<Output = T>, times: usize) {
    let mut work = Box::pin(work);
    for _ in 0..times {
        if futures_util::poll!(&mut work).is_ready() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A use of this kind, decided at the time of `reserved`.
pub fn used(owned: &Owned, number: u64, sequence: u64, kind: UseKind, hold_until: Option<i64>) -> Use {
    let reserved = using::reserved(owned, number, sequence);
    Use {
        shown: LatestUse {
            kind,
            hold_until: hold_until.map(after_noon),
            ..reserved.shown
        },
        ..reserved
    }
}

/// Stores issuances to three users in turn, in every state and with several uses each. Every third one has
/// expired by then. Returns the latest use of each.
pub async fn in_every_state(store: &impl CouponStore, owned: &Owned) -> Vec<UsedIssuance> {
    let mut all = Vec::new();
    for sequence in 1..=COUNT {
        let name = ["ann", "bob", "cid"][(sequence % 3) as usize];
        let mut issuance = owned.issuance(sequence, name, u32::try_from(sequence).unwrap());
        issuance.expires_at =
            (sequence % 4 != 0).then(|| after_noon(if sequence % 4 == 1 { 99 } else { 100 }));
        all.push(UsedIssuance::from(issuance));
    }
    let rows = all.iter().map(|used| used.issuance.clone()).collect();
    store.write(&batch([owned.portion(rows)])).await.unwrap();
    let (mut number, mut uses) = (0, Vec::new());
    for latest in &mut all {
        let sequence = latest.issuance.id.sequence.get();
        let kinds: &[(UseKind, Option<i64>)] = match sequence % 7 {
            0 => &[],
            1 => &[(UseKind::Reserved, Some(100))],
            2 => &[(UseKind::Reserved, Some(99))],
            3 => &[(UseKind::Reserved, Some(500)), (UseKind::Redeemed, None)],
            4 => &[(UseKind::Redeemed, None), (UseKind::Refunded, None)],
            5 => &[(UseKind::Reserved, Some(500)), (UseKind::Released, None)],
            _ => &[(UseKind::Reserved, Some(500)), (UseKind::Revoked, None)],
        };
        for (kind, hold_until) in kinds {
            number += 1;
            let made = used(owned, number, sequence, *kind, *hold_until);
            latest.latest = Some(made.shown.clone());
            uses.push(made);
        }
    }
    store.write(&batch([using::portion(owned, uses)])).await.unwrap();
    all
}

/// The time at which states are computed. Holds and ends of use at this time have passed.
fn now() -> Timestamp {
    after_noon(99)
}

/// Lists a coupon's issuances page by page, or step by step if it is a search.
async fn by_sequence(
    store: &dyn CouponRows,
    of: impl Fn(u64) -> IssuancesOf,
    query: &IssuanceQuery,
) -> Vec<UsedIssuance> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let query = IssuanceQuery {
            of: of(after),
            ..query.clone()
        };
        let page = store.issuances(&query).await.unwrap().unwrap();
        assert!(page.issuances.len() <= query.limit as usize);
        let last = page.issuances.last().map(|used| used.issuance.id.sequence);
        let is_full = page.issuances.len() == query.limit as usize;
        found.extend(page.issuances);
        match page.next.or(last.filter(|_| is_full && !query.is_search())) {
            Some(next) => after = next.get(),
            None => return found,
        }
    }
}

/// Lists a user's issuances page by page, newest first.
async fn newest_first(store: &dyn CouponRows, name: &str, query: &IssuanceQuery) -> Vec<UsedIssuance> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let of = IssuancesOf::User {
            user: user(name),
            coupon: None,
            after,
        };
        let query = IssuanceQuery { of, ..query.clone() };
        let page = store.issuances(&query).await.unwrap().unwrap();
        let Some(UsedIssuance { issuance, .. }) = page.issuances.last() else {
            return found;
        };
        after = Some(UserCursor {
            issued_at: issuance.issued_at,
            id: issuance.id,
        });
        found.extend(page.issuances);
    }
}

pub async fn issuances_are_found_by_state_as_it_is_defined(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 100).await;
    let all = in_every_state(&*store, &owned).await;
    for state in UseState::ALL.into_iter().map(Some).chain([None]) {
        let is_in = |used: &&UsedIssuance| state.is_none_or(|state| used.state(now()) == state);
        let expected: Vec<UsedIssuance> = all.iter().filter(is_in).cloned().collect();
        assert!(expected.len() > 3, "{state:?}");
        let query = |of, limit, examine| IssuanceQuery {
            state,
            now: now(),
            examine,
            ..IssuanceQuery::all(of, limit)
        };
        for (limit, examine) in [(200, 4_000), (2, 5), (3, 1), (200, 7)] {
            let query = query(of_coupon(&owned, 0), limit, examine);
            let found = by_sequence(&*store, |after| of_coupon(&owned, after), &query).await;
            assert_eq!(found, expected, "{state:?} by {limit} of {examine}");
        }
        let is_of_ann = |used: &&UsedIssuance| used.issuance.user == user("ann");
        let of_ann: Vec<UsedIssuance> = expected.iter().filter(is_of_ann).cloned().collect();
        let of = |after| of_coupon_and_user(&owned, Some("ann"), after);
        // Ann has 28. On a server, a step that may examine one of them goes through the table.
        for (limit, examine) in [(200, 4_000), (2, 5), (200, 2), (3, 1), (200, 28)] {
            let found = by_sequence(&*store, of, &query(of(0), limit, examine)).await;
            assert_eq!(found, of_ann, "{state:?} by {limit} of {examine}");
        }
        let few = store.issuances_of_few(&query(of(0), 200, 1), 28).await.unwrap();
        let few = few.expect("she has no more");
        assert_eq!((&few.issuances, few.next), (&of_ann, None), "{state:?}");
        let few = store.issuances_of_few(&query(of(0), 200, 1), 27).await;
        assert_eq!(few.unwrap(), None);
        let of = of(0);
        let mut found = newest_first(&*store, "ann", &query(of, 2, 1)).await;
        found.reverse();
        assert_eq!(found, of_ann, "{state:?}");
    }
}

/// Issuances that were used meanwhile are found by state, each once, however many uses they have.
pub async fn a_snapshot_shows_the_issuances_that_were_used_meanwhile(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 100).await;
    let other = Owned::make(&*store, None, 100).await;
    let owned = Owned {
        fence: claim(&*store, owned.id().shard()).await,
        ..owned
    };
    let none = store.snapshot().await.unwrap();
    assert_eq!(none.last_use(owned.id()).await.unwrap(), UseNumber::NONE);
    store.write(&batch([owned.strangers(1..=9)])).await.unwrap();
    let of = async |owned: &Owned, uses: Vec<Use>| {
        let stored = store.write(&batch([using::portion(owned, uses)])).await;
        stored.unwrap()
    };
    let uses = [5, 3, 5, 9].iter().zip(1..);
    let uses = uses.map(|(sequence, number)| using::reserved(&owned, number, *sequence));
    assert_eq!(of(&owned, uses.collect()).await, 4);
    assert_eq!(of(&owned, vec![using::revoked(&owned, 5, 7, 1)]).await, 1);
    let fence = claim(&*store, other.id().shard()).await;
    let other = Owned { fence, ..other };
    store.write(&batch([other.strangers(1..=9)])).await.unwrap();
    assert_eq!(of(&other, vec![using::reserved(&other, 1, 4)]).await, 1);
    let later = store.snapshot().await.unwrap();
    assert_eq!(later.last_use(owned.id()).await.unwrap(), UseNumber::new(5));
    let used = async |uses: (u64, u64), sequences: (u64, u64), name: Option<&str>, state, limit| {
        let of = IssuancesOf::Used {
            coupon: owned.id(),
            user: name.map(user),
            uses: (UseNumber::new(uses.0), UseNumber::new(uses.1)),
            sequences: (Sequence::new(sequences.0), Sequence::new(sequences.1)),
        };
        let query = IssuanceQuery {
            state,
            now: now(),
            ..IssuanceQuery::all(of, limit)
        };
        let earlier = none.issuances(&query).await.unwrap().unwrap();
        assert_eq!(earlier, IssuancePage::default());
        let page = later.issuances(&query).await.unwrap().unwrap();
        assert_eq!(page.next, None);
        let sequences = page.issuances.iter().map(|used| used.issuance.id.sequence.get());
        sequences.collect::<Vec<_>>()
    };
    assert_eq!(used((0, 5), (0, 9), None, None, 10).await, [3, 5, 7, 9]);
    assert_eq!(used((0, 5), (0, 9), None, None, 2).await, [3, 5]);
    assert_eq!(used((0, 5), (0, 9), Some("user-5"), None, 1).await, [5]);
    assert_eq!(used((3, 4), (0, 9), None, None, 10).await, [9]);
    assert_eq!(used((0, 5), (3, 7), None, None, 10).await, [5, 7]);
    assert_eq!(used((5, 9), (0, 9), None, None, 10).await, [] as [u64; 0]);
    assert_eq!(
        used((0, 5), (0, 9), None, Some(UseState::Reserved), 10).await,
        [3, 5, 9]
    );
    assert_eq!(used((0, 5), (0, 9), None, Some(UseState::Revoked), 10).await, [7]);
    assert_eq!(
        used((0, 5), (0, 9), None, Some(UseState::Issued), 10).await,
        [] as [u64; 0]
    );
}

/// Each is shown with its latest use, in whichever coupon it is.
pub async fn issuances_are_read_by_their_ids(database: &impl Database) {
    let store = database.store();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let owned = Owned::make(&*store, None, 100).await;
        let fence = claim(&*store, owned.id().shard()).await;
        let owned = Owned { fence, ..owned };
        known.extend(in_every_state(&*store, &owned).await);
        let (coupon, sequence) = (owned.id(), Sequence::new(COUNT + 1));
        unknown.push(IssuanceId { coupon, sequence });
    }
    let snapshot = store.snapshot().await.unwrap();
    let by_ids = async |ids: Vec<IssuanceId>| {
        let mut found = snapshot.issuances_with_ids(&ids).await.unwrap();
        found.sort_by_key(|used| (used.issuance.id.coupon, used.issuance.id.sequence));
        found
    };
    let id = |used: &UsedIssuance| used.issuance.id;
    for some in [&known[..], &known[3..5], &[]] {
        let ids = some.iter().map(id).chain(unknown.iter().copied()).rev();
        assert_eq!(by_ids(ids.collect()).await, some);
    }
    assert_eq!(by_ids(Vec::new()).await, []);
}

/// A page of one issuance, and one of a coupon that does not exist.
pub async fn an_issuance_is_read_with_its_coupon(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 100).await;
    let all = in_every_state(&*store, &owned).await;
    let one = IssuanceQuery {
        with_coupons: true,
        ..IssuanceQuery::all(IssuancesOf::Id(all[2].issuance.id), 1)
    };
    let page = store.issuances(&one).await.unwrap().unwrap();
    assert_eq!((&page.issuances[..], page.next), (&all[2..3], None));
    let view = store.coupon(owned.id()).await.unwrap().unwrap();
    assert_eq!(page.coupons, HashMap::from([(owned.id(), view)]));
    let unknown = IssuancesOf::Coupon {
        coupon: CouponId::new(actors::ids::ID_MAX).unwrap(),
        user: None,
        after: Sequence::NONE,
    };
    let page = store.issuances(&IssuanceQuery::all(unknown, 1)).await;
    assert_eq!(page.unwrap(), None);
}

/// The coupons of a page are those of its issuances, with all their fields.
pub async fn a_page_has_the_coupons_of_its_issuances(database: &impl Database) {
    let store = database.store();
    let mut views = HashMap::new();
    for number in 1..=5 {
        let owned = Owned::make(&*store, Some(number + 1), 1).await;
        let fence = claim(&*store, owned.id().shard()).await;
        let owned = Owned { fence, ..owned };
        let rows = vec![owned.issuance(1, "ann", 1), owned.issuance(2, "bob", 1)];
        store.write(&batch([owned.portion(rows)])).await.unwrap();
        views.insert(owned.id(), store.coupon(owned.id()).await.unwrap().unwrap());
    }
    let of = IssuancesOf::User {
        user: user("ann"),
        coupon: None,
        after: None,
    };
    let mut query = IssuanceQuery {
        with_coupons: true,
        ..IssuanceQuery::all(of, 200)
    };
    let page = store.issuances(&query).await.unwrap().unwrap();
    assert_eq!((page.issuances.len(), page.coupons), (5, views.clone()));
    query.limit = 2;
    let page = store.issuances(&query).await.unwrap().unwrap();
    let ids: Vec<CouponId> = page
        .issuances
        .iter()
        .map(|used| used.issuance.id.coupon)
        .collect();
    let expected = ids.iter().map(|id| (*id, views[id].clone())).collect();
    assert_eq!((ids.len(), page.coupons), (2, expected));
}
