//! The migration from the schema before the former one, while nodes of an earlier build issue.
//!
//! `FIRSTCOME_MIGRATED` sets the number of issuances that are migrated. The times that this test prints are
//! in `docs/operations.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actors::coupon::ids::Sequence;
use actors::coupon::rows::CouponRows;
use actors::store::mysql::{MySqlStore, Options};
use actors::store::{ClusterStore, Loaded};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use testkit::clients::from_environment;
use testkit::servers::{ServerKind, run};

use crate::database::OnServer;
use crate::sqlite::SqliteFile;
use crate::support::{CouponStore, Database, Owned, create, offer};

/// The tables of that schema, with their columns.
const EARLIER: [(&str, &str); 6] = [
    (
        "coupons",
        "id title discount_kind discount_value min_order_amount total_quantity per_user_limit starts_at ends_at \
         use_within_days status version created_at updated_at creation_key creation_body",
    ),
    (
        "issuances",
        "coupon_id sequence user_id nth request_key issued_at expires_at",
    ),
    ("nodes", "node_id incarnation beat state http cluster links"),
    ("shards", "shard_id epoch owner"),
    ("cluster", "id shards hash"),
    (
        "firstcome_migrations",
        "version description installed_on success checksum execution_time",
    ),
];

/// Returns the statements that turn a schema with these tables and columns back into the earlier one.
fn back(found: &[(String, String)]) -> Vec<String> {
    let earlier = |table: &str| EARLIER.iter().find(|(name, _)| *name == table);
    let mut statements = vec!["DELETE FROM firstcome_migrations WHERE version > 2".to_owned()];
    let mut dropped: Vec<&str> = Vec::new();
    for (table, column) in found {
        match earlier(table) {
            Some((_, columns)) if columns.split_whitespace().any(|name| name == column) => {}
            Some(_) => statements.push(format!("ALTER TABLE {table} DROP COLUMN {column}")),
            None if dropped.contains(&table.as_str()) => {}
            None => {
                statements.push(format!("DROP TABLE {table}"));
                dropped.push(table);
            }
        }
    }
    assert!(statements.len() > 1, "{found:?}");
    statements
}

const MYSQL_COLUMNS: &str = "
SELECT CONCAT('', TABLE_NAME), CONCAT('', COLUMN_NAME) FROM information_schema.COLUMNS
 WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, ORDINAL_POSITION";

const SQLITE_COLUMNS: &str = "
SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c
 WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, c.cid";

/// Number of issuances by default.
const ISSUANCES: u64 = 20_000;

/// Maximum time that a batch may wait. An earlier build gives up a batch that waits longer for a table.
const WAIT_MAX: Duration = Duration::from_secs(1);

fn issuances() -> u64 {
    from_environment("FIRSTCOME_MIGRATED").unwrap_or(ISSUANCES)
}

/// Returns the statements that store this many issuances of a coupon, with user ids and keys of the usual
/// length.
fn filling(coupon: u64, count: u64) -> Vec<String> {
    const AT_ONCE: u64 = 1_000;
    let row = |n: u64| format!("({coupon},{n},'user-{n:011}',1,'{n:021x}',1795737600000000,NULL)");
    let firsts = (1..=count).step_by(AT_ONCE as usize);
    let statement = |first: u64| {
        let rows: Vec<String> = (first..=count.min(first + AT_ONCE - 1)).map(row).collect();
        format!("INSERT INTO issuances VALUES {}", rows.join(","))
    };
    firsts.map(statement).collect()
}

/// Stores issuances one after the other, as an earlier build does, until the migration is over. Returns how
/// many were stored, and the longest time that one took.
async fn issue(mut shell: MySqlConnection, owned: &Owned, is_over: &AtomicBool) -> (u64, Duration) {
    run(
        &mut shell,
        "SET SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 1;
         SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    )
    .await;
    let (coupon, fence) = (owned.id(), owned.fence);
    let (mut stored, mut longest) = (0, Duration::ZERO);
    while !is_over.load(Ordering::SeqCst) {
        let n = stored + 1;
        let statement = format!(
            "INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at)
             SELECT c.id, {n}, 'user-{n}', 1, 'key-{n}', 1795737600000000, NULL
               FROM shards AS s FORCE INDEX (PRIMARY)
               STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
                 ON c.id = {coupon} AND (c.total_quantity IS NULL OR {n} <= c.total_quantity) AND 1 <= c.per_user_limit
              WHERE s.shard_id = {} AND s.epoch = {} AND s.owner = {}",
            coupon.shard(),
            fence.epoch,
            fence.owner.get()
        );
        let begun = Instant::now();
        let done = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut shell).await;
        assert_eq!(done.unwrap().rows_affected(), 1, "issuance {n}");
        (stored, longest) = (n, longest.max(begun.elapsed()));
    }
    (stored, longest)
}

async fn count(store: &impl CouponStore, owned: &Owned) -> Sequence {
    match store.load(owned.id(), None).await.unwrap() {
        Loaded::Read(_, rows) => rows.issued.last(),
        other => panic!("{other:?}"),
    }
}

pub async fn issuing_goes_on_during_the_migration_from_an_earlier_schema(kind: ServerKind) {
    let database = OnServer::through(kind, None).await;
    let full = Owned::make(&*database.store, None, 1).await;
    let issued = Owned::make(&*database.store, None, 1).await;
    database.store.close().await;
    let mut shell = database.shell().await;
    let found: Vec<(String, String)> = sqlx::query_as(MYSQL_COLUMNS).fetch_all(&mut shell).await.unwrap();
    for statement in back(&found) {
        run(&mut shell, &statement).await;
    }
    run(
        &mut shell,
        "ALTER TABLE issuances MODIFY nth TINYINT NOT NULL, MODIFY user_id VARCHAR(64) NOT NULL,
             MODIFY request_key VARCHAR(64) NOT NULL;
         ALTER TABLE coupons MODIFY creation_key VARCHAR(64) NOT NULL, DROP INDEX by_phase",
    )
    .await;
    for statement in filling(full.id().get(), issuances()) {
        run(&mut shell, &statement).await;
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let (issuer, over) = (database.shell().await, Arc::clone(&is_over));
    let issuing = tokio::spawn(async move {
        let done = issue(issuer, &issued, &over).await;
        (issued, done)
    });
    let begun = Instant::now();
    MySqlStore::migrate(&Options::new(database.server.url(&database.name, None)))
        .await
        .unwrap();
    let took = begun.elapsed();
    is_over.store(true, Ordering::SeqCst);
    let (issued, (stored, longest)) = issuing.await.unwrap();
    println!(
        "{}: {} issuances migrated in {took:?}; {stored} issued meanwhile, each within {longest:?}",
        kind.name(),
        issuances()
    );
    assert!(stored > 0 && longest < WAIT_MAX, "{stored} within {longest:?}");
    let store = database.open().await.unwrap();
    store.check().await.unwrap();
    assert_eq!(count(&store, &full).await, Sequence::new(issuances()));
    assert_eq!(count(&store, &issued).await, Sequence::new(stored));
}

/// A database in a file is migrated before its node serves.
#[tokio::test]
async fn a_file_is_migrated_from_an_earlier_schema_within_a_second() {
    let mut file = SqliteFile::new().await;
    let full = create(&*file.store(), offer(None, 1)).await;
    file.store().close().await;
    let mut shell: SqliteConnection = file.shell().await;
    let found: Vec<(String, String)> = sqlx::query_as(SQLITE_COLUMNS)
        .fetch_all(&mut shell)
        .await
        .unwrap();
    let filling = filling(full.id.get(), issuances());
    let begin = ["DROP INDEX by_phase", "BEGIN"].map(str::to_owned);
    let begin = back(&found).into_iter().chain(begin);
    for statement in begin.chain(filling).chain(["COMMIT".to_owned()]) {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut shell)
            .await
            .unwrap();
    }
    shell.close().await.unwrap();
    let begun = Instant::now();
    file.migrate().await;
    let took = begun.elapsed();
    println!("SQLite: {} issuances migrated in {took:?}", issuances());
    assert!(took < WAIT_MAX, "{took:?}");
    file.reopen().await;
    let listed = file.store().coupon(full.id).await.unwrap().unwrap();
    assert_eq!(listed.issued, Sequence::new(issuances()));
}
