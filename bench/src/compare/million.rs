//! Compares the rate of issuing when a million issuances are stored with the rate when no issuance is stored.
//! Both databases are on one server and are measured in turn.

use std::fmt::Write as _;

use super::filled::filled;
use super::series::{Series, verdict};
use super::{Bench, Measurement};
use crate::load::Failed;
use crate::load::arrivals::Pace;

/// Target share of the rate in the empty database.
const SHARE: f64 = 0.9;

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let issued = bench.flags.issued;
    let mut text = format!(
        "| store | per second, none issued | per second, {issued} issued | share | target ≥ {SHARE} |\n|---|---|---|---|---|\n"
    );
    for measured in &bench.stores {
        let server = match &measured.store {
            Ok(server) => server,
            Err(why) => {
                let _ = writeln!(text, "| {}: NOT MEASURED: {why} | – | – | – | – |", measured.name);
                continue;
            }
        };
        let url = server.fresh(bench).await?;
        let coupon = filled(&url, issued).await?;
        let full = bench.node(&url)?;
        full.issues(coupon).await?;
        let [mut none, mut million, mut share]: [Series; 3] = Default::default();
        for _ in 0..bench.flags.rounds {
            // A new database for each round, because each round adds many rows.
            let empty = bench.node(&server.fresh(bench).await?)?;
            let at_none = bench
                .issue(&empty, 1, Pace::Closed, bench.connections())
                .await?
                .rate();
            drop(empty);
            let name = Bench::name();
            let pace = Pace::Closed;
            let measurement = Measurement {
                urls: vec![full.url()],
                coupons: vec![coupon],
                users: None,
                name: &name,
                pace,
                connections: bench.connections(),
            };
            let run = bench.measure(measurement).await?;
            super::expect(&run, "issued")?;
            none.add(at_none);
            million.add(run.rate());
            share.add(run.rate() / at_none);
        }
        let met = verdict(share.median() >= SHARE);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {met} |",
            measured.name,
            none.shown(0),
            million.shown(0),
            share.shown(2)
        );
    }
    let _ = write!(text, "\n{}", bench.settings());
    Ok(text)
}
