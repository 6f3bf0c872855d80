//! Tests of what only a database in a file must guarantee.

use std::sync::Arc;

use actors::coupon::CouponKind;
use actors::coupon::code::SECRETS_MAX;
use actors::coupon::offer::Status;
use actors::coupon::rows::{AddSecretError, CodeRows, CouponRows};
use actors::store::batch::FoundRows;
use actors::store::sqlite::{OpenError, Options, SqliteStore};
use actors::store::{ClusterStore, EntryStore, StoreError};
use async_trait::async_trait;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use crate::support::{Database, Owned, batch, found, loaded};

/// A database file in a directory of its own. Dropping this value removes the directory.
pub struct SqliteFile {
    directory: TempDir,
    store: Arc<SqliteStore>,
}

impl SqliteFile {
    /// Migrates the database again, as a node does that starts on it. The store must be closed.
    pub async fn migrate(&self) {
        SqliteStore::migrate(&Self::options(&self.directory))
            .await
            .unwrap();
    }

    fn options(directory: &TempDir) -> Options {
        Options::new(directory.path().join("not").join("yet").join("firstcome.db"))
    }

    /// Opens a connection as another program would.
    pub async fn shell(&self) -> SqliteConnection {
        SqliteConnectOptions::new()
            .filename(self.store.path())
            .connect()
            .await
            .unwrap()
    }

    async fn open(&self) -> Result<SqliteStore, OpenError> {
        SqliteStore::open(&Self::options(&self.directory)).await
    }
}

#[async_trait]
impl Database for SqliteFile {
    type Store = SqliteStore;

    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&Self::options(&directory)).await.unwrap();
        store.check().await.unwrap();
        Self {
            directory,
            store: Arc::new(store),
        }
    }

    fn store(&self) -> Arc<SqliteStore> {
        self.store.clone()
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Arc::new(self.open().await.unwrap());
    }
}

#[tokio::test]
async fn a_second_open_is_refused_until_the_first_is_closed() {
    let file = SqliteFile::new().await;
    let refused = file.open().await.unwrap_err();
    assert!(
        refused
            .to_string()
            .ends_with("firstcome.db is in use by another process"),
        "{refused}"
    );
    assert!(matches!(
        SqliteStore::migrate(&SqliteFile::options(&file.directory)).await,
        Err(OpenError::InUse(_))
    ));
    file.store.close().await;
    assert!(
        matches!(file.store.check().await, Err(StoreError::NotStored(_))),
        "closed"
    );
    file.open().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn one_database_has_one_lock_under_all_its_names() {
    let file = SqliteFile::new().await;
    let link = file.directory.path().join("link.db");
    std::os::unix::fs::symlink(file.store.path(), &link).unwrap();
    assert!(matches!(
        SqliteStore::open(&Options::new(link)).await,
        Err(OpenError::InUse(_))
    ));
}

#[tokio::test]
async fn a_dropped_store_frees_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteFile::options(&directory);
    SqliteStore::migrate(&options).await.unwrap();
    drop(SqliteStore::open(&options).await.unwrap());
    SqliteStore::open(&options).await.unwrap().check().await.unwrap();
}

#[tokio::test]
async fn a_batch_whose_caller_goes_away_is_stored_whole_or_not_at_all() {
    let mut file = SqliteFile::new().await;
    let owned = Owned::make(&*file.store, None, 1).await;
    let sent = batch([owned.strangers(1..=1_000)]);
    let store = file.store();
    let write = tokio::spawn(async move { store.write(&sent).await });
    tokio::task::yield_now().await;
    write.abort();
    drop(write.await);
    file.reopen().await;
    let rows = loaded(&*file.store, owned.id(), 0).await.len();
    assert!(
        rows == 0 || rows == 1_000,
        "{rows} rows: only a part of the batch is stored"
    );
}

#[tokio::test]
async fn commits_are_synced_before_they_are_answered() {
    let file = SqliteFile::new().await;
    let settings = file.store.durability().await.unwrap();
    // 2 is FULL: https://www.sqlite.org/pragma.html#pragma_synchronous
    assert_eq!(settings, ("wal".to_owned(), 2));
}

/// Users come in random order, so almost every row changes a page of its own.
#[tokio::test]
async fn the_log_is_checkpointed_during_writes_and_restarts() {
    /// Twice the size at which a checkpoint begins. A longer log is cut to this size when it restarts.
    /// Without checkpoints the log would have one and a half times this size.
    const LOG_BYTES: u64 = 256 << 20;
    const ROWS: u64 = 130_000;
    let file = SqliteFile::new().await;
    let owned = Owned::make(&*file.store, None, 1).await;
    let log = format!("{}-wal", file.store.path().display());
    let stranger = |sequence: u64| {
        owned.issuance(
            sequence,
            &format!("{:016x}", sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            1,
        )
    };
    for first in (1..ROWS).step_by(500) {
        let sent = batch([owned.portion((first..first + 500).map(stranger).collect())]);
        assert_eq!(file.store.write(&sent).await.unwrap(), 500);
    }
    let bytes = std::fs::metadata(log).unwrap().len();
    assert!(bytes <= LOG_BYTES, "{bytes} bytes");
    assert_eq!(loaded(&*file.store, owned.id(), 0).await.len() as u64, ROWS);
}

#[tokio::test]
async fn a_log_that_a_crash_left_is_checkpointed_before_anything_else() {
    let file = SqliteFile::new().await;
    let owned = Owned::make(&*file.store, None, 1).await;
    assert_eq!(
        file.store
            .write(&batch([owned.strangers(1..=1_000)]))
            .await
            .unwrap(),
        1_000
    );
    // As after a crash: a copy of the database and its log, which no process has open.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("firstcome.db");
    let log = |path: &std::path::Path| format!("{}-wal", path.display());
    std::fs::copy(file.store.path(), &path).unwrap();
    let left = std::fs::copy(log(file.store.path()), log(&path)).unwrap();
    let store = SqliteStore::open(&Options::new(&path)).await.unwrap();
    let bytes = std::fs::metadata(log(&path)).map_or(0, |log| log.len());
    assert!(bytes < left / 2, "{bytes} of {left} bytes");
    assert_eq!(loaded(&store, owned.id(), 0).await.len(), 1_000);
}

#[tokio::test]
async fn writes_to_a_full_disk_are_refused_and_no_rows_are_lost() {
    let file = SqliteFile::new().await;
    let owned = Owned::make(&*file.store, None, 1).await;
    assert_eq!(
        file.store.write(&batch([owned.strangers(1..=10)])).await.unwrap(),
        10
    );
    // The quota is below the present size: SQLite keeps what it has and does not grow.
    file.store.set_page_count_max(1).await.unwrap();
    let mut stored = 10;
    let refused = loop {
        let next = batch([owned.strangers(stored + 1..=stored + 500)]);
        match file.store.write(&next).await {
            Ok(rows) => stored += rows,
            Err(StoreError::NotStored(_)) => break next,
            Err(other) => panic!("a full disk should be a refusal, not {other:?}"),
        }
        assert!(stored < 100_000, "the quota has no effect");
    };
    assert_eq!(found(&*file.store, &refused).await, (true, FoundRows::Absent));
    assert_eq!(loaded(&*file.store, owned.id(), 0).await.len() as u64, stored);
    file.store.set_page_count_max(1_000_000).await.unwrap();
    assert_eq!(file.store.write(&refused).await.unwrap(), 500);
    assert_eq!(
        loaded(&*file.store, owned.id(), 0).await.len() as u64,
        stored + 500
    );
}

#[tokio::test]
async fn a_batch_is_refused_while_another_program_has_locked_the_database() {
    let file = SqliteFile::new().await;
    let owned = Owned::make(&*file.store, None, 1).await;
    let mut shell = file.shell().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut shell)
        .await
        .unwrap();
    let sent = batch([owned.strangers(1..=3)]);
    assert!(matches!(
        file.store.write(&sent).await,
        Err(StoreError::NotStored(_))
    ));
    assert!(
        file.store.coupon(owned.id()).await.unwrap().is_some(),
        "reads go on"
    );
    sqlx::raw_sql("ROLLBACK").execute(&mut shell).await.unwrap();
    assert_eq!(file.store.write(&sent).await.unwrap(), 3);
}

/// Opens and checks a database whose schema is this many versions newer than this program's.
async fn opened_with_newer_schema(versions: i64) -> Result<(), OpenError> {
    let file = SqliteFile::new().await;
    file.store.close().await;
    let mut shell = file.shell().await;
    for version in 1..=versions {
        sqlx::query(
            "INSERT INTO firstcome_migrations (version, description, success, checksum, execution_time)
             SELECT max(version) + 1, ?1, true, x'00', 0 FROM firstcome_migrations",
        )
        .bind(format!("newer by {version}"))
        .execute(&mut shell)
        .await
        .unwrap();
    }
    shell.close().await.unwrap();
    file.open().await?.check().await.unwrap();
    Ok(())
}

#[tokio::test]
async fn a_schema_is_accepted_one_version_ahead_and_refused_two_versions_ahead() {
    opened_with_newer_schema(1).await.unwrap();
    assert!(matches!(
        opened_with_newer_schema(2).await,
        Err(OpenError::TooNew { found: 6, known: 4 })
    ));
}

#[tokio::test]
async fn a_schema_of_another_program_is_refused() {
    let file = SqliteFile::new().await;
    file.store.close().await;
    let mut shell = file.shell().await;
    sqlx::raw_sql("UPDATE firstcome_migrations SET checksum = x'00'")
        .execute(&mut shell)
        .await
        .unwrap();
    assert!(matches!(file.open().await, Err(OpenError::Migrate(_))));
}

#[tokio::test]
async fn a_file_of_another_program_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let mut shell = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql("CREATE TABLE coupons (id INTEGER PRIMARY KEY, code TEXT, title TEXT)")
        .execute(&mut shell)
        .await
        .unwrap();
    shell.close().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let why = SqliteStore::open(&Options::new(&path))
        .await
        .unwrap_err()
        .to_string();
    let named = [
        "a table coupons of another program",
        "creation_key",
        "but code",
        "a database of its own",
    ];
    assert!(named.iter().all(|named| why.contains(named)), "{why}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn the_migrations_of_an_earlier_build_are_taken_and_those_of_another_program_left_alone() {
    let versions = async |shell: &mut SqliteConnection, table: &str| -> Vec<i64> {
        let asked = sqlx::AssertSqlSafe(format!("SELECT version FROM {table} ORDER BY version"));
        sqlx::query_scalar(asked)
            .fetch_all(shell)
            .await
            .unwrap_or_default()
    };
    let mut file = SqliteFile::new().await;
    file.store.close().await;
    let mut shell = file.shell().await;
    sqlx::raw_sql(
        "ALTER TABLE firstcome_migrations RENAME TO _sqlx_migrations;
         DELETE FROM _sqlx_migrations WHERE version >= 2; ALTER TABLE nodes DROP COLUMN links;
         ALTER TABLE nodes DROP COLUMN lease; ALTER TABLE nodes DROP COLUMN lease_of;
         ALTER TABLE nodes DROP COLUMN ended_at;
         ALTER TABLE coupons DROP COLUMN change_keys; DROP INDEX by_phase;
         ALTER TABLE coupons DROP COLUMN description; ALTER TABLE coupons DROP COLUMN metadata;
         ALTER TABLE coupons DROP COLUMN max_discount; ALTER TABLE coupons DROP COLUMN use_until;
         ALTER TABLE coupons DROP COLUMN time_zone; ALTER TABLE coupons DROP COLUMN no_user_limit;
         ALTER TABLE coupons DROP COLUMN created_by; ALTER TABLE coupons DROP COLUMN created_as;
         DROP TABLE coupon_changes; DROP TABLE uses; DROP TABLE code_secrets",
    )
    .execute(&mut shell)
    .await
    .unwrap();
    file.reopen().await;
    file.store.check().await.unwrap();
    assert_eq!(versions(&mut shell, "_sqlx_migrations").await, [1, 2, 3, 4]);
    assert_eq!(
        versions(&mut shell, "firstcome_migrations").await,
        Vec::<i64>::new()
    );

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.db");
    let mut shell = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql(
        "CREATE TABLE _sqlx_migrations (version INTEGER); INSERT INTO _sqlx_migrations VALUES (20240101)",
    )
    .execute(&mut shell)
    .await
    .unwrap();
    let store = SqliteStore::open(&Options::new(&path)).await.unwrap();
    store.check().await.unwrap();
    assert_eq!(versions(&mut shell, "_sqlx_migrations").await, [20_240_101]);
    assert_eq!(versions(&mut shell, "firstcome_migrations").await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn secrets_of_codes_are_added_while_the_file_is_in_use() {
    let file = SqliteFile::new().await;
    file.store.make_first_code_secret().await.unwrap();
    let path = file.store.path();
    for number in 2..=SECRETS_MAX {
        assert_eq!(SqliteStore::add_code_secret(path).await.unwrap(), number);
    }
    let refused = SqliteStore::add_code_secret(path).await;
    assert!(
        matches!(refused, Err(AddSecretError::TooMany(SECRETS_MAX))),
        "{refused:?}"
    );
    let secrets = file.store.code_secrets().await.unwrap();
    assert!(secrets.iter().map(|secret| secret.number).eq(1..=SECRETS_MAX));
    let missing = file.directory.path().join("other.db");
    assert!(SqliteStore::add_code_secret(&missing).await.is_err() && !missing.exists());
}

/// A trigger stands for another command that adds a secret right after this one.
#[tokio::test]
async fn secrets_of_codes_that_are_added_at_once_have_numbers_of_their_own() {
    let file = SqliteFile::new().await;
    file.store.make_first_code_secret().await.unwrap();
    let another = "CREATE TRIGGER another AFTER INSERT ON code_secrets WHEN NEW.number % 2 = 0 BEGIN
                     INSERT INTO code_secrets (number, secret, made_at)
                     VALUES (NEW.number + 1, lower(hex(randomblob(32))), NEW.made_at);
                   END";
    sqlx::raw_sql(another)
        .execute(&mut file.shell().await)
        .await
        .unwrap();
    for expected in [2, 4, 6] {
        let added = SqliteStore::add_code_secret(file.store.path()).await;
        assert_eq!(added.unwrap(), expected);
    }
    assert_eq!(file.store.code_secrets().await.unwrap().len(), 7);
}

#[tokio::test]
async fn a_cluster_made_with_other_settings_is_unreadable() {
    let file = SqliteFile::new().await;
    let mut shell = file.shell().await;
    for spoil in [
        "UPDATE cluster SET shards = 128",
        "UPDATE cluster SET shards = 256, hash = 'fnv'",
        "DROP TABLE cluster",
    ] {
        sqlx::raw_sql(spoil).execute(&mut shell).await.unwrap();
        assert!(
            matches!(file.store.check().await, Err(StoreError::Unreadable(_))),
            "{spoil}"
        );
    }
}

#[tokio::test]
async fn invalid_rows_are_unreadable() {
    let file = SqliteFile::new().await;
    let owned = Owned::make(&*file.store, None, 1).await;
    let sent = batch([owned.strangers(1..=2)]);
    file.store.write(&sent).await.unwrap();
    let mut shell = file.shell().await;
    sqlx::raw_sql("UPDATE issuances SET user_id = 'two words' WHERE sequence = 2")
        .execute(&mut shell)
        .await
        .unwrap();
    let result = EntryStore::<CouponKind>::load(&*file.store, owned.id(), None).await;
    assert!(matches!(result, Err(StoreError::Unreadable(_))));
    assert_eq!(
        found(&*file.store, &sent).await,
        (true, FoundRows::Different),
        "only this coupon is affected"
    );
    let change = batch([owned.change(2, |coupon| coupon.status = Status::Paused)]);
    sqlx::raw_sql("UPDATE coupons SET created_at = 9223372036854775807")
        .execute(&mut shell)
        .await
        .unwrap();
    assert_eq!(found(&*file.store, &change).await, (true, FoundRows::Different));
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text.db");
    std::fs::write(
        &path,
        "not a database, by any means, however long one reads in it",
    )
    .unwrap();
    assert!(SqliteStore::open(&Options::new(path)).await.is_err());
}
