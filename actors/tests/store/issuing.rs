//! Storing issuances: fences, guards, clashes, sizes.

use actors::ids::{Epoch, Fence, Incarnation, RequestKey, TEXT_ID_BYTES_MAX};
use actors::store::StoreError;
use actors::store::batch::{FoundRows, Portion};
use actors::time::Timestamp;

use crate::support::{Database, Owned, batch, claim, found, issuances, loaded, on_different_shards, user};

pub async fn a_batch_is_stored_whole_and_to_the_microsecond(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(5), 1).await;
    let mut rows = issuances(&owned.strangers(1..=3));
    rows[0].issued_at = Timestamp::parse("1000-01-01T00:00:00.000001Z").unwrap();
    rows[1].issued_at = Timestamp::parse("2026-11-27T12:00:00.999999Z").unwrap();
    rows[1].expires_at = Timestamp::parse("9999-12-30T21:59:59.999999Z");
    rows[2].expires_at = None;
    let sent = batch([owned.portion(rows.clone())]);
    assert_eq!(store.write(&sent).await.unwrap(), 3);
    assert_eq!(loaded(&*store, owned.id(), 0).await, rows);
    assert_eq!(store.issuance(rows[1].id).await.unwrap(), Some(rows[1].clone()));
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Stored));
}

pub async fn a_batch_before_a_claim_is_stored_and_one_after_it_is_not(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    assert_eq!(store.write(&batch([owned.strangers(1..=2)])).await.unwrap(), 2);
    claim(&*store, owned.id().shard()).await;
    let late = batch([owned.strangers(3..=4)]);
    assert_eq!(store.write(&late).await.unwrap(), 0);
    assert_eq!(found(&*store, &late).await, (false, FoundRows::Absent));
    assert_eq!(
        found(&*store, &batch([owned.strangers(1..=2)])).await,
        (false, FoundRows::Stored)
    );
    assert_eq!(loaded(&*store, owned.id(), 0).await.len(), 2);
}

pub async fn epoch_and_owner_must_both_fit(database: &impl Database) {
    let store = database.store();
    let mut owned = Owned::make(&*store, None, 1).await;
    let right = owned.fence;
    for fence in [
        Fence {
            epoch: Epoch::new(right.epoch.get() - 1),
            ..right
        },
        Fence {
            epoch: right.epoch.next(),
            ..right
        },
        Fence {
            owner: Incarnation::random(),
            ..right
        },
    ] {
        owned.fence = fence;
        assert_eq!(
            store.write(&batch([owned.strangers(1..=1)])).await.unwrap(),
            0,
            "{fence:?}"
        );
    }
    store.release(&[(owned.id().shard(), right)]).await.unwrap();
    owned.fence = right;
    assert_eq!(
        store.write(&batch([owned.strangers(1..=1)])).await.unwrap(),
        0,
        "released"
    );
}

pub async fn a_fenced_shard_does_not_hold_up_the_others(database: &impl Database) {
    let store = database.store();
    let coupons = on_different_shards(&*store, 3).await;
    claim(&*store, coupons[1].id().shard()).await;
    let sent = batch(
        coupons
            .iter()
            .map(|owned| owned.strangers(1..=4))
            .collect::<Vec<_>>(),
    );
    assert_eq!(store.write(&sent).await.unwrap(), 8);
    let stands: Vec<_> = store
        .read_back(&sent)
        .await
        .unwrap()
        .into_iter()
        .map(|found| (found.fence_holds, found.rows))
        .collect();
    assert_eq!(
        stands,
        [
            (true, FoundRows::Stored),
            (false, FoundRows::Absent),
            (true, FoundRows::Stored)
        ]
    );
}

pub async fn the_same_batch_again_clashes_and_is_found_stored(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let sent = batch([owned.strangers(1..=50)]);
    assert_eq!(store.write(&sent).await.unwrap(), 50);
    assert!(matches!(store.write(&sent).await, Err(StoreError::Clash(_))));
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Stored));
    assert_eq!(loaded(&*store, owned.id(), 0).await.len(), 50);
}

pub async fn other_rows_in_the_place_clash_and_nothing_of_the_batch_is_stored(database: &impl Database) {
    let store = database.store();
    let coupons = on_different_shards(&*store, 2).await;
    let (owned, bystander) = (&coupons[0], &coupons[1]);
    store
        .write(&batch([owned.run(1, &["ann", "bob", "cid"])]))
        .await
        .unwrap();
    let same_sequence = owned.run(3, &["dan", "eve"]);
    let same_user = owned.run(4, &["dan", "bob"]);
    for portion in [same_sequence, same_user] {
        let sent = batch([bystander.strangers(1..=2), portion.clone()]);
        assert!(
            matches!(store.write(&sent).await, Err(StoreError::Clash(_))),
            "{portion:?}"
        );
        assert_eq!(
            found(&*store, &batch([portion])).await,
            (true, FoundRows::Different)
        );
        assert_eq!(
            found(&*store, &batch([bystander.strangers(1..=2)])).await,
            (true, FoundRows::Absent)
        );
    }
    assert_eq!(loaded(&*store, owned.id(), 0).await.len(), 3);
}

pub async fn one_field_that_differs_is_different(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 2).await;
    let rows = issuances(&owned.strangers(1..=2));
    store.write(&batch([owned.portion(rows.clone())])).await.unwrap();
    let mut others = vec![rows.clone(); 5];
    others[0][1].user = user("somebody");
    others[1][1].nth = 2;
    others[2][1].key = RequestKey::random();
    others[3][1].issued_at = Timestamp::from_micros(rows[1].issued_at.as_micros() + 1).unwrap();
    others[4][1].expires_at = None;
    for other in others {
        assert_eq!(
            found(&*store, &batch([owned.portion(other.clone())])).await.1,
            FoundRows::Different,
            "{other:?}"
        );
    }
    // Part of it is there: not this batch, whose portions are stored whole or not at all.
    assert_eq!(
        found(&*store, &batch([owned.strangers(1..=3)])).await.1,
        FoundRows::Different
    );
}

pub async fn ids_that_look_alike_are_different_users(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let alike = [
        "Alice", "alice", "ALICE", "alice.", "alice-", "alice_", "a", "A", "0", "00",
    ];
    assert_eq!(store.write(&batch([owned.run(1, &alike)])).await.unwrap(), 10);
    for name in alike {
        let of_user = store.issuances_of_user(&user(name), None, 10).await.unwrap();
        assert_eq!(
            of_user
                .iter()
                .map(|issuance| issuance.user.as_str())
                .collect::<Vec<_>>(),
            [name]
        );
    }
}

pub async fn keys_of_any_visible_character_come_back_as_they_were(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let visible: String = ('!'..='~').collect();
    let mut rows = issuances(&owned.strangers(1..=4));
    rows[0].key = RequestKey::parse(&visible[..47]).unwrap();
    rows[1].key = RequestKey::parse(&visible[47..]).unwrap();
    rows[2].key = RequestKey::parse("\\\\\"\"\\\"\\u0041\\n';--%s?1:1").unwrap();
    rows[3].key = RequestKey::parse("\\").unwrap();
    store.write(&batch([owned.portion(rows.clone())])).await.unwrap();
    assert_eq!(loaded(&*store, owned.id(), 0).await, rows);
}

pub async fn beyond_the_quantity_a_portion_is_left_out_whole(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(3), 1).await;
    let beyond = batch([owned.strangers(1..=4)]);
    assert_eq!(store.write(&beyond).await.unwrap(), 0);
    assert_eq!(found(&*store, &beyond).await, (true, FoundRows::Absent));
    assert_eq!(store.write(&batch([owned.strangers(1..=3)])).await.unwrap(), 3);
    assert_eq!(store.write(&batch([owned.strangers(4..=4)])).await.unwrap(), 0);
    assert_eq!(loaded(&*store, owned.id(), 0).await.len(), 3);
}

pub async fn beyond_the_limit_per_user_a_portion_is_left_out_whole(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 2).await;
    let second = vec![owned.issuance(1, "ann", 1), owned.issuance(2, "ann", 2)];
    let third = vec![owned.issuance(3, "bob", 1), owned.issuance(4, "ann", 3)];
    assert_eq!(store.write(&batch([owned.portion(second)])).await.unwrap(), 2);
    assert_eq!(store.write(&batch([owned.portion(third)])).await.unwrap(), 0);
    assert_eq!(loaded(&*store, owned.id(), 0).await.len(), 2);
}

pub async fn guards_of_one_coupon_do_not_hold_up_the_others(database: &impl Database) {
    let store = database.store();
    let narrow = Owned::make(&*store, Some(1), 1).await;
    let wide = Owned::make(&*store, Some(10), 1).await;
    let sent = batch([narrow.strangers(1..=2), wide.strangers(1..=2)]);
    assert_eq!(store.write(&sent).await.unwrap(), 2);
    assert_eq!(
        (
            loaded(&*store, narrow.id(), 0).await.len(),
            loaded(&*store, wide.id(), 0).await.len()
        ),
        (0, 2)
    );
}

pub async fn the_largest_batch_with_the_longest_ids_is_stored(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let rows: Vec<_> = (1..=2_048)
        .map(|sequence| {
            let mut issuance = owned.issuance(sequence, &format!("{sequence:0>TEXT_ID_BYTES_MAX$}"), 1);
            issuance.key = RequestKey::parse(&"\"\\".repeat(TEXT_ID_BYTES_MAX / 2)).unwrap();
            issuance
        })
        .collect();
    let sent = batch([owned.portion(rows.clone())]);
    assert_eq!(store.write(&sent).await.unwrap(), 2_048);
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Stored));
    assert_eq!(loaded(&*store, owned.id(), 0).await, rows);
}

pub async fn a_batch_of_many_coupons_is_stored(database: &impl Database) {
    let store = database.store();
    let mut coupons = Vec::new();
    for _ in 0..100 {
        coupons.push(Owned::make(&*store, None, 1).await);
        let shard = coupons.last().unwrap().id().shard();
        let fence = coupons.last().unwrap().fence;
        // A claim gives all coupons of the shard a new fence.
        coupons
            .iter_mut()
            .filter(|owned| owned.id().shard() == shard)
            .for_each(|owned| owned.fence = fence);
    }
    let portions: Vec<Portion> = coupons.iter().map(|owned| owned.strangers(1..=3)).collect();
    assert_eq!(store.write(&batch(portions)).await.unwrap(), 300);
}

pub async fn loading_begins_after_a_sequence_and_pages_are_joined(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    for first in (1..=5_000).step_by(1_000) {
        store
            .write(&batch([owned.strangers(first..=first + 999)]))
            .await
            .unwrap();
    }
    let sequences = |rows: Vec<actors::coupon::offer::Issuance>| {
        rows.iter().map(|row| row.id.sequence.get()).collect::<Vec<_>>()
    };
    for after in [0, 1, 999, 1_000, 2_999, 3_000, 3_001, 4_999, 5_000, 6_000] {
        let expected: Vec<u64> = (after + 1..=5_000).collect();
        assert_eq!(
            sequences(loaded(&*store, owned.id(), after).await),
            expected,
            "after {after}"
        );
    }
}

pub async fn loading_stops_at_what_the_owner_cannot_take(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    store.write(&batch([owned.strangers(1..=5)])).await.unwrap();
    let mut taken = 0;
    let result = store
        .load(owned.id(), actors::ids::Sequence::NONE, &mut |issuance| {
            taken += 1;
            if issuance.sequence.get() == 3 {
                Err(StoreError::Unreadable("enough".to_owned()))
            } else {
                Ok(())
            }
        })
        .await;
    assert!(matches!(result, Err(StoreError::Unreadable(why)) if why == "enough"));
    assert_eq!(taken, 3);
    let unknown = actors::ids::CouponId::new(999_999).unwrap();
    assert!(
        store
            .load(unknown, actors::ids::Sequence::NONE, &mut |_| Ok(()))
            .await
            .unwrap()
            .is_none()
    );
}
