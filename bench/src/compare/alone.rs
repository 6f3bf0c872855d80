//! The store alone: the rows that a node stores, in batches of the same size, without a node. A coupon
//! has at most one batch in flight, so one connection writes one batch after the other.
//! No service over this store can issue one coupon faster with batches of that size.

use std::time::{Duration, Instant};

use actors::coupon::CouponKind;
use actors::coupon::rows::CouponRows;
use actors::metrics::BATCH_ROWS;
use actors::store::Store;
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};

use super::children::Service;
use super::filled::requester;
use super::series::Series;
use super::stores::StoreServer;
use super::{Bench, WARM_UP, prometheus};
use crate::load::Failed;
use crate::load::arrivals::Pace;
use crate::load::drive::Run;
use crate::prefilled::PrefilledCoupon;

/// A database that no node uses, and the ceiling of its store in all rounds.
pub(super) struct Alone {
    url: String,
    /// Rows of a batch of the node.
    pub(super) rows: Series,
    pub(super) rate: Series,
    /// The node's rate as a part of the ceiling.
    pub(super) share: Series,
}

impl Alone {
    /// Makes the database.
    pub(super) async fn of(server: &StoreServer, bench: &Bench<'_>) -> Result<Self, Failed> {
        Ok(Self {
            url: server.fresh(bench).await?,
            rows: Series::default(),
            rate: Series::default(),
            share: Series::default(),
        })
    }

    /// Measures issuing of one coupon by a node, and then the store alone with batches of the same size.
    pub(super) async fn beside(
        &mut self,
        bench: &Bench<'_>,
        node: &Service,
        connections: usize,
    ) -> Result<Run, Failed> {
        let before = node.metrics().await?;
        let run = bench.issue(node, 1, Pace::Closed, connections).await?;
        let after = node.metrics().await?;
        let rows = prometheus::mean(&before, &after, BATCH_ROWS).ok_or("the node counted no batch")?;
        let rate = self
            .measure(rows.round().max(1.0) as u64, bench.flags.duration)
            .await?;
        self.rows.add(rows);
        self.rate.add(rate);
        self.share.add(run.rate() / rate);
        Ok(run)
    }

    /// Returns the rate with batches of this many rows.
    async fn measure(&self, rows: u64, duration: Duration) -> Result<f64, Failed> {
        if let Some(path) = self.url.strip_prefix("sqlite://") {
            let store = SqliteStore::open(&sqlite::Options::new(path)).await?;
            let rate = rate(&store, rows, duration).await;
            store.close().await;
            rate
        } else {
            let mut options = mysql::Options::new(&self.url);
            options.lanes = 1;
            let store = MySqlStore::open(&options).await?;
            let rate = rate(&store, rows, duration).await;
            store.close().await;
            rate
        }
    }
}

/// Stores batches for this long, after a warm-up, and returns the number of rows per second.
async fn rate(
    store: &(impl Store<CouponKind> + CouponRows),
    rows: u64,
    duration: Duration,
) -> Result<f64, Failed> {
    let coupon = PrefilledCoupon::make(store).await?;
    let begun = Instant::now();
    let mut warm = 0;
    let is_over = |batches: u64| {
        if begun.elapsed() <= WARM_UP {
            warm = batches;
        }
        // At least one batch is measured, however long it takes.
        begun.elapsed() > WARM_UP + duration && batches > warm
    };
    let times = coupon.timed(store, rows, is_over, requester()).await?;
    let measured = times.get(usize::try_from(warm)?..).unwrap_or_default();
    let took: Duration = measured.iter().sum();
    Ok((measured.len() as u64 * rows) as f64 / took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_rate_counts_the_rows_of_all_batches_after_the_warm_up() {
        let directory = tempfile::tempdir().unwrap();
        let options = sqlite::Options::new(directory.path().join("alone.db"));
        let store = SqliteStore::open(&options).await.unwrap();
        let duration = Duration::from_millis(200);
        let one = rate(&store, 1, duration).await.unwrap();
        let many = rate(&store, 200, duration).await.unwrap();
        store.close().await;
        // A batch of 200 rows takes far less than 200 commits, even on a machine that is busy.
        assert!(one > 0.0 && many > 2.0 * one, "{one} and {many} rows per second");
    }
}
