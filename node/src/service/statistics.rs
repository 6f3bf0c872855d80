//! Statistics of coupons. They are computed from rows and kept for some seconds.
//!
//! Rows are only added, so a computation goes on where the last one for the same request ended, and reads
//! only what was stored since. One computation runs at a time, in short steps that take turns with those of
//! searches. A computation that takes longer than a request ends, and the next request goes on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Duration, Instant};

use actors::time::{self, Moment, Timestamp};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout_at;

use super::coupon_lists::FRUITLESS_TIME_MAX;
use super::engine::{CouponEngine, Refusal, Statistics, StatisticsQuery, StoreResult};
use super::search_snapshots::{SearchSnapshots, too_long};
use super::{Error, Service};

/// Maximum age of an answer.
const AGE_MAX: Duration = Duration::from_secs(5);

/// Maximum number of computations that are kept. Each and its answer have at most 1,000 buckets, which take
/// about 130 KiB, so all take less than 20 MiB.
const KEPT_MAX: usize = 64;

/// Number of computations that run at the same time. More would only delay each other, because their steps
/// take turns.
const COMPUTATIONS_MAX: usize = 1;

/// Statistics as they are shown.
#[derive(Debug)]
pub(crate) struct CouponStatistics {
    /// The statistics.
    pub(crate) statistics: Statistics,
    /// The time of the snapshot from which they were computed.
    pub(crate) as_of: Timestamp,
}

/// The computations of a node.
#[derive(Debug)]
pub(super) struct Computations {
    kept: SyncMutex<HashMap<StatisticsQuery, Arc<Computation>>>,
    pub(super) running: Semaphore,
}

/// One computation. It goes on when its answer is too old.
#[derive(Debug)]
pub(super) struct Computation {
    /// When it was last requested.
    asked_at: SyncMutex<Moment>,
    /// The latest answer, and when its computation began.
    answer: SyncMutex<Option<(Arc<CouponStatistics>, Moment)>>,
    /// What was read so far. Locked while it goes on.
    pub(super) so_far: Mutex<Statistics>,
}

impl Default for Computations {
    fn default() -> Self {
        Self {
            kept: SyncMutex::default(),
            running: Semaphore::new(COMPUTATIONS_MAX),
        }
    }
}

impl Computations {
    /// Returns the computation for this request. If there are too many, evicts the one that was requested
    /// least recently.
    pub(super) fn computation(&self, query: &StatisticsQuery, now: Moment) -> Arc<Computation> {
        let mut kept = lock(&self.kept);
        if kept.len() >= KEPT_MAX && !kept.contains_key(query) {
            let oldest = kept
                .iter()
                .min_by_key(|(_, computation)| *lock(&computation.asked_at));
            if let Some(oldest) = oldest.map(|(query, _)| *query) {
                kept.remove(&oldest);
            }
        }
        let computation = kept.entry(*query).or_insert_with(|| {
            Arc::new(Computation {
                asked_at: SyncMutex::new(now),
                answer: SyncMutex::default(),
                so_far: Mutex::default(),
            })
        });
        *lock(&computation.asked_at) = now;
        Arc::clone(computation)
    }
}

impl Computation {
    /// Returns the answer if it is recent enough.
    fn answer(&self, now: Moment) -> Option<Arc<CouponStatistics>> {
        let answer = lock(&self.answer);
        let recent = answer.as_ref().filter(|(_, begun)| now.since(*begun) <= AGE_MAX);
        recent.map(|(answer, _)| Arc::clone(answer))
    }

    /// Goes on until all rows are read. Fails if that takes too long; the next call goes on then. Waits for
    /// other computations until `waits_until`, after which no client waits. `None` if the coupon does not
    /// exist.
    async fn go_on(
        &self,
        engine: &CouponEngine,
        snapshots: &SearchSnapshots,
        running: &Semaphore,
        query: &StatisticsQuery,
        waits_until: Instant,
    ) -> StoreResult<Option<Arc<CouponStatistics>>> {
        let so_far = timeout_at(waits_until.into(), self.so_far.lock()).await;
        let mut so_far = so_far.map_err(|_late| too_long())?;
        let begun = time::moment();
        // Another request may have computed it meanwhile.
        if let Some(answer) = self.answer(begun) {
            return Ok(Some(answer));
        }
        let running = timeout_at(waits_until.into(), running.acquire()).await;
        let _running = running
            .map_err(|_late| too_long())?
            .map_err(|_closed| too_long())?;
        let (started, snapshot) = (Instant::now(), snapshots.join(engine).await?);
        so_far.is_complete = false;
        while !so_far.is_complete {
            if started.elapsed() >= FRUITLESS_TIME_MAX {
                return Err(too_long());
            }
            // An error drops what was read so far: then the next request begins anew.
            let taken = std::mem::take(&mut *so_far);
            let step = snapshot.turn().await?.statistics(query, taken).await?;
            let Some(step) = step else { return Ok(None) };
            *so_far = step;
        }
        let answer = Arc::new(CouponStatistics {
            statistics: so_far.clone(),
            as_of: snapshot.now(),
        });
        *lock(&self.answer) = Some((Arc::clone(&answer), begun));
        Ok(Some(answer))
    }
}

impl Service {
    /// Returns statistics that are at most [`AGE_MAX`] old.
    pub(crate) async fn statistics(
        &self,
        client: IpAddr,
        query: StatisticsQuery,
    ) -> Result<Arc<CouponStatistics>, Error> {
        let engine = self.engine()?.clone();
        let now = time::moment();
        let computation = self.computations.computation(&query, now);
        if let Some(answer) = computation.answer(now) {
            return Ok(answer);
        }
        let places = self.lists.admit(client, true)?;
        let (computations, snapshots) = (Arc::clone(&self.computations), self.lists.snapshots());
        let waits_until = Instant::now() + self.deadline;
        let computed = self.read(async move {
            let _places = places;
            computation
                .go_on(&engine, &snapshots, &computations.running, &query, waits_until)
                .await
        });
        Ok(computed.await?.ok_or(Refusal::UnknownCoupon)?)
    }
}

fn lock<T>(mutex: &SyncMutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
