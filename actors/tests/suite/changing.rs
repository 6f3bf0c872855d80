//! Creating and changing coupons.

use actors::coupon::change_keys::{CHANGE_KEYS_MAX, ChangeKeys, KeyedChange};
use actors::coupon::entry::CouponRun;
use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::offer::{Coupon, Discount, Offer, Status};
use actors::coupon::record::{ChangeRecord, ChangeRow};
use actors::coupon::rows::{CouponRows, Created, NewCoupon};
use actors::ids::{Author, AuthorKind, Epoch, ID_MAX, RequestKey};
use actors::store::batch::FoundRows;
use actors::store::{ClusterStore, EntryStore, Loaded};
use actors::time::Timestamp;
use futures_util::future::join_all;

use crate::support::{Database, Owned, after_noon, batch, claim, found, loaded, noon, offer};

fn new(key: &str, offer: Offer) -> NewCoupon {
    NewCoupon {
        key: RequestKey::parse(key).unwrap(),
        offer,
        status: Status::Open,
        created_at: noon(),
        record: None,
    }
}

pub async fn a_coupon_comes_back_as_it_was_made(database: &impl Database) {
    let store = database.store();
    let full = Offer {
        description: Some("'; -- \"\\ \n🎉".repeat(100)),
        // The longest texts in UTF-8, and the longest once they are written as JSON.
        metadata: (0..20)
            .map(|pair| match pair {
                0 => (String::new(), "'\"\\가 ".repeat(100)),
                _ if pair % 2 == 0 => (format!("{pair:\u{1}>40}"), "\u{1}".repeat(500)),
                _ => (format!("{pair:🎉>40}"), "🎉".repeat(500)),
            })
            .collect(),
        discount: Some(Discount::Rate(100)),
        max_discount: Some(actors::coupon::offer::AMOUNT_MAX),
        min_order_amount: Some(0),
        total_quantity: Some(1_000_000_000),
        per_user_limit: Some(100),
        starts_at: Timestamp::parse("1000-01-01T00:00:00.000001Z"),
        ends_at: Timestamp::parse("9999-12-30T21:59:59.999999Z"),
        use_within_days: Some(3_650),
        use_until: Timestamp::parse("9999-12-30T21:59:59.999999Z"),
        time_zone: Some("America/Argentina/ComodRivadavia".to_owned()),
        ..Offer::titled("x".repeat(199) + "🎉")
    };
    let bare = Offer::titled("'; -- \"\\ \n");
    let largest = Offer {
        discount: Some(Discount::Amount(actors::coupon::offer::AMOUNT_MAX)),
        per_user_limit: None,
        ..bare.clone()
    };
    for (number, offer) in [full, bare, largest].into_iter().enumerate() {
        let new = NewCoupon {
            status: Status::Paused,
            ..new(&format!("key-{number}"), offer.clone())
        };
        let Created::New(made) = store.create_coupon(&new).await.unwrap() else {
            panic!("the key is new")
        };
        let id = made.id;
        let expected = Coupon {
            id,
            offer,
            status: Status::Paused,
            version: 1,
            created_at: noon(),
            updated_at: noon(),
        };
        assert_eq!(made, expected);
        let view = store.coupon(id).await.unwrap().unwrap();
        assert_eq!((view.coupon, view.issued), (expected, Sequence::NONE));
    }
}

pub async fn the_same_key_gives_the_first_coupon_even_after_a_change(database: &impl Database) {
    let store = database.store();
    let request = new("once", offer(Some(10), 1));
    let Created::New(coupon) = store.create_coupon(&request).await.unwrap() else {
        panic!("the key is new")
    };
    let owned = Owned {
        fence: claim(&*store, coupon.id.shard()).await,
        coupon,
    };
    store.write(&batch([owned.strangers(1..=2)])).await.unwrap();
    let change = owned.change(2, |coupon| coupon.offer.title = "changed".to_owned());
    assert_eq!(store.write(&batch([change])).await.unwrap(), 1);
    let again = NewCoupon {
        created_at: after_noon(5),
        ..request.clone()
    };
    let Created::Before(view) = store.create_coupon(&again).await.unwrap() else {
        panic!("the key is not new")
    };
    assert_eq!(
        (
            view.coupon.id,
            view.coupon.offer.title.as_str(),
            view.issued.get()
        ),
        (owned.id(), "changed", 2)
    );
    // The coupon's present state differs from the body that came with the key.
    let present = NewCoupon {
        offer: view.coupon.offer,
        ..request.clone()
    };
    assert_eq!(store.create_coupon(&present).await.unwrap(), Created::KeyReused);
    let paused = NewCoupon {
        status: Status::Paused,
        ..request
    };
    assert_eq!(store.create_coupon(&paused).await.unwrap(), Created::KeyReused);
    let next = store.create_coupon(&new("twice", offer(None, 1))).await.unwrap();
    assert!(
        matches!(&next, Created::New(next) if next.id.get() == owned.id().get() + 1),
        "a repeated key takes no id: {next:?}"
    );
}

pub async fn keys_that_look_alike_make_different_coupons(database: &impl Database) {
    let store = database.store();
    for key in ["Key", "key", "KEY", "key."] {
        assert!(
            matches!(
                store.create_coupon(&new(key, offer(None, 1))).await.unwrap(),
                Created::New(_)
            ),
            "{key}"
        );
    }
}

pub async fn concurrent_requests_with_one_key_make_one_coupon(database: &impl Database) {
    let store = database.store();
    let request = new("race", offer(Some(1), 1));
    let answers = join_all((0..16).map(|_| store.create_coupon(&request))).await;
    let mut made = 0;
    let mut ids: Vec<u64> = answers
        .into_iter()
        .map(|answer| match answer.unwrap() {
            Created::New(coupon) => {
                made += 1;
                coupon.id.get()
            }
            Created::Before(view) => view.coupon.id.get(),
            Created::KeyReused => panic!("the body is the same"),
        })
        .collect();
    ids.dedup();
    assert_eq!((made, ids.len()), (1, 1));
}

pub async fn a_change_is_stored_whole(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(10), 1).await;
    let change = batch([owned.change(0, |coupon| {
        coupon.status = Status::Closed;
        coupon.offer = Offer {
            discount: Some(Discount::Rate(7)),
            total_quantity: Some(11),
            starts_at: Some(after_noon(1)),
            ends_at: Some(after_noon(2)),
            ..Offer::titled("other")
        };
    })]);
    assert_eq!(found(&*store, &change).await, (true, FoundRows::Absent));
    assert_eq!(store.write(&change).await.unwrap(), 1);
    assert_eq!(found(&*store, &change).await, (true, FoundRows::Stored));
    let CouponRun::Change(sent) = &change.portions[0].run else {
        panic!("a change")
    };
    assert_eq!(
        store.coupon(owned.id()).await.unwrap().unwrap().coupon,
        sent.coupon
    );
    // If the same change is written again, the statement finds another version and changes nothing. Reading
    // back still finds the change stored.
    assert_eq!(store.write(&change).await.unwrap(), 0);
    assert_eq!(found(&*store, &change).await, (true, FoundRows::Stored));
}

pub async fn a_change_needs_the_version_before_it(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(10), 1).await;
    let leap = batch([owned.change(0, |coupon| coupon.version = 3)]);
    assert_eq!(store.write(&leap).await.unwrap(), 0);
    assert_eq!(found(&*store, &leap).await, (true, FoundRows::Different));
    let first = batch([owned.change(0, |coupon| coupon.status = Status::Paused)]);
    assert_eq!(store.write(&first).await.unwrap(), 1);
    let rival = batch([owned.change(0, |coupon| coupon.status = Status::Closed)]);
    assert_eq!(store.write(&rival).await.unwrap(), 0);
    assert_eq!(found(&*store, &rival).await, (true, FoundRows::Different));
}

pub async fn the_keys_of_changes_are_stored_with_them_and_loaded(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(10), 1).await;
    let keys_of = async || {
        let Loaded::Read(head, _) = store.load(owned.id(), None).await.unwrap() else {
            panic!("not loaded")
        };
        head.change_keys
    };
    assert_eq!(keys_of().await, ChangeKeys::default());
    let mut keys = ChangeKeys::default();
    for number in 0..CHANGE_KEYS_MAX {
        let key = format!("{number:~>255}");
        keys = keys.with(KeyedChange {
            key: RequestKey::parse(&key).unwrap(),
            version: Some(ID_MAX),
            digest: u128::MAX - number as u128,
        });
    }
    let change = batch([owned.keyed_change(0, keys.clone(), |coupon| coupon.status = Status::Paused)]);
    assert_eq!(store.write(&change).await.unwrap(), 1);
    assert_eq!(found(&*store, &change).await, (true, FoundRows::Stored));
    assert_eq!(keys_of().await, keys);
    // The same change with other keys is a different change.
    let other = batch([owned.change(0, |coupon| coupon.status = Status::Paused)]);
    assert_eq!(found(&*store, &other).await, (true, FoundRows::Different));
    // A change that only adds a key is stored. It has the version that the coupon has already.
    let mut owned = owned;
    owned.coupon = store.coupon(owned.id()).await.unwrap().unwrap().coupon;
    let alone = keys.with(KeyedChange {
        key: RequestKey::parse("alone").unwrap(),
        version: None,
        digest: 0,
    });
    let alone = batch([owned.key_alone(alone)]);
    assert_eq!(found(&*store, &alone).await, (true, FoundRows::Absent));
    assert_eq!(store.write(&alone).await.unwrap(), 1);
    assert_eq!(found(&*store, &alone).await, (true, FoundRows::Stored));
    claim(&*store, owned.id().shard()).await;
    assert_eq!(
        store.write(&alone).await.unwrap(),
        0,
        "the fence guards it as well"
    );
}

pub async fn a_fenced_change_is_not_stored(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(10), 1).await;
    claim(&*store, owned.id().shard()).await;
    let late = batch([owned.change(0, |coupon| coupon.status = Status::Paused)]);
    assert_eq!(store.write(&late).await.unwrap(), 0);
    assert_eq!(found(&*store, &late).await, (false, FoundRows::Absent));
}

pub async fn a_change_and_its_record_are_stored_together_and_once(database: &impl Database) {
    let store = database.store();
    let record = |name: &str, asked: &str| ChangeRecord {
        author: Author::new(AuthorKind::Key, name).unwrap(),
        asked: asked.to_owned(),
    };
    let changes = async |coupon, after, limit| {
        let rows = store.changes(coupon, after, limit).await.unwrap();
        let row = |row: ChangeRow| (row.version, row.changed_at, row.record);
        rows.map(|rows| rows.into_iter().map(row).collect::<Vec<_>>())
    };
    let request = NewCoupon {
        record: Some(record("ops", "{\"made\": \"\u{ac00}\"}")),
        ..new("recorded", offer(Some(10), 1))
    };
    let Created::New(coupon) = store.create_coupon(&request).await.unwrap() else {
        panic!("the key is new")
    };
    let id = coupon.id;
    let mut owned = Owned {
        fence: claim(&*store, id.shard()).await,
        coupon,
    };
    let created = (1, noon(), request.record.clone());
    assert_eq!(changes(id, 0, 10).await, Some(vec![created.clone()]));

    // A change that only adds a key makes no version, and so no row.
    let keys = ChangeKeys::default().with(KeyedChange {
        key: RequestKey::parse("k").unwrap(),
        version: Some(1),
        digest: 1,
    });
    assert_eq!(store.write(&batch([owned.key_alone(keys)])).await.unwrap(), 1);
    let second = owned.recorded_change(Some(record("root", "second")));
    // What is not stored has no row.
    let mut stale = second.clone();
    stale.fence.epoch = Epoch::new(stale.fence.epoch.get() + 1);
    assert_eq!(store.write(&batch([stale])).await.unwrap(), 0);
    assert_eq!(changes(id, 0, 10).await, Some(vec![created.clone()]));
    assert_eq!(store.write(&batch([second.clone()])).await.unwrap(), 1);
    // A batch that is sent twice adds nothing.
    assert_eq!(store.write(&batch([second.clone()])).await.unwrap(), 0);
    assert_eq!(found(&*store, &batch([second])).await, (true, FoundRows::Stored));
    owned.coupon.version = 2;
    let third = owned.recorded_change(None);
    assert_eq!(store.write(&batch([third])).await.unwrap(), 1);

    let second = (2, after_noon(77), Some(record("root", "second")));
    let third = (3, after_noon(77), None);
    assert_eq!(
        changes(id, 0, 10).await,
        Some(vec![created.clone(), second.clone(), third.clone()])
    );
    assert_eq!(changes(id, 0, 1).await, Some(vec![created]));
    assert_eq!(changes(id, 1, 1).await, Some(vec![second]));
    assert_eq!(changes(id, 2, 10).await, Some(vec![third]));
    assert_eq!(changes(CouponId::new(ID_MAX).unwrap(), 0, 10).await, None);
}

pub async fn a_quantity_below_what_is_stored_or_decided_is_not_stored(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(10), 1).await;
    store.write(&batch([owned.strangers(1..=5)])).await.unwrap();
    let to = |quantity: Option<u64>, issued: u64| {
        batch([owned.change(issued, |coupon| coupon.offer.total_quantity = quantity)])
    };
    assert_eq!(
        store.write(&to(Some(4), 0)).await.unwrap(),
        0,
        "below what is stored"
    );
    assert_eq!(
        store.write(&to(Some(6), 7)).await.unwrap(),
        0,
        "below what was decided"
    );
    assert_eq!(found(&*store, &to(Some(6), 7)).await, (true, FoundRows::Absent));
    assert_eq!(
        store.write(&to(Some(5), 5)).await.unwrap(),
        1,
        "exactly what is stored"
    );
    assert_eq!(
        store.write(&batch([owned.strangers(6..=6)])).await.unwrap(),
        0,
        "and no more"
    );
}

pub async fn raising_the_quantity_is_stored_and_allows_more_issuances(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(1), 1).await;
    assert_eq!(store.write(&batch([owned.strangers(1..=2)])).await.unwrap(), 0);
    assert_eq!(
        store
            .write(&batch([
                owned.change(0, |coupon| coupon.offer.total_quantity = None)
            ]))
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.write(&batch([owned.strangers(1..=2)])).await.unwrap(), 2);
}

pub async fn opening_again_finds_the_coupon(database: &mut impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(10), 1).await;
    store.write(&batch([owned.strangers(1..=7)])).await.unwrap();
    let before = store.coupon(owned.id()).await.unwrap();
    drop(store);
    database.reopen().await;
    let store = database.store();
    store.check().await.unwrap();
    assert_eq!(store.coupon(owned.id()).await.unwrap(), before);
    assert_eq!(loaded(&*store, owned.id(), 0).await.len(), 7);
}
