//! Moving the log into the database file. That takes many milliseconds, in which no commit is to wait: a
//! connection of its own moves what is there while the writer goes on, again and again until little is left,
//! and then, in the writer's turn, that little. After that the log begins anew, unless somebody still reads
//! from it. The thread that moves it gives way to all others, until so much came meanwhile that another takes
//! its place, which does not.
//!
//! SQLite syncs the database file only when it has moved all there is, which beside a busy writer it never
//! has: so the file is synced here after each pass, or the writer would wait for all of it. That needs the
//! file open once more, and POSIX has a trap there: closing a file of the database gives up all locks of
//! the process on it, and a tool that finds none may take the log as left over. So it is closed where no
//! connection is open any more ([`Checkpoints::let_go`]), and nowhere else: a store that is dropped, and
//! whose connections end some time later, leaves it open.
//!
//! Nothing rests on it but that syncs do not fail: whatever else becomes of a move, the log stays whole, and
//! the next one moves all of it again.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::Inner;
use super::error::on_write;
use crate::store::{Result, StoreError, end_process};

/// Pages between two moves: 128 MiB of log. The larger a move, the more often each of its pages was written,
/// and each is moved once. After a crash all of them are read again before anything else.
const PAGES: u64 = 32_768;

/// So few pages that came during a pass are left for the writer's turn: to move them takes about as long as
/// the sync.
const FEW_PAGES: u64 = 256;

/// After a pass during which so many pages came, giving way does not leave enough time to the mover: the next
/// passes do not give way. Half a move's, so that the log is still far from where a commit moves it.
const HURRY_PAGES: u64 = PAGES / 2;

/// Most passes beside the writer. Each leaves less than the one before: where it does not, as the disk is too
/// slow, there is none after it.
const PASSES_MAX: usize = 8;

/// More pages are not moved in the writer's turn, as all wait for it: the next move goes on with them. On a
/// disk that never keeps up the log so grows to where a commit moves it.
const TURN_PAGES_MAX: u64 = 4_096;

/// After so many pages it is tried again when a move has failed.
const RETRY_PAGES: u64 = 4_096;

/// When to move, and where.
#[derive(Debug)]
pub(super) struct Checkpoints {
    mover: SqlitePool,
    /// Does not give way to other connections.
    hurried_mover: SqlitePool,
    /// The database file, to be synced; none once it was let go of.
    file: Mutex<Option<Arc<ManuallyDrop<File>>>>,
    pages: AtomicU64,
    under_way: AtomicBool,
}

impl Checkpoints {
    /// Over connections that are used for nothing else, one that gives way and one that does not, and the
    /// database file.
    pub(super) fn new(mover: SqlitePool, hurried_mover: SqlitePool, file: File) -> Self {
        Self {
            mover,
            hurried_mover,
            file: Mutex::new(Some(Arc::new(ManuallyDrop::new(file)))),
            pages: AtomicU64::new(0),
            under_way: AtomicBool::new(false),
        }
    }

    /// Pages that were written since the last move began, about.
    #[cfg(test)]
    pub(super) fn unmoved(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Waits for the pass that is under way, and allows no other: the rest is moved when the writer leaves.
    pub(super) async fn close(&self) {
        tokio::join!(self.mover.close(), self.hurried_mover.close());
    }

    /// Closes the file. Only when no connection of this process is open any more, and before another store
    /// may open one.
    pub(super) fn let_go(&self) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Nothing syncs any more, as the mover is closed.
        if let Some(Ok(file)) = file.map(Arc::try_unwrap) {
            drop(ManuallyDrop::into_inner(file));
        }
    }

    /// Syncs what was moved. An error that is met here is met by SQLite's own next sync as well: Linux (4.13)
    /// tells it once to each open file.
    async fn sync(&self) -> Result<()> {
        let Some(file) = self.file.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return Ok(());
        };
        match tokio::task::spawn_blocking(move || file.sync_data()).await {
            Ok(synced) => {
                synced.map_err(|error| StoreError::Fatal(format!("the database is not synced: {error}")))
            }
            // The runtime ends. SQLite syncs all of it before the log begins anew.
            Err(not_run) => Err(StoreError::NotStored(not_run.to_string())),
        }
    }

    /// Takes note of pages that were written. True if it is time to move the log; the caller must then
    /// [`move_log`].
    fn wrote(&self, pages: u64) -> bool {
        let unmoved = self.pages.fetch_add(pages, Ordering::Relaxed) + pages;
        unmoved >= PAGES && !self.under_way.swap(true, Ordering::AcqRel)
    }
}

/// Takes note of pages that were written, about so many, and moves the log in a task of its own when it is
/// time.
pub(crate) fn wrote(inner: &Arc<Inner>, pages: u64) {
    if inner.checkpoints.wrote(pages) {
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            inner.checkpoints.pages.store(0, Ordering::Relaxed);
            let begun = Instant::now();
            match move_log(&inner).await {
                Err(StoreError::Fatal(why)) => end_process(&why),
                Ok(()) => tracing::trace!(
                    seconds = begun.elapsed().as_secs_f64(),
                    "moved the log into the database"
                ),
                Err(error) => {
                    inner
                        .checkpoints
                        .pages
                        .fetch_add(PAGES - RETRY_PAGES, Ordering::Relaxed);
                    tracing::warn!(%error, "the log was not moved into the database; it grows until it is");
                }
            }
            inner.checkpoints.under_way.store(false, Ordering::Release);
        });
    }
}

async fn move_log(inner: &Inner) -> Result<()> {
    let Checkpoints {
        mover,
        hurried_mover,
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
        if left >= HURRY_PAGES {
            pool = hurried_mover;
        }
    }
    if left > TURN_PAGES_MAX {
        pages.fetch_add(left, Ordering::Relaxed);
        return Ok(());
    }
    checkpoint(&mut *inner.writer().await?).await
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

    /// The hurried mover is closed here, so a move that wants it fails.
    #[tokio::test]
    async fn a_mover_that_is_overtaken_gives_way_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&Options::new(folder.path().join("test.db")))
            .await
            .unwrap();
        let Checkpoints {
            hurried_mover, pages, ..
        } = &store.inner.checkpoints;
        hurried_mover.close().await;
        for (came_meanwhile, hurries) in [(HURRY_PAGES - 1, false), (HURRY_PAGES, true)] {
            pages.store(came_meanwhile, Ordering::Relaxed);
            assert_eq!(move_log(&store.inner).await.is_err(), hurries, "{came_meanwhile}");
        }
    }
}
