//! How long issuing pauses during a hand-off: three nodes are restarted one after the other under load.
//!
//! For each coupon, users send requests one after the other to the nodes that keep running. The pause of a
//! move is the longest time that a request took while shards moved, so the pause includes the usual time of a
//! request.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use testkit::ids::CouponId;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::filled::filled;
use super::series::verdict;
use super::stores::StoreServer;
use super::three::NODES;
use super::{ANSWER_LIMIT, Bench, millis};
use crate::load::Failed;

/// Target of the 95th percentile of all pauses.
const P95_MAX: Duration = Duration::from_millis(250);
/// Number of requested coupons. Each time that a node stops or starts again, a third of them move.
const COUPONS: usize = 12;
/// Number of stored issuances of each coupon, unless the flags give a smaller number. The next owner has to
/// read these issuances.
const ISSUED_MAX: u64 = 100_000;
/// Pause between requests for a coupon, so that the machine is busy but requests do not wait for each other.
const PACE: Duration = Duration::from_millis(20);

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let mut text = format!(
        "| store | moves | pause p50 ms | p95 ms | longest ms | requests in all | target p95 ≤ {} ms |\n|---|---|---|---|---|---|---|\n",
        P95_MAX.as_millis()
    );
    for measured in bench.servers() {
        let server = match &measured.store {
            Ok(server) => server,
            Err(why) => {
                let _ = writeln!(
                    text,
                    "| {}: NOT MEASURED: {why} | – | – | – | – | – | – |",
                    measured.name
                );
                continue;
            }
        };
        let (mut pauses, requests) = measure(bench, server)
            .await
            .map_err(|error| format!("{}: {error}", measured.name))?;
        pauses.sort();
        let at = |percent: usize| {
            pauses
                .get((pauses.len() * percent).div_ceil(100).saturating_sub(1))
                .copied()
                .unwrap_or_default()
        };
        let (p95, moves) = (at(95), pauses.len());
        let met = verdict(moves > 0 && p95 <= P95_MAX);
        let (half, all) = (millis(at(50)), millis(at(100)));
        let _ = writeln!(
            text,
            "| {} | {moves} | {half:.1} | {:.1} | {all:.1} | {requests} | {met} |",
            measured.name,
            millis(p95)
        );
    }
    let _ = write!(
        text,
        "\n{NODES} nodes were stopped (SIGTERM) and started again one after the other. There were {COUPONS} coupons with {} issuances, and users requested each coupon one after the other. {}",
        issued(bench),
        bench.settings()
    );
    Ok(text)
}

/// Returns the number of issuances that each coupon has before it is requested.
fn issued(bench: &Bench<'_>) -> u64 {
    bench.flags.issued.min(ISSUED_MAX)
}

/// Returns the pause of every move, and how many requests were answered.
async fn measure(bench: &Bench<'_>, server: &StoreServer) -> Result<(Vec<Duration>, u64), Failed> {
    let url = server.fresh(bench).await?;
    let mut coupons = Vec::new();
    for _ in 0..COUPONS {
        coupons.push(filled(&url, issued(bench)).await?);
    }
    let mut three = bench.three(&url).await?;
    let probe = PauseProbe::begin(&coupons, three.client(), three.urls(None));
    // The first request waits until its coupon is loaded, which is not a move.
    probe.all_answered().await?;
    let mut pauses = Vec::new();
    for _ in 0..bench.flags.rounds {
        for place in 0..NODES {
            probe.send_to(three.urls(Some(place)));
            let before = three.owners(three.node(place + 1)).await?;
            probe.begin_phase();
            three.stop(place).await?;
            three.settled().await?;
            three.at_rest().await?;
            probe.all_answered().await?;
            let between = three.owners(three.node(place + 1)).await?;
            pauses.extend(probe.longest_of(|coupon| {
                before.get(&super::shard_of(coupon)) != between.get(&super::shard_of(coupon))
            }));
            probe.begin_phase();
            three.start_again(place)?;
            three.settled().await?;
            three.at_rest().await?;
            probe.all_answered().await?;
            let after = three.owners(three.node(place)).await?;
            pauses.extend(probe.longest_of(|coupon| {
                between.get(&super::shard_of(coupon)) != after.get(&super::shard_of(coupon))
            }));
        }
    }
    let (requests, expected) = (probe.end().await?, 2 * COUPONS * usize::from(bench.flags.rounds));
    if pauses.len() != expected {
        return Err(format!(
            "{} moves were seen instead of {expected}: in each round each coupon leaves its node and comes back",
            pauses.len()
        )
        .into());
    }
    three.stop_all().await?;
    Ok((pauses, requests))
}

/// Sends the requests of users, one after the other for each coupon.
struct PauseProbe {
    coupons: Vec<CouponId>,
    shared: Arc<Shared>,
    nodes: watch::Sender<Vec<String>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// The longest wait since the phase began in microseconds, for each coupon.
    longest_us: Vec<AtomicU64>,
    /// Number of answers for each coupon.
    answered: Vec<AtomicU64>,
    over: AtomicBool,
    /// The first request that was not answered with an issuance.
    failed: Mutex<Option<String>>,
}

impl PauseProbe {
    fn begin(coupons: &[CouponId], client: &Client, nodes: Vec<String>) -> Self {
        let longest_us = coupons.iter().map(|_| AtomicU64::new(0)).collect();
        let answered = coupons.iter().map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared {
            longest_us,
            answered,
            ..Shared::default()
        });
        let (nodes, at) = watch::channel(nodes);
        let task = |(place, coupon): (usize, &CouponId)| {
            tokio::spawn(Arc::clone(&shared).send_until_over(place, *coupon, client.clone(), at.clone()))
        };
        let tasks = coupons.iter().enumerate().map(task).collect();
        Self {
            coupons: coupons.to_vec(),
            shared,
            nodes,
            tasks,
        }
    }

    fn send_to(&self, nodes: Vec<String>) {
        self.nodes.send_replace(nodes);
    }

    /// Waits until one more request is answered for each coupon.
    async fn all_answered(&self) -> Result<(), Failed> {
        let answered = || {
            self.shared
                .answered
                .iter()
                .map(|answered| answered.load(Ordering::Relaxed))
        };
        let (begun, before) = (Instant::now(), answered().collect::<Vec<_>>());
        while answered().zip(&before).any(|(now, before)| now == *before) {
            if begun.elapsed() > ANSWER_LIMIT {
                return Err(format!("not every coupon is answered within {ANSWER_LIMIT:?}").into());
            }
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }

    fn begin_phase(&self) {
        self.shared
            .longest_us
            .iter()
            .for_each(|longest| longest.store(0, Ordering::Relaxed));
    }

    /// Returns the longest waits since the phase began, for the selected coupons.
    fn longest_of(&self, is_meant: impl Fn(CouponId) -> bool) -> Vec<Duration> {
        let meant = self
            .coupons
            .iter()
            .zip(&self.shared.longest_us)
            .filter(|(coupon, _)| is_meant(**coupon));
        meant
            .map(|(_, longest)| Duration::from_micros(longest.load(Ordering::Relaxed)))
            .collect()
    }

    /// Ends the requests. Returns how many were answered; an error if one was not answered with 201.
    async fn end(self) -> Result<u64, Failed> {
        self.shared.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        match self
            .shared
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(failed) => Err(format!("a request failed: {failed}").into()),
            None => Ok(self
                .shared
                .answered
                .iter()
                .map(|answered| answered.load(Ordering::Relaxed))
                .sum()),
        }
    }
}

impl Shared {
    async fn send_until_over(
        self: Arc<Self>,
        place: usize,
        coupon: CouponId,
        client: Client,
        nodes: watch::Receiver<Vec<String>>,
    ) {
        for number in 0_u64.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let url = {
                let nodes = nodes.borrow();
                nodes[number as usize % nodes.len()].clone()
            };
            let begun = Instant::now();
            let answer = client
                .post(format!("{url}/v1/coupons/{coupon}/issuances"))
                .header("X-User-Id", format!("user-{number}"))
                .send()
                .await;
            let waited = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.longest_us[place].fetch_max(waited, Ordering::Relaxed);
            let failure = match answer {
                Ok(answer) if answer.status() == StatusCode::CREATED => None,
                Ok(answer) => Some(format!(
                    "{} {}",
                    answer.status(),
                    answer.text().await.unwrap_or_default()
                )),
                Err(error) => Some(error.to_string()),
            };
            match failure {
                None => drop(self.answered[place].fetch_add(1, Ordering::Relaxed)),
                Some(failure) => {
                    let _ = self
                        .failed
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(failure);
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }
}
