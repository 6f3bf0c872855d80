//! Stored issuances of one user, and reads of them that must take few rows.

use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::rows::{CouponRows, CouponSnapshot, IssuanceQuery, IssuancesOf};
use actors::coupon::uses::{UseNumber, UseState};
use actors::store::EntryStore;
use actors::store::mysql::MySqlStore;
use sqlx::mysql::MySqlConnection;
use testkit::servers::run;

use crate::support::{Owned, after_noon, batch, user};
use crate::using;

/// Stores 30 coupons, each with 100 issuances of Ann and 1,000 uses, and one of which she has 2,000. Returns
/// the ids of the 30, and that of the last one.
pub(super) async fn issuances_of_ann(store: &MySqlStore) -> (Vec<CouponId>, CouponId) {
    let mut ids = Vec::new();
    for _ in 0..30 {
        let owned = Owned::make(store, None, 100).await;
        let rows = (1..=100).map(|nth| owned.issuance(nth, "ann", u32::try_from(nth).unwrap()));
        let rows = batch([owned.portion(rows.collect())]);
        assert_eq!(store.write(&rows).await.unwrap(), 100);
        let uses = (1..=1_000).map(|number| using::reserved(&owned, number, number % 100 + 1));
        let uses = batch([using::portion(&owned, uses.collect())]);
        assert_eq!(store.write(&uses).await.unwrap(), 1_000);
        ids.push(owned.id());
    }
    let unlimited = Owned::unlimited(store).await;
    let rows = (1..=2_000).map(|nth| unlimited.issuance(nth, "ann", u32::try_from(nth).unwrap()));
    let rows = batch([unlimited.portion(rows.collect())]);
    assert_eq!(store.write(&rows).await.unwrap(), 2_000);
    (ids, unlimited.id())
}

/// Stores a coupon without a limit with 300,000 issuances, of which every hundredth one is of Ann.
pub(super) async fn every_hundredth(store: &MySqlStore, shell: &mut MySqlConnection) -> CouponId {
    let unlimited = Owned::unlimited(store).await;
    let digits = (0..10).map(|n| format!("SELECT {n} AS n")).collect::<Vec<_>>();
    let digits = format!("({})", digits.join(" UNION ALL "));
    let from = ["a", "b", "c", "d", "e"].map(|name| format!("{digits} AS {name}"));
    let statement = format!(
        "INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at)
         SELECT {}, v.n, IF(v.n % 100 = 0, 'ann', CONCAT('user-', v.n)),
                IF(v.n % 100 <> 0, 1, IF(v.n > 10000, NULL, v.n / 100)), 'key', v.n
           FROM (SELECT 30000 * a.n + 3000 * b.n + 300 * c.n + 30 * d.n + 3 * e.n + f.n AS n
                   FROM {}, (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3) AS f) AS v",
        unlimited.id(),
        from.join(", "),
    );
    run(shell, &statement).await;
    run(shell, "ANALYZE TABLE issuances, coupons, uses").await;
    unlimited.id()
}

/// The list of Ann's issuances of a coupon, after a sequence.
pub(super) fn of_ann(coupon: CouponId, after: Sequence) -> IssuancesOf {
    let user = Some(user("ann"));
    IssuancesOf::Coupon { coupon, user, after }
}

/// Asks for the list of Ann, who has too many issuances for it.
pub(super) async fn has_many(store: &MySqlStore) {
    let of_user = IssuancesOf::User {
        user: user("ann"),
        coupon: None,
        after: None,
    };
    let of_many = store
        .issuances_of_few(&IssuanceQuery::all(of_user, 10), 100)
        .await;
    assert_eq!(of_many.unwrap(), None);
}

/// Reads pages of Ann's issuances of a coupon.
pub(super) async fn list_of_ann(store: &MySqlStore, unlimited: CouponId) {
    let ann = user("ann");
    for (after, numbers) in [(0, 1..=10), (95, 96..=105), (1_500, 1_501..=1_510)] {
        let found = store.issuances_of_coupon(unlimited, Some(&ann), Sequence::new(after), 10);
        let found = found.await.unwrap().into_iter().map(|row| row.id.sequence.get());
        assert!(found.eq(numbers), "after {after}");
    }
}

/// Reads the issuances of a coupon that have ten of its uses.
pub(super) async fn used_of_ann(snapshot: &dyn CouponSnapshot, coupon: CouponId) {
    let of = IssuancesOf::Used {
        coupon,
        user: None,
        uses: (UseNumber::new(940), UseNumber::new(950)),
        sequences: (Sequence::NONE, Sequence::new(100)),
    };
    let query = IssuanceQuery {
        state: Some(UseState::Reserved),
        now: after_noon(0),
        ..IssuanceQuery::all(of, 200)
    };
    let page = snapshot.issuances(&query).await.unwrap().unwrap();
    assert_eq!(page.issuances.len(), 10);
}
