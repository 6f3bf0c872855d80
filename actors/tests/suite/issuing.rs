//! Storing issuances: their guards, fields and sizes.

use actors::coupon::ids::CouponId;
use actors::coupon::issued::Issued;
use actors::coupon::rows::CouponRows;
use actors::ids::{REQUEST_KEY_BYTES_MAX, RequestKey, USER_ID_BYTES_MAX};
use actors::store::batch::FoundRows;
use actors::store::{EntryStore, Loaded};
use actors::time::Timestamp;

use crate::support::{Database, Owned, batch, found, issuances, issued, loaded, user};

pub async fn a_batch_is_stored_whole_and_to_the_microsecond(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(5), 1).await;
    let mut rows = issuances(&owned.strangers(1..=3));
    rows[0].issued_at = Timestamp::parse("1000-01-01T00:00:00.000001Z").unwrap();
    rows[0].expires_at = Some(rows[0].issued_at.plus_days(30));
    rows[1].issued_at = Timestamp::parse("9999-11-30T21:59:59.999999Z").unwrap();
    rows[1].expires_at = Timestamp::parse("9999-12-30T21:59:59.999999Z");
    rows[2].issued_at = Timestamp::parse("2026-11-27T12:00:00.999999Z").unwrap();
    rows[2].expires_at = None;
    let sent = batch([owned.portion(rows.clone())]);
    assert_eq!(store.write(&sent).await.unwrap(), 3);
    assert_eq!(loaded(&*store, owned.id(), 0).await, rows);
    assert_eq!(store.issuance(rows[1].id).await.unwrap(), Some(rows[1].clone()));
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Stored));
}

pub async fn ids_that_look_alike_are_different_users(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let alike = [
        "Alice", "alice", "ALICE", "alice.", "alice-", "alice_", "a", "A", "0", "00",
    ];
    assert_eq!(store.write(&batch([owned.run(1, &alike)])).await.unwrap(), 10);
    for name in alike {
        let of_user = store
            .issuances_of_user(&user(name), None, None, 10)
            .await
            .unwrap();
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

pub async fn users_of_any_visible_character_come_back_as_they_were(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let visible: String = ('!'..='~').collect();
    // The first names have no quote and others have one, so one statement has literals of both forms.
    let names = [
        "auth0|507f1f77bcf86cd799439011",
        "bob+x@example.com",
        &visible,
        "'",
        "\\",
        "\"",
        "a'OR'a'='a",
        "\\\"],[1,\"mallory",
        "\\u0041",
        "%_",
        "/",
        "=",
    ];
    let sent = batch([owned.run(1, &names)]);
    assert_eq!(store.write(&sent).await.unwrap(), names.len() as u64);
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Stored));
    let rows = loaded(&*store, owned.id(), 0).await;
    assert_eq!(
        rows.iter().map(|row| row.user.as_str()).collect::<Vec<_>>(),
        names
    );
    for name in names {
        let of_user = store
            .issuances_of_user(&user(name), None, None, 10)
            .await
            .unwrap();
        let users: Vec<&str> = of_user.iter().map(|row| row.user.as_str()).collect();
        assert_eq!(users, [name]);
        // A row of this user under another sequence is found to differ from the stored row.
        let displaced = batch([owned.portion(vec![owned.issuance(100, name, 1)])]);
        assert_eq!(
            found(&*store, &displaced).await,
            (true, FoundRows::Different),
            "{name}"
        );
    }
    let absent = batch([owned.portion(vec![owned.issuance(100, "''", 1)])]);
    assert_eq!(found(&*store, &absent).await, (true, FoundRows::Absent));
}

pub async fn a_portion_beyond_the_quantity_is_left_out_as_a_whole(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, Some(3), 1).await;
    let beyond = batch([owned.strangers(1..=4)]);
    assert_eq!(store.write(&beyond).await.unwrap(), 0);
    assert_eq!(found(&*store, &beyond).await, (true, FoundRows::Absent));
    assert_eq!(store.write(&batch([owned.strangers(1..=3)])).await.unwrap(), 3);
    assert_eq!(store.write(&batch([owned.strangers(4..=4)])).await.unwrap(), 0);
    assert_eq!(loaded(&*store, owned.id(), 0).await.len(), 3);
}

pub async fn a_portion_beyond_the_limit_per_user_is_left_out_as_a_whole(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 2).await;
    let second = vec![owned.issuance(1, "ann", 1), owned.issuance(2, "ann", 2)];
    let third = vec![owned.issuance(3, "bob", 1), owned.issuance(4, "ann", 3)];
    assert_eq!(store.write(&batch([owned.portion(second)])).await.unwrap(), 2);
    assert_eq!(store.write(&batch([owned.portion(third)])).await.unwrap(), 0);
    assert_eq!(loaded(&*store, owned.id(), 0).await.len(), 2);
}

pub async fn a_user_without_a_limit_has_any_number_of_issuances(database: &impl Database) {
    let store = database.store();
    let (unlimited, limited) = (
        Owned::unlimited(&*store).await,
        Owned::make(&*store, None, 1).await,
    );
    let of_ann = |sequences: std::ops::RangeInclusive<u64>| {
        let nth = |sequence: u64| u32::try_from(sequence).unwrap();
        let rows = sequences.map(|sequence| unlimited.issuance(sequence, "ann", nth(sequence)));
        unlimited.portion(rows.collect())
    };
    // The statements for one coupon and for several differ.
    let both = batch([of_ann(301..=600), limited.run(1, &["ann"])]);
    for (sent, rows) in [(batch([of_ann(1..=300)]), 300), (both, 301)] {
        assert_eq!(store.write(&sent).await.unwrap(), rows);
        assert_eq!(
            found(&*store, &batch([sent.portions[0].clone()])).await,
            (true, FoundRows::Stored)
        );
    }
    assert_eq!(loaded(&*store, unlimited.id(), 0).await.len(), 600);
}

pub async fn the_largest_batch_with_the_longest_ids_is_stored(database: &impl Database) {
    let store = database.store();
    let owned = Owned::make(&*store, None, 1).await;
    let rows: Vec<_> = (1..=2_048)
        .map(|sequence| {
            // A backslash takes the most bytes in a statement. In JSON a quote takes as many as a backslash.
            let name = format!("{sequence:\\>USER_ID_BYTES_MAX$}");
            let mut issuance = owned.issuance(sequence, &name, 1);
            let key = format!("\"{}", "\"\\".repeat(REQUEST_KEY_BYTES_MAX / 2));
            issuance.key = RequestKey::parse(&key).unwrap();
            issuance
        })
        .collect();
    let sent = batch([owned.portion(rows.clone())]);
    assert_eq!(store.write(&sent).await.unwrap(), 2_048);
    assert_eq!(found(&*store, &sent).await, (true, FoundRows::Stored));
    assert_eq!(loaded(&*store, owned.id(), 0).await, rows);
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
    for after in [0, 1, 999, 1_000, 2_999, 3_000, 3_001, 4_999, 5_000] {
        let expected: Vec<u64> = (after + 1..=5_000).collect();
        assert_eq!(
            sequences(loaded(&*store, owned.id(), after as usize).await),
            expected,
            "after {after}"
        );
    }
    // If more rows than the stored rows, or other rows, were loaded ahead, the database has gone backwards
    // since.
    let mut rows = issuances(&owned.strangers(1..=5_000));
    rows[4_999].user = user("another");
    for ahead in [issuances(&owned.strangers(1..=6_000)), rows] {
        let ahead = issued(owned.id(), &ahead).unwrap().into();
        assert!(matches!(
            store.load(owned.id(), Some(ahead)).await.unwrap(),
            Loaded::WentBackwards
        ));
    }
}

pub async fn a_coupon_that_does_not_exist_is_absent(database: &impl Database) {
    let store = database.store();
    let unknown = CouponId::new(999_999).unwrap();
    for ahead in [None, Some(Issued::new(unknown).into())] {
        assert!(matches!(
            store.load(unknown, ahead).await.unwrap(),
            Loaded::Absent
        ));
    }
}
