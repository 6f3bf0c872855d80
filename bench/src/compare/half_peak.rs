//! Latency at half the peak rate, in an open loop: the latency that users see in normal operation.

use std::fmt::Write as _;

use super::series::{Series, verdict};
use super::{Bench, millis};
use crate::load::Failed;
use crate::load::arrivals::Pace;

/// Target of the 99th percentile.
const P99_MS: f64 = 15.0;

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let mut text = format!(
        "| store | peak per second | offered per second | p50 ms | p99 ms | target ≤ {P99_MS} ms |\n|---|---|---|---|---|---|\n"
    );
    for measured in &bench.stores {
        let server = match &measured.store {
            Ok(server) => server,
            Err(why) => {
                let _ = writeln!(
                    text,
                    "| {}: NOT MEASURED: {why} | – | – | – | – | – |",
                    measured.name
                );
                continue;
            }
        };
        let node = bench.node(&server.fresh(bench).await?)?;
        let [mut peak, mut offered, mut p50, mut p99]: [Series; 4] = Default::default();
        for _ in 0..bench.flags.rounds {
            let rate = bench
                .issue(&node, 1, Pace::Closed, bench.connections())
                .await?
                .rate();
            let run = bench
                .issue(&node, 1, Pace::Rate(rate / 2.0), bench.connections())
                .await?;
            if run.unsent > 0 {
                return Err(format!(
                    "{}: at half the peak rate {} requests were never sent",
                    measured.name, run.unsent
                )
                .into());
            }
            peak.add(rate);
            offered.add(rate / 2.0);
            p50.add(millis(run.percentile(50.0)));
            p99.add(millis(run.percentile(99.0)));
        }
        let met = verdict(p99.median() <= P99_MS);
        let (peak, offered) = (peak.shown(0), offered.shown(0));
        let _ = writeln!(
            text,
            "| {} | {peak} | {offered} | {} | {} | {met} |",
            measured.name,
            p50.shown(1),
            p99.shown(1)
        );
    }
    let _ = write!(text, "\n{}", bench.settings());
    Ok(text)
}
