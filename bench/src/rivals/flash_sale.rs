//! A flash sale: far more users than there are coupons, each of whom asks once, all as soon as they can.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bench;
use super::contender::{Contender, Running};
use super::measure::{Coupons, Demand, make, plan, send};
use crate::compare::series::Series;
use crate::load::Failed;
use crate::load::arrivals::Bounds;

/// The quantity of the coupon.
const QUANTITY: u64 = 500;
/// Connections of clients.
const CONNECTIONS: usize = 1_000;

/// The results of one contender.
#[derive(Debug, Default)]
struct Sale {
    /// Seconds until the last of the coupons is stored.
    last_issued: Series,
    /// Seconds until the last user has an answer.
    last_answered: Series,
    p50_ms: Series,
    p99_ms: Series,
    failures: u64,
    /// The most rows of any round.
    rows: u64,
}

/// Measures the sale, and returns its table and its figures.
pub(super) async fn measured(bench: &Bench<'_>, contenders: &[Contender]) -> Result<(String, Value), Failed> {
    let mut sales: Vec<Sale> = contenders.iter().map(|_| Sale::default()).collect();
    bench
        .each_round(contenders, async |running, place| {
            sales[place].add(running, bench.flags.sale_users).await
        })
        .await?;
    let mut text = format!(
        "| way to issue | last of {QUANTITY} stored, s | last of {} answered, s | p50 ms | p99 ms | failures | rows |\n\
         |---|---|---|---|---|---|---|\n",
        bench.flags.sale_users
    );
    for (contender, sale) in contenders.iter().zip(&sales) {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            contender.name(),
            sale.last_issued.shown(2),
            sale.last_answered.shown(2),
            sale.p50_ms.shown(1),
            sale.p99_ms.shown(1),
            sale.failures,
            sale.rows,
        );
    }
    let values: Vec<Value> = contenders
        .iter()
        .zip(&sales)
        .map(|(contender, sale)| {
            json!({
                "name": contender.name(),
                "last_issued_s": sale.last_issued.median(),
                "last_answered_s": sale.last_answered.median(),
                "p50_ms": sale.p50_ms.median(),
                "p99_ms": sale.p99_ms.median(),
                "failures": sale.failures,
                "rows": sale.rows,
            })
        })
        .collect();
    Ok((text, values.into()))
}

impl Sale {
    async fn add(&mut self, running: &mut Running<'_>, users: u64) -> Result<(), Failed> {
        let url = running.url();
        let coupon = make(&url, Coupons::one(Some(QUANTITY)), None).await?;
        let demand = Demand {
            connections: CONNECTIONS,
            bounds: Bounds {
                duration: None,
                requests: Some(users),
            },
            repeats_ppm: 0,
        };
        let (run, stored) = tokio::join!(send(&url, &coupon, plan(demand), None), async {
            running.wait_until_stored(&coupon, QUANTITY).await?;
            Ok::<_, Failed>(Instant::now())
        });
        let (run, stored) = (run?, stored?);
        let last = run.tally.last.ok_or("no request was answered")?;
        let begun = last - run.measured;
        self.last_issued
            .add(stored.saturating_duration_since(begun).as_secs_f64());
        self.last_answered.add(run.measured.as_secs_f64());
        let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
        self.p50_ms.add(millis(run.percentile(50.0)));
        self.p99_ms.add(millis(run.percentile(99.0)));
        self.failures += run.tally.errors();
        self.rows = self.rows.max(running.count(&coupon).await?);
        Ok(())
    }
}
