//! Each contender is killed (`kill -9`) in the middle of issuing, and started again. Winners that were answered
//! 201 and have no row are counted, and rows beyond the quantity.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::checker::Report;

use super::Bench;
use super::contender::{Contender, Running};
use super::measure::{Demand, judge_during};
use super::verdict::Verdict;
use crate::compare::series::Series;
use crate::load::Failed;
use crate::load::arrivals::Bounds;

/// Connections of clients.
const CONNECTIONS: usize = 64;
/// Time of load before the process is killed.
const BEFORE: Duration = Duration::from_millis(700);
/// Time of load in all.
const DURATION: Duration = Duration::from_secs(4);
/// The quantity of the coupon: more than the slow contenders issue until they are killed, so that they are
/// killed while they issue. A fast one has the same quantity and may have issued all.
const QUANTITY: u64 = 30_000;

/// The results of one contender.
#[derive(Debug, Default)]
struct Kills {
    verdict: Verdict,
    /// Seconds until the service listened again.
    restart: Series,
}

/// Kills each contender, and returns the table and the figures.
pub(super) async fn measured(bench: &Bench<'_>, contenders: &[Contender]) -> Result<(String, Value), Failed> {
    let mut results: Vec<Kills> = contenders.iter().map(|_| Kills::default()).collect();
    bench
        .each_round(contenders, async |running, place| {
            results[place].add(running, bench).await
        })
        .await?;
    let mut text =
        "| way to issue | told, no row | rows beyond the quantity | verdict | s until it listens again |\n|---|---|---|---|---|\n"
            .to_owned();
    for (contender, result) in contenders.iter().zip(&results) {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            contender.name(),
            result.verdict.told_not_stored,
            result.verdict.too_many,
            result.verdict.shown(),
            result.restart.shown(2),
        );
    }
    let values: Vec<Value> = contenders
        .iter()
        .zip(&results)
        .map(|(contender, result)| json!({"name": contender.name(), "verdict": result.verdict, "restart_s": result.restart.median()}))
        .collect();
    Ok((text, values.into()))
}

impl Kills {
    async fn add(&mut self, running: &mut Running<'_>, bench: &Bench<'_>) -> Result<(), Failed> {
        let (verdict, _, restart) = judge_killed(running, QUANTITY, DURATION, bench.scratch).await?;
        self.verdict = self.verdict.worse(verdict);
        self.restart.add(restart.as_secs_f64());
        Ok(())
    }
}

/// Loads a contender for this long, kills it meanwhile, and compares what clients saw with what is stored.
/// Returns the verdict, the checker's report, and how long it took until the service listened again.
pub async fn judge_killed(
    running: &mut Running<'_>,
    quantity: u64,
    duration: Duration,
    scratch: &Path,
) -> Result<(Verdict, Report, Duration), Failed> {
    let demand = Demand {
        connections: CONNECTIONS,
        bounds: Bounds {
            duration: Some(duration),
            requests: None,
        },
        repeats_ppm: 0,
    };
    let kill = async |running: &mut Running<'_>| {
        tokio::time::sleep(BEFORE).await;
        running.kill_and_restart()
    };
    judge_during(running, demand, quantity, scratch, kill).await
}
