//! Firstcome with three nodes: a hundred coupons, requested at all nodes, beside one coupon at a node that is
//! alone. All of them share the processors of this machine, so the ratio shows what links, smaller batches
//! and two more processes cost, and not what more machines bring.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::ids::CouponId;

use super::contender::{Contender, Programs, Servers};
use super::measure::{Coupons, Demand, issued, make, plan, send_to};
use crate::compare::series::Series;
use crate::compare::three::Three;
use crate::load::Failed;
use crate::load::arrivals::Bounds;
use crate::load::drive::Run;

/// Number of coupons. Each node owns about a third of them.
const COUPONS: u64 = 100;
/// Part of the answers that must be issuances.
const ISSUED_PART: f64 = 0.95;

/// What is measured in each round, in this order.
const NAMES: [&str; 3] = [
    "one coupon, one node",
    "100 coupons, one node",
    "100 coupons, three nodes",
];

/// The figures of one row.
#[derive(Debug, Default)]
struct Row {
    rate: Series,
    share: Series,
    p50_ms: Series,
    p99_ms: Series,
    failures: u64,
}

/// The table of three nodes.
#[derive(Debug, Default)]
pub struct ThreeNodes {
    rows: [Row; 3],
}

impl ThreeNodes {
    /// Measures one round. `scratch` is a directory for logs and data.
    pub async fn round(
        &mut self,
        programs: &Programs,
        servers: &Servers<'_>,
        scratch: &Path,
        demand: Demand,
        warm_up: Duration,
    ) -> Result<(), Failed> {
        let load = Load { demand, warm_up };
        let alone = Contender::Firstcome.start(programs, servers, scratch).await?;
        let one = load.issue(&[&alone.url()], 1).await?;
        let many = load.issue(&[&alone.url()], COUPONS).await?;
        alone.end().await;
        let url = servers.make_database().await?;
        let mut three = Three::start(&programs.firstcome, scratch, &url).await?;
        let urls = three.urls(None);
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        let everywhere = load.issue(&urls, COUPONS).await;
        three.stop_all().await?;
        for (row, run) in self.rows.iter_mut().zip([&one, &many, &everywhere?]) {
            row.add(run, &one);
        }
        Ok(())
    }

    /// Returns the table.
    pub fn markdown(&self) -> String {
        let mut text = "| Firstcome | issued/s | of one coupon at one node | p50 ms | p99 ms | failures |\n|---|---|---|---|---|---|\n".to_owned();
        for (name, row) in NAMES.iter().zip(&self.rows) {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} |",
                row.rate.shown(0),
                row.share.shown(2),
                row.p50_ms.shown(1),
                row.p99_ms.shown(1),
                row.failures
            );
        }
        text.push_str("\nAll nodes and the database share the processors of this machine. Ratios are those of the same round.\n");
        text
    }

    /// Returns the figures.
    pub fn json(&self) -> Value {
        let rows = NAMES.iter().zip(&self.rows);
        rows.map(|(name, row)| {
            json!({
                "name": name,
                "issued_per_second": row.rate.median(),
                "of_one_coupon": row.share.median(),
                "p50_ms": row.p50_ms.median(),
                "p99_ms": row.p99_ms.median(),
                "failures": row.failures,
            })
        })
        .collect()
    }
}

impl Row {
    fn add(&mut self, run: &Run, one: &Run) {
        let millis = |percent| run.percentile(percent).as_secs_f64() * 1_000.0;
        self.rate.add(run.rate());
        self.share.add(run.rate() / one.rate().max(0.001));
        self.p50_ms.add(millis(50.0));
        self.p99_ms.add(millis(99.0));
        self.failures += run.tally.errors();
    }
}

struct Load {
    demand: Demand,
    warm_up: Duration,
}

impl Load {
    /// Issues this many new coupons over connections to all these nodes.
    async fn issue(&self, urls: &[&str], count: u64) -> Result<Run, Failed> {
        let first = urls.first().ok_or("there is no node")?;
        let quantity = None;
        let coupons: Vec<CouponId> = make(first, Coupons { count, quantity }, None).await?;
        if !self.warm_up.is_zero() {
            let bounds = Bounds {
                duration: Some(self.warm_up),
                requests: None,
            };
            let demand = Demand {
                bounds,
                ..self.demand
            };
            send_to(urls, &coupons, plan(demand), None).await?;
        }
        let run = send_to(urls, &coupons, plan(self.demand), None).await?;
        let (issued, all) = (issued(&run) as f64, run.tally.ended() as f64);
        if all == 0.0 || issued < ISSUED_PART * all {
            return Err(format!("{issued} of {all} answers are issuances").into());
        }
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::response::parse;
    use crate::load::tally::{ISSUE, Tally};

    fn run(issued: u64) -> Run {
        let mut tally = Tally::new();
        let answer = parse(b"HTTP/1.1 201 x\r\n\r\n", true, &mut Vec::new());
        let answer = answer.unwrap().unwrap();
        for _ in 0..issued {
            tally.answered(ISSUE, &answer, b"", Duration::from_millis(4));
        }
        Run {
            tally,
            measured: Duration::from_secs(2),
            unsent: 0,
            gave_up: false,
            interrupted: false,
        }
    }

    #[test]
    fn rates_are_compared_with_one_coupon_at_one_node_in_the_same_round() {
        let mut table = ThreeNodes::default();
        for (one, everywhere) in [(400, 200), (600, 150), (500, 100)] {
            let (one, everywhere) = (run(one), run(everywhere));
            for (row, run) in table.rows.iter_mut().zip([&one, &one, &everywhere]) {
                row.add(run, &one);
            }
        }
        let text = table.markdown();
        assert!(
            text.contains("| 100 coupons, three nodes | 75 (50–100) | 0.25 (0.20–0.50) | 4.0 (4.0–4.0) | 4.0 (4.0–4.0) | 0 |"),
            "{text}"
        );
        assert_eq!(table.json()[2]["of_one_coupon"], 0.25);
    }
}
