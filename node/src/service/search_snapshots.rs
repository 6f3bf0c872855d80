//! The snapshots in which searches take their steps, so that what one search finds is of one moment.
//!
//! A snapshot takes a connection, and the database keeps what is older for as long as it exists. So searches
//! share snapshots: those that wait for a place get the same one, which begins after all of them asked. Their
//! steps take turns, so that the other connections for reads are free for short reads.

use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use actors::coupon::rows::CouponSnapshot;
use actors::store::StoreError;
use actors::time::{self, Moment, Timestamp};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::engine::{CouponEngine, StoreResult};

/// Maximum number of snapshots at the same time. The store has this many additional connections for reads.
const SNAPSHOTS_MAX: usize = 3;

/// Number of steps that run at the same time.
const STEPS_MAX: usize = 1;

/// Maximum time that a search waits for a snapshot. No search takes longer than this, so a place becomes free
/// by then.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The snapshots of searches in progress.
#[derive(Debug)]
pub(super) struct SearchSnapshots {
    /// The snapshot that began last. Searches wait in this lock for the next one.
    newest: Mutex<Weak<SearchSnapshot>>,
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// A snapshot that searches share. It ends when the last of them drops it.
pub(super) struct SearchSnapshot {
    reads: Box<dyn CouponSnapshot>,
    begun: Moment,
    now: Timestamp,
    turns: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
}

impl std::fmt::Debug for SearchSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SearchSnapshot")
    }
}

impl Default for SearchSnapshots {
    fn default() -> Self {
        Self {
            newest: Mutex::default(),
            places: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
            turns: Arc::new(Semaphore::new(STEPS_MAX)),
        }
    }
}

impl SearchSnapshots {
    /// Returns a snapshot that begins after this call, and that other searches may share.
    ///
    /// Cancel safety: a dropped future leaves nothing behind.
    pub(super) async fn join(&self, engine: &CouponEngine) -> StoreResult<Arc<SearchSnapshot>> {
        let joined = tokio::time::timeout(WAIT_MAX, self.join_in_time(engine)).await;
        joined.unwrap_or_else(|_late| Err(too_long()))
    }

    async fn join_in_time(&self, engine: &CouponEngine) -> StoreResult<Arc<SearchSnapshot>> {
        let asked = time::moment();
        let mut newest = self.newest.lock().await;
        if let Some(snapshot) = newest.upgrade().filter(|snapshot| snapshot.begun >= asked) {
            return Ok(snapshot);
        }
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(closed)?;
        let (begun, now) = (time::moment(), time::timestamp());
        let snapshot = Arc::new(SearchSnapshot {
            reads: engine.snapshot().await?,
            begun,
            now,
            turns: Arc::clone(&self.turns),
            _place: place,
        });
        *newest = Arc::downgrade(&snapshot);
        Ok(snapshot)
    }
}

impl SearchSnapshot {
    /// Makes a snapshot with these reads, which no other search shares.
    #[cfg(test)]
    pub(super) async fn alone(reads: Box<dyn CouponSnapshot>) -> Self {
        let SearchSnapshots { places, turns, .. } = SearchSnapshots::default();
        Self {
            reads,
            begun: time::moment(),
            now: time::timestamp(),
            turns,
            _place: places.acquire_owned().await.expect("nothing closes it"),
        }
    }

    /// Returns the time of the snapshot, for which states and phases are computed.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Waits for a turn to take one step.
    pub(super) async fn turn(&self) -> StoreResult<Turn<'_>> {
        let turn = self.turns.acquire().await.map_err(closed)?;
        Ok(Turn {
            reads: self.reads.as_ref(),
            _turn: turn,
        })
    }
}

/// The turn of a search, until this is dropped.
pub(super) struct Turn<'s> {
    reads: &'s dyn CouponSnapshot,
    _turn: SemaphorePermit<'s>,
}

impl Deref for Turn<'_> {
    type Target = dyn CouponSnapshot;

    fn deref(&self) -> &Self::Target {
        self.reads
    }
}

/// Returns the error of a search that took too long.
pub(super) fn too_long() -> StoreError {
    StoreError::NotStored("searching a list took too long".to_owned())
}

fn closed(closed: tokio::sync::AcquireError) -> StoreError {
    StoreError::NotStored(closed.to_string())
}
