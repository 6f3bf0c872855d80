//! What people read, page by page.

use actors::ids::{CouponId, IssuanceId, Sequence};
use actors::offer::{Issuance, Offer, Phase, Status};
use actors::store::{CouponQuery, Store, UserCursor};
use actors::time::Timestamp;

use crate::support::{Database, Owned, after_noon, batch, claim, create, noon, offer, user};

/// All pages of coupons, at most two a page.
async fn coupons(store: &dyn Store, phase: Option<Phase>, now: Timestamp) -> Vec<CouponId> {
    let (mut ids, mut before) = (Vec::new(), None);
    loop {
        let page = store.coupons(&CouponQuery { phase, now, before, limit: 2 }).await.unwrap();
        for view in &page {
            assert!(phase.is_none_or(|phase| view.coupon.phase(now, view.issued) == phase), "{view:?} is not {phase:?}");
        }
        ids.extend(page.iter().map(|view| view.coupon.id));
        match page.last() {
            Some(last) => before = Some(last.coupon.id),
            None => return ids,
        }
    }
}

pub async fn coupons_come_newest_first_and_by_phase(database: &impl Database) {
    let store = database.store();
    let windows = [(None, None), (Some(10), None), (None, Some(10)), (Some(10), Some(20)), (Some(-5), Some(30))];
    let mut all = Vec::new();
    for status in [Status::Open, Status::Paused, Status::Closed] {
        for (starts, ends) in windows {
            for (quantity, issued) in [(None, 0), (Some(2), 1), (Some(2), 2)] {
                let offer = Offer { starts_at: starts.map(after_noon), ends_at: ends.map(after_noon), ..offer(quantity, 1) };
                let coupon = create(&*store, offer).await;
                let mut owned = Owned { fence: claim(&*store, coupon.id.shard()).await, coupon };
                if issued > 0 {
                    store.write(&batch([owned.strangers(1..=issued)])).await.unwrap();
                }
                if status != Status::Open {
                    let change = owned.change(issued, |coupon| coupon.status = status);
                    assert_eq!(store.write(&batch([change])).await.unwrap(), 1);
                    owned.coupon.status = status;
                }
                all.push((owned.coupon, Sequence::new(issued)));
            }
        }
    }
    all.reverse();
    for micros in [-6, -5, 9, 10, 19, 20, 30] {
        let now = after_noon(micros);
        let expected = |phase: Option<Phase>| -> Vec<CouponId> {
            let fits = all.iter().filter(|(coupon, issued)| phase.is_none_or(|phase| coupon.phase(now, *issued) == phase));
            fits.map(|(coupon, _)| coupon.id).collect()
        };
        assert_eq!(coupons(&*store, None, now).await, expected(None));
        for phase in Phase::ALL {
            assert_eq!(coupons(&*store, Some(phase), now).await, expected(Some(phase)), "{phase:?} at noon and {micros} µs");
        }
    }
}

pub async fn a_users_issuances_come_newest_first_across_coupons(database: &impl Database) {
    let store = database.store();
    let mut expected: Vec<Issuance> = Vec::new();
    for number in 0..4 {
        let owned = Owned::make(&*store, None, 3).await;
        // Times repeat within a coupon and across coupons.
        let mut rows =
            vec![owned.issuance(1, "ann", 1), owned.issuance(2, "bob", 1), owned.issuance(3, "ann", 2), owned.issuance(4, "ann", 3)];
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
            let page = store.issuances_of_user(&user("ann"), after, limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            after = Some(UserCursor { issued_at: last.issued_at, id: last.id });
            read.extend(page);
        }
        assert_eq!(read, expected, "by {limit}");
    }
    assert_eq!(store.issuances_of_user(&user("Ann"), None, 10).await.unwrap(), []);
}

pub async fn a_coupons_issuances_come_by_sequence_and_by_user(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 2).await;
    let other = Owned::make(&*store, None, 2).await;
    let rows = vec![owned.issuance(1, "ann", 1), owned.issuance(2, "bob", 1), owned.issuance(3, "ann", 2), owned.issuance(4, "cid", 1)];
    let fence = claim(&*store, owned.id().shard()).await;
    let owned = Owned { fence, ..owned };
    store.write(&batch([owned.portion(rows)])).await.unwrap();
    let fence = claim(&*store, other.id().shard()).await;
    let other = Owned { fence, ..other };
    store.write(&batch([other.strangers(1..=2)])).await.unwrap();
    let page = async |name: Option<&str>, after: u64, limit: u32| -> Vec<u64> {
        let user = name.map(user);
        let page = store.issuances_of_coupon(owned.id(), user.as_ref(), Sequence::new(after), limit).await.unwrap();
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

pub async fn what_is_not_there_is_none(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let unknown = CouponId::new(actors::ids::ID_MAX).unwrap();
    assert_eq!(store.coupon(unknown).await.unwrap(), None);
    for coupon in [owned.id(), unknown] {
        assert_eq!(store.issuance(IssuanceId { coupon, sequence: Sequence::new(1) }).await.unwrap(), None);
        assert_eq!(store.issuances_of_coupon(coupon, None, Sequence::NONE, 10).await.unwrap(), []);
    }
    assert_eq!(coupons(&*store, Some(Phase::Closed), noon()).await, []);
}
