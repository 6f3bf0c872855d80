//! Statements that wait too long for a lock, lose a deadlock or outlive their client.

use actors::ids::{Incarnation, NodeId};
use actors::store::batch::FoundRows;
use actors::store::{ClusterStore, EntryStore, NodeRow, NodeState, StoreError};
use sqlx::mysql::MySqlConnection;

use crate::database::OnServer;
use crate::locks::{Stuck, endless, on_different_shards, waiting, with_long_lock_waits, write};
use crate::support::{Owned, batch, found};
use testkit::database_proxy::DatabaseMode;
use testkit::poll::eventually;
use testkit::servers::{ServerKind, run};

pub async fn a_batch_that_waits_too_long_is_not_stored(kind: ServerKind) {
    let mut stuck = Stuck::new(OnServer::through(kind, None).await, 2).await;
    assert!(
        matches!((&mut stuck.write).await.unwrap(), Err(StoreError::NotStored(why)) if why.contains("1205"))
    );
    let read = stuck.database.store.read_back(&stuck.sent).await.unwrap();
    assert!(
        read.iter()
            .all(|found| found.fence_holds && found.rows == FoundRows::Absent),
        "{read:?}"
    );
    stuck.release().await;
    assert_eq!(stuck.database.store.write(&stuck.sent).await.unwrap(), 6);
}

pub async fn a_batch_that_loses_a_deadlock_is_not_stored(kind: ServerKind) {
    let (_, database) = with_long_lock_waits(kind).await;
    let coupons = on_different_shards(&*database.store, 2).await;
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    let (first, last) = (coupons[0].id().shard(), coupons[1].id().shard());
    begin_with_many_changes(&mut holder).await;
    run(
        &mut holder,
        &format!("SELECT * FROM shards WHERE shard_id = {last} FOR UPDATE"),
    )
    .await;
    let sent = batch(
        coupons
            .iter()
            .map(|owned| owned.strangers(1..=3))
            .collect::<Vec<_>>(),
    );
    let writing = write(&database.store, &sent);
    eventually("a statement waits", async || waiting(&mut watcher).await == 1).await;
    run(
        &mut holder,
        &format!("SELECT * FROM shards WHERE shard_id = {first} FOR UPDATE"),
    )
    .await;
    assert!(matches!(writing.await.unwrap(), Err(StoreError::NotStored(why)) if why.contains("1213")));
    run(&mut holder, "ROLLBACK").await;
    assert_eq!(database.store.write(&sent).await.unwrap(), 6);
}

pub async fn a_batch_of_one_coupon_that_waits_too_long_or_loses_a_deadlock_is_not_stored(kind: ServerKind) {
    let short_waits = OnServer::through(kind, None).await;
    let owned = Owned::make(&*short_waits.store, Some(10), 1).await;
    let mut holder = short_waits.shell().await;
    run(
        &mut holder,
        &format!(
            "BEGIN; SELECT * FROM shards WHERE shard_id = {} FOR UPDATE",
            owned.id().shard()
        ),
    )
    .await;
    let sent = batch([endless(&owned)]);
    let written = short_waits.store.write(&sent).await;
    assert!(matches!(written, Err(StoreError::NotStored(why)) if why.contains("1205")));
    assert_eq!(found(&*short_waits.store, &sent).await, (true, FoundRows::Absent));
    run(&mut holder, "ROLLBACK").await;
    assert_eq!(short_waits.store.write(&sent).await.unwrap(), 3);

    let (_, database) = with_long_lock_waits(kind).await;
    let owned = Owned::make(&*database.store, Some(10), 1).await;
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    begin_with_many_changes(&mut holder).await;
    run(
        &mut holder,
        &format!("SELECT * FROM coupons WHERE id = {} FOR UPDATE", owned.id()),
    )
    .await;
    let sent = batch([endless(&owned)]);
    let writing = write(&database.store, &sent);
    eventually("a statement waits", async || waiting(&mut watcher).await == 1).await;
    run(
        &mut holder,
        &format!(
            "SELECT * FROM shards WHERE shard_id = {} FOR UPDATE",
            owned.id().shard()
        ),
    )
    .await;
    assert!(matches!(writing.await.unwrap(), Err(StoreError::NotStored(why)) if why.contains("1213")));
    run(&mut holder, "ROLLBACK").await;
    assert_eq!(database.store.write(&sent).await.unwrap(), 3);
}

/// Begins a transaction that does not lose a deadlock, because the transaction with the most changed rows
/// survives.
async fn begin_with_many_changes(shell: &mut MySqlConnection) {
    let many = (0..500)
        .map(|number| format!("({number})"))
        .collect::<Vec<_>>()
        .join(",");
    run(
        shell,
        &format!("CREATE TABLE ballast (number INT PRIMARY KEY); BEGIN; INSERT INTO ballast VALUES {many}"),
    )
    .await;
}

pub async fn a_statement_goes_on_without_its_client_and_a_retry_finds_its_rows(kind: ServerKind) {
    let (proxy, database) = with_long_lock_waits(kind).await;
    let coupons = on_different_shards(&*database.store, 2).await;
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    run(
        &mut holder,
        &format!(
            "BEGIN; SELECT * FROM shards WHERE shard_id = {} FOR UPDATE",
            coupons[1].id().shard()
        ),
    )
    .await;
    let sent = batch(
        coupons
            .iter()
            .map(|owned| owned.strangers(1..=3))
            .collect::<Vec<_>>(),
    );
    proxy.set(DatabaseMode::CutAfterSending);
    assert!(matches!(
        database.store.write(&sent).await,
        Err(StoreError::Unknown(_))
    ));
    eventually("the statement goes on", async || waiting(&mut watcher).await == 1).await;
    assert_eq!(
        database.store.read_back(&sent).await.unwrap()[0].rows,
        FoundRows::Absent,
        "nothing is committed"
    );
    let again = write(&database.store, &sent);
    eventually("the retry waits for the keys", async || {
        waiting(&mut watcher).await == 2
    })
    .await;
    run(&mut holder, "ROLLBACK").await;
    assert!(matches!(again.await.unwrap(), Err(StoreError::Clash(_))));
    let read = database.store.read_back(&sent).await.unwrap();
    assert!(
        read.iter()
            .all(|found| found.fence_holds && found.rows == FoundRows::Stored),
        "{read:?}"
    );
}

pub async fn ending_a_node_does_not_keep_others_from_beating(kind: ServerKind) {
    let (_, database) = with_long_lock_waits(kind).await;
    let node = |name: &str| NodeRow {
        state: NodeState::Ready,
        ..NodeRow::new(NodeId::parse(name).unwrap(), Incarnation::random())
    };
    let (living, dead, other) = (node("living"), node("dead"), node("other"));
    for row in [&living, &dead, &other] {
        database.store.join(row, None).await.unwrap();
    }
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    run(
        &mut holder,
        "BEGIN; SELECT * FROM nodes WHERE node_id = 'dead' FOR UPDATE",
    )
    .await;
    let (store, by, seen) = (database.store.clone(), living.incarnation, dead.clone());
    let ending = tokio::spawn(async move { store.end(by, &seen).await });
    eventually("a statement waits", async || waiting(&mut watcher).await == 1).await;
    // On a busy machine one beat may take longer than the store waits for it.
    eventually("another node beats", async || {
        matches!(
            database
                .store
                .beat(&other.id, other.incarnation, NodeState::Ready, &[])
                .await,
            Ok(Some(_))
        )
    })
    .await;
    run(&mut holder, "ROLLBACK").await;
    assert!(ending.await.unwrap().unwrap());
}
