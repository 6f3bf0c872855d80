//! How long a coupon is not issued while it is handed over: three nodes, of which one after the other is restarted under load.
//!
//! Each coupon has one user after the other who asks for it at nodes that stay. The pause of a move is the longest that any of them waited while the shards
//! moved, so it has the usual time of a request in it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actors::ids::{CouponId, SHARDS};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::children::ADMIN_TOKEN;
use super::series::verdict;
use super::stores::StoreServer;
use super::{ANSWER_LIMIT, Bench, millis};
use crate::beside;
use crate::cluster::node::Node;
use crate::load::Failed;
use crate::load::coupons::{self, Wanted};

/// The 95th percentile of all pauses may be so long.
const P95_MAX: Duration = Duration::from_millis(250);
/// Nodes.
const NODES: usize = 3;
/// Coupons that are asked for. A third of them moves with each node that goes, and with each that comes.
const COUPONS: u64 = 48;
/// How long a coupon's users think: so that the machine is busy, and not so busy that every request waits for others.
const PACE: Duration = Duration::from_millis(20);
/// How long nodes may take to start, to stop, or to share the shards.
const LIMIT: Duration = Duration::from_secs(60);
/// Time between two looks.
const POLL: Duration = Duration::from_millis(20);

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let mut text = format!(
        "| store | moves | pause p50 ms | p95 ms | longest ms | requests meanwhile | target p95 ≤ {} ms |\n|---|---|---|---|---|---|---|\n",
        P95_MAX.as_millis()
    );
    for stocked in bench.servers() {
        let server = match &stocked.store {
            Ok(server) => server,
            Err(why) => {
                let _ = writeln!(text, "| {}: NOT MEASURED: {why} | – | – | – | – | – | – |", stocked.name);
                continue;
            }
        };
        let (mut pauses, requests) = measure(bench, server).await.map_err(|error| format!("{}: {error}", stocked.name))?;
        pauses.sort();
        let at = |percent: usize| pauses.get((pauses.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
        let (p95, moves) = (at(95), pauses.len());
        let met = verdict(moves > 0 && p95 <= P95_MAX);
        let (half, all) = (millis(at(50)), millis(at(100)));
        let _ = writeln!(text, "| {} | {moves} | {half:.1} | {:.1} | {all:.1} | {requests} | {met} |", stocked.name, millis(p95));
    }
    let _ = write!(
        text,
        "\n{NODES} nodes, one after the other stopped (SIGTERM) and started again; {COUPONS} coupons, each asked for by one user after the other. {}",
        bench.settings()
    );
    Ok(text)
}

/// The pause of every move, and how many requests were answered.
async fn measure(bench: &Bench<'_>, server: &StoreServer) -> Result<(Vec<Duration>, u64), Failed> {
    let mut nodes = start(bench, &server.fresh(bench).await?)?;
    let client = Client::builder().timeout(ANSWER_LIMIT).no_proxy().build()?;
    settled(&nodes, &client).await?;
    let wanted = Wanted { count: COUPONS, quantity: None, name: &Bench::name() };
    let coupons = coupons::make(nodes[0].url(), ADMIN_TOKEN, wanted, None).await?;
    let asking = Asking::begin(&coupons, &client, urls(&nodes, None));
    let mut pauses = Vec::new();
    for _ in 0..bench.flags.rounds {
        for place in 0..NODES {
            asking.ask_at(urls(&nodes, Some(place)));
            let before = owners(&nodes[(place + 1) % NODES], &client).await?;
            asking.begin_phase();
            nodes[place].stop(LIMIT, POLL).await.map_err(|how| format!("{} did not stop as it should: {how}", nodes[place].name()))?;
            settled(&nodes, &client).await?;
            let between = owners(&nodes[(place + 1) % NODES], &client).await?;
            pauses.extend(asking.longest_of(|coupon| before.get(&coupon.shard().get()) != between.get(&coupon.shard().get())));
            asking.begin_phase();
            nodes[place].start_again()?;
            settled(&nodes, &client).await?;
            let after = owners(&nodes[place], &client).await?;
            pauses.extend(asking.longest_of(|coupon| between.get(&coupon.shard().get()) != after.get(&coupon.shard().get())));
        }
    }
    let requests = asking.end().await?;
    for node in &mut nodes {
        node.stop(LIMIT, POLL).await.map_err(|how| format!("{} did not stop as it should: {how}", node.name()))?;
    }
    Ok((pauses, requests))
}

fn start(bench: &Bench<'_>, store_url: &str) -> Result<Vec<Node>, Failed> {
    let program = beside(bench.flags.firstcome.as_deref(), "firstcome")?.canonicalize()?;
    let directory = tempfile::Builder::new().prefix("hand-offs-").tempdir_in(bench.scratch)?.keep();
    let mut nodes = Vec::new();
    for number in 1..=NODES {
        let name = format!("node-{number}");
        let keys = [
            ("data_dir", "data".to_owned()),
            ("node.id", name.clone()),
            ("http.listen", free_address()?),
            ("store.url", store_url.to_owned()),
            ("cluster.listen", free_address()?),
            ("cluster.cookie", "a-cookie-of-no-importance".to_owned()),
            ("auth.admin_token", ADMIN_TOKEN.to_owned()),
            ("log.level", "error".to_owned()),
            // Time for those who ask to turn to others.
            ("shutdown.delay", "200ms".to_owned()),
        ];
        nodes.push(Node::start(&name, &program, &directory.join(&name), &keys, &[])?);
    }
    Ok(nodes)
}

/// An address that is free now. Should another take it before its node does, that node does not start, and that is said.
fn free_address() -> std::io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Where the nodes are that run, but for one.
fn urls(nodes: &[Node], but: Option<usize>) -> Vec<String> {
    let others = nodes.iter().enumerate().filter(|(place, node)| node.lives() && Some(*place) != but);
    others.map(|(_, node)| node.url().to_owned()).collect()
}

#[derive(Debug, Deserialize)]
struct View {
    shards: Vec<Shard>,
}

#[derive(Debug, Deserialize)]
struct Shard {
    id: u16,
    owner: Option<String>,
}

/// Who owns which shard.
async fn owners(node: &Node, client: &Client) -> Result<HashMap<u16, Option<String>>, Failed> {
    let request = client.get(format!("{}/v1/cluster", node.url())).bearer_auth(ADMIN_TOKEN);
    let view: View = request.send().await?.error_for_status()?.json().await?;
    Ok(view.shards.into_iter().map(|shard| (shard.id, shard.owner)).collect())
}

/// Waits until all that run are ready, and share the shards: each has half of an equal share or more.
async fn settled(nodes: &[Node], client: &Client) -> Result<(), Failed> {
    let begun = Instant::now();
    let running: Vec<&Node> = nodes.iter().filter(|node| node.lives()).collect();
    let share = usize::from(SHARDS) / running.len() / 2;
    loop {
        let mut all = true;
        for node in &running {
            let ready = client.get(format!("{}/readyz", node.url())).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK);
            let owners = if ready { owners(node, client).await.unwrap_or_default() } else { HashMap::new() };
            let of = |name: &str| owners.values().filter(|owner| owner.as_deref() == Some(name)).count();
            let shares: Vec<usize> = running.iter().map(|node| of(node.name())).collect();
            all &= shares.iter().all(|has| *has >= share) && shares.iter().sum::<usize>() == usize::from(SHARDS);
        }
        if all {
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            let log: Vec<String> = running.iter().map(|node| node.last_lines()).collect();
            return Err(format!("the nodes do not share the shards within {LIMIT:?}\n{}", log.join("\n")).into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Users who ask, one after the other for each coupon.
struct Asking {
    coupons: Vec<CouponId>,
    shared: Arc<Shared>,
    nodes: watch::Sender<Vec<String>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// The longest that anybody waited since the phase began, in microseconds, for each coupon.
    longest_us: Vec<AtomicU64>,
    answered: AtomicU64,
    over: AtomicBool,
    /// The first request that was not answered with an issuance.
    failed: Mutex<Option<String>>,
}

impl Asking {
    fn begin(coupons: &[CouponId], client: &Client, nodes: Vec<String>) -> Self {
        let longest_us = coupons.iter().map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { longest_us, ..Shared::default() });
        let (nodes, at) = watch::channel(nodes);
        let task = |(place, coupon): (usize, &CouponId)| {
            tokio::spawn(Arc::clone(&shared).ask_until_it_is_over(place, *coupon, client.clone(), at.clone()))
        };
        let tasks = coupons.iter().enumerate().map(task).collect();
        Self { coupons: coupons.to_vec(), shared, nodes, tasks }
    }

    fn ask_at(&self, nodes: Vec<String>) {
        self.nodes.send_replace(nodes);
    }

    fn begin_phase(&self) {
        self.shared.longest_us.iter().for_each(|longest| longest.store(0, Ordering::Relaxed));
    }

    /// The longest waits since the phase began, for the coupons that are meant.
    fn longest_of(&self, is_meant: impl Fn(CouponId) -> bool) -> Vec<Duration> {
        let meant = self.coupons.iter().zip(&self.shared.longest_us).filter(|(coupon, _)| is_meant(**coupon));
        meant.map(|(_, longest)| Duration::from_micros(longest.load(Ordering::Relaxed))).collect()
    }

    /// How many requests were answered, if all were as they should be.
    async fn end(self) -> Result<u64, Failed> {
        self.shared.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        match self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failed) => Err(format!("a request failed: {failed}").into()),
            None => Ok(self.shared.answered.load(Ordering::Relaxed)),
        }
    }
}

impl Shared {
    async fn ask_until_it_is_over(self: Arc<Self>, place: usize, coupon: CouponId, client: Client, nodes: watch::Receiver<Vec<String>>) {
        for number in 0_u64.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let url = {
                let nodes = nodes.borrow();
                nodes[number as usize % nodes.len()].clone()
            };
            let begun = Instant::now();
            let answer =
                client.post(format!("{url}/v1/coupons/{coupon}/issuances")).header("X-User-Id", format!("user-{number}")).send().await;
            let waited = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.longest_us[place].fetch_max(waited, Ordering::Relaxed);
            let failure = match answer {
                Ok(answer) if answer.status() == StatusCode::CREATED => None,
                Ok(answer) => Some(format!("{} {}", answer.status(), answer.text().await.unwrap_or_default())),
                Err(error) => Some(error.to_string()),
            };
            match failure {
                None => drop(self.answered.fetch_add(1, Ordering::Relaxed)),
                Some(failure) => {
                    let _ = self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }
}
