//! The figures of a run: as a table, as JSON, and compared with objectives.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::arrivals::Pace;
use super::ceiling::SUSPECT_SHARE;
use super::drive::{Plan, Run};
use super::tally::{ISSUE, Outcome, Tally, histogram};

/// The objectives of a run.
#[derive(Debug, Clone, Copy)]
pub struct Slo {
    /// Maximum 99th percentile of all latencies.
    pub p99: Option<Duration>,
    /// Minimum number of answers a second.
    pub rate: Option<f64>,
    /// Maximum share of errors among all requests that arrived.
    pub errors: f64,
}

/// Percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs, reason = "the names say which percentile")]
pub struct Latency {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p99_9_ms: f64,
    pub p99_99_ms: f64,
    pub max_ms: f64,
}

impl Latency {
    fn of(latency: &Histogram<u64>) -> Self {
        let at = |percent| latency.value_at_percentile(percent) as f64 / 1_000.0;
        Self {
            p50_ms: at(50.0),
            p90_ms: at(90.0),
            p99_ms: at(99.0),
            p99_9_ms: at(99.9),
            p99_99_ms: at(99.99),
            max_ms: latency.max() as f64 / 1_000.0,
        }
    }

    fn columns(&self) -> [f64; 6] {
        [
            self.p50_ms,
            self.p90_ms,
            self.p99_ms,
            self.p99_9_ms,
            self.p99_99_ms,
            self.max_ms,
        ]
    }
}

/// All requests of one outcome.
#[derive(Debug, Serialize)]
pub struct OutcomeFigures {
    /// The step of a checkout; null for requests for coupons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<&'static str>,
    /// The code, or another name of the outcome.
    pub outcome: String,
    /// True if the outcome is an error.
    pub error: bool,
    /// Number of requests.
    pub count: u64,
    /// Number a second.
    pub per_second: f64,
    /// Latencies of these requests.
    pub latency: Latency,
}

impl OutcomeFigures {
    fn of(outcome: &Outcome, seconds: f64) -> Self {
        Self {
            step: Some(outcome.step).filter(|step| *step != ISSUE),
            outcome: outcome.name.clone(),
            error: outcome.error,
            count: outcome.latency.len(),
            per_second: per_second(outcome.latency.len(), seconds),
            latency: Latency::of(&outcome.latency),
        }
    }

    fn name(&self) -> String {
        match self.step {
            Some(step) => format!("{step} {}", self.outcome),
            None => self.outcome.clone(),
        }
    }
}

/// All requests of one step of a checkout.
#[derive(Debug, Serialize)]
pub struct StepFigures {
    /// The step.
    pub step: &'static str,
    /// Number of requests.
    pub count: u64,
    /// Number a second.
    pub per_second: f64,
    /// Latencies of these requests.
    pub latency: Latency,
    /// Number of refusals by their codes.
    pub refused: BTreeMap<String, u64>,
}

impl StepFigures {
    /// Returns the figures of each step, the most frequent first.
    fn of(tally: &Tally, seconds: f64) -> Vec<Self> {
        let mut steps: BTreeMap<&'static str, Vec<&Outcome>> = BTreeMap::new();
        for outcome in tally.outcomes.iter().filter(|outcome| outcome.step != ISSUE) {
            steps.entry(outcome.step).or_default().push(outcome);
        }
        let mut figures: Vec<Self> = steps
            .into_iter()
            .map(|(step, outcomes)| {
                let mut all = histogram();
                for outcome in &outcomes {
                    all += &outcome.latency;
                }
                let is_code = |outcome: &&&Outcome| {
                    let first = outcome.name.bytes().next();
                    first.is_some_and(|first| first.is_ascii_uppercase())
                };
                let refused = outcomes.iter().filter(is_code);
                Self {
                    step,
                    count: all.len(),
                    per_second: per_second(all.len(), seconds),
                    latency: Latency::of(&all),
                    refused: refused
                        .map(|outcome| (outcome.name.clone(), outcome.latency.len()))
                        .collect(),
                }
            })
            .collect();
        figures.sort_by_key(|step| std::cmp::Reverse(step.count));
        figures
    }
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// The figures of a run.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Requests by outcome, the most frequent first.
    pub outcomes: Vec<OutcomeFigures>,
    /// Requests by step of a checkout, the most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepFigures>,
    /// Latencies of all requests, including errors.
    pub latency: Latency,
    /// Requests that ended in the measured time.
    pub requests: u64,
    /// Requests that ended in that time without a whole answer or with a status of 500 or more.
    pub errors: u64,
    /// Requests that arrived and were not sent.
    pub unsent: u64,
    /// The rate at which requests arrived. Null in a spike, and in a closed loop, where requests arrive at
    /// the rate of answers.
    pub offered_per_second: Option<f64>,
    /// Number of answers per second, not counting errors.
    pub achieved_per_second: f64,
    /// Time from the end of the warm-up to the last answer or failure.
    pub measured_seconds: f64,
    /// Number of connections.
    pub connections: usize,
    /// This tool's rate against a server that only answers; null if that was not measured.
    pub ceiling_per_second: Option<f64>,
    /// True if Ctrl-C ended the run.
    pub interrupted: bool,
    /// Objectives that were missed, in words.
    pub missed: Vec<String>,
}

impl Figures {
    /// Returns the figures of a run with these objectives.
    pub fn of(plan: &Plan, run: &Run, ceiling: Option<f64>, slo: &Slo) -> Self {
        let seconds = run.measured.as_secs_f64();
        let outcomes = run.tally.outcomes.iter();
        let mut outcomes: Vec<_> = outcomes
            .map(|outcome| OutcomeFigures::of(outcome, seconds))
            .collect();
        outcomes.sort_by_key(|outcome| std::cmp::Reverse(outcome.count));
        let mut figures = Self {
            outcomes,
            steps: StepFigures::of(&run.tally, seconds),
            latency: Latency::of(&run.tally.latency()),
            requests: run.tally.ended(),
            errors: run.tally.errors(),
            unsent: run.unsent,
            offered_per_second: if let Pace::Rate(rate) = plan.pace {
                Some(rate)
            } else {
                None
            },
            achieved_per_second: run.rate(),
            measured_seconds: seconds,
            connections: plan.connections,
            ceiling_per_second: ceiling,
            interrupted: run.interrupted,
            missed: Vec::new(),
        };
        figures.missed = figures.judged(run, slo);
        figures
    }

    fn judged(&self, run: &Run, slo: &Slo) -> Vec<String> {
        let mut missed = Vec::new();
        if run.gave_up {
            missed.push("the service stopped answering: the run ended early".to_owned());
        }
        if self.requests == 0 {
            missed.push("nothing was measured: no request ended after the warm-up".to_owned());
        }
        let p99 = slo.p99.map(|p99| p99.as_secs_f64() * 1_000.0);
        if let Some(p99) = p99.filter(|p99| self.latency.p99_ms > *p99) {
            missed.push(format!(
                "p99 is {:.2} ms, more than {p99:.2} ms",
                self.latency.p99_ms
            ));
        }
        if let Some(rate) = slo.rate.filter(|rate| self.achieved_per_second < *rate) {
            missed.push(format!(
                "{:.0} answers a second, fewer than {rate:.0}",
                self.achieved_per_second
            ));
        }
        let failed = self.errors + self.unsent;
        let share = failed as f64 / (self.requests + self.unsent).max(1) as f64;
        if share > slo.errors {
            missed.push(format!(
                "{failed} errors or unsent requests, a share of {share:.6}, more than {}",
                slo.errors
            ));
        }
        missed
    }

    /// Returns the table.
    pub fn table(&self) -> String {
        let mut text = self.outcomes_table();
        text.push_str(&self.steps_table());
        let seconds = self.measured_seconds;
        if let Some(offered) = self.offered_per_second {
            let _ = writeln!(
                text,
                "offered {offered:.0}/s; latencies count from the intended start"
            );
        }
        let _ = writeln!(
            text,
            "achieved {:.0}/s in {seconds:.1} s over {} connections",
            self.achieved_per_second, self.connections
        );
        if self.unsent > 0 {
            let _ = writeln!(
                text,
                "{} requests arrived and were never sent: no connection was free",
                self.unsent
            );
        }
        if let Some(ceiling) = self.ceiling_per_second {
            let share = self.achieved_per_second / ceiling.max(1.0);
            let _ = writeln!(
                text,
                "this tool's own ceiling {ceiling:.0}/s (a server that only answers, same machine): {:.0} % of it used",
                share * 100.0
            );
            if share > SUSPECT_SHARE {
                text.push_str(
                    "this close to its ceiling, the figure measures the tool more than the service\n",
                );
            }
        }
        if self.interrupted {
            text.push_str("interrupted: the figures cover the time before that\n");
        }
        for missed in &self.missed {
            let _ = writeln!(text, "MISSED: {missed}");
        }
        text
    }

    fn outcomes_table(&self) -> String {
        let mut text = heading("outcome");
        for outcome in &self.outcomes {
            row(
                &mut text,
                &outcome.name(),
                outcome.count,
                outcome.per_second,
                &outcome.latency,
            );
        }
        let rate = per_second(self.requests, self.measured_seconds);
        row(&mut text, "all", self.requests, rate, &self.latency);
        text.push('\n');
        text
    }

    fn steps_table(&self) -> String {
        if self.steps.is_empty() {
            return String::new();
        }
        let mut text = heading("step");
        for step in &self.steps {
            row(&mut text, step.step, step.count, step.per_second, &step.latency);
            for (code, count) in &step.refused {
                let _ = writeln!(text, "  {code:<18}{count:>12}");
            }
        }
        text.push('\n');
        text
    }
}

fn heading(first: &str) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write!(text, "{first:<20}{:>12}{:>12}", "count", "per second");
    for name in ["p50", "p90", "p99", "p99.9", "p99.99", "max ms"] {
        let _ = write!(text, "{name:>10}");
    }
    text.push('\n');
    text
}

fn row(text: &mut String, name: &str, count: u64, rate: f64, latency: &Latency) {
    // Names that are longer take their room from the next column.
    let width = 32_usize.saturating_sub(name.len().max(20));
    let _ = write!(text, "{name:<20}{count:>width$}{rate:>12.1}");
    for column in latency.columns() {
        let _ = write!(text, "{column:>10.2}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::arrivals::Bounds;
    use crate::load::crowd::{Crowd, Users};
    use crate::load::drive::GIVE_UP;
    use crate::load::response::parse;
    use crate::load::tally::Failure;
    use crate::load::virtual_users::VirtualUsers;

    const NONE: Slo = Slo {
        p99: None,
        rate: None,
        errors: 1.0,
    };

    fn plan() -> Plan {
        Plan {
            targets: Vec::new(),
            coupons: Vec::new(),
            crowd: Crowd {
                name: "x".into(),
                repeats_ppm: 0,
                users: Users::New,
                seed: 0,
            },
            checkout: None,
            pace: Pace::Rate(200.0),
            bounds: Bounds {
                duration: None,
                requests: None,
            },
            warm_up: Duration::ZERO,
            connections: 7,
            virtual_users: VirtualUsers::default(),
            threads: 1,
            limit: Duration::from_secs(1),
            gives_up_after: GIVE_UP,
            gives_way: false,
        }
    }

    /// A hundred answers of 1 to 100 ms in two seconds, and some failures.
    fn run(failures: u64) -> Run {
        let mut tally = Tally::new();
        let answer = parse(b"HTTP/1.1 201 x\r\n\r\n", true, &mut Vec::new())
            .unwrap()
            .unwrap();
        for millis in 1..=100 {
            tally.answered(ISSUE, &answer, b"", Duration::from_millis(millis));
        }
        for _ in 0..failures {
            tally.failed(ISSUE, Failure::Cut, Duration::from_millis(1));
        }
        Run {
            tally,
            measured: Duration::from_secs(2),
            unsent: 0,
            gave_up: false,
            interrupted: false,
        }
    }

    fn missed(run: &Run, slo: &Slo) -> Vec<String> {
        Figures::of(&plan(), run, None, slo).missed
    }

    #[test]
    fn each_objective_is_missed_independently() {
        assert_eq!(
            missed(
                &run(0),
                &Slo {
                    p99: Some(Duration::from_millis(100)),
                    rate: Some(50.0),
                    errors: 0.0
                }
            ),
            [""; 0]
        );
        assert!(
            missed(
                &run(0),
                &Slo {
                    p99: Some(Duration::from_millis(98)),
                    ..NONE
                }
            )[0]
            .contains("p99")
        );
        assert!(
            missed(
                &run(0),
                &Slo {
                    rate: Some(50.1),
                    ..NONE
                }
            )[0]
            .contains("a second")
        );
        assert!(missed(&run(1), &Slo { errors: 0.0, ..NONE })[0].contains("1 errors"));
        assert_eq!(missed(&run(1), &Slo { errors: 0.01, ..NONE }), [""; 0]);
        let unsent = Run {
            unsent: 100,
            ..run(0)
        };
        assert!(missed(&unsent, &Slo { errors: 0.4, ..NONE })[0].contains("100 errors"));
        assert!(
            missed(
                &Run {
                    gave_up: true,
                    ..run(0)
                },
                &NONE
            )[0]
            .contains("stopped answering")
        );
        let nothing = Run {
            tally: Tally::new(),
            ..run(0)
        };
        assert!(missed(&nothing, &NONE)[0].contains("nothing"));
    }

    #[test]
    fn the_table_shows_rates_and_the_ceiling() {
        let table = Figures::of(&plan(), &run(3), Some(60.0), &NONE).table();
        for part in [
            "issued                       100        50.0",
            "connection broke",
            "offered 200/s",
            "achieved 50/s",
            "ceiling 60/s",
            "83 %",
            "measures the tool",
        ] {
            assert!(table.contains(part), "{part} is not in\n{table}");
        }
    }
}
