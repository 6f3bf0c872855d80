//! A thousand coupons at once, compared with one coupon. Each coupon has its own owner, and the owners'
//! batches are joined.

use std::fmt::Write as _;

use super::Bench;
use super::series::{Series, verdict};
use crate::load::Failed;
use crate::load::arrivals::Pace;

/// Number of coupons.
const COUPONS: u64 = 1_000;
/// Target share of one coupon's rate.
const SHARE: f64 = 0.8;

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let mut text = format!(
        "| store | per second, one coupon | per second, {COUPONS} coupons | share | target ≥ {SHARE} |\n|---|---|---|---|---|\n"
    );
    for measured in &bench.stores {
        let server = match &measured.store {
            Ok(server) => server,
            Err(why) => {
                let _ = writeln!(text, "| {}: NOT MEASURED: {why} | – | – | – | – |", measured.name);
                continue;
            }
        };
        let node = bench.node(&server.fresh(bench).await?)?;
        let [mut one, mut many, mut share]: [Series; 3] = Default::default();
        for _ in 0..bench.flags.rounds {
            let of_one = bench
                .issue(&node, 1, Pace::Closed, bench.connections())
                .await?
                .rate();
            let of_many = bench
                .issue(&node, COUPONS, Pace::Closed, bench.connections())
                .await?
                .rate();
            one.add(of_one);
            many.add(of_many);
            share.add(of_many / of_one);
        }
        let met = verdict(share.median() >= SHARE);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {met} |",
            measured.name,
            one.shown(0),
            many.shown(0),
            share.shown(2)
        );
    }
    let _ = write!(text, "\n{}", bench.settings());
    Ok(text)
}
