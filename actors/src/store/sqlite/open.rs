//! From a path to connections: the directory, the lock, the settings that the promises rest on, the schema.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(target_os = "linux")]
use rustix::process::{getpriority_process, setpriority_process};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use tracing::log::LevelFilter;

use super::{BUSY_LIMIT, Options, QUEUE_LIMIT};
use crate::store::migrations;

/// Pages of the log at which a commit moves it into the database itself: 512 MiB, four times what
/// [`super::checkpoint`] lets it grow to where it keeps up and no reader is in its way. SQLite keeps an error
/// of that move to itself, and may: the log stays whole.
const CHECKPOINT_PAGES: &str = "131072";

/// The log file shrinks to this after it grew beyond, under a long read. Below it the file stays as large as
/// it was: to write over what is there is quicker than to make it longer.
const LOG_BYTES_MAX: &str = "268435456";

/// How much nicer than others the thread is that moves the log, so that it has a tenth of the share of those
/// who answer people, and all that they leave. A move then takes longer, while the log has room for it;
/// [`super::checkpoint`] sees when it takes too long.
#[cfg(target_os = "linux")]
const MOVER_NICENESS: i32 = 10;

/// How long reading and moving a log that a crash left may take: the log rarely has more than 512 MiB, and
/// disks are slow after a crash.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);

/// A statement slower than this is worth a line in our log.
const SLOW: Duration = Duration::from_millis(500);

/// Why a database was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another store in this one) has it.
    #[error("the database {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Its directory or its lock file cannot be made or read.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// It was migrated by a program more than one version newer.
    #[error("the database has schema {found}, and this program knows up to {known} and works with at most {}: a newer program is needed", .known + 1)]
    TooNew {
        /// The highest version it has.
        found: i64,
        /// The highest version this program has.
        known: i64,
    },
    /// Its schema cannot be brought up to date.
    #[error("migrating the database: {0}")]
    Migrate(#[from] MigrateError),
    /// SQLite does not open it.
    #[error("opening the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Makes the directory and takes the lock. The path without links, so that one database has one lock.
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

/// Makes a directory and syncs the entries that lead to it: what is told must be found after a power cut.
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

/// The pool of the one connection that writes.
pub(super) async fn writer(options: &Options, path: &Path) -> Result<SqlitePool, sqlx::Error> {
    recover(path).await?;
    let mut connect = durable(path)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_BYTES_MAX)
        // What a batch changes stays in memory until its commit, which writes each page once. Beyond that
        // SQLite's usual 2 MiB of pages: it looks at all of them in every commit in which pages were divided.
        .pragma("cache_spill", "false");
    if let Some(pages) = options.page_count_max {
        connect = connect.pragma("max_page_count", pages.to_string());
    }
    pool_options(1).connect_with(connect).await
}

/// Reads the log that a crash may have left, and moves it: the first connection does so when it opens the
/// database, and as the last one when it closes it. A pool gives it less time.
async fn recover(path: &Path) -> Result<(), sqlx::Error> {
    let recovering = async { durable(path).connect().await?.close().await };
    tokio::time::timeout(RECOVERY_LIMIT, recovering)
        .await
        .unwrap_or_else(|_late| {
            let why = format!("the log that was left is not read and moved within {RECOVERY_LIMIT:?}");
            Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why)))
        })
}

/// How a connection that writes is opened.
fn durable(path: &Path) -> SqliteConnectOptions {
    connect_options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
}

/// The pool of the one connection that moves the log while there is time; its thread gives way to others.
pub(super) async fn mover(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    let options = pool_options(1).after_connect(|connection, _| {
        Box::pin(async move {
            give_way(connection).await;
            Ok(())
        })
    });
    options.connect_with(move_options(path)).await
}

/// The pool of the one connection that moves the log when it must not wait any longer.
pub(super) async fn hurried_mover(path: &Path) -> Result<SqlitePool, sqlx::Error> {
    pool_options(1).connect_with(move_options(path)).await
}

fn move_options(path: &Path) -> SqliteConnectOptions {
    connect_options(path).synchronous(SqliteSynchronous::Full)
}

/// Makes a connection's thread nicer than this one, by [`MOVER_NICENESS`]. Best effort, and on Linux alone,
/// where threads have a niceness of their own.
async fn give_way(connection: &mut SqliteConnection) {
    #[cfg(target_os = "linux")]
    if let Ok(niceness) = getpriority_process(None) {
        let be_nicer = move || {
            let _ = setpriority_process(None, niceness + MOVER_NICENESS);
        };
        if let Err(error) = in_thread_of(connection, be_nicer).await {
            tracing::debug!(%error, "the thread that moves the log gives way to nobody");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = connection;
}

/// Has a connection's thread do something, at least once. SQLite alone runs there, and what it calls back: so
/// this asks it how it gets on with a statement.
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

/// The database file itself, which is there by now. To be synced, which some systems allow those alone who
/// may write.
pub(super) fn file(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(|source| OpenError::File {
            path: path.to_path_buf(),
            source,
        })
}

/// The pool of connections that read.
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
    // There is no server that could hang up, so connections stay and are not tried before use.
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(QUEUE_LIMIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Brings the schema up to date. One that is one version newer is left as it is: so much do neighbouring
/// releases agree on, and an upgrade can be taken back.
pub(super) async fn migrate(writer: &SqlitePool, mut migrator: Migrator) -> Result<(), OpenError> {
    let known = migrations::highest(&migrator);
    let made: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')")
            .fetch_one(writer)
            .await?;
    let found: i64 = match made {
        true => {
            sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
                .fetch_one(writer)
                .await?
        }
        false => 0,
    };
    if found > known + 1 {
        return Err(OpenError::TooNew { found, known });
    }
    migrator.set_ignore_missing(found == known + 1);
    Ok(migrator.run(writer).await?)
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
    async fn who_moves_the_log_gives_way_to_who_writes_it() {
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
    async fn sqlite_counts_no_memory_and_shares_no_pages() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("firstcome.db");
        let writer = writer(&Options::new(&path), &path).await.unwrap();
        let built: Vec<String> = sqlx::query_scalar("PRAGMA compile_options")
            .fetch_all(&writer)
            .await
            .unwrap();
        assert!(
            built.contains(&"DEFAULT_MEMSTATUS=0".to_owned()),
            "without .cargo/config.toml, which cargo reads from where it is called: {built:?}"
        );
        assert!(
            !built.contains(&"ENABLE_MEMORY_MANAGEMENT".to_owned()),
            "{built:?}"
        );
    }
}
