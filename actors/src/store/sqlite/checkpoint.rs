//! Moving the log into the database file. That takes many milliseconds, in which no commit is to wait: a connection of its own moves what is there while
//! the writer goes on, and then, in the writer's turn, the little that came meanwhile. After that the log begins anew, unless somebody still reads from it.
//!
//! Nothing rests on it but that syncs do not fail: whatever else becomes of a move, the log stays whole, and the next one moves all of it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use sqlx::{SqliteConnection, SqlitePool};

use super::Inner;
use super::error::on_write;
use crate::store::{Result, StoreError, end_process};

/// Rows between two moves: as each is on a page of its own of the index by user, some 20 MiB of log. Fewer would sync the database file more often,
/// more would move no less.
const ROWS: u64 = 4096;

/// When to move, and where.
#[derive(Debug)]
pub(super) struct Checkpoints {
    mover: SqlitePool,
    rows: AtomicU64,
    under_way: AtomicBool,
}

impl Checkpoints {
    /// Over a connection that nobody else uses.
    pub(super) fn new(mover: SqlitePool) -> Self {
        Self { mover, rows: AtomicU64::new(0), under_way: AtomicBool::new(false) }
    }

    /// Waits for the move that is under way, and allows no other.
    pub(super) async fn close(&self) {
        self.mover.close().await;
    }

    /// Takes note of rows that were written. True: it is time, and whoever hears it is to [`move_log`].
    fn wrote(&self, rows: u64) -> bool {
        let unmoved = self.rows.fetch_add(rows, Ordering::Relaxed) + rows;
        unmoved >= ROWS && !self.under_way.swap(true, Ordering::AcqRel)
    }
}

/// Takes note of rows that were written, and moves the log in a task of its own when it is time.
pub(super) fn wrote(inner: &Arc<Inner>, rows: u64) {
    if inner.checkpoints.wrote(rows) {
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            inner.checkpoints.rows.store(0, Ordering::Relaxed);
            let begun = Instant::now();
            match move_log(&inner).await {
                Err(StoreError::Fatal(why)) => end_process(&why),
                Ok(()) => tracing::trace!(seconds = begun.elapsed().as_secs_f64(), "moved the log into the database"),
                Err(error) => tracing::warn!(%error, "the log was not moved into the database; it grows until it is"),
            }
            inner.checkpoints.under_way.store(false, Ordering::Release);
        });
    }
}

async fn move_log(inner: &Inner) -> Result<()> {
    let mut mover = inner.checkpoints.mover.acquire().await.map_err(|error| StoreError::NotStored(error.to_string()))?;
    checkpoint(&mut mover).await?;
    checkpoint(&mut *inner.writer().await?).await
}

async fn checkpoint(connection: &mut SqliteConnection) -> Result<()> {
    sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)").execute(connection).await.map(drop).map_err(on_write)
}
