//! Compares the rate of issuing while a large coupon is exported with the rate while it is not. Both are
//! measured in turn on one node, for different coupons.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use testkit::ids::CouponId;

use super::children::{ADMIN_TOKEN, Service};
use super::filled::filled;
use super::series::{Series, verdict};
use super::{Bench, WARM_UP};
use crate::load::Failed;
use crate::load::arrivals::Pace;

/// Target share of the rate without an export.
const SHARE: f64 = 0.9;

/// Maximum time for which an export may send nothing.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let issued = bench.flags.issued;
    let mut text = format!(
        "| store | issued per second, no export | issued per second, an export of {issued} beside it | share | \
         target ≥ {SHARE} | rows exported per second |\n|---|---|---|---|---|---|\n"
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
        let url = server.fresh(bench).await?;
        let large = filled(&url, issued).await?;
        let node = bench.node(&url)?;
        node.issues(large).await?;
        let [mut alone, mut beside, mut share, mut rows]: [Series; 4] = Default::default();
        for round in 0..bench.flags.rounds {
            // Rounds begin with either in turn, because added rows make each run slower than the one before.
            let [first, second] = [round % 2 == 1, round % 2 == 0];
            let (mut at_alone, mut at_beside) = (0.0, 0.0);
            for with_export in [first, second] {
                let export = with_export.then(|| ExportReader::start(&node, large));
                let run = bench.issue(&node, 1, Pace::Closed, bench.connections()).await?;
                match export {
                    None => at_alone = run.rate(),
                    Some(export) => {
                        at_beside = run.rate();
                        rows.add(export.end().await?);
                    }
                }
            }
            alone.add(at_alone);
            beside.add(at_beside);
            share.add(at_beside / at_alone);
        }
        let met = verdict(share.median() >= SHARE);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {met} | {} |",
            measured.name,
            alone.shown(0),
            beside.shown(0),
            share.shown(2),
            rows.shown(0)
        );
    }
    let _ = write!(text, "\n{}", bench.settings());
    Ok(text)
}

/// A client that exports a coupon again and again.
struct ExportReader {
    begun: Instant,
    lines: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Result<(), Failed>>,
}

impl ExportReader {
    fn start(node: &Service, coupon: CouponId) -> Self {
        let lines = Arc::new(AtomicU64::new(0));
        let url = format!("{}/v1/coupons/{coupon}/issuances.ndjson", node.url());
        Self {
            begun: Instant::now(),
            task: tokio::spawn(read(url, Arc::clone(&lines))),
            lines,
        }
    }

    /// Stops reading. Returns how many lines a second were read.
    async fn end(self) -> Result<f64, Failed> {
        let (lines, took) = (self.lines.load(Ordering::Relaxed), self.begun.elapsed());
        self.task.abort();
        match self.task.await {
            Ok(ended) => ended?,
            Err(aborted) if aborted.is_cancelled() => {}
            Err(panicked) => return Err(panicked.into()),
        }
        if lines == 0 && took > WARM_UP {
            return Err("the export sent no line".into());
        }
        Ok(lines as f64 / took.as_secs_f64())
    }
}

async fn read(url: String, lines: Arc<AtomicU64>) -> Result<(), Failed> {
    let client = reqwest::Client::builder().no_proxy().read_timeout(SILENCE_LIMIT);
    let client = client.build()?;
    loop {
        let mut response = client.get(&url).bearer_auth(ADMIN_TOKEN).send().await?;
        if response.status() != StatusCode::OK {
            return Err(format!("the export was answered {}", response.status()).into());
        }
        while let Some(chunk) = response.chunk().await? {
            let ends = chunk.iter().filter(|byte| **byte == b'\n').count();
            lines.fetch_add(ends as u64, Ordering::Relaxed);
        }
    }
}
