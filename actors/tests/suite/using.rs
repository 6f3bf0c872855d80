//! Storing uses of issuances: their guards and fields, what is loaded of them, and what was given back.

use actors::coupon::entry::CouponRun;
use actors::coupon::ids::{IssuanceId, Sequence};
use actors::coupon::ledger::LedgerRows;
use actors::coupon::rows::{CouponRows, IssuanceQuery, IssuancesOf};
use actors::coupon::uses::{Figures, LatestUse, Use, UseCounts, UseKind, UseNumber};
use actors::ids::{Author, AuthorKind, ID_MAX, ORDER_ID_BYTES_MAX, OrderId, USER_ID_BYTES_MAX};
use actors::store::batch::FoundRows;
use actors::store::{EntryStore, Loaded};

use crate::support::{
    CouponStore, Database, Owned, Portion, after_noon, batch, claim, found, issued, listed,
};

/// Returns the use with this number: a reservation of the issuance by an order of its own.
pub fn reserved(owned: &Owned, number: u64, sequence: u64) -> Use {
    Use {
        coupon: owned.id(),
        number: UseNumber::new(number),
        sequence: Sequence::new(sequence),
        shown: LatestUse {
            kind: UseKind::Reserved,
            order: Some(OrderId::parse(&format!("order-{number}")).unwrap()),
            figures: Some(Figures {
                amount: 20_000 + number,
                discount: number,
            }),
            hold_until: Some(after_noon(1_000_000)),
            returns: false,
            at: after_noon(number as i64),
        },
        reason: None,
        author: Author::parse("key:shop").unwrap(),
        counts: UseCounts {
            reserved: number,
            ..UseCounts::default()
        },
        lapses_at: Some(after_noon(1_000_000)),
    }
}

pub fn revoked(owned: &Owned, number: u64, sequence: u64, returned: u64) -> Use {
    let reserved = reserved(owned, number, sequence);
    Use {
        shown: LatestUse {
            kind: UseKind::Revoked,
            order: None,
            figures: None,
            hold_until: None,
            returns: true,
            ..reserved.shown
        },
        reason: Some("it's \"\\ fraud 🎉\n".to_owned()),
        author: Author::parse("key:admin").unwrap(),
        counts: UseCounts {
            revoked: returned,
            returned,
            ..UseCounts::default()
        },
        ..reserved
    }
}

pub fn portion(owned: &Owned, uses: Vec<Use>) -> Portion {
    Portion {
        id: owned.id(),
        shard: owned.id().shard(),
        fence: owned.fence,
        run: CouponRun::Uses(uses.into()),
    }
}

/// Loads a coupon after these rows were loaded ahead; `None` if they differ from the stored ones.
async fn load(store: &dyn CouponStore, owned: &Owned, ahead: Option<LedgerRows>) -> Option<LedgerRows> {
    match store.load(owned.id(), ahead).await.unwrap() {
        Loaded::Read(_, rows) => Some(rows),
        Loaded::WentBackwards => None,
        Loaded::Absent => panic!("there is no such coupon"),
    }
}

/// Returns these issuances and uses as an owner has them after loading.
fn rows(owned: &Owned, issuances: &[actors::coupon::offer::Issuance], uses: &[Use]) -> LedgerRows {
    let mut rows = LedgerRows::from(issued(owned.id(), issuances).unwrap());
    for made in uses {
        rows.uses.push(&made.into()).unwrap();
    }
    rows
}

/// Stores three uses of one coupon, with the longest texts, and one of another. Returns both with their uses.
async fn stored(store: &impl CouponStore) -> ((Owned, [Use; 3]), (Owned, Use)) {
    let (one, other) = (
        Owned::make(store, None, 1).await,
        Owned::make(store, None, 1).await,
    );
    let one = Owned {
        fence: if one.id().shard() == other.id().shard() {
            other.fence
        } else {
            one.fence
        },
        ..one
    };
    store
        .write(&batch([one.strangers(1..=3), other.strangers(1..=2)]))
        .await
        .unwrap();
    let mut longest = reserved(&one, 2, 3);
    longest.shown.order = Some(OrderId::parse(&"'\\".repeat(ORDER_ID_BYTES_MAX / 2)).unwrap());
    longest.author = Author::new(AuthorKind::User, &"\"".repeat(USER_ID_BYTES_MAX)).unwrap();
    longest.shown.figures = Some(Figures {
        amount: ID_MAX,
        discount: 0,
    });
    let of_one = [reserved(&one, 1, 2), longest, revoked(&one, 3, 2, 1)];
    let of_other = reserved(&other, 1, 1);
    assert_eq!(
        store
            .write(&batch([portion(&one, of_one[..1].to_vec())]))
            .await
            .unwrap(),
        1
    );
    let both = batch([
        portion(&one, of_one[1..].to_vec()),
        portion(&other, vec![of_other.clone()]),
    ]);
    assert_eq!(store.write(&both).await.unwrap(), 3);
    ((one, of_one), (other, of_other))
}

pub async fn uses_are_stored_whole_and_read_by_issuance(database: &impl Database) {
    let store = database.store();
    let ((one, of_one), (other, of_other)) = stored(&*store).await;
    let id = |owned: &Owned, sequence| IssuanceId {
        coupon: owned.id(),
        sequence: Sequence::new(sequence),
    };
    let first = store.uses_of(id(&one, 2), UseNumber::NONE, 10).await.unwrap();
    assert_eq!(first, [of_one[0].clone(), of_one[2].clone()]);
    assert_eq!(
        store.uses_of(id(&one, 2), UseNumber::new(1), 10).await.unwrap(),
        [of_one[2].clone()]
    );
    assert_eq!(
        store.uses_of(id(&one, 3), UseNumber::NONE, 10).await.unwrap(),
        [of_one[1].clone()]
    );
    assert_eq!(store.uses_of(id(&one, 1), UseNumber::NONE, 10).await.unwrap(), []);
    for (asked, expected) in [
        (id(&one, 1), None),
        (id(&one, 2), Some(&of_one[2])),
        (id(&one, 3), Some(&of_one[1])),
        (id(&other, 1), Some(&of_other)),
        (id(&other, 2), None),
    ] {
        let query = IssuanceQuery::all(IssuancesOf::Id(asked), 1);
        let page = store.issuances(&query).await.unwrap().unwrap();
        let expected = expected.map(|made| made.shown.clone());
        assert_eq!(page.issuances[0].latest, expected, "{asked}");
    }
    let view = store.coupon(one.id()).await.unwrap().unwrap();
    assert_eq!((view.uses, view.issued.get()), (of_one[2].counts, 3));
    let loaded = load(&*store, &one, None).await.unwrap();
    assert_eq!((loaded.uses.last().get(), loaded.issued.last().get()), (3, 3));
    assert_eq!(
        loaded.uses.latest(Sequence::new(2)),
        Some(of_one[2].shown.clone())
    );
    assert_eq!(
        loaded.uses.latest(Sequence::new(3)),
        Some(of_one[1].shown.clone())
    );
}

pub async fn uses_are_stored_only_under_their_fence_and_all_or_none(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    store.write(&batch([owned.strangers(1..=3)])).await.unwrap();
    let sent = batch([portion(
        &owned,
        vec![reserved(&owned, 1, 1), reserved(&owned, 2, 2)],
    )]);
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Absent));
    assert_eq!(store.write(&sent).await.unwrap(), 2);
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Stored));
    assert!(store.write(&sent).await.is_err(), "the same rows clash");
    let clash = batch([portion(
        &owned,
        vec![reserved(&owned, 2, 3), reserved(&owned, 3, 3)],
    )]);
    assert!(store.write(&clash).await.is_err());
    assert_eq!(found(&*store, &clash).await, (true, FoundRows::Different));
    for different in 0..10 {
        let mut other = reserved(&owned, 2, 2);
        match different {
            0 => other.sequence = Sequence::new(3),
            1 => other.shown.order = Some(OrderId::parse("other").unwrap()),
            2 => {
                other.shown.figures = Some(Figures {
                    amount: 20_002,
                    discount: 3,
                });
            }
            3 => other.shown.hold_until = Some(after_noon(1_000_001)),
            4 => other.shown.at = after_noon(3),
            5 => other.author = Author::parse("key:admin").unwrap(),
            6 => other.reason = Some(String::new()),
            7 => other.counts.redeemed = 1,
            8 => other.lapses_at = None,
            _ => other.shown.kind = UseKind::Redeemed,
        }
        let other = batch([portion(&owned, vec![reserved(&owned, 1, 1), other])]);
        assert_eq!(
            found(&*store, &other).await,
            (true, FoundRows::Different),
            "{different}"
        );
    }
    claim(&*store, owned.id().shard()).await;
    let late = batch([portion(&owned, vec![reserved(&owned, 3, 3)])]);
    assert_eq!(store.write(&late).await.unwrap(), 0);
    assert_eq!(found(&*store, &late).await, (false, FoundRows::Absent));
}

pub async fn what_was_given_back_is_issued_beyond_the_quantity(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(2), 1).await;
    let neighbour = Owned::make(&*store, None, 1).await;
    let owned = Owned {
        fence: if owned.id().shard() == neighbour.id().shard() {
            neighbour.fence
        } else {
            owned.fence
        },
        ..owned
    };
    store.write(&batch([owned.strangers(1..=2)])).await.unwrap();
    assert_eq!(store.write(&batch([owned.strangers(3..=3)])).await.unwrap(), 0);
    store
        .write(&batch([portion(&owned, vec![revoked(&owned, 1, 1, 1)])]))
        .await
        .unwrap();
    assert_eq!(store.write(&batch([owned.strangers(3..=4)])).await.unwrap(), 0);
    assert_eq!(store.write(&batch([owned.strangers(3..=3)])).await.unwrap(), 1);
    assert_eq!(
        store
            .write(&batch([owned.strangers(4..=4), neighbour.strangers(1..=1)]))
            .await
            .unwrap(),
        1
    );
    store
        .write(&batch([portion(&owned, vec![revoked(&owned, 2, 2, 2)])]))
        .await
        .unwrap();
    assert_eq!(
        store
            .write(&batch([owned.strangers(4..=4), neighbour.strangers(2..=2)]))
            .await
            .unwrap(),
        2
    );
    assert_eq!(listed(&*store, owned.id()).await.len(), 4);

    // A quantity may go down to what was not given back, if the owner knows how much that is.
    let change = |quantity, returned| {
        let mut portion = owned.change(4, |coupon| coupon.offer.total_quantity = Some(quantity));
        if let CouponRun::Change(change) = &mut portion.run {
            std::sync::Arc::make_mut(change).returned = returned;
        }
        batch([portion])
    };
    assert_eq!(store.write(&change(1, 2)).await.unwrap(), 0);
    assert_eq!(store.write(&change(3, 1)).await.unwrap(), 0);
    assert_eq!(store.write(&change(2, 2)).await.unwrap(), 1);
}

pub async fn uses_that_were_loaded_ahead_are_completed(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    store.write(&batch([owned.strangers(1..=20)])).await.unwrap();
    // More than a page of either kind of database.
    let uses: Vec<Use> = (1..=8_500)
        .map(|number| reserved(&owned, number, number % 20 + 1))
        .collect();
    for chunk in uses.chunks(2_000) {
        store
            .write(&batch([portion(&owned, chunk.to_vec())]))
            .await
            .unwrap();
    }
    let issuances = listed(&*store, owned.id()).await;
    let ahead = |issued: usize, used: usize| Some(rows(&owned, &issuances[..issued], &uses[..used]));
    for rows in [
        None,
        ahead(0, 0),
        ahead(20, 0),
        ahead(20, 1),
        ahead(10, 4_000),
        ahead(20, 8_500),
    ] {
        let loaded = load(&*store, &owned, rows).await.unwrap();
        assert_eq!(
            (loaded.issued.last().get(), loaded.uses.last().get()),
            (20, 8_500)
        );
        let latest = loaded.uses.latest(Sequence::new(1)).unwrap();
        assert_eq!(latest, uses[8_499].shown);
    }
    let mut other = uses[..3].to_vec();
    other[2].shown.at = after_noon(7);
    assert!(
        load(&*store, &owned, Some(rows(&owned, &issuances, &other)))
            .await
            .is_none()
    );
    let mut more = uses.clone();
    more.push(reserved(&owned, 8_501, 1));
    assert!(
        load(&*store, &owned, Some(rows(&owned, &issuances, &more)))
            .await
            .is_none()
    );
}

pub async fn uses_of_different_kinds_are_stored_by_one_statement(database: &impl Database) {
    use UseKind::{Redeemed, Refunded, Released, Reserved, Revoked};

    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    store.write(&batch([owned.strangers(1..=5)])).await.unwrap();
    let of_kind = |number: u64, kind: UseKind| {
        let made = reserved(&owned, number, number % 5 + 1);
        if kind == Revoked {
            return Use {
                reason: None,
                lapses_at: None,
                ..revoked(&owned, number, number % 5 + 1, number)
            };
        }
        let hold_until = made.shown.hold_until.filter(|_| kind == Reserved);
        Use {
            shown: LatestUse {
                kind,
                hold_until,
                figures: Some(Figures {
                    amount: if number.is_multiple_of(2) { ID_MAX } else { 0 },
                    discount: number % 2,
                }),
                ..made.shown
            },
            lapses_at: hold_until.or((kind == Released).then_some(after_noon(7))),
            ..made
        }
    };
    // Each begins with other values that are NULL.
    let batches = [
        [Revoked, Reserved, Redeemed, Released, Refunded],
        [Redeemed, Revoked, Released, Reserved, Refunded],
        [Reserved, Refunded, Revoked, Redeemed, Released],
    ];
    for (before, kinds) in (0..).step_by(5).zip(batches) {
        let uses: Vec<Use> = (before + 1..)
            .zip(kinds)
            .map(|(number, kind)| of_kind(number, kind))
            .collect();
        let sent = batch([portion(&owned, uses.clone())]);
        assert_eq!(store.write(&sent).await.unwrap(), 5, "{kinds:?}");
        assert_eq!(
            found(&*store, &sent).await,
            (true, FoundRows::Stored),
            "{kinds:?}"
        );
    }
    let loaded = load(&*store, &owned, None).await.unwrap();
    assert_eq!(loaded.uses.last(), UseNumber::new(15));
}
