//! The embedded store: one SQLite file, which one process uses.
//!
//! One connection writes, and statements that change something wait for it in order of arrival. A few
//! read-only connections read at the same time (write-ahead log). Every commit is synced before it is
//! answered (`synchronous=FULL`).
//!
//! Cancel safety: database work always runs to its end (`uninterrupted.rs`). A caller that is dropped or
//! times out misses only the answer.

pub(crate) mod checkpoint;
pub(crate) mod cluster;
pub mod error;
mod files;
mod open;
mod rows;
pub(crate) mod snapshot;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::migrate::Migration;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection, SqlitePool};
use tokio::time::timeout;

use super::uninterrupted::uninterrupted;
use super::{
    Claim, ClusterStore, EntryStore, HandOff, Loaded, NodeRow, NodeState, Result, ShardRow, StoreError,
    counted,
};
use crate::ids::{Fence, Incarnation, NodeId, ShardId};
use crate::metrics::{InUse, Pool, handles};
use crate::store::batch::{Batch, Found};
use crate::store::migrations;
use crate::store::migrations::tables::{self, Tables};
use checkpoint::Checkpoints;
use error::{on_read, on_write};
use files::Files;
pub use open::OpenError;
pub use rows::SqliteRows;

/// Limit of a read. Pages are small, so a read that takes longer means that the disk or the machine is stuck.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Limit of a write, after which its outcome is unknown. It is longer than the limits of the waits for a
/// connection and for SQLite's lock together. So a wait for this process's own writes, or for another program
/// that has the file open, ends as *not stored*, and only a stuck disk ends as *unknown*.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// How long a statement waits for a connection. After that it is certain that the statement was not begun.
/// The limit is shorter than the time that clients usually wait, so that they get this answer.
const QUEUE_LIMIT: Duration = Duration::from_secs(2);

/// Number of connections that load owners.
const LOADERS: u32 = 2;

/// Size of the log in bytes beyond which no snapshot begins. The log begins again only in a moment in which
/// no snapshot exists, and snapshots may follow each other without a pause. A log of this size is moved by
/// each commit, so the next commit after the last snapshot lets it begin again.
const SNAPSHOT_LOG_BYTES_MAX: u64 = 640 * 1024 * 1024;

/// How long SQLite waits for a lock that another program (a shell, a backup) holds.
const BUSY_LIMIT: Duration = Duration::from_secs(1);

/// Where the database is, and how much of the machine it may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database file. The file, its directory, and the files `-wal`, `-shm` and `.lock` beside it are
    /// created if missing.
    pub path: PathBuf,
    /// Connections for the reads of clients, at least 1.
    pub readers: u32,
    /// An operator's quota, in pages of 4 KiB. When the database has this many pages, writes are refused as
    /// on a full disk. `None`: no quota.
    pub page_count_max: Option<u32>,
    /// Migrations that kinds add to the migrations of the engine.
    pub migrations: Vec<Migration>,
}

impl Options {
    /// Returns options for this file, with four readers and three more for the snapshots of searches, and no
    /// quota.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            readers: 7,
            page_count_max: None,
            migrations: Vec::new(),
        }
    }

    /// Adds the tables of a kind.
    #[must_use]
    pub fn with_tables_of<K: SqliteRows>(mut self) -> Self {
        self.migrations.extend(K::sqlite_migrations());
        self
    }
}

/// Frames every call: without interruption and within a limit, takes a connection and does one piece of work
/// on it.
macro_rules! framed {
    ($limited:ident, $connection:ident, $store:expr, $work:path $(, $argument:expr)*) => {{
        let inner = $store.inner.clone();
        $limited(async move {
            let mut lent = inner.$connection().await?;
            let call = $crate::metrics::StoreCall::of(stringify!($work), lent.pool);
            let begun = std::time::Instant::now();
            let result = $work(&mut *lent.connection $(, $argument)*).await;
            $crate::metrics::handles().store.called(call, begun);
            result
        })
        .await
    }};
}
pub(crate) use framed;

/// The store; cheap to clone. Dropping the last clone releases the file; [`Self::close`] also finishes what
/// is under way.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    path: PathBuf,
    files: Files,
    /// The tables that this program makes.
    tables: Arc<Tables>,
    readers: SqlitePool,
    /// Reads only the rows of nodes and shards. It is separate because the permission to decide must not
    /// depend on the load of reads.
    cluster_reader: SqlitePool,
    /// For loading owners.
    loader: SqlitePool,
    writer: SqlitePool,
    checkpoints: Checkpoints,
    /// Locked as long as this store may write.
    lock: File,
}

impl SqliteStore {
    /// Locks the database for this process, creates or migrates it if needed, and opens it.
    ///
    /// Cancel safety: a dropped future may leave migrations undone. The next open applies them.
    pub async fn open(options: &Options) -> std::result::Result<Self, OpenError> {
        let (path, lock) = open::locked(&options.path)?;
        let writer = open::writer(options, &path).await?;
        open::migrate(&writer, &migrations::sqlite(&options.migrations)).await?;
        let readers = open::readers(options.readers.max(1), &path).await?;
        let cluster_reader = open::readers(1, &path).await?;
        let loader = open::readers(LOADERS, &path).await?;
        let (mover, urgent_mover) = (open::mover(&path).await?, open::urgent_mover(&path).await?);
        let file = open::file(&path)?;
        let files = Files::new(&path, &file)?;
        let checkpoints = Checkpoints::new(mover, urgent_mover, file);
        for (pool, most) in [
            (Pool::Writers, 1),
            (Pool::Beats, 1),
            (Pool::Others, LOADERS),
            (Pool::Readers, options.readers.max(1)),
        ] {
            handles().store.set_max(pool, most);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                files,
                tables: Arc::new(tables::all(&migrations::sqlite(&options.migrations))),
                readers,
                cluster_reader,
                loader,
                writer,
                checkpoints,
                lock,
            }),
        })
    }

    /// Only creates or migrates the database, under the same lock as [`Self::open`].
    pub async fn migrate(options: &Options) -> std::result::Result<(), OpenError> {
        let (path, _lock) = open::locked(&options.path)?;
        let writer = open::writer(options, &path).await?;
        let migrated = open::migrate(&writer, &migrations::sqlite(&options.migrations)).await;
        writer.close().await;
        migrated
    }

    /// Connects to an existing database for one command of an operator, also while another process has it
    /// open. The schema is left as it is. Commits are synced as those of [`Self::open`].
    pub async fn connect_beside(path: &Path) -> std::result::Result<SqliteConnection, OpenError> {
        open::beside(path).await
    }

    /// Finishes what is under way, moves the write-ahead log into the database file, and releases the file.
    /// Later calls are refused.
    pub async fn close(&self) {
        // The writer closes last, because the last connection moves the log into the database file, and
        // readers cannot do that.
        self.inner.readers.close().await;
        self.inner.cluster_reader.close().await;
        self.inner.loader.close().await;
        self.inner.checkpoints.close().await;
        self.inner.writer.close().await;
        self.inner.checkpoints.close_file();
        if let Err(error) = self.inner.lock.unlock() {
            tracing::warn!(%error, path = %self.inner.path.display(), "the database's lock file was not unlocked; it stays locked until this process ends");
        }
    }

    /// Returns the path of the database file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Returns the journal mode and the level of `synchronous` of the writing connection, so that tests can
    /// check them.
    pub async fn durability(&self) -> Result<(String, u8)> {
        let inner = self.inner.clone();
        read_limited(async move {
            let mut writer = inner.writer().await?.connection;
            let journal_mode = sqlx::query_scalar("PRAGMA journal_mode")
                .fetch_one(&mut *writer)
                .await
                .map_err(on_read)?;
            let synchronous = sqlx::query_scalar("PRAGMA synchronous")
                .fetch_one(&mut *writer)
                .await
                .map_err(on_read)?;
            Ok((journal_mode, synchronous))
        })
        .await
    }

    /// Checks that everything that this program made is still there: the database file and its log, the
    /// tables, and the cluster's rows.
    pub async fn inspect(&self) -> Result<()> {
        self.inner.files.check().map_err(StoreError::Unreadable)?;
        let made = Arc::clone(&self.inner.tables);
        framed!(read_limited, cluster_reader, self, open::inspect, &made)
    }

    /// Changes the quota of [`Options::page_count_max`]. It cannot fall below the pages that the database
    /// has.
    pub async fn set_page_count_max(&self, pages: u32) -> Result<()> {
        let writer = &self.inner.writer;
        // The options are for a connection that may replace this one.
        writer.set_connect_options(
            (*writer.connect_options())
                .clone()
                .pragma("max_page_count", pages.to_string()),
        );
        let inner = self.inner.clone();
        write_limited(async move {
            let pragma = AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
            sqlx::raw_sql(pragma)
                .execute(&mut *inner.writer().await?.connection)
                .await
                .map(drop)
                .map_err(on_write)
        })
        .await
    }
}

/// A connection in use.
pub(crate) struct Lent {
    pub(crate) connection: PoolConnection<Sqlite>,
    /// The pool that the connection belongs to.
    pub(crate) pool: Pool,
    _in_use: InUse,
}

impl Inner {
    /// Returns the connection that writes, once all earlier calls are done with it. Fails if the database was
    /// removed, because what is written to a removed file is lost.
    pub(crate) async fn writer(&self) -> Result<Lent> {
        let log_bytes = self.files.check().map_err(StoreError::NotStored)?;
        handles().sqlite_log_bytes.set(log_bytes as f64);
        // Nothing was begun, so the outcome is certain.
        lent(Pool::Writers, &self.writer)
            .await
            .map_err(|error| StoreError::NotStored(error.to_string()))
    }

    /// Returns a connection for the reads of clients.
    pub(crate) async fn reader(&self) -> Result<Lent> {
        lent(Pool::Readers, &self.readers).await.map_err(on_read)
    }

    /// Returns a connection for a snapshot, unless the log is too long.
    pub(crate) async fn snapshot_reader(&self) -> Result<Lent> {
        let log_bytes = self.files.check().map_err(StoreError::NotStored)?;
        if log_bytes > SNAPSHOT_LOG_BYTES_MAX {
            return Err(StoreError::NotStored(format!(
                "the log has {log_bytes} bytes and must begin again before a snapshot does"
            )));
        }
        self.reader().await
    }

    /// Returns the connection that reads the rows of nodes and shards.
    pub(crate) async fn cluster_reader(&self) -> Result<Lent> {
        lent(Pool::Beats, &self.cluster_reader).await.map_err(on_read)
    }

    /// Returns a connection that loads owners.
    pub(crate) async fn loader(&self) -> Result<Lent> {
        lent(Pool::Others, &self.loader).await.map_err(on_read)
    }
}

async fn lent(pool: Pool, connections: &SqlitePool) -> std::result::Result<Lent, sqlx::Error> {
    let begun = Instant::now();
    let connection = connections.acquire().await?;
    Ok(Lent {
        connection,
        pool,
        _in_use: handles().store.taken(pool, begun),
    })
}

/// Runs work that changes something, and waits for it up to [`WRITE_LIMIT`].
pub(crate) async fn write_limited<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    within(WRITE_LIMIT, work).await
}

/// Runs work that only reads, and waits for it up to [`READ_LIMIT`].
pub(crate) async fn read_limited<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    within(READ_LIMIT, work).await.map_err(error::changed_nothing)
}

/// Runs work, which continues if its caller is dropped or times out.
async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match timeout(limit, uninterrupted(work)).await {
        Ok(Err(StoreError::Fatal(why))) => super::end_process(&why),
        Ok(result) => counted(result),
        Err(_) => counted(Err(StoreError::Unknown(format!(
            "the disk did not answer within {limit:?}"
        )))),
    }
}

#[async_trait]
impl ClusterStore for SqliteStore {
    fn is_exclusive(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<()> {
        if framed!(read_limited, cluster_reader, self, cluster::is_made)? {
            return Ok(());
        }
        framed!(write_limited, writer, self, cluster::make)?;
        match framed!(read_limited, cluster_reader, self, cluster::is_made)? {
            true => Ok(()),
            false => Err(StoreError::Unreadable(
                "the cluster's rows are incomplete after they were created".to_owned(),
            )),
        }
    }

    async fn join(&self, node: &NodeRow, replaces: Option<Incarnation>) -> Result<bool> {
        let node = node.clone();
        framed!(write_limited, writer, self, cluster::join, &node, replaces)
    }

    async fn beat(
        &self,
        id: &NodeId,
        incarnation: Incarnation,
        state: NodeState,
        links: &[Incarnation],
    ) -> Result<Option<u64>> {
        let (id, links) = (id.clone(), links.to_vec());
        let beat = framed!(
            write_limited,
            writer,
            self,
            cluster::beat,
            &id,
            incarnation,
            state,
            &links
        )?;
        checkpoint::wrote(&self.inner, 1);
        Ok(beat)
    }

    async fn end(&self, by: Incarnation, dead: &NodeRow) -> Result<bool> {
        let dead = dead.clone();
        framed!(write_limited, writer, self, cluster::end, by, &dead)
    }

    async fn sweep_nodes(&self) -> Result<usize> {
        framed!(write_limited, writer, self, cluster::sweep)
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>> {
        framed!(read_limited, cluster_reader, self, cluster::nodes)
    }

    async fn shards(&self) -> Result<Vec<ShardRow>> {
        framed!(read_limited, cluster_reader, self, cluster::shards)
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Vec<ShardRow>> {
        let claims = claims.to_vec();
        framed!(write_limited, writer, self, cluster::claim, &claims)
    }

    async fn hand_off(&self, hand_offs: &[HandOff]) -> Result<Vec<ShardRow>> {
        let hand_offs = hand_offs.to_vec();
        framed!(write_limited, writer, self, cluster::hand_off, &hand_offs)
    }

    async fn release(&self, shards: &[(ShardId, Fence)]) -> Result<()> {
        let shards = shards.to_vec();
        framed!(write_limited, writer, self, cluster::release, &shards)
    }
}

#[async_trait]
impl<K: SqliteRows> EntryStore<K> for SqliteStore {
    async fn write(&self, batch: &Batch<K>) -> Result<u64> {
        let portions = batch.portions.clone();
        let pages = portions.len() as u64;
        let written = framed!(write_limited, writer, self, K::sqlite_write, portions)?;
        // Users arrive in no order, so each row changes a different page of the index on users. The rows of
        // one portion are mostly on one page of the table.
        checkpoint::wrote(&self.inner, written + pages);
        Ok(written)
    }

    /// Reads on the writing connection. So if an earlier write of this process timed out, it has ended before
    /// this read begins.
    async fn read_back(&self, batch: &Batch<K>) -> Result<Vec<Found>> {
        let batch = batch.clone();
        framed!(write_limited, writer, self, read_back, &batch).map_err(error::changed_nothing)
    }

    async fn load(&self, id: K::Id, ahead: Option<K::Rows>) -> Result<Loaded<K>> {
        let Some(head) = framed!(read_limited, loader, self, K::sqlite_head, id)? else {
            return Ok(Loaded::Absent);
        };
        let mut reading = K::begin_load(id, ahead);
        let mut next = Some(K::sqlite_cursor(&reading));
        while let Some(from) = next {
            let page = framed!(read_limited, loader, self, K::sqlite_page, id, from)?;
            next = K::sqlite_take(&mut reading, page)?;
        }
        Ok(K::finish_load(reading).map_or(Loaded::WentBackwards, |rows| Loaded::Read(head, rows)))
    }
}

/// Reads what is stored of each portion. The fence is read before the rows: once a fence is lost, nothing
/// more is stored under it, so the result for the rows is final.
async fn read_back<K: SqliteRows>(connection: &mut SqliteConnection, batch: &Batch<K>) -> Result<Vec<Found>> {
    let mut found = Vec::with_capacity(batch.portions.len());
    for portion in &batch.portions {
        let fence_holds = cluster::fence_holds(connection, portion.shard, portion.fence).await?;
        let rows = K::sqlite_read_back(connection, portion).await?;
        found.push(Found { fence_holds, rows });
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests;
