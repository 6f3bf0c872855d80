//! Reads all issuances of a coupon, by sequence, in portions.
//!
//! An export has what was stored when it began: it ends with the highest sequence of that moment, however
//! many are issued meanwhile. What became of an issuance is shown as of the moment in which its portion was
//! read.
//!
//! All exports of a node read one portion at a time, and only so many rows a second. So together they take
//! one of the connections for reads, and a small part of the processors and of the database. An export whose
//! turn does not come in time breaks off.

use std::sync::Arc;
use std::time::Duration;

use actors::admission::{Admission, Permit};
use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::uses::UsedIssuance;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

use super::engine::{CouponEngine, IssuanceQuery, IssuancesOf, Refusal, Setback};
use super::store_calls::StoreCalls;
use super::{Error, Service, await_read};
use crate::config::Limits;
use crate::metrics::{self, ExportEnd};

/// Maximum number of rows of a portion.
pub(crate) const PORTION_ROWS: u32 = 400;

/// Admits exports, and lets them read in turn.
#[derive(Debug)]
pub(super) struct Exports {
    pub(super) places: Admission,
    rows_per_second: f64,
    /// When the next portion may be read. Locked while a portion is read.
    turn: Mutex<Instant>,
}

impl Exports {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            places: Admission::new(limits.exports_max),
            rows_per_second: limits.export_rate as f64,
            turn: Mutex::new(Instant::now()),
        })
    }

    /// Returns the time that reading this many rows takes at the rate of exports.
    fn time_of(&self, rows: u32) -> Duration {
        Duration::from_secs_f64(f64::from(rows) / self.rows_per_second)
    }

    /// Waits for a turn. A turn takes up to the deadline of a request, and the time of a portion at the rate
    /// of exports. The limit is that time for every place, because the exports of all places may come first.
    async fn turn(&self, deadline: Duration) -> Result<MutexGuard<'_, Instant>, Error> {
        let places = u32::try_from(self.places.places()).unwrap_or(u32::MAX);
        let each = deadline.saturating_add(self.time_of(PORTION_ROWS));
        let limit = each.saturating_mul(places);
        let turn = timeout(limit, self.turn.lock()).await;
        turn.map_err(|_late| Setback::StoreUnavailable.into())
    }
}

/// An export in progress.
#[derive(Debug)]
pub(crate) struct Export {
    engine: CouponEngine,
    store_calls: StoreCalls,
    exports: Arc<Exports>,
    deadline: Duration,
    coupon: CouponId,
    after: Sequence,
    /// The last sequence that belongs to the export.
    last: Sequence,
    /// How the export ends if it is dropped now; `None` if nothing was asked of it, as by `HEAD`.
    end: Option<ExportEnd>,
    _place: Permit,
}

impl Service {
    /// Begins an export of a coupon's issuances after a sequence.
    pub(crate) async fn export(&self, coupon: CouponId, after: Sequence) -> Result<Export, Error> {
        let place = self.exports.places.admit();
        let place = place.map_err(|_full| Error::from(Setback::Overloaded))?;
        let engine = self.engine()?.clone();
        let view = self.read(engine.clone().coupon(coupon)).await?;
        let view = view.ok_or(Refusal::UnknownCoupon)?;
        Ok(Export {
            engine,
            store_calls: self.store_calls.clone(),
            exports: Arc::clone(&self.exports),
            deadline: self.deadline,
            coupon,
            after,
            last: view.issued,
            end: None,
            _place: place,
        })
    }
}

impl Export {
    /// Reads the next portion; `None` at the end. Fails if its turn does not come in time, or if the store
    /// does not answer within the deadline of a request.
    ///
    /// Cancel safe: a portion that was not returned is read again.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<UsedIssuance>>, Error> {
        self.end = Some(ExportEnd::Left);
        let left = self.last.get().saturating_sub(self.after.get());
        let rows = u32::try_from(left).unwrap_or(PORTION_ROWS).min(PORTION_ROWS);
        if rows == 0 {
            self.end = Some(ExportEnd::Complete);
            return Ok(None);
        }
        let read = self.read(rows).await;
        match &read {
            Ok(portion) => {
                if let Some(last) = portion.last() {
                    self.after = last.issuance.id.sequence;
                }
            }
            Err(_) => self.end = Some(ExportEnd::Broken),
        }
        read.map(Some)
    }

    /// Waits for its turn and reads this many rows.
    async fn read(&self, rows: u32) -> Result<Vec<UsedIssuance>, Error> {
        let mut turn = self.exports.turn(self.deadline).await?;
        tokio::time::sleep_until(*turn).await;
        *turn = Instant::now() + self.exports.time_of(rows);
        let (engine, coupon, after) = (self.engine.clone(), self.coupon, self.after);
        let of = IssuancesOf::Coupon {
            coupon,
            user: None,
            after,
        };
        let query = IssuanceQuery::all(of, rows);
        let reading = async move {
            let page = engine.issuances(&query).await?;
            Ok(page.unwrap_or_default().issuances)
        };
        let portion = await_read(self.deadline, self.store_calls.run(reading)).await?;
        drop(turn);
        // Sequences have no gaps. If rows are missing, the database is not the one that the export began
        // with.
        let expected = after.get() + u64::from(rows);
        let is_whole = portion.len() == rows as usize
            && portion.last().map(|used| used.issuance.id.sequence.get()) == Some(expected);
        if is_whole {
            Ok(portion)
        } else {
            tracing::error!(%coupon, %after, "stored sequences have a gap");
            Err(Error::Internal { applied: Some(false) })
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(end) = self.end {
            metrics::export_ended(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_export_waits_for_its_turn_no_longer_than_its_limit() {
        let limits = Limits {
            exports_max: 2,
            export_rate: 80_000,
            ..crate::config::Config::default().limits
        };
        let exports = Exports::new(&limits);
        let deadline = Duration::from_millis(40);
        let first = exports.turn(deadline).await.expect("nothing else reads");
        let begun = Instant::now();
        let second = timeout(Duration::from_secs(20), exports.turn(deadline)).await;
        let second = second.expect("the wait ends");
        assert!(matches!(second, Err(Error::Setback(Setback::StoreUnavailable))));
        // A portion of 400 rows takes 5 ms at this rate.
        assert!(
            begun.elapsed() >= 2 * (deadline + Duration::from_millis(5)),
            "{:?}",
            begun.elapsed()
        );
        drop(first);
        assert!(exports.turn(deadline).await.is_ok());
    }
}
