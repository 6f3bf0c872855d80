//! Faults: connections that are cut; servers that are killed, demoted, full, or restored to an earlier state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actors::coupon::ids::Sequence;
use actors::coupon::offer::Status;
use actors::coupon::rows::{CouponRows, Created, NewCoupon};
use actors::ids::{Epoch, Fence, Incarnation, NodeId, RequestKey};
use actors::store::batch::FoundRows;
use actors::store::mysql::{MySqlStore, Options};
use actors::store::{ClusterStore, EntryStore, NodeRow, NodeState, StoreError};
use futures_util::future::join_all;

use crate::Batch;
use crate::database::OnServer;
use crate::support::{CouponStore, Owned, batch, create, found, listed, loaded, noon, offer};
use testkit::database_proxy::{DatabaseMode, DatabaseProxy, Rule};
use testkit::poll::eventually;
use testkit::servers::{Server, ServerKind, run};

/// Makes a store that reaches its server through a proxy, and a coupon in it.
async fn through_a_proxy(kind: ServerKind) -> (DatabaseProxy, OnServer, Owned) {
    let proxy = DatabaseProxy::before(Server::shared(kind).port()).await;
    let database = OnServer::through(kind, Some(proxy.port())).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    (proxy, database, owned)
}

/// Sends a batch as a lane would: until it is stored, or found to be stored.
async fn send(store: &dyn CouponStore, sent: &Batch) {
    eventually("the batch is stored", async || match store.write(sent).await {
        Ok(rows) => {
            assert_eq!(rows, sent.rows() as u64);
            true
        }
        Err(StoreError::Clash(_)) => found(store, sent).await == (true, FoundRows::Stored),
        Err(StoreError::NotStored(_) | StoreError::Unknown(_)) => false,
        Err(other) => panic!("{other}"),
    })
    .await;
}

async fn a_batch_that_is_cut(kind: ServerKind, mode: DatabaseMode) -> (OnServer, Owned, Batch) {
    let (proxy, database, owned) = through_a_proxy(kind).await;
    let sent = batch([owned.strangers(1..=600)]);
    proxy.set(mode);
    let result = database.store.write(&sent).await;
    assert!(matches!(result, Err(StoreError::Unknown(_))), "{result:?}");
    assert_eq!(proxy.cuts(), 1);
    (database, owned, sent)
}

pub async fn nothing_is_stored_if_the_connection_is_cut_before_the_batch_is_sent(kind: ServerKind) {
    let (database, owned, sent) = a_batch_that_is_cut(kind, DatabaseMode::CutBeforeSending).await;
    assert_eq!(found(&*database.store, &sent).await, (true, FoundRows::Absent));
    assert_eq!(database.store.write(&sent).await.unwrap(), 600);
    assert_eq!(loaded(&*database.store, owned.id(), 0).await.len(), 600);
}

pub async fn all_or_nothing_is_stored_if_the_connection_is_cut_after_the_batch_is_sent(kind: ServerKind) {
    let (database, owned, sent) = a_batch_that_is_cut(kind, DatabaseMode::CutAfterSending).await;
    // The server may still be executing the statement, so the rows are read only once. `loaded` would read
    // them twice, perhaps with different results.
    let rows = listed(&*database.store, owned.id()).await.len();
    assert!(
        rows == 0 || rows == 600,
        "{rows} rows: only a part of the batch is stored"
    );
    send(&*database.store, &sent).await;
    assert_eq!(loaded(&*database.store, owned.id(), 0).await.len(), 600);
}

pub async fn the_batch_stays_stored_if_the_connection_is_cut_after_the_commit(kind: ServerKind) {
    let (database, owned, sent) = a_batch_that_is_cut(kind, DatabaseMode::CutAfterAnswer).await;
    assert_eq!(found(&*database.store, &sent).await, (true, FoundRows::Stored));
    assert!(matches!(
        database.store.write(&sent).await,
        Err(StoreError::Clash(_))
    ));
    assert_eq!(loaded(&*database.store, owned.id(), 0).await.len(), 600);
}

fn node() -> NodeRow {
    NodeRow::new(NodeId::parse("a").unwrap(), Incarnation::random())
}

pub async fn a_server_that_is_not_there_stores_nothing_and_is_used_when_it_returns(kind: ServerKind) {
    let (proxy, database, owned) = through_a_proxy(kind).await;
    let (store, node) = (&*database.store, node());
    assert!(store.join(&node, None).await.unwrap());
    proxy.set(DatabaseMode::Refuse);
    // The first statement on an open connection sees the connection's end; all later statements are refused.
    eventually("the server refuses connections", async || {
        let results = [
            store
                .beat(&node.id, node.incarnation, NodeState::Ready, &[])
                .await
                .map(drop),
            store.check().await,
        ];
        results
            .iter()
            .all(|result| matches!(result, Err(StoreError::NotStored(_))))
    })
    .await;
    let sent = batch([owned.strangers(1..=5)]);
    assert!(matches!(
        store.write(&sent).await,
        Err(StoreError::NotStored(_) | StoreError::Unknown(_))
    ));
    assert!(matches!(store.write(&sent).await, Err(StoreError::NotStored(_))));
    assert!(matches!(
        store.coupon(owned.id()).await,
        Err(StoreError::NotStored(_))
    ));
    proxy.set(DatabaseMode::Pass);
    assert_eq!(store.write(&sent).await.unwrap(), 5);
    store.check().await.unwrap();
    assert!(
        store
            .beat(&node.id, node.incarnation, NodeState::Ready, &[])
            .await
            .unwrap()
            .is_some()
    );
}

pub async fn a_silent_server_is_given_up_in_time(kind: ServerKind) {
    let (proxy, database, owned) = through_a_proxy(kind).await;
    let (store, node) = (&*database.store, node());
    assert!(store.join(&node, None).await.unwrap());
    assert!(
        store
            .beat(&node.id, node.incarnation, NodeState::Ready, &[])
            .await
            .unwrap()
            .is_some()
    );
    proxy.set(DatabaseMode::Hold);
    let begun = Instant::now();
    let sent = batch([owned.strangers(1..=5)]);
    let (beat, write, nodes) = tokio::join!(
        async {
            (
                store
                    .beat(&node.id, node.incarnation, NodeState::Ready, &[])
                    .await,
                begun.elapsed(),
            )
        },
        async { (store.write(&sent).await, begun.elapsed()) },
        async { (store.nodes().await, begun.elapsed()) },
    );
    assert!(
        beat.0.is_err() && beat.1 < Duration::from_millis(2_500),
        "{beat:?}"
    );
    assert!(
        write.0.is_err() && write.1 < Duration::from_millis(5_000),
        "{write:?}"
    );
    assert!(
        matches!(nodes.0, Err(StoreError::NotStored(_))) && nodes.1 < Duration::from_millis(2_500),
        "{nodes:?}"
    );
    proxy.set(DatabaseMode::Pass);
    send(store, &sent).await;
    assert!(
        store
            .beat(&node.id, node.incarnation, NodeState::Ready, &[])
            .await
            .unwrap()
            .is_some()
    );
}

/// Maximum number of connections for batches.
const LANES: u32 = 8;

/// Makes a store with this many open and unused connections for batches, a coupon in it, and a batch. The
/// store trusts unused connections for `long_idle`.
async fn with_unused_connections(
    kind: ServerKind,
    unused: u32,
    long_idle: Duration,
) -> (DatabaseProxy, MySqlStore, Batch) {
    let proxy = DatabaseProxy::before(Server::shared(kind).port()).await;
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    let options = Options {
        lanes: LANES,
        long_idle,
        ..Options::new(database.server.url(&database.name, Some(proxy.port())))
    };
    let store = MySqlStore::open(&options).await.unwrap();
    let sent = batch([owned.strangers(1..=5)]);
    let before = proxy.accepted();
    // Each call has a connection of its own, because connecting takes all of them a while.
    proxy.delay(Duration::from_millis(20));
    for found in join_all((0..unused).map(|_| store.read_back(&sent))).await {
        found.unwrap();
    }
    assert_eq!(proxy.accepted() - before, unused);
    proxy.delay(Duration::ZERO);
    (proxy, store, sent)
}

/// The tests of all unused connections together would take longer than the limit of taking one. So this fails
/// unless all of them are dropped once the first one is found to be silent.
pub async fn connections_that_went_silent_while_unused_are_replaced_in_time(kind: ServerKind) {
    let (proxy, store, sent) = with_unused_connections(kind, LANES, Duration::ZERO).await;
    proxy.silence();
    store.read_back(&sent).await.unwrap();
    assert_eq!(store.write(&sent).await.unwrap(), 5);
}

pub async fn connections_that_went_silent_fail_no_more_than_one_call(kind: ServerKind) {
    let (proxy, store, sent) = with_unused_connections(kind, LANES, Duration::MAX).await;
    proxy.silence();
    let result = store.read_back(&sent).await;
    assert!(matches!(result, Err(StoreError::NotStored(_))), "{result:?}");
    store.read_back(&sent).await.unwrap();
}

/// One call tests the connection that went silent, in vain. The other one makes a connection, which both use.
pub async fn a_connection_that_works_while_another_fails_its_test_is_kept(kind: ServerKind) {
    for attempt in 1.. {
        let (proxy, store, sent) = with_unused_connections(kind, 1, Duration::ZERO).await;
        proxy.silence();
        let before = proxy.accepted();
        tokio::try_join!(store.read_back(&sent), store.read_back(&sent)).unwrap();
        if proxy.accepted() - before == 1 {
            break;
        }
        // A busy machine may take longer to make a connection than the test may take.
        assert!(attempt < 5, "both made a connection");
    }
}

/// The lane waits for 5 s in all. If the store waited longer, the lane would retry while the first read-back
/// still held its connection.
pub async fn reading_a_batch_back_is_given_up_in_time(kind: ServerKind) {
    let proxy = DatabaseProxy::with_rule(
        Server::shared(kind).port(),
        Rule::MuteAt("shard_id, epoch, owner FROM shards"),
    )
    .await;
    let database = OnServer::through(kind, Some(proxy.port())).await;
    let coupon = create(&*database.store, offer(None, 1)).await;
    let owned = Owned {
        coupon,
        fence: Fence {
            epoch: Epoch::new(1),
            owner: Incarnation::random(),
        },
    };
    let sent = batch([owned.strangers(1..=5)]);
    let begun = Instant::now();
    let result = database.store.read_back(&sent).await;
    assert!(matches!(result, Err(StoreError::NotStored(_))), "{result:?}");
    assert!(
        begun.elapsed() < Duration::from_millis(4_500),
        "{:?}",
        begun.elapsed()
    );
}

/// A fault of the server must not be taken for invalid rows of a coupon, because then the lane would give up
/// the coupon's portion that is in flight.
pub async fn a_server_without_the_database_stores_nothing(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    let sent = batch([owned.strangers(1..=5)]);
    run(
        &mut database.server.shell("mysql").await.unwrap(),
        &format!("DROP DATABASE {}", database.name),
    )
    .await;
    // A connection that was open before fails at the next statement, and is closed.
    drop(database.store.write(&sent).await);
    for result in [
        database.store.write(&sent).await.map(drop),
        database.store.read_back(&sent).await.map(drop),
    ] {
        assert!(
            matches!(&result, Err(StoreError::NotStored(why)) if why.contains("1049")),
            "{result:?}"
        );
    }
}

/// A full table in memory causes the same error as a full disk.
pub async fn a_full_table_refuses_batches_until_there_is_room(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    let mut shell = database.shell().await;
    run(
        &mut shell,
        "SET SESSION max_heap_table_size = 16384; ALTER TABLE issuances ENGINE = MEMORY",
    )
    .await;
    let sent = batch([owned.strangers(1..=2_000)]);
    let result = database.store.write(&sent).await;
    assert!(
        matches!(&result, Err(StoreError::NotStored(why)) if why.contains("1114")),
        "{result:?}"
    );
    run(
        &mut shell,
        "TRUNCATE TABLE issuances; ALTER TABLE issuances ENGINE = InnoDB",
    )
    .await;
    assert_eq!(database.store.write(&sent).await.unwrap(), 2_000);
}

pub async fn a_beat_that_went_back_is_returned_as_it_is(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let node = node();
    database.store.join(&node, None).await.unwrap();
    for beat in 1..=5 {
        assert_eq!(
            database
                .store
                .beat(&node.id, node.incarnation, NodeState::Ready, &[])
                .await
                .unwrap(),
            Some(beat)
        );
    }
    // A beat goes back after a restore, or after a fail-over to a server with fewer rows.
    run(&mut database.shell().await, "UPDATE nodes SET beat = 2").await;
    assert_eq!(
        database
            .store
            .beat(&node.id, node.incarnation, NodeState::Ready, &[])
            .await
            .unwrap(),
        Some(3)
    );
}

pub async fn a_batch_whose_caller_goes_away_is_stored_whole_or_not_at_all(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    let sent = batch([owned.strangers(1..=1_000)]);
    let (store, aborted) = (database.store.clone(), sent.clone());
    let write = tokio::spawn(async move { store.write(&aborted).await });
    tokio::task::yield_now().await;
    write.abort();
    drop(write.await);
    let rows = loaded(&*database.store, owned.id(), 0).await.len();
    assert!(
        rows == 0 || rows == 1_000,
        "{rows} rows: only a part of the batch is stored"
    );
    send(&*database.store, &sent).await;
    assert_eq!(loaded(&*database.store, owned.id(), 0).await.len(), 1_000);
}

pub async fn a_closed_store_refuses(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    database.store.close().await;
    assert!(matches!(
        database.store.check().await,
        Err(StoreError::NotStored(_))
    ));
    assert!(matches!(
        database.store.write(&batch([owned.strangers(1..=1)])).await,
        Err(StoreError::NotStored(_))
    ));
}

pub async fn two_nodes_make_only_one_coupon_for_a_key(kind: ServerKind) {
    let one = OnServer::through(kind, None).await;
    let other = one.open().await.unwrap();
    for round in 0..10 {
        let key = RequestKey::parse(&format!("round-{round}")).unwrap();
        let new = NewCoupon {
            key,
            offer: offer(Some(5), 1),
            status: Status::Open,
            created_at: noon(),
            record: None,
        };
        let answers = join_all((0..8).map(|turn| {
            if turn % 2 == 0 {
                one.store.create_coupon(&new)
            } else {
                other.create_coupon(&new)
            }
        }))
        .await;
        let mut ids = Vec::new();
        let mut made = 0;
        for answer in answers {
            match answer.unwrap() {
                Created::New(coupon) => {
                    made += 1;
                    ids.push(coupon.id);
                }
                Created::Before(view) => ids.push(view.coupon.id),
                Created::KeyReused => panic!("the body is the same"),
            }
        }
        ids.dedup();
        assert_eq!((made, ids.len()), (1, 1));
    }
}

pub async fn a_read_only_server_stores_nothing_and_is_used_when_it_takes_writes(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let (store, node) = (&*database.store, node());
    let owned = Owned::make(store, None, 1).await;
    assert!(store.join(&node, None).await.unwrap());
    let mut shell = database.server.shell("mysql").await.unwrap();
    let next = AtomicU64::new(1);
    let batch_of_one = || {
        let sequence = next.fetch_add(1, Ordering::Relaxed);
        batch([owned.strangers(sequence..=sequence)])
    };
    assert_eq!(store.write(&batch_of_one()).await.unwrap(), 1);
    run(&mut shell, "SET GLOBAL read_only = 1").await;
    let refused = batch_of_one();
    let opened = database.open().await;
    let results = [
        store.write(&refused).await.map(drop),
        store.write(&refused).await.map(drop),
        store
            .beat(&node.id, node.incarnation, NodeState::Ready, &[])
            .await
            .map(drop),
        store.check().await,
        // The rows of a demoted server may be stale.
        store.coupon(owned.id()).await.map(drop),
        store.read_back(&refused).await.map(drop),
    ];
    run(&mut shell, "SET GLOBAL read_only = 0").await;
    assert!(opened.is_err_and(|refused| refused.to_string().contains("the server is read-only")));
    for result in results {
        assert!(matches!(result, Err(StoreError::NotStored(_))), "{result:?}");
    }
    assert_eq!(store.write(&refused).await.unwrap(), 1);
    assert_eq!(
        store
            .beat(&node.id, node.incarnation, NodeState::Ready, &[])
            .await
            .unwrap(),
        Some(1)
    );
    store.check().await.unwrap();
}

pub async fn a_killed_server_keeps_what_was_confirmed_and_is_used_when_it_returns(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    let store: Arc<dyn CouponStore> = database.store.clone();
    for round in 0..2 {
        let first = round * 1_000_000 + 1;
        let confirmed = Arc::new(AtomicU64::new(0));
        let (watched, server) = (Arc::clone(&confirmed), database.server);
        let killing = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            while watched.load(Ordering::Relaxed) < 500 && begun.elapsed() < Duration::from_secs(30) {
                std::thread::yield_now();
            }
            server.kill();
        });
        let unsettled = loop {
            let after = first + confirmed.load(Ordering::Relaxed);
            let next = batch([owned.strangers(after..=after + 9)]);
            match store.write(&next).await {
                Ok(rows) => drop(confirmed.fetch_add(rows, Ordering::Relaxed)),
                Err(StoreError::NotStored(_) | StoreError::Unknown(_)) => break next,
                Err(other) => panic!("{other}"),
            }
        };
        killing.await.unwrap();
        assert!(
            matches!(store.write(&unsettled).await, Err(StoreError::NotStored(_))),
            "the server is down"
        );
        assert!(store.check().await.is_err());
        tokio::task::spawn_blocking(|| database.server.resume().unwrap())
            .await
            .unwrap();
        send(&*store, &unsettled).await;
        let confirmed = confirmed.load(Ordering::Relaxed);
        let after = Sequence::new(first - 1);
        let rows = store
            .issuances_of_coupon(owned.id(), None, after, 1_000_000)
            .await
            .unwrap();
        let sequences: Vec<u64> = rows.iter().map(|row| row.id.sequence.get()).collect();
        assert_eq!(sequences, (first..first + confirmed + 10).collect::<Vec<_>>());
    }
    create(&*store, offer(None, 1)).await;
}
