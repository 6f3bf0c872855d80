//! Opens a database: its directory, its lock, its connections with the settings on which durability depends,
//! and its schema.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(target_os = "linux")]
use rustix::process::{getpriority_process, setpriority_process};
use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, SqlitePool};
use tracing::log::LevelFilter;

use super::error::on_read;
use super::{BUSY_LIMIT, Options, QUEUE_LIMIT, cluster};
use crate::store::migrations::tables::{self, Tables};
use crate::store::migrations::{self, Applied, History, Need, Unusable};
use crate::store::{self, StoreError};

/// Size of the write-ahead log, in pages, at which a commit itself does a checkpoint: 512 MiB. That is four
/// times the size at which [`super::checkpoint`] begins a checkpoint. SQLite does not report errors of a
/// commit's checkpoint, which is safe because the log stays whole.
const CHECKPOINT_PAGES: &str = "131072";

/// If a long read made the log file larger than this, the file is cut to this size afterwards. A smaller file
/// is never cut, because overwriting a file is faster than extending it.
const LOG_BYTES_MAX: &str = "268435456";

/// Niceness that is added to the thread that does checkpoints. Beside busy threads that answer requests, this
/// thread gets a tenth of their share of a processor. A checkpoint then takes longer, which is fine while the
/// log has room. [`super::checkpoint`] notices when it takes too long.
#[cfg(target_os = "linux")]
const MOVER_NICENESS: i32 = 10;

/// Limit of recovery: of reading a log that a crash left, and moving it into the database file. The log is
/// rarely larger than 512 MiB, but disks are slow after a crash.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);

/// Statements that take longer are logged.
const SLOW: Duration = Duration::from_millis(500);

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another store in this process, has the database open.
    #[error("the database {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The directory, the lock file or the database file cannot be created or opened.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with the file.
        source: io::Error,
    },
    /// The database was migrated by a program that is more than one version newer.
    #[error("the database has schema {found}, and this program knows up to {known} and works with at most {}: a newer program is needed", .known + 1)]
    TooNew {
        /// The highest version that the database has.
        found: i64,
        /// The highest version that this program has.
        known: i64,
    },
    /// A table belongs to another program, or has lost something.
    #[error("{0}")]
    Tables(String),
    /// Its schema cannot be brought up to date.
    #[error("migrating the database: {0}")]
    Migrate(#[from] MigrateError),
    /// SQLite could not open the database.
    #[error("opening the database: {0}")]
    Database(#[from] sqlx::Error),
    /// There is no file where a node's database was expected.
    #[error("there is no database at {}: run the command in the directory where the node runs, or with the node's configuration", .0.display())]
    Missing(PathBuf),
    /// SQLite could not open a database beside the process that has it open.
    #[error("opening the database {}: {source}", .path.display())]
    Beside {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: sqlx::Error,
    },
}

impl From<Unusable> for OpenError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::TooNew { found, known } => Self::TooNew { found, known },
            Unusable::Differs(version) => MigrateError::VersionMismatch(version).into(),
        }
    }
}

/// Creates the directory and takes the lock. Returns the path without symbolic links, so that one database
/// has one lock.
pub(super) fn locked(path: &Path) -> Result<(PathBuf, File), OpenError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| OpenError::File { path, source }
    };
    let absolute = std::path::absolute(path).map_err(at(path))?;
    let directory = absolute.parent().unwrap_or(&absolute);
    make_directory(directory).map_err(at(directory))?;
    let path = if absolute.exists() {
        fs::canonicalize(&absolute).map_err(at(&absolute))?
    } else {
        absolute.clone()
    };
    let mut lock_path = path.clone().into_os_string();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(at(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => Ok((path, lock)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path)),
        Err(TryLockError::Error(source)) => Err(OpenError::File {
            path: lock_path,
            source,
        }),
    }
}

/// Creates a directory and its missing parents, and syncs their entries, so that the database is found after
/// a power cut.
fn make_directory(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .collect();
    fs::create_dir_all(directory)?;
    if cfg!(unix) {
        for parent in missing.iter().filter_map(|made| made.parent()) {
            File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// Returns the pool of the one connection that writes.
pub(super) async fn writer(options: &Options, path: &Path) -> Result<SqlitePool, OpenError> {
    recover(path, &migrations::sqlite(&options.migrations)).await?;
    let mut connect = durable(path)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_BYTES_MAX)
        // Changed pages stay in memory until the commit, which writes each of them once. Apart from that the
        // cache keeps SQLite's default of 2 MiB, because a commit that splits pages looks at all cached
        // pages.
        .pragma("cache_spill", "false");
    if let Some(pages) = options.page_count_max {
        connect = connect.pragma("max_page_count", pages.to_string());
    }
    Ok(pool_options(1).connect_with(connect).await?)
}

/// Reads the log that a crash may have left, and moves it into the database file. SQLite reads the log when
/// the first connection reads the database, and moves it when the last one closes. A pool would not wait long
/// enough for that.
///
/// This connection also checks that the database belongs to this program, before anything in it is changed,
/// even its journal mode.
async fn recover(path: &Path, migrator: &Migrator) -> Result<(), OpenError> {
    let recovering = async {
        let options = connect_options(path).create_if_missing(true);
        let mut connection = options.synchronous(SqliteSynchronous::Full).connect().await?;
        let checked = history(&mut connection, migrator).await;
        connection.close().await?;
        checked.map(drop)
    };
    tokio::time::timeout(RECOVERY_LIMIT, recovering)
        .await
        .unwrap_or_else(|_late| {
            let why = format!("recovering the log took longer than {RECOVERY_LIMIT:?}");
            Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why)).into())
        })
}

/// Returns the options of a connection that writes.
fn durable(path: &Path) -> SqliteConnectOptions {
    connect_options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
}

/// Connects to an existing database beside the process that has it open, which does the checkpoints.
pub(super) async fn beside(path: &Path) -> Result<SqliteConnection, OpenError> {
    let file = |path: &Path, source| OpenError::File {
        path: path.to_path_buf(),
        source,
    };
    // The errors name the whole path: a relative one depends on where the command runs.
    let path = std::path::absolute(path).map_err(|source| file(path, source))?;
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::Missing(path)),
        Err(error) => return Err(file(&path, error)),
        Ok(_) => {}
    }
    let options = durable(&path).create_if_missing(false);
    let connected = options.pragma("wal_autocheckpoint", "0").connect().await;
    connected.map_err(|source| OpenError::Beside { path, source })
}

/// Returns the pool of the one connection that does checkpoints while there is time. The connection's thread
/// has a low priority.
pub(super) async fn mover(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    let options = pool_options(1).after_connect(|connection, _| {
        Box::pin(async move {
            lower_priority(connection).await;
            Ok(())
        })
    });
    options.connect_with(move_options(path)).await
}

/// Returns the pool of the one connection that does checkpoints when they are urgent.
pub(super) async fn urgent_mover(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    pool_options(1).connect_with(move_options(path)).await
}

fn move_options(path: &Path) -> SqliteConnectOptions {
    connect_options(path).synchronous(SqliteSynchronous::Full)
}

/// Adds [`MOVER_NICENESS`] to the niceness of a connection's thread. This is best effort, and only for Linux,
/// where each thread has its own niceness.
async fn lower_priority(connection: &mut SqliteConnection) {
    #[cfg(target_os = "linux")]
    if let Ok(niceness) = getpriority_process(None) {
        let be_nicer = move || {
            let _ = setpriority_process(None, niceness + MOVER_NICENESS);
        };
        if let Err(error) = in_thread_of(connection, be_nicer).await {
            tracing::debug!(%error, "the thread that does checkpoints keeps its priority");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = connection;
}

/// Runs `work` on a connection's thread, at least once. Only SQLite and its callbacks run on that thread, so
/// `work` is the progress handler of a statement.
#[cfg(target_os = "linux")]
async fn in_thread_of(
    connection: &mut SqliteConnection,
    mut work: impl FnMut() + Send + 'static,
) -> Result<(), sqlx::Error> {
    let goes_on = move || {
        work();
        true
    };
    connection.lock_handle().await?.set_progress_handler(1, goes_on);
    let done = sqlx::raw_sql("SELECT 1").execute(&mut *connection).await;
    connection.lock_handle().await?.remove_progress_handler();
    done.map(drop)
}

/// Opens the existing database file for syncing. The file is opened for writing, because some systems allow a
/// sync only then.
pub(super) fn file(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|source| OpenError::File {
            path: path.to_path_buf(),
            source,
        })
}

/// Returns the pool of connections that read.
pub(super) async fn readers(count: u32, path: &Path) -> Result<SqlitePool, sqlx::Error> {
    pool_options(count)
        .connect_with(connect_options(path).read_only(true))
        .await
}

fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_LIMIT)
        .log_statements(LevelFilter::Trace)
        .log_slow_statements(LevelFilter::Warn, SLOW)
}

fn pool_options(connections: u32) -> SqlitePoolOptions {
    // There is no server that could close a connection. So connections are kept, and are not tested before
    // use.
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(QUEUE_LIMIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Brings the schema up to date. A schema that is one version newer is left as it is: this release works with
/// it, so that an upgrade can be undone.
pub(super) async fn migrate(writer: &SqlitePool, migrator: &Migrator) -> Result<(), OpenError> {
    let history = history(&mut *writer.acquire().await?, migrator).await?;
    if history.need(migrator)? == Need::Nothing {
        return Ok(());
    }
    let migrator = Migrator {
        migrations: migrator.migrations.clone(),
        table_name: history.table.into(),
        // A schema that is newer by one version is fine.
        ignore_missing: true,
        ..Migrator::DEFAULT
    };
    Ok(migrator.run(writer).await?)
}

/// Reads which migrations were applied, and checks that the tables with this program's names belong to this
/// program.
async fn history(connection: &mut SqliteConnection, migrator: &Migrator) -> Result<History, OpenError> {
    let recorded = recorded(connection, migrations::TABLE).await?;
    // The table with the former name may belong to another program, and have any columns.
    let formerly = recorded_in_former_table(connection).await;
    let history = History::of(migrator, recorded, formerly);
    let found = tables(connection, &tables::names(migrator)).await?;
    let is_applied = |migration: &Migration| history.has(migration);
    match tables::mismatch(migrator, is_applied, &found) {
        None => Ok(history),
        Some(why) => Err(OpenError::Tables(why)),
    }
}

/// Returns the migrations in a table; `None` if there is no such table.
async fn recorded(connection: &mut SqliteConnection, table: &str) -> sqlx::Result<Option<Vec<Applied>>> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)")
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(None);
    }
    let statement = AssertSqlSafe(format!("SELECT version, checksum, success FROM {table}"));
    let asked = sqlx::query_as::<_, (i64, Vec<u8>, bool)>(statement);
    let applied = asked.fetch_all(connection).await?;
    Ok(Some(applied.into_iter().map(Applied::from).collect()))
}

async fn recorded_in_former_table(connection: &mut SqliteConnection) -> Option<Vec<Applied>> {
    recorded(connection, migrations::FORMER_TABLE)
        .await
        .ok()
        .flatten()
}

/// Checks that these tables and the cluster's rows are there.
pub(super) async fn inspect(connection: &mut SqliteConnection, made: &Tables) -> store::Result<()> {
    let names = made.keys().cloned().collect();
    let found = tables(connection, &names).await.map_err(on_read)?;
    if let Some(why) = tables::damage(made, &found) {
        return Err(StoreError::Unreadable(why));
    }
    match cluster::is_made(connection).await? {
        true => Ok(()),
        false => Err(StoreError::Unreadable(store::ROWS_MISSING.to_owned())),
    }
}

/// Returns which of these tables and views the database has, with their columns.
async fn tables(connection: &mut SqliteConnection, names: &BTreeSet<String>) -> sqlx::Result<Tables> {
    let mut tables = Tables::new();
    for name in names {
        let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?1)")
            .bind(name)
            .fetch_all(&mut *connection)
            .await?;
        if !columns.is_empty() {
            tables.insert(name.clone(), columns.into_iter().collect());
        }
    }
    Ok(tables)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::sync::mpsc;

    use super::*;

    async fn niceness_of(pool: &SqlitePool) -> i32 {
        let (sender, niceness) = mpsc::channel();
        let tell = move || {
            let _ = sender.send(getpriority_process(None).unwrap());
        };
        in_thread_of(&mut pool.acquire().await.unwrap(), tell)
            .await
            .unwrap();
        niceness.recv_timeout(Duration::from_secs(5)).unwrap()
    }

    #[tokio::test]
    async fn the_thread_that_does_checkpoints_has_a_lower_priority_than_the_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("firstcome.db");
        let (writer, mover) = (
            writer(&Options::new(&path), &path).await.unwrap(),
            mover(&path).await.unwrap(),
        );
        let usual = getpriority_process(None).unwrap();
        assert_eq!(niceness_of(&writer).await, usual);
        assert_eq!(niceness_of(&mover).await, (usual + MOVER_NICENESS).min(19));
    }

    #[tokio::test]
    async fn sqlite_is_built_without_memory_statistics_and_shared_page_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("firstcome.db");
        let writer = writer(&Options::new(&path), &path).await.unwrap();
        let built: Vec<String> = sqlx::query_scalar("PRAGMA compile_options")
            .fetch_all(&writer)
            .await
            .unwrap();
        assert!(
            built.contains(&"DEFAULT_MEMSTATUS=0".to_owned()),
            ".cargo/config.toml was not read, which cargo finds from the current directory: {built:?}"
        );
        assert!(
            !built.contains(&"ENABLE_MEMORY_MANAGEMENT".to_owned()),
            "{built:?}"
        );
    }
}
