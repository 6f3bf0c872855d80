//! Issuing one coupon or many at once, and the checker's verdict about another one, by all contenders.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Bench;
use super::chart::{self, Bars, Range};
use super::contender::{Contender, RedisSync};
use super::kind::RivalKind;
use super::measure::{Coupons, Demand, Figures, judge, measure};
use super::order::{self, Order};
use super::pools;
use super::verdict::Verdict;
use crate::compare::series::{Series, verdict};
use crate::load::Failed;
use crate::load::arrivals::Bounds;

/// Requests of the trial before the checker for each coupon, so that most are refused.
const REQUESTS_EACH: u64 = 10;
/// How many of its requests in a million come from earlier users.
const REPEATS_PPM: u32 = 50_000;

/// Measures issuing these coupons, and returns the table and the figures.
pub(super) async fn measured(
    bench: &Bench<'_>,
    contenders: &[Contender],
    coupons: Coupons,
) -> Result<(String, Value), Failed> {
    let mut rows: Vec<Row> = contenders.iter().copied().map(Row::new).collect();
    let demand = bench.flags.demand();
    let requests = bench.flags.trial_requests;
    let quantity = requests / REQUESTS_EACH;
    let trial = Demand {
        bounds: Bounds {
            duration: None,
            requests: Some(requests),
        },
        repeats_ppm: REPEATS_PPM,
        ..demand
    };
    bench
        .each_round(contenders, async |running, place| {
            let figures = measure(running, coupons, demand, bench.flags.warm_up).await?;
            let judged = judge(running, trial, quantity, bench.scratch).await?;
            rows[place].add(figures, judged.verdict, judged.order);
            Ok(())
        })
        .await?;
    if let Some(file) = bench.flags.svg.as_deref().filter(|_| coupons.count == 1) {
        let bars: Vec<Bars> = rows.iter().map(Row::bars).collect();
        std::fs::write(file, chart::svg(&bars))?;
    }
    Ok((markdown(&rows, coupons.count == 1), json(&rows)))
}

/// A contender with its results so far.
#[derive(Debug)]
struct Row {
    contender: Contender,
    rounds: Vec<Figures>,
    verdict: Verdict,
    order: Order,
}

impl Row {
    fn new(contender: Contender) -> Self {
        Self {
            contender,
            rounds: Vec::new(),
            verdict: Verdict::default(),
            order: Order::default(),
        }
    }

    /// Adds the results of a round.
    fn add(&mut self, figures: Figures, verdict: Verdict, order: Order) {
        self.rounds.push(figures);
        self.verdict = self.verdict.worse(verdict);
        self.order = self.order.and(order);
    }

    fn series(&self, figure: impl Fn(&Figures) -> f64) -> Series {
        let mut series = Series::default();
        for round in &self.rounds {
            series.add(figure(round));
        }
        series
    }

    fn bars(&self) -> Bars {
        let range = |figure: fn(&Figures) -> f64| {
            let rounds = self.rounds.iter().map(figure);
            Range {
                least: rounds.clone().fold(f64::INFINITY, f64::min),
                median: self.series(figure).median(),
                most: rounds.fold(0.0, f64::max),
            }
        };
        Bars {
            name: self.contender.name(),
            is_own: self.contender == Contender::Firstcome,
            is_broken: self.verdict.is_broken(),
            verdict: format!(
                "{}; {:.0} % out of order",
                self.verdict.brief(),
                self.order.percent()
            ),
            issued_per_second: range(|figures| figures.issued_per_second),
            p99_ms: range(|figures| figures.p99_ms),
        }
    }

    /// Returns, for each round, how many times as fast as this contender the other one issues.
    fn ratio(&self, other: &Self) -> Series {
        let mut series = Series::default();
        for (own, other) in self.rounds.iter().zip(&other.rounds) {
            series.add(other.issued_per_second / own.issued_per_second.max(0.001));
        }
        series
    }

    /// True if the contender is a rival that is exact, so that its latency may be compared.
    fn is_exact(&self) -> bool {
        matches!(self.contender, Contender::Rival { kind, .. } if kind.is_exact())
    }
}

/// Returns how many times as fast as this contender Firstcome should issue, at 256 connections on MySQL.
fn target(contender: Contender) -> Option<f64> {
    let Contender::Rival { kind, sync, .. } = contender else {
        return None;
    };
    match (kind, sync) {
        (RivalKind::RowLock, _) => Some(20.0),
        (RivalKind::AtomicUpdate, _) => Some(15.0),
        (RivalKind::FairLock, _) => Some(5.0),
        (RivalKind::SkipLocked, _) => Some(2.5),
        (RivalKind::Script, RedisSync::Always) => Some(1.0),
        (RivalKind::Script, RedisSync::EverySecond) => Some(0.7),
        (RivalKind::Script, RedisSync::Never) => None,
        (
            RivalKind::NoLock | RivalKind::LockInTransaction | RivalKind::Optimistic | RivalKind::RedisLock,
            _,
        ) => None,
    }
}

/// Returns the table. Targets are for one coupon.
fn markdown(rows: &[Row], has_targets: bool) -> String {
    let firstcome = rows.iter().find(|row| row.contender == Contender::Firstcome);
    let mut text =
        "| way to issue | answers/s | issued/s | Firstcome is faster by | target | p50 ms | p99 ms | max ms | failures | \
         verdict | out of order | ms of service, MySQL, Redis for 1,000 issued |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let ratio = firstcome.map(|firstcome| row.ratio(firstcome));
        let shown = ratio.as_ref().map_or("–".to_owned(), |ratio| ratio.shown(2));
        let met = match (target(row.contender).filter(|_| has_targets), &ratio) {
            (Some(target), Some(ratio)) => {
                format!("≥ {target}: {}", verdict(ratio.median() >= target))
            }
            _ => "–".to_owned(),
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {shown} | {met} | {} | {} | {} | {} | {} | {} | {:.0}, {:.0}, {:.0} |",
            row.contender.name(),
            row.series(|figures| figures.answers_per_second).shown(0),
            row.series(|figures| figures.issued_per_second).shown(0),
            row.series(|figures| figures.p50_ms).shown(1),
            row.series(|figures| figures.p99_ms).shown(1),
            row.series(|figures| figures.max_ms).shown(0),
            row.rounds.iter().map(|figures| figures.failures).sum::<u64>(),
            row.verdict.shown(),
            row.order.shown(),
            row.series(|figures| figures.service_ms).median(),
            row.series(|figures| figures.database_ms).median(),
            row.series(|figures| figures.redis_ms).median(),
        );
    }
    if has_targets && let Some(firstcome) = firstcome {
        let _ = writeln!(text, "\n{}", latencies(rows, firstcome));
    }
    let best = best_numbers(rows);
    if !best.is_empty() {
        let _ = writeln!(
            text,
            "\nBest number of connections to the database: {}. {}",
            best.join("; "),
            pools::note()
        );
    }
    let _ = write!(text, "\n{}", order::note());
    text
}

/// Returns whether the latency of Firstcome meets its target.
fn latencies(rows: &[Row], firstcome: &Row) -> String {
    let p99 = |row: &Row| row.series(|figures| figures.p99_ms).median();
    let exact = rows.iter().filter(|row| row.is_exact());
    let faster: Vec<String> = exact
        .filter(|row| p99(row) <= p99(firstcome))
        .map(|row| row.contender.name())
        .collect();
    let met = verdict(faster.is_empty());
    let names = if faster.is_empty() {
        String::new()
    } else {
        format!(" ({})", faster.join("; "))
    };
    format!("The p99 of Firstcome is to be below that of each exact rival: {met}{names}.")
}

/// Returns the best number of connections of each rival that was measured with several.
fn best_numbers(rows: &[Row]) -> Vec<String> {
    let mut rates: Vec<(String, Vec<(u16, f64)>)> = Vec::new();
    for row in rows {
        if let Contender::Rival {
            kind,
            sync,
            connections: Some(connections),
        } = row.contender
        {
            let rival = Contender::Rival {
                kind,
                sync,
                connections: None,
            };
            let name = rival.name();
            let rate = row.series(|figures| figures.issued_per_second).median();
            match rates.iter_mut().find(|(other, _)| *other == name) {
                Some((_, rates)) => rates.push((connections, rate)),
                None => rates.push((name, vec![(connections, rate)])),
            }
        }
    }
    rates.retain(|(_, rates)| rates.len() > 1);
    let best = rates
        .iter()
        .filter_map(|(name, rates)| Some(format!("{name}: {}", pools::best(rates)?)));
    best.collect()
}

/// Returns the figures of all rounds.
fn json(rows: &[Row]) -> Value {
    rows.iter()
        .map(|row| {
            json!({
                "name": row.contender.name(),
                "rounds": row.rounds,
                "verdict": row.verdict,
                "verdict_shown": row.verdict.shown(),
                "order": row.order,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(issued_per_second: f64, p99_ms: f64) -> Figures {
        Figures {
            answers_per_second: issued_per_second,
            issued_per_second,
            p50_ms: 1.0,
            p99_ms,
            max_ms: 9.0,
            failures: 1,
            rows: 1_000,
            service_ms: 10.0,
            database_ms: 20.0,
            redis_ms: 0.0,
        }
    }

    #[test]
    fn ratios_are_those_of_each_round_and_targets_compare_the_median() {
        let mut rows = [
            Row::new(Contender::of(&[RivalKind::RowLock], &[])[0]),
            Row::new(Contender::Firstcome),
        ];
        for (rival, own) in [(1_000.0, 30_000.0), (2_000.0, 30_000.0), (1_000.0, 21_000.0)] {
            rows[0].add(figures(rival, 200.0), Verdict::default(), Order::default());
            rows[1].add(figures(own, 10.0), Verdict::default(), Order::default());
        }
        let text = markdown(&rows, true);
        assert!(
            text.contains("| 21.00 (15.00–30.00) | ≥ 20: met | 1.0 (1.0–1.0) | 200.0 (200.0–200.0) | 9 (9–9) | 3 | exact | 0.0 %, 0.00 s | 10, 20, 0 |"),
            "{text}"
        );
        assert!(text.contains("each exact rival: met."), "{text}");
        rows[0].add(
            figures(1_000.0, 1.0),
            Verdict {
                too_many: 7,
                ..Verdict::default()
            },
            Order::default(),
        );
        rows[1].add(figures(1_000.0, 500.0), Verdict::default(), Order::default());
        assert!(best_numbers(&rows).is_empty());
        let json = json(&rows);
        assert_eq!(json[0]["verdict_shown"], "too many: 7");
        assert_eq!(json[0]["rounds"][3]["rows"], 1_000);
    }

    #[test]
    fn the_best_number_of_connections_is_named_for_each_rival() {
        let kinds = [RivalKind::RowLock, RivalKind::Script];
        let mut rows: Vec<Row> = Contender::of(&kinds, &[2, 8]).into_iter().map(Row::new).collect();
        for (row, rate) in rows
            .iter_mut()
            .zip([500.0, 900.0, 30_000.0, 30_100.0, 9_000.0, 20_000.0])
        {
            row.add(figures(rate, 1.0), Verdict::default(), Order::default());
        }
        let best = best_numbers(&rows);
        assert_eq!(
            best,
            [
                "`SELECT … FOR UPDATE`: 8",
                "Redis script and queue, `everysec`: 2",
                "Redis script and queue, `always`: 8"
            ]
        );
    }
}
