//! Each contender is killed (`kill -9`) in the middle of issuing, and started again; then the same is done to
//! its Redis, if it has one. Winners that were answered 201 and have no row are counted, and rows beyond the
//! quantity.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::history::{IssueAnswer, Operation};
use testkit::time::Timestamp;

use super::Bench;
use super::contender::{Contender, Running};
use super::kind::RivalKind;
use super::measure::{Coupons, Demand, Judged, judge_during, measure, plan};
use super::verdict::Verdict;
use crate::compare::series::Series;
use crate::load::Failed;
use crate::load::arrivals::Bounds;

/// Connections of clients.
const CONNECTIONS: usize = 64;
/// Time in which the rate of a contender is measured beforehand.
const RATED: Duration = Duration::from_millis(500);
/// Time of load before the process is killed.
const BEFORE: Duration = Duration::from_millis(700);
/// Time of load in all, unless all is issued before: longer than the lease of a lock whose holder was killed.
const DURATION: Duration = Duration::from_secs(14);
/// The quantity of the coupon, as the time in which the contender issues it at its own rate. So a contender
/// is killed while it issues, and has issued all before the load ends.
const ISSUED_WITHIN: f64 = 2.0;
/// The least and the most of that quantity.
const QUANTITY: (u64, u64) = (200, 100_000);
/// Requests for each one that is issued. What comes after the last one shows rows beyond the quantity.
const REQUESTS: u64 = 3;

/// The process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The service.
    Service,
    /// The Redis of a rival.
    Redis,
}

/// What was found after the kills of one process.
#[derive(Debug, Default)]
struct Kills {
    rounds: u32,
    verdict: Verdict,
    /// Seconds until a request was answered 201 that was sent after the kill.
    issues_again: Series,
}

/// Kills each contender, and returns the table and the figures.
pub(super) async fn measured(bench: &Bench<'_>, contenders: &[Contender]) -> Result<(String, Value), Failed> {
    let mut contenders = contenders.to_vec();
    let is_script = |contender: &Contender| {
        matches!(
            contender,
            Contender::Rival {
                kind: RivalKind::Script,
                ..
            }
        )
    };
    if let Some(last) = contenders.iter().rposition(is_script) {
        contenders.insert(last + 1, Contender::SCRIPT_WITHOUT_LOG);
    }
    let mut results: Vec<[Kills; 2]> = contenders.iter().map(|_| Default::default()).collect();
    bench
        .each_round(&contenders, async |running, place| {
            let quantity = quantity(running).await?;
            let [service, redis] = &mut results[place];
            let judged = judge_killed(running, Victim::Service, quantity, DURATION, bench.scratch).await?;
            service.add(&judged);
            if running.has_redis() {
                let judged = judge_killed(running, Victim::Redis, quantity, DURATION, bench.scratch).await?;
                redis.add(&judged);
            }
            Ok(())
        })
        .await?;
    let mut text = "| way to issue | service killed: told, no row | rows beyond the quantity | verdict | s until it issues again \
                    | Redis killed: told, no row | rows beyond the quantity | verdict | s until it issues again |\n\
                    |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (contender, [service, redis]) in contenders.iter().zip(&results) {
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            contender.name(),
            service.cells(),
            redis.cells()
        );
    }
    text.push_str(
        "\nEach coupon has as many as the contender issues in two seconds. A killed process is started again \
         at once, over what it had written; what the system had of it in memory is not lost, as it would be \
         if the machine failed.\n",
    );
    let values: Vec<Value> = contenders
        .iter()
        .zip(&results)
        .map(|(contender, [service, redis])| {
            json!({"name": contender.name(), "service": service.json(), "redis": redis.json()})
        })
        .collect();
    Ok((text, values.into()))
}

/// Returns the quantity for a contender.
async fn quantity(running: &mut Running<'_>) -> Result<u64, Failed> {
    let demand = Demand {
        connections: CONNECTIONS,
        bounds: Bounds {
            duration: Some(RATED),
            requests: None,
        },
        repeats_ppm: 0,
    };
    let figures = measure(running, Coupons::one(None), demand, Duration::ZERO).await?;
    Ok(((figures.issued_per_second * ISSUED_WITHIN) as u64).clamp(QUANTITY.0, QUANTITY.1))
}

impl Kills {
    fn add(&mut self, judged: &Judged<Timestamp>) {
        self.rounds += 1;
        self.verdict = self.verdict.worse(judged.verdict);
        if let Some(after) = judged.issued_again_after() {
            self.issues_again.add(after.as_secs_f64());
        }
    }

    fn cells(&self) -> String {
        if self.rounds == 0 {
            return "– | – | – | –".to_owned();
        }
        let verdict = self.verdict;
        format!(
            "{} | {} | {} | {}",
            verdict.told_not_stored,
            verdict.too_many,
            verdict.shown(),
            self.issues_again.shown(2)
        )
    }

    fn json(&self) -> Value {
        match self.rounds {
            0 => Value::Null,
            _ => json!({"verdict": self.verdict, "issues_again_s": self.issues_again.median()}),
        }
    }
}

impl Judged<Timestamp> {
    /// Returns the time between the kill and the first 201 to a request that was sent after it; `None` if
    /// there is none.
    pub fn issued_again_after(&self) -> Option<Duration> {
        let killed = self.meanwhile;
        let answers = self.history.iter().filter_map(|operation| match operation {
            Operation::Issue(issue) if issue.span.call > killed => match issue.answer {
                IssueAnswer::Issued { .. } => issue.span.answer,
                _ => None,
            },
            _ => None,
        });
        let micros = answers.min()?.as_micros() - killed.as_micros();
        u64::try_from(micros).ok().map(Duration::from_micros)
    }
}

/// Loads a contender for at most this long, kills a process meanwhile, and compares what clients saw with
/// what is stored. Also returns the time of the kill.
pub async fn judge_killed(
    running: &mut Running<'_>,
    victim: Victim,
    quantity: u64,
    duration: Duration,
    scratch: &Path,
) -> Result<Judged<Timestamp>, Failed> {
    let demand = Demand {
        connections: CONNECTIONS,
        bounds: Bounds {
            duration: Some(duration),
            requests: Some(REQUESTS * quantity),
        },
        repeats_ppm: 0,
    };
    let kill = async |running: &mut Running<'_>| {
        tokio::time::sleep(BEFORE).await;
        let killed = Timestamp::now();
        match victim {
            Victim::Service => running.restart_service()?,
            Victim::Redis => running.restart_redis()?,
        }
        Ok(killed)
    };
    let coupons = Coupons::one(Some(quantity));
    judge_during(running, coupons, plan(demand), scratch, kill).await
}
