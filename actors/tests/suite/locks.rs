//! Which rows are locked, and who waits for whom.

use std::sync::Arc;

use actors::coupon::offer::{Issuance, Status};
use actors::coupon::rows::{CouponQuery, CouponRows, UserCursor};
use actors::ids::{Incarnation, NodeId, Sequence, ShardId};
use actors::store::batch::FoundRows;
use actors::store::mysql::MySqlStore;
use actors::store::{Claim, ClusterStore, EntryStore, HandOff, NodeRow, NodeState, StoreError};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row};
use tokio::task::JoinHandle;

use crate::Batch;
use crate::database::OnServer;
use crate::support::{
    CouponStore, Owned, Portion, batch, claim, claim_by, create, found, issuances, loaded, offer, shard_row,
    user,
};
use testkit::database_proxy::{DatabaseMode, DatabaseProxy, Rule};
use testkit::poll::eventually;
use testkit::servers::{Kind, Server, run};

/// Statements that wait for a row at this moment. (`INNODB_TRX` shows it too, but not to those who ask more
/// than ten times a second.)
async fn waiting(shell: &mut MySqlConnection) -> i64 {
    let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
        .fetch_one(shell)
        .await
        .unwrap();
    row.try_get::<String, _>(1).unwrap().parse().unwrap()
}

/// What is said behind the question for a session's settings: its statements wait for locks far longer than
/// the store has them do, so that it can be seen who waits for whom, however busy the machine is.
const PATIENCE: Rule = Rule::Append(
    "SHOW VARIABLES WHERE",
    "; SET SESSION innodb_lock_wait_timeout = 120",
);

/// A database, with a store on it whose statements are patient, through a proxy.
async fn patient(kind: Kind) -> (DatabaseProxy, OnServer) {
    let proxy = DatabaseProxy::with_rule(Server::shared(kind).port(), PATIENCE).await;
    let database = OnServer::through(kind, Some(proxy.port())).await;
    (proxy, database)
}

/// How many rows a batch has stored, as it is told; nothing if the store did not wait for it to the end. It
/// goes on at the server all the same.
async fn told(write: JoinHandle<Result<u64, StoreError>>) -> Option<u64> {
    match write.await.unwrap() {
        Ok(rows) => Some(rows),
        Err(StoreError::Unknown(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Waits until a batch is seen to be stored, whatever is told of it.
async fn stored(store: &MySqlStore, sent: &Batch) {
    eventually("storing", async || {
        store
            .read_back(sent)
            .await
            .unwrap()
            .iter()
            .all(|found| found.rows == FoundRows::Stored)
    })
    .await;
}

/// Coupons on so many different shards.
async fn on_different_shards(store: &dyn CouponStore, count: usize) -> Vec<Owned> {
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

/// A batch for two or more shards that has stored its first portions and waits for the last shard, which
/// `holder` has locked.
struct Stuck {
    database: OnServer,
    holder: MySqlConnection,
    watcher: MySqlConnection,
    coupons: Vec<Owned>,
    sent: Batch,
    write: JoinHandle<Result<u64, StoreError>>,
}

impl Stuck {
    async fn new(database: OnServer, shards: usize) -> Self {
        let coupons = on_different_shards(&*database.store, shards).await;
        Self::with(database, coupons, true).await
    }

    /// With coupons of one owner, and issuances that do not end: as little as can be in each row.
    async fn alike(database: OnServer, shards: usize) -> Self {
        let mut coupons = on_different_shards(&*database.store, shards).await;
        let claimant = Incarnation::random();
        for owned in &mut coupons {
            owned.fence = claim_by(&*database.store, owned.id().shard(), claimant).await;
        }
        Self::with(database, coupons, false).await
    }

    async fn with(database: OnServer, coupons: Vec<Owned>, do_expire: bool) -> Self {
        let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
        let last = coupons.last().unwrap().id().shard();
        run(
            &mut holder,
            &format!("BEGIN; SELECT * FROM shards WHERE shard_id = {last} FOR UPDATE"),
        )
        .await;
        let of = |owned: &Owned| {
            if do_expire {
                owned.strangers(1..=3)
            } else {
                endless(owned)
            }
        };
        let sent = batch(coupons.iter().map(of).collect::<Vec<_>>());
        let write = write(&database.store, &sent);
        // One that is not patient may have waited already.
        eventually("waiting", async || {
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

    async fn let_go(&mut self) {
        run(&mut self.holder, "ROLLBACK").await;
    }
}

/// Issuances 1 to 3 of the coupon, which do not end.
fn endless(owned: &Owned) -> Portion {
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

fn write(store: &Arc<MySqlStore>, sent: &Batch) -> JoinHandle<Result<u64, StoreError>> {
    let (store, sent) = (Arc::clone(store), sent.clone());
    tokio::spawn(async move { store.write(&sent).await })
}

pub async fn a_waiting_batch_has_locked_the_rows_it_names_and_no_others(kind: Kind) {
    let stuck = Stuck::new(patient(kind).await.1, 5).await;
    has_locked_what_it_names(kind, stuck).await;
}

pub async fn a_waiting_batch_of_one_owner_has_locked_the_rows_it_names_and_no_others(kind: Kind) {
    let stuck = Stuck::alike(patient(kind).await.1, 5).await;
    has_locked_what_it_names(kind, stuck).await;
}

async fn has_locked_what_it_names(kind: Kind, mut stuck: Stuck) {
    let counts = format!(
        "SELECT t.trx_rows_locked, t.trx_tables_locked, t.trx_rows_modified FROM information_schema.INNODB_TRX AS t
           JOIN information_schema.PROCESSLIST AS p ON p.ID = t.trx_mysql_thread_id
          WHERE p.DB = '{}' AND t.trx_state = 'LOCK WAIT'",
        stuck.database.name
    );
    let row = sqlx::raw_sql(AssertSqlSafe(counts))
        .fetch_one(&mut stuck.watcher)
        .await
        .unwrap();
    let counts: Vec<u64> = (0..3).map(|column| row.try_get(column).unwrap()).collect();
    let locks = if kind == Kind::MySql {
        Some(data_locks(&mut stuck.watcher, &stuck.database.name).await)
    } else {
        None
    };
    // Whatever it did not name is free: to be claimed, to be changed, to be written to. Most of all what is
    // beside.
    let named: Vec<_> = stuck.coupons.iter().map(|owned| owned.id().shard()).collect();
    claim_beside(&stuck.database.store, &named, 2).await;
    stuck.let_go().await;
    assert!(told(stuck.write).await.is_none_or(|rows| rows == 15));
    stored(&stuck.database.store, &stuck.sent).await;
    // Five shards, of which it waits for the last, and four coupons. What it has inserted is locked without
    // counting.
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

/// Claims those shards that are so close to some that are locked, and are not.
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
        .expect("no shard is locked that was not named");
    assert!(
        claims
            .iter()
            .zip(claimed)
            .all(|(claim, row)| row.owner == Some(claim.claimant)),
        "a shard that was not named is locked"
    );
}

/// Locks on rows of the transaction that waits, as MySQL tells them.
async fn data_locks(watcher: &mut MySqlConnection, database: &str) -> Vec<String> {
    let query = format!(
        "SELECT CONCAT_WS(' ', OBJECT_NAME, LOCK_MODE, LOCK_STATUS, LOCK_DATA) AS told FROM performance_schema.data_locks
          WHERE LOCK_TYPE = 'RECORD' AND ENGINE_TRANSACTION_ID IN
                (SELECT w.REQUESTING_ENGINE_TRANSACTION_ID FROM performance_schema.data_lock_waits AS w
                   JOIN performance_schema.data_locks AS l ON l.ENGINE_LOCK_ID = w.REQUESTING_ENGINE_LOCK_ID
                  WHERE l.OBJECT_SCHEMA = '{database}')"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(query))
        .fetch_all(watcher)
        .await
        .unwrap();
    let mut told: Vec<String> = rows.iter().map(|row| row.try_get("told").unwrap()).collect();
    told.sort();
    told
}

pub async fn a_take_over_waits_for_a_batch_in_progress(kind: Kind) {
    let mut stuck = Stuck::new(patient(kind).await.1, 2).await;
    let (store, first) = (stuck.database.store.clone(), stuck.coupons.remove(0));
    let seen = shard_row(&*store, first.id().shard()).await;
    let claimant = Incarnation::random();
    let claiming = tokio::spawn(async move { store.claim(&[Claim { seen, claimant }]).await });
    eventually("waiting", async || waiting(&mut stuck.watcher).await == 2).await;
    assert_eq!(
        shard_row(&*stuck.database.store, seen.id).await,
        seen,
        "nobody has it yet"
    );
    stuck.let_go().await;
    let rows = claiming.await.unwrap().unwrap();
    assert_eq!(rows[0].owner, Some(claimant));
    // Who has claimed reads all that the one before has stored.
    assert_eq!(loaded(&*stuck.database.store, first.id(), 0).await.len(), 3);
    assert!(told(stuck.write).await.is_none_or(|rows| rows == 6));
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

pub async fn a_take_over_waits_for_a_batch_of_one_coupon_in_progress(kind: Kind) {
    let (_, database) = patient(kind).await;
    let owned = Owned::make(&*database.store, Some(10), 1).await;
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    let (coupon, shard) = (owned.id(), owned.id().shard());
    run(
        &mut holder,
        &format!("BEGIN; SELECT * FROM coupons WHERE id = {coupon} FOR UPDATE"),
    )
    .await;
    let writing = write(&database.store, &batch([endless(&owned)]));
    eventually("waiting", async || waiting(&mut watcher).await == 1).await;
    if kind == Kind::MySql {
        let expected = [
            format!("coupons S,REC_NOT_GAP WAITING {coupon}"),
            format!("shards S,REC_NOT_GAP GRANTED {shard}"),
        ];
        assert_eq!(data_locks(&mut watcher, &database.name).await, expected);
    }
    let store = database.store.clone();
    let claiming = tokio::spawn(async move { claim(&*store, shard).await });
    eventually("waiting", async || waiting(&mut watcher).await == 2).await;
    claim_beside(&database.store, &[shard], 2).await;
    run(&mut holder, "ROLLBACK").await;
    claiming.await.unwrap();
    assert!(told(writing).await.is_none_or(|rows| rows == 3));
    assert_eq!(
        loaded(&*database.store, coupon, 0).await.len(),
        3,
        "who has claimed reads all that was stored before"
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

pub async fn a_hand_over_waits_for_a_batch_in_progress_and_locks_its_row_alone(kind: Kind) {
    let mut stuck = Stuck::new(patient(kind).await.1, 2).await;
    let (store, first) = (stuck.database.store.clone(), stuck.coupons.remove(0));
    let asked = HandOff {
        shard: first.id().shard(),
        from: first.fence,
        to: Incarnation::random(),
    };
    let giving = tokio::spawn(async move { store.hand_off(&[asked]).await });
    eventually("waiting", async || waiting(&mut stuck.watcher).await == 2).await;
    // While it waits, the shards that the batch did not name are free.
    claim_beside(
        &stuck.database.store,
        &[asked.shard, stuck.coupons[0].id().shard()],
        16,
    )
    .await;
    stuck.let_go().await;
    assert_eq!(giving.await.unwrap().unwrap()[0].owner, Some(asked.to));
    assert_eq!(
        loaded(&*stuck.database.store, first.id(), 0).await.len(),
        3,
        "the new owner reads all that the old one stored"
    );
    assert!(told(stuck.write).await.is_none_or(|rows| rows == 6));
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

pub async fn a_batch_waits_for_a_hand_over_in_progress_and_is_not_stored(kind: Kind) {
    let (_, database) = patient(kind).await;
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
    eventually("waiting", async || waiting(&mut watcher).await == 1).await;
    run(&mut giver, "COMMIT").await;
    assert!(told(writing).await.is_none_or(|rows| rows == 0));
    assert_eq!(found(&*database.store, &sent).await, (false, FoundRows::Absent));
}

pub async fn a_take_over_waits_for_a_change_in_progress(kind: Kind) {
    let (_, database) = patient(kind).await;
    let owned = Owned::make(&*database.store, Some(10), 1).await;
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    run(
        &mut holder,
        &format!(
            "BEGIN; SELECT * FROM coupons WHERE id = {} FOR UPDATE",
            owned.id()
        ),
    )
    .await;
    let changing = write(
        &database.store,
        &batch([owned.change(0, |coupon| coupon.status = Status::Paused)]),
    );
    eventually("waiting", async || waiting(&mut watcher).await == 1).await;
    let store = database.store.clone();
    let shard = owned.id().shard();
    let claiming = tokio::spawn(async move { claim(&*store, shard).await });
    eventually("waiting", async || waiting(&mut watcher).await == 2).await;
    run(&mut holder, "ROLLBACK").await;
    claiming.await.unwrap();
    assert!(told(changing).await.is_none_or(|rows| rows == 1));
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

pub async fn a_batch_that_waits_too_long_is_not_stored(kind: Kind) {
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
    stuck.let_go().await;
    assert_eq!(stuck.database.store.write(&stuck.sent).await.unwrap(), 6);
}

pub async fn a_batch_that_loses_a_deadlock_is_not_stored(kind: Kind) {
    let (_, database) = patient(kind).await;
    let coupons = on_different_shards(&*database.store, 2).await;
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    let (first, last) = (coupons[0].id().shard(), coupons[1].id().shard());
    has_changed_much(&mut holder).await;
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
    eventually("waiting", async || waiting(&mut watcher).await == 1).await;
    run(
        &mut holder,
        &format!("SELECT * FROM shards WHERE shard_id = {first} FOR UPDATE"),
    )
    .await;
    assert!(matches!(writing.await.unwrap(), Err(StoreError::NotStored(why)) if why.contains("1213")));
    run(&mut holder, "ROLLBACK").await;
    assert_eq!(database.store.write(&sent).await.unwrap(), 6);
}

pub async fn a_batch_of_one_coupon_that_waits_too_long_or_loses_a_deadlock_is_not_stored(kind: Kind) {
    let impatient = OnServer::through(kind, None).await;
    let owned = Owned::make(&*impatient.store, Some(10), 1).await;
    let mut holder = impatient.shell().await;
    run(
        &mut holder,
        &format!(
            "BEGIN; SELECT * FROM shards WHERE shard_id = {} FOR UPDATE",
            owned.id().shard()
        ),
    )
    .await;
    let sent = batch([endless(&owned)]);
    assert!(
        matches!(impatient.store.write(&sent).await, Err(StoreError::NotStored(why)) if why.contains("1205"))
    );
    assert_eq!(found(&*impatient.store, &sent).await, (true, FoundRows::Absent));
    run(&mut holder, "ROLLBACK").await;
    assert_eq!(impatient.store.write(&sent).await.unwrap(), 3);

    let (_, database) = patient(kind).await;
    let owned = Owned::make(&*database.store, Some(10), 1).await;
    let (mut holder, mut watcher) = (database.shell().await, database.shell().await);
    has_changed_much(&mut holder).await;
    run(
        &mut holder,
        &format!("SELECT * FROM coupons WHERE id = {} FOR UPDATE", owned.id()),
    )
    .await;
    let sent = batch([endless(&owned)]);
    let writing = write(&database.store, &sent);
    eventually("waiting", async || waiting(&mut watcher).await == 1).await;
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

/// Begins a transaction that no deadlock ends: who has changed the most rows is spared.
async fn has_changed_much(shell: &mut MySqlConnection) {
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

pub async fn a_statement_goes_on_without_its_client_and_the_same_again_finds_it(kind: Kind) {
    let (proxy, database) = patient(kind).await;
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
    eventually("going on", async || waiting(&mut watcher).await == 1).await;
    assert_eq!(
        database.store.read_back(&sent).await.unwrap()[0].rows,
        FoundRows::Absent,
        "nothing is committed"
    );
    let again = write(&database.store, &sent);
    eventually("waiting for the keys", async || waiting(&mut watcher).await == 2).await;
    run(&mut holder, "ROLLBACK").await;
    assert!(matches!(again.await.unwrap(), Err(StoreError::Clash(_))));
    let read = database.store.read_back(&sent).await.unwrap();
    assert!(
        read.iter()
            .all(|found| found.fence_holds && found.rows == FoundRows::Stored),
        "{read:?}"
    );
}

pub async fn ending_a_node_keeps_no_other_from_beating(kind: Kind) {
    let (_, database) = patient(kind).await;
    let node = |name: &str| NodeRow {
        id: NodeId::parse(name).unwrap(),
        incarnation: Incarnation::random(),
        beat: 0,
        state: NodeState::Ready,
        http: String::new(),
        cluster: String::new(),
        links: Vec::new(),
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
    eventually("waiting", async || waiting(&mut watcher).await == 1).await;
    // A busy machine may take longer for one than a beat is waited for.
    eventually("beating", async || {
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

/// Statements so far, of all sessions.
async fn statements(shell: &mut MySqlConnection) -> u64 {
    let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Questions'")
        .fetch_one(shell)
        .await
        .unwrap();
    row.try_get::<String, _>(1).unwrap().parse().unwrap()
}

/// One statement for each coupon would not end in time where the server is a millisecond away, and be tried
/// again for ever.
pub async fn a_batch_of_many_coupons_is_read_back_in_few_statements(kind: Kind) {
    const COUPONS: usize = 60;
    let database = OnServer::through(kind, None).await;
    let coupons = on_different_shards(&*database.store, COUPONS).await;
    let mut shell = database.shell().await;
    let batch_of = |coupons: &[Owned]| {
        batch(
            coupons
                .iter()
                .map(|owned| owned.strangers(1..=2))
                .collect::<Vec<_>>(),
        )
    };
    database
        .store
        .write(&batch_of(&coupons[..COUPONS / 2]))
        .await
        .unwrap();
    let sent = batch_of(&coupons);
    let before = statements(&mut shell).await;
    let found = database.store.read_back(&sent).await.unwrap();
    let taken = statements(&mut shell).await - before;
    let rows = |of: FoundRows| {
        found
            .iter()
            .filter(|found| found.fence_holds && found.rows == of)
            .count()
    };
    assert_eq!(
        (rows(FoundRows::Stored), rows(FoundRows::Absent)),
        (COUPONS / 2, COUPONS / 2)
    );
    assert!(taken < 20, "{taken} statements");
}

/// Steps along an index, of all sessions.
async fn steps(shell: &mut MySqlConnection) -> u64 {
    let rows =
        sqlx::raw_sql("SHOW GLOBAL STATUS WHERE Variable_name IN ('Handler_read_next', 'Handler_read_prev')");
    let rows = rows.fetch_all(shell).await.unwrap();
    rows.iter()
        .map(|row| row.try_get::<String, _>(1).unwrap().parse::<u64>().unwrap())
        .sum()
}

pub async fn nothing_that_people_read_goes_through_a_whole_coupon(kind: Kind) {
    let database = OnServer::through(kind, None).await;
    let store = &*database.store;
    let owned = Owned::make(store, Some(5_000), 1).await;
    for first in (1..=4_000).step_by(2_000) {
        store
            .write(&batch([owned.strangers(first..=first + 1_999)]))
            .await
            .unwrap();
    }
    let mut shell = database.shell().await;
    run(&mut shell, "ANALYZE TABLE issuances, coupons").await;
    let (id, ann) = (owned.id(), user("user-1234"));
    let query = CouponQuery {
        before: None,
        limit: 10,
    };
    let before = steps(&mut shell).await;
    assert_eq!(store.coupon(id).await.unwrap().unwrap().issued.get(), 4_000);
    assert_eq!(store.coupons(&query).await.unwrap()[0].issued.get(), 4_000);
    assert_eq!(store.issuances_of_user(&ann, None, 10).await.unwrap().len(), 1);
    assert_eq!(
        store
            .issuances_of_coupon(id, Some(&ann), Sequence::NONE, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        store
            .issuances_of_coupon(id, None, Sequence::new(2_000), 10)
            .await
            .unwrap()
            .len(),
        10
    );
    assert_eq!(
        store
            .write(&batch([
                owned.change(4_000, |coupon| coupon.offer.total_quantity = Some(4_500))
            ]))
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        found(store, &batch([owned.strangers(4_001..=4_010)])).await.1,
        FoundRows::Absent
    );
    let taken = steps(&mut shell).await - before;
    // Reading back goes through the 256 shards once.
    assert!(taken < 456, "{taken} steps");
}

/// What the server was told to execute since its log was last emptied.
async fn logged(shell: &mut MySqlConnection, of: &str) -> String {
    let rows = sqlx::raw_sql(
        "SELECT CAST(argument AS CHAR) FROM mysql.general_log WHERE command_type = 'Execute' ORDER BY event_time",
    );
    let texts = rows
        .fetch_all(shell)
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.try_get::<String, _>(0).unwrap());
    let fitting: Vec<String> = texts
        .filter(|text| text.trim_start().starts_with("SELECT") && text.contains(of))
        .collect();
    assert_eq!(fitting.len(), 1, "{fitting:?}");
    fitting[0].clone()
}

/// The very statements that people's reads send, explained: which index each table is read by, and never all
/// of a table or of an index.
pub async fn every_list_has_its_index(kind: Kind) {
    let database = OnServer::through(kind, None).await;
    let store = &*database.store;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let owned = Owned::make(store, Some(5_000), 1).await;
        store.write(&batch([owned.strangers(1..=100)])).await.unwrap();
        ids.push(owned.id());
    }
    let mut shell = database.shell().await;
    run(&mut shell, "ANALYZE TABLE issuances, coupons").await;
    run(&mut shell, "SET GLOBAL log_output = 'TABLE'").await;
    let ann = user("user-12");
    let after = store
        .issuances_of_user(&ann, None, 1)
        .await
        .unwrap()
        .pop()
        .unwrap();
    let after = UserCursor {
        issued_at: after.issued_at,
        id: after.id,
    };
    for (list, table, index, sorts) in [
        ("coupons", "coupons", "PRIMARY", false),
        ("older coupons", "coupons", "PRIMARY", false),
        ("of a coupon", "issuances", "PRIMARY", false),
        ("of a coupon and a user", "issuances", "by_user", true),
        ("of a user", "issuances", "by_user", true),
        ("older of a user", "issuances", "by_user", true),
    ] {
        run(
            &mut shell,
            "SET GLOBAL general_log = OFF; TRUNCATE TABLE mysql.general_log; SET GLOBAL general_log = ON",
        )
        .await;
        let rows = match list {
            "coupons" => store
                .coupons(&CouponQuery {
                    before: None,
                    limit: 10,
                })
                .await
                .unwrap()
                .len(),
            "older coupons" => store
                .coupons(&CouponQuery {
                    before: Some(ids[15]),
                    limit: 10,
                })
                .await
                .unwrap()
                .len(),
            "of a coupon" => store
                .issuances_of_coupon(ids[3], None, Sequence::new(50), 10)
                .await
                .unwrap()
                .len(),
            "of a coupon and a user" => store
                .issuances_of_coupon(ids[3], Some(&ann), Sequence::NONE, 10)
                .await
                .unwrap()
                .len(),
            "of a user" => store.issuances_of_user(&ann, None, 10).await.unwrap().len(),
            _ => store
                .issuances_of_user(&ann, Some(after), 10)
                .await
                .unwrap()
                .len(),
        };
        run(&mut shell, "SET GLOBAL general_log = OFF").await;
        assert!(rows > 0, "{list}");
        let statement = logged(&mut shell, &format!("FROM {table}")).await;
        // MySQL would draw a tree; MariaDB knows only the table. MariaDB's log leaves places of values open.
        let explain = if kind == Kind::MySql {
            "EXPLAIN FORMAT=TRADITIONAL"
        } else {
            "EXPLAIN"
        };
        let values = match list {
            "of a user" => vec!["'user-12'".to_owned(), "10".to_owned()],
            "older of a user" => {
                let (micros, coupon, sequence) =
                    (after.issued_at.as_micros(), after.id.coupon, after.id.sequence);
                vec![
                    "'user-12'".to_owned(),
                    micros.to_string(),
                    coupon.to_string(),
                    sequence.to_string(),
                    "10".to_owned(),
                ]
            }
            "of a coupon and a user" => vec![
                ids[3].to_string(),
                "0".to_owned(),
                "'user-12'".to_owned(),
                "10".to_owned(),
            ],
            "of a coupon" => vec![ids[3].to_string(), "50".to_owned(), "10".to_owned()],
            _ => vec![ids[15].to_string(), "10".to_owned()],
        };
        let statement = values
            .iter()
            .fold(statement, |statement, value| statement.replacen('?', value, 1));
        let plan = sqlx::raw_sql(AssertSqlSafe(format!("{explain} {statement}")))
            .fetch_all(&mut shell)
            .await
            .unwrap();
        let text = |row: &MySqlRow, column: &str| {
            row.try_get::<Option<String>, _>(column)
                .unwrap()
                .unwrap_or_default()
        };
        let steps: Vec<[String; 4]> = plan
            .iter()
            .map(|row| ["table", "type", "key", "Extra"].map(|column| text(row, column)))
            .collect();
        for [_, kind_of_read, key, extra] in &steps {
            assert!(
                ["range", "ref", "eq_ref", "const"].contains(&kind_of_read.as_str()) && !key.is_empty(),
                "{list}: {steps:?}"
            );
            assert!(sorts || !extra.contains("filesort"), "{list}: {steps:?}");
        }
        assert_eq!(steps[0][2], index, "{list}: {steps:?}");
    }
}

pub async fn batches_of_all_sizes_leave_no_prepared_statements(kind: Kind) {
    let database = OnServer::through(kind, None).await;
    let owned = Owned::make(&*database.store, None, 1).await;
    let mut shell = database.shell().await;
    let mut prepared = async || -> u64 {
        let row = sqlx::raw_sql("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
            .fetch_one(&mut shell)
            .await
            .unwrap();
        row.try_get::<String, _>(1).unwrap().parse().unwrap()
    };
    let before = prepared().await;
    let mut first = 1;
    for size in 1..=60 {
        assert_eq!(
            database
                .store
                .write(&batch([owned.strangers(first..=first + size - 1)]))
                .await
                .unwrap(),
            size
        );
        first += size;
    }
    assert!(prepared().await <= before);
}
