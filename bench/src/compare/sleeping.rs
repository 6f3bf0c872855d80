//! A hundred thousand passive coupons, which should cost nothing, and the memory of an active coupon's owner.

use std::fmt::Write as _;

use super::series::{Series, verdict};
use super::stores::StoreServer;
use super::{Bench, Measurement, expect};
use crate::load::Failed;
use crate::load::arrivals::Pace;

/// Target share of the rate without passive coupons.
const SHARE: f64 = 0.9;
/// Maximum number of owners that are activated to measure their memory.
const LOADED_MAX: u64 = 20_000;

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let count = bench.flags.coupons;
    let mut text = format!(
        "| store | per second, one coupon | per second, {count} more idle | share | target ≥ {SHARE} | MiB resident | with {count} idle | bytes a loaded owner |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    for measured in &bench.stores {
        let server = match &measured.store {
            Ok(server) => server,
            Err(why) => {
                let _ = writeln!(
                    text,
                    "| {}: NOT MEASURED: {why} | – | – | – | – | – | – | – |",
                    measured.name
                );
                continue;
            }
        };
        let cells = measure(bench, server).await?;
        let _ = writeln!(text, "| {} | {cells} |", measured.name);
    }
    let _ = write!(
        text,
        "\nMemory is the resident set of the process after its first load. A loaded owner has one issuance; its bytes are the growth per owner over up to {LOADED_MAX} \
         owners. {}",
        bench.settings()
    );
    Ok(text)
}

/// Measures one store, and returns the cells of its row.
async fn measure(bench: &Bench<'_>, server: &StoreServer) -> Result<String, Failed> {
    let count = bench.flags.coupons;
    let alone = bench.node(&server.fresh(bench).await?)?;
    let url = server.fresh(bench).await?;
    let data = bench.node_data()?;
    let maker = bench.node_in(&data, &url)?;
    let coupons = bench.make(maker.url(), count, None).await?;
    drop(maker);
    // A new process, in which none of the coupons is active.
    let crowded = bench.node_in(&data, &url)?;
    for node in [&alone, &crowded] {
        node.issues(bench.make_one(node.url(), None).await?).await?;
    }
    let [mut without, mut with, mut share, mut memory, mut crowded_memory]: [Series; 5] = Default::default();
    for round in 0..bench.flags.rounds {
        let rate = bench
            .issue(&alone, 1, Pace::Closed, bench.connections())
            .await?
            .rate();
        let crowded_rate = bench
            .issue(&crowded, 1, Pace::Closed, bench.connections())
            .await?
            .rate();
        without.add(rate);
        with.add(crowded_rate);
        share.add(crowded_rate / rate);
        if round == 0 {
            memory.add(mib(alone.resident_bytes()?));
            crowded_memory.add(mib(crowded.resident_bytes()?));
        }
    }
    let loaded = count.min(LOADED_MAX);
    let before = crowded.resident_bytes()?;
    let coupons = coupons.into_iter().take(usize::try_from(loaded)?).collect();
    let name = Bench::name();
    let measurement = Measurement {
        urls: vec![crowded.url()],
        coupons,
        users: None,
        name: &name,
        pace: Pace::Closed,
        connections: bench.connections(),
    };
    expect(&bench.send(measurement, loaded).await?, "issued")?;
    let bytes = crowded.resident_bytes()?.saturating_sub(before) / loaded;
    let met = verdict(share.median() >= SHARE);
    let (without, with, share) = (without.shown(0), with.shown(0), share.shown(2));
    let (memory, crowded_memory) = (memory.shown(0), crowded_memory.shown(0));
    Ok(format!(
        "{without} | {with} | {share} | {met} | {memory} | {crowded_memory} | {bytes}"
    ))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
