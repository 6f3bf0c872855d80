//! Moves the write-ahead log into the database file (a checkpoint). A checkpoint takes many milliseconds, and
//! no commit should wait for it. So a separate connection, the mover, moves what is in the log while the
//! writer goes on, and repeats that until little is left. The rest is moved in the writer's turn. Then the
//! log begins again, unless a reader still needs it. The mover's thread has a low priority. If too much is
//! written during a pass, a second connection with normal priority, the urgent mover, replaces the mover.
//!
//! SQLite syncs the database file only after it has moved the whole log, which never happens beside a busy
//! writer. So this module syncs the file after each pass. If it did not, the writer would wait for the whole
//! sync. The sync needs another open descriptor of the file, and POSIX has a trap: closing any descriptor of
//! a file releases all locks of the process on that file. Another program that then finds no lock may treat
//! the log as left over. So the descriptor is closed only once no connection is open any more
//! ([`Checkpoints::close_file`]). A store that is dropped without being closed leaves the descriptor open,
//! because its connections end some time later.
//!
//! Only a failed sync is dangerous. After any other failure of a checkpoint the log is still whole, and the
//! next checkpoint starts again with the whole log.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::Inner;
use super::error::on_write;
use crate::critical::critical;
use crate::store::{Result, StoreError, end_process};

/// Number of pages written between two checkpoints: 128 MiB of log. A larger checkpoint saves more work,
/// because a page that was written several times is moved once. But after a crash, the whole log is read
/// before anything else.
const PAGES: u64 = 32_768;

/// If fewer pages were written during a pass, they are left for the writer's turn, because moving them takes
/// about as long as the sync.
const FEW_PAGES: u64 = 256;

/// If this many pages were written during a pass, the mover with low priority is too slow, and the next
/// passes use the urgent mover. This is half of [`PAGES`], so that the log is still far from the size at
/// which a commit does the checkpoint itself.
const URGENT_PAGES: u64 = PAGES / 2;

/// Maximum number of passes beside the writer. Passes also stop when a pass leaves at least as many pages as
/// the pass before, because the disk is then too slow.
const PASSES_MAX: usize = 8;

/// If more pages than this are left, they are not moved in the writer's turn, because all writes would wait.
/// The next checkpoint continues with them. So on a disk that never keeps up, the log grows until a commit
/// does the checkpoint itself.
const TURN_PAGES_MAX: u64 = 4_096;

/// Number of pages written until a failed checkpoint is retried.
const RETRY_PAGES: u64 = 4_096;

/// Decides when a checkpoint is due, and holds the connections that do it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    mover: SqlitePool,
    /// The thread of this mover has normal priority.
    urgent_mover: SqlitePool,
    /// The database file, for syncing; `None` once the file was closed.
    file: Mutex<Option<Arc<ManuallyDrop<File>>>>,
    pages: AtomicU64,
    under_way: AtomicBool,
}

impl Checkpoints {
    /// Makes checkpoints for the database file. The two movers, one with low and one with normal priority,
    /// are used for nothing else.
    pub(super) fn new(mover: SqlitePool, urgent_mover: SqlitePool, file: File) -> Self {
        Self {
            mover,
            urgent_mover,
            file: Mutex::new(Some(Arc::new(ManuallyDrop::new(file)))),
            pages: AtomicU64::new(0),
            under_way: AtomicBool::new(false),
        }
    }

    /// Returns about how many pages were written since the last checkpoint began.
    #[cfg(test)]
    pub(super) fn unmoved(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Waits for the pass that is under way, and does not allow another pass. The rest of the log is moved
    /// when the writer closes.
    pub(super) async fn close(&self) {
        tokio::join!(self.mover.close(), self.urgent_mover.close());
    }

    /// Closes the file. This must be called when no connection of this process is open any more, and before
    /// another store may open a connection.
    pub(super) fn close_file(&self) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        // No sync is under way, because the movers are closed.
        if let Some(Ok(file)) = file.map(Arc::try_unwrap) {
            drop(ManuallyDrop::into_inner(file));
        }
    }

    /// Syncs what was moved. If this sync fails, SQLite's own next sync gets the same error, because Linux
    /// (since 4.13) reports an error once to each open descriptor.
    async fn sync(&self) -> Result<()> {
        let Some(file) = self.file.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(());
        };
        match tokio::task::spawn_blocking(move || file.sync_data()).await {
            Ok(synced) => {
                synced.map_err(|error| StoreError::Fatal(format!("the database was not synced: {error}")))
            }
            // The runtime is shutting down. SQLite syncs the file before the log begins again.
            Err(not_run) => Err(StoreError::NotStored(not_run.to_string())),
        }
    }

    /// Counts written pages. Returns true if a checkpoint is due. Then the caller must call [`move_log`].
    fn wrote(&self, pages: u64) -> bool {
        let unmoved = self.pages.fetch_add(pages, Ordering::Relaxed) + pages;
        unmoved >= PAGES && !self.under_way.swap(true, Ordering::AcqRel)
    }
}

/// Counts written pages, which may be an estimate. If a checkpoint is due, spawns a task that does it.
pub(crate) fn wrote(inner: &Arc<Inner>, pages: u64) {
    if inner.checkpoints.wrote(pages) {
        let inner = Arc::clone(inner);
        let moving = async move {
            inner.checkpoints.pages.store(0, Ordering::Relaxed);
            let begun = Instant::now();
            match move_log(&inner).await {
                Err(StoreError::Fatal(why)) => end_process(&why),
                Ok(()) => tracing::trace!(
                    seconds = begun.elapsed().as_secs_f64(),
                    "moved the log into the database file"
                ),
                Err(error) => {
                    inner
                        .checkpoints
                        .pages
                        .fetch_add(PAGES - RETRY_PAGES, Ordering::Relaxed);
                    tracing::warn!(%error, "the log was not moved into the database file and keeps growing");
                }
            }
            inner.checkpoints.under_way.store(false, Ordering::Release);
        };
        // The task is critical: if it panicked, no other move would begin, and the log would grow without
        // end.
        tokio::spawn(critical("a move of the log", moving));
    }
}

async fn move_log(inner: &Inner) -> Result<()> {
    let Checkpoints {
        mover,
        urgent_mover,
        pages,
        ..
    } = &inner.checkpoints;
    let mut pool = mover;
    let mut left = u64::MAX;
    for _ in 0..PASSES_MAX {
        checkpoint(&mut *acquire(pool).await?).await?;
        inner.checkpoints.sync().await?;
        if mover.is_closed() {
            return Ok(());
        }
        let left_before = std::mem::replace(&mut left, pages.swap(0, Ordering::Relaxed));
        if left < FEW_PAGES || left >= left_before {
            break;
        }
        if left >= URGENT_PAGES {
            pool = urgent_mover;
        }
    }
    if left > TURN_PAGES_MAX {
        pages.fetch_add(left, Ordering::Relaxed);
        return Ok(());
    }
    checkpoint(&mut inner.writer().await?.connection).await
}

async fn acquire(pool: &SqlitePool) -> Result<PoolConnection<Sqlite>> {
    pool.acquire()
        .await
        .map_err(|error| StoreError::NotStored(error.to_string()))
}

async fn checkpoint(connection: &mut SqliteConnection) -> Result<()> {
    sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)")
        .execute(connection)
        .await
        .map(drop)
        .map_err(on_write)
}

#[cfg(test)]
mod tests {
    use super::super::{Options, SqliteStore};
    use super::*;

    /// The test closes the normal-priority mover, so a checkpoint fails exactly if it switches to that mover.
    #[tokio::test]
    async fn a_mover_that_falls_behind_is_replaced_by_one_with_normal_priority() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&Options::new(folder.path().join("test.db")))
            .await
            .unwrap();
        let Checkpoints {
            urgent_mover, pages, ..
        } = &store.inner.checkpoints;
        urgent_mover.close().await;
        for (came_meanwhile, urgent) in [(URGENT_PAGES - 1, false), (URGENT_PAGES, true)] {
            pages.store(came_meanwhile, Ordering::Relaxed);
            assert_eq!(move_log(&store.inner).await.is_err(), urgent, "{came_meanwhile}");
        }
    }
}
