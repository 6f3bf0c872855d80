//! Which rows statements lock, and which statements wait for which.

use std::sync::Arc;

use actors::coupon::offer::{Issuance, Status};
use actors::coupon::rows::CouponRows;
use actors::ids::{Incarnation, ShardId};
use actors::store::batch::FoundRows;
use actors::store::mysql::MySqlStore;
use actors::store::{Claim, ClusterStore, EntryStore, HandOff, StoreError};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Row};
use tokio::task::JoinHandle;

use crate::Batch;
use crate::database::OnServer;
use crate::support::{
    CouponStore, Owned, Portion, batch, claim, claim_by, create, found, issuances, loaded, offer, shard_row,
};
use testkit::database_proxy::{DatabaseProxy, Rule};
use testkit::poll::eventually;
use testkit::servers::{Server, ServerKind, run};

/// Returns the number of statements that wait for a row at this moment. (`INNODB_TRX` has this number too,
/// but is refreshed at most ten times a second.)
pub async fn waiting(shell: &mut MySqlConnection) -> i64 {
    let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
        .fetch_one(shell)
        .await
        .unwrap();
    row.try_get::<String, _>(1).unwrap().parse().unwrap()
}

/// A statement added to the query of a session's settings. It makes the session wait for locks far longer
/// than the store would, so that waits can be observed however busy the machine is.
const LONG_LOCK_WAITS: Rule = Rule::Append(
    "SHOW VARIABLES WHERE",
    "; SET SESSION innodb_lock_wait_timeout = 120",
);

/// Returns a proxy, and a database whose store connects through the proxy. Statements of the store wait long
/// for locks.
pub async fn with_long_lock_waits(kind: ServerKind) -> (DatabaseProxy, OnServer) {
    let proxy = DatabaseProxy::with_rule(Server::shared(kind).port(), LONG_LOCK_WAITS).await;
    let database = OnServer::through(kind, Some(proxy.port())).await;
    (proxy, database)
}

/// Returns how many rows of a batch the store reports as stored; `None` if the store stopped waiting. The
/// server goes on with the batch even then.
async fn reported(write: JoinHandle<Result<u64, StoreError>>) -> Option<u64> {
    match write.await.unwrap() {
        Ok(rows) => Some(rows),
        Err(StoreError::Unknown(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Waits until a batch is stored, whatever the store reported.
async fn wait_until_stored(store: &MySqlStore, sent: &Batch) {
    eventually("the batch is stored", async || {
        store
            .read_back(sent)
            .await
            .unwrap()
            .iter()
            .all(|found| found.rows == FoundRows::Stored)
    })
    .await;
}

/// Makes coupons on this many different shards.
pub async fn on_different_shards(store: &dyn CouponStore, count: usize) -> Vec<Owned> {
    let mut coupons: Vec<Owned> = Vec::new();
    while coupons.len() < count {
        let coupon = create(store, offer(None, 1)).await;
        if coupons
            .iter()
            .all(|other| other.id().shard() != coupon.id.shard())
        {
            let fence = claim(store, coupon.id.shard()).await;
            coupons.push(Owned { coupon, fence });
        }
    }
    coupons
}

/// A batch for two or more shards. It has stored its first portions and waits for the last shard, which
/// `holder` has locked.
pub struct Stuck {
    pub database: OnServer,
    holder: MySqlConnection,
    watcher: MySqlConnection,
    coupons: Vec<Owned>,
    pub sent: Batch,
    pub write: JoinHandle<Result<u64, StoreError>>,
}

impl Stuck {
    pub async fn new(database: OnServer, shards: usize) -> Self {
        let coupons = on_different_shards(&*database.store, shards).await;
        Self::with(database, coupons, true).await
    }

    /// Makes a batch for coupons of one owner. The issuances do not expire, so their rows are as short as
    /// possible.
    async fn alike(database: OnServer, shards: usize) -> Self {
        let mut coupons = on_different_shards(&*database.store, shards).await;
        let claimant = Incarnation::random();
        for owned in &mut coupons {
            owned.fence = claim_by(&*database.store, owned.id().shard(), claimant).await;
        }
        Self::with(database, coupons, false).await
    }

    async fn with(database: OnServer, coupons: Vec<Owned>, expires: bool) -> Self {
        let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
        let last = coupons.last().unwrap().id().shard();
        run(
            &mut holder,
            &format!("BEGIN; SELECT * FROM shards WHERE shard_id = {last} FOR UPDATE"),
        )
        .await;
        let of = |owned: &Owned| {
            if expires {
                owned.strangers(1..=3)
            } else {
                endless(owned)
            }
        };
        let sent = batch(coupons.iter().map(of).collect::<Vec<_>>());
        let write = write(&database.store, &sent);
        // A statement with the store's own limit may have timed out already.
        eventually("the statement waits", async || {
            write.is_finished() || waiting(&mut watcher).await == 1
        })
        .await;
        Self {
            database,
            holder,
            watcher,
            coupons,
            sent,
            write,
        }
    }

    pub async fn release(&mut self) {
        run(&mut self.holder, "ROLLBACK").await;
    }
}

/// Returns issuances 1 to 3 of the coupon, which do not expire.
pub fn endless(owned: &Owned) -> Portion {
    let endless = |issuance: Issuance| Issuance {
        expires_at: None,
        ..issuance
    };
    owned.portion(
        issuances(&owned.strangers(1..=3))
            .into_iter()
            .map(endless)
            .collect(),
    )
}

pub fn write(store: &Arc<MySqlStore>, sent: &Batch) -> JoinHandle<Result<u64, StoreError>> {
    let (store, sent) = (Arc::clone(store), sent.clone());
    tokio::spawn(async move { store.write(&sent).await })
}

pub async fn a_waiting_batch_has_locked_the_rows_it_names_and_no_others(kind: ServerKind) {
    let stuck = Stuck::new(with_long_lock_waits(kind).await.1, 5).await;
    expect_only_named_rows_locked(kind, stuck).await;
}

pub async fn a_waiting_batch_of_one_owner_has_locked_the_rows_it_names_and_no_others(kind: ServerKind) {
    let stuck = Stuck::alike(with_long_lock_waits(kind).await.1, 5).await;
    expect_only_named_rows_locked(kind, stuck).await;
}

async fn expect_only_named_rows_locked(kind: ServerKind, mut stuck: Stuck) {
    let counts = format!(
        "SELECT t.trx_rows_locked, t.trx_tables_locked, t.trx_rows_modified
           FROM information_schema.INNODB_TRX AS t
           JOIN information_schema.PROCESSLIST AS p ON p.ID = t.trx_mysql_thread_id
          WHERE p.DB = '{}' AND t.trx_state = 'LOCK WAIT'",
        stuck.database.name
    );
    let row = sqlx::raw_sql(AssertSqlSafe(counts))
        .fetch_one(&mut stuck.watcher)
        .await
        .unwrap();
    let counts: Vec<u64> = (0..3).map(|column| row.try_get(column).unwrap()).collect();
    let locks = if kind == ServerKind::MySql {
        Some(data_locks(&mut stuck.watcher, &stuck.database.name).await)
    } else {
        None
    };
    // The shards that the batch did not name can be claimed, even the neighbours of the named shards.
    let named: Vec<_> = stuck.coupons.iter().map(|owned| owned.id().shard()).collect();
    claim_beside(&stuck.database.store, &named, 2).await;
    stuck.release().await;
    assert!(reported(stuck.write).await.is_none_or(|rows| rows == 15));
    wait_until_stored(&stuck.database.store, &stuck.sent).await;
    // The nine rows are five shards and four coupons. The batch waited for the fifth shard. Inserted rows are
    // locked too, but are not counted.
    assert_eq!(counts, [9, 3, 12], "rows locked, tables locked, rows modified");
    if let Some(locks) = locks {
        let mut expected: Vec<_> = named
            .iter()
            .map(|shard| format!("shards S,REC_NOT_GAP GRANTED {shard}"))
            .collect();
        expected[4] = expected[4].replace("GRANTED", "WAITING");
        expected.extend(
            stuck.coupons[..4]
                .iter()
                .map(|owned| format!("coupons S,REC_NOT_GAP GRANTED {}", owned.id())),
        );
        expected.sort();
        assert_eq!(locks, expected);
    }
}

/// Claims the unlocked shards that are within `distance` of locked ones.
async fn claim_beside(store: &MySqlStore, locked: &[ShardId], distance: u16) {
    let is_beside = |id: ShardId| {
        locked
            .iter()
            .any(|shard| shard.get().abs_diff(id.get()) <= distance)
    };
    let free = store
        .shards()
        .await
        .unwrap()
        .into_iter()
        .filter(|row| is_beside(row.id) && !locked.contains(&row.id));
    let claims: Vec<_> = free
        .map(|seen| Claim {
            seen,
            claimant: Incarnation::random(),
        })
        .collect();
    let claimed = store
        .claim(&claims)
        .await
        .expect("every shard that the batch did not name is unlocked");
    assert!(
        claims
            .iter()
            .zip(claimed)
            .all(|(claim, row)| row.owner == Some(claim.claimant)),
        "a shard that the batch did not name is locked"
    );
}

/// Returns the row locks of the waiting transaction, as MySQL reports them.
async fn data_locks(watcher: &mut MySqlConnection, database: &str) -> Vec<String> {
    let query = format!(
        "SELECT CONCAT_WS(' ', OBJECT_NAME, LOCK_MODE, LOCK_STATUS, LOCK_DATA) AS lock_text
           FROM performance_schema.data_locks
          WHERE LOCK_TYPE = 'RECORD' AND ENGINE_TRANSACTION_ID IN
                (SELECT w.REQUESTING_ENGINE_TRANSACTION_ID FROM performance_schema.data_lock_waits AS w
                   JOIN performance_schema.data_locks AS l ON l.ENGINE_LOCK_ID = w.REQUESTING_ENGINE_LOCK_ID
                  WHERE l.OBJECT_SCHEMA = '{database}')"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(query))
        .fetch_all(watcher)
        .await
        .unwrap();
    let mut locks: Vec<String> = rows.iter().map(|row| row.try_get("lock_text").unwrap()).collect();
    locks.sort();
    locks
}

pub async fn a_take_over_waits_for_a_batch_in_progress(kind: ServerKind) {
    let mut stuck = Stuck::new(with_long_lock_waits(kind).await.1, 2).await;
    let (store, first) = (stuck.database.store.clone(), stuck.coupons.remove(0));
    let seen = shard_row(&*store, first.id().shard()).await;
    let claimant = Incarnation::random();
    let claiming = tokio::spawn(async move { store.claim(&[Claim { seen, claimant }]).await });
    eventually("both wait", async || waiting(&mut stuck.watcher).await == 2).await;
    assert_eq!(
        shard_row(&*stuck.database.store, seen.id).await,
        seen,
        "not claimed yet"
    );
    stuck.release().await;
    let rows = claiming.await.unwrap().unwrap();
    assert_eq!(rows[0].owner, Some(claimant));
    // The claimant reads everything that the previous owner stored.
    assert_eq!(loaded(&*stuck.database.store, first.id(), 0).await.len(), 3);
    assert!(reported(stuck.write).await.is_none_or(|rows| rows == 6));
    assert_eq!(
        stuck
            .database
            .store
            .write(&batch([first.strangers(4..=4)]))
            .await
            .unwrap(),
        0,
        "fenced from now on"
    );
}

pub async fn a_take_over_waits_for_a_batch_of_one_coupon_in_progress(kind: ServerKind) {
    let (_, database) = with_long_lock_waits(kind).await;
    let owned = Owned::make(&*database.store, Some(10), 1).await;
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    let (coupon, shard) = (owned.id(), owned.id().shard());
    run(
        &mut holder,
        &format!("BEGIN; SELECT * FROM coupons WHERE id = {coupon} FOR UPDATE"),
    )
    .await;
    let writing = write(&database.store, &batch([endless(&owned)]));
    eventually("a statement waits", async || waiting(&mut watcher).await == 1).await;
    if kind == ServerKind::MySql {
        let expected = [
            format!("coupons S,REC_NOT_GAP WAITING {coupon}"),
            format!("shards S,REC_NOT_GAP GRANTED {shard}"),
        ];
        assert_eq!(data_locks(&mut watcher, &database.name).await, expected);
    }
    let store = database.store.clone();
    let claiming = tokio::spawn(async move { claim(&*store, shard).await });
    eventually("two statements wait", async || waiting(&mut watcher).await == 2).await;
    claim_beside(&database.store, &[shard], 2).await;
    run(&mut holder, "ROLLBACK").await;
    claiming.await.unwrap();
    assert!(reported(writing).await.is_none_or(|rows| rows == 3));
    assert_eq!(
        loaded(&*database.store, coupon, 0).await.len(),
        3,
        "the claimant reads everything stored before"
    );
    assert_eq!(
        database
            .store
            .write(&batch([owned.strangers(4..=4)]))
            .await
            .unwrap(),
        0,
        "fenced from now on"
    );
}

pub async fn a_hand_off_waits_for_a_batch_in_progress_and_locks_only_the_row_of_its_shard(kind: ServerKind) {
    let mut stuck = Stuck::new(with_long_lock_waits(kind).await.1, 2).await;
    let (store, first) = (stuck.database.store.clone(), stuck.coupons.remove(0));
    let asked = HandOff {
        shard: first.id().shard(),
        from: first.fence,
        to: Incarnation::random(),
    };
    let giving = tokio::spawn(async move { store.hand_off(&[asked]).await });
    eventually("both wait", async || waiting(&mut stuck.watcher).await == 2).await;
    // While the hand-off waits, the shards that the batch did not name are unlocked.
    claim_beside(
        &stuck.database.store,
        &[asked.shard, stuck.coupons[0].id().shard()],
        16,
    )
    .await;
    stuck.release().await;
    assert_eq!(giving.await.unwrap().unwrap()[0].owner, Some(asked.to));
    assert_eq!(
        loaded(&*stuck.database.store, first.id(), 0).await.len(),
        3,
        "the new owner reads everything that the old one stored"
    );
    assert!(reported(stuck.write).await.is_none_or(|rows| rows == 6));
    assert_eq!(
        stuck
            .database
            .store
            .write(&batch([first.strangers(4..=4)]))
            .await
            .unwrap(),
        0,
        "fenced from now on"
    );
}

pub async fn a_batch_waits_for_a_hand_off_in_progress_and_is_not_stored(kind: ServerKind) {
    let (_, database) = with_long_lock_waits(kind).await;
    let owned = Owned::make(&*database.store, Some(10), 1).await;
    let (mut giver, mut watcher) = (database.shell().await, database.shell().await);
    let (shard, to) = (owned.id().shard(), Incarnation::random().get());
    run(
        &mut giver,
        &format!("BEGIN; UPDATE shards SET epoch = epoch + 1, owner = {to} WHERE shard_id = {shard}"),
    )
    .await;
    let sent = batch([owned.strangers(1..=3)]);
    let writing = write(&database.store, &sent);
    eventually("a statement waits", async || waiting(&mut watcher).await == 1).await;
    run(&mut giver, "COMMIT").await;
    assert!(reported(writing).await.is_none_or(|rows| rows == 0));
    assert_eq!(found(&*database.store, &sent).await, (false, FoundRows::Absent));
}

pub async fn a_take_over_waits_for_a_change_in_progress(kind: ServerKind) {
    let (_, database) = with_long_lock_waits(kind).await;
    let owned = Owned::make(&*database.store, Some(10), 1).await;
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    // The row of the audit log is made before, by a statement that only reads the coupon.
    run(
        &mut holder,
        &format!(
            "BEGIN; SELECT * FROM coupons WHERE id = {} LOCK IN SHARE MODE",
            owned.id()
        ),
    )
    .await;
    let changing = write(
        &database.store,
        &batch([owned.change(0, |coupon| coupon.status = Status::Paused)]),
    );
    eventually("a statement waits", async || waiting(&mut watcher).await == 1).await;
    let store = database.store.clone();
    let shard = owned.id().shard();
    let claiming = tokio::spawn(async move { claim(&*store, shard).await });
    eventually("two statements wait", async || waiting(&mut watcher).await == 2).await;
    run(&mut holder, "ROLLBACK").await;
    claiming.await.unwrap();
    assert!(reported(changing).await.is_none_or(|rows| rows == 1));
    assert_eq!(
        database
            .store
            .coupon(owned.id())
            .await
            .unwrap()
            .unwrap()
            .coupon
            .status,
        Status::Paused
    );
}
