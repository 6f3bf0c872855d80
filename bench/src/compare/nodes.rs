//! The cost of the link, with three nodes of one cluster: requests at a node that does not own the coupon,
//! compared with requests at the node that does.
//!
//! Each measurement has coupons of its own. The nodes' metrics must show that the requests took the measured
//! path, because a figure of another path would be worse than no figure.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use actors::metrics::{DOOR_ANSWERS, FORWARDED, PEER_FRAME_REQUESTS, PEER_ROUND_TRIP};
use reqwest::StatusCode;
use testkit::ids::CouponId;

use super::children::processor_time;
use super::series::{Series, verdict};
use super::stores::StoreServer;
use super::three::Three;
use super::{Bench, Measurement, expect, millis, prometheus};
use crate::cluster::node::ClusterNode;
use crate::load::Failed;
use crate::load::arrivals::Pace;
use crate::load::drive::Run;

/// Number of coupons in the measurement with several coupons. Each node owns about a third of them.
const COUPONS: u64 = 100;
/// Target for a node that forwards: its share of the owner's rate.
const FORWARDED_SHARE: f64 = 0.6;
/// Target for a node whose door answers: its share of the owner's rate.
const DOOR_SHARE: f64 = 0.9;
/// Share of the requests that must take the measured path. The first few may meet a door without knowledge,
/// or an owner that is not loaded.
const PATH_SHARE: f64 = 0.95;
/// How long doors may take to learn that a coupon is sold out. Doors ask with every heartbeat, once a second.
const DOOR_LIMIT: Duration = Duration::from_secs(10);
/// Time between two checks of a door.
const POLL: Duration = Duration::from_millis(50);

/// The node that gets the requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Owner,
    /// A node that does not own the coupon.
    Other,
}

/// The results of one kind of load in all rounds.
#[derive(Default)]
struct Load {
    rate: Series,
    share: Series,
    p50: Series,
    p99: Series,
}

/// The link's figures in all rounds with requests at the other node.
#[derive(Default)]
struct Link {
    frame: Series,
    round_trip: Series,
    /// Processor time of both nodes for a request at the owner, in microseconds.
    at_owner: Series,
    /// Processor time of both nodes for a request at the other node, in microseconds.
    at_other: Series,
    cores: Series,
}

#[derive(Default)]
struct Figures {
    issued_at_owner: Load,
    issued_at_other: Load,
    issued_everywhere: Load,
    door_at_owner: Load,
    door_at_other: Load,
    link: Link,
}

pub(super) async fn table(bench: &Bench<'_>) -> Result<String, Failed> {
    let mut loads =
        "| store | answer | node | per second | of the owner's | target | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    let mut links = "| store | requests a frame | round trip ms | µs a request, at its owner | at another | cores for the link |\n\
                     |---|---|---|---|---|---|\n"
        .to_owned();
    for measured in bench.servers() {
        let name = &measured.name;
        let server = match &measured.store {
            Ok(server) => server,
            Err(why) => {
                let _ = writeln!(
                    loads,
                    "| {name}: NOT MEASURED: {why} | – | – | – | – | – | – | – |"
                );
                let _ = writeln!(links, "| {name}: NOT MEASURED: {why} | – | – | – | – | – |");
                continue;
            }
        };
        let figures = measure(bench, server)
            .await
            .map_err(|error| format!("{name}: {error}"))?;
        figures.write_loads(name, &mut loads);
        figures.link.write(name, &mut links);
    }
    Ok(format!(
        "{loads}\n{links}\nThree nodes over one database. Either one coupon, with all connections at its owner or all at one node that does not own it; or {COUPONS} coupons, \
         spread like the connections over the three nodes. Shares are those of the same round.\n\n\
         The link, with requests at the other node: requests per frame that it sends, and round trips of its heartbeats. The microseconds of a request are the \
         processor time of both nodes (user and system; without the client and the database), divided by the requests that were sent meanwhile. Cores for the \
         link: the difference of the two, times the rate of forwarded requests. It includes the cost of smaller batches and of waking a second node. {}",
        bench.settings()
    ))
}

async fn measure(bench: &Bench<'_>, server: &StoreServer) -> Result<Figures, Failed> {
    let mut three = bench.three(&server.fresh(bench).await?).await?;
    let mut figures = Figures::default();
    for _ in 0..bench.flags.rounds {
        let local = issued(bench, &three, At::Owner).await?;
        let forwarded = issued(bench, &three, At::Other).await?;
        let own_door = answered_by_doors(bench, &three, At::Owner).await?;
        let other_door = answered_by_doors(bench, &three, At::Other).await?;
        let everywhere = issued_everywhere(bench, &three).await?;
        figures.issued_at_owner.add(&local.run, &local.run);
        figures.issued_at_other.add(&forwarded.run, &local.run);
        figures.issued_everywhere.add(&everywhere, &local.run);
        figures.door_at_owner.add(&own_door.run, &own_door.run);
        figures.door_at_other.add(&other_door.run, &own_door.run);
        figures.link.add(&local, &forwarded);
    }
    three.stop_all().await?;
    Ok(figures)
}

/// A coupon's owner, and a node that does not own it.
struct Pair<'a> {
    owner: &'a ClusterNode,
    other: &'a ClusterNode,
}

impl<'a> Pair<'a> {
    async fn of(coupon: CouponId, three: &'a Three) -> Result<Self, Failed> {
        let owners = three.owners(three.node(0)).await?;
        let name = owners
            .get(&super::shard_of(coupon))
            .cloned()
            .flatten()
            .ok_or("a coupon has no owner")?;
        let place = three
            .place(&name)
            .ok_or("a coupon's owner is none of the nodes")?;
        Ok(Self {
            owner: three.node(place),
            other: three.node(place + 1),
        })
    }

    fn at(&self, at: At) -> &'a ClusterNode {
        match at {
            At::Owner => self.owner,
            At::Other => self.other,
        }
    }

    /// Returns the processor time of both nodes.
    fn processor_time(&self) -> Result<Duration, Failed> {
        Ok(processor_time(self.owner.process_id())? + processor_time(self.other.process_id())?)
    }
}

/// A run, with metrics and processor time before and after.
struct Seen {
    run: Run,
    /// Metrics of the node with the requests, before and after.
    metrics: [String; 2],
    /// Processor time of both nodes during the run.
    used: Duration,
}

impl Seen {
    /// Measures with all connections at one node and for one coupon.
    async fn of(bench: &Bench<'_>, pair: &Pair<'_>, at: At, coupon: CouponId) -> Result<Self, Failed> {
        let url = pair.at(at).url();
        let name = Bench::name();
        let (before, used_before) = (prometheus::read(url).await?, pair.processor_time()?);
        let measurement = Measurement {
            urls: vec![url],
            coupons: vec![coupon],
            users: None,
            name: &name,
            pace: Pace::Closed,
            connections: bench.connections(),
        };
        let run = bench.measure(measurement).await?;
        let (used, after) = (pair.processor_time()? - used_before, prometheus::read(url).await?);
        Ok(Self {
            run,
            metrics: [before, after],
            used,
        })
    }

    /// Returns the number of requests, including the warm-up.
    fn requests(&self) -> f64 {
        (self.run.tally.ended() + self.run.tally.warm_up) as f64
    }

    /// Returns the processor time of each request in microseconds.
    fn used_us(&self) -> f64 {
        self.used.as_secs_f64() * 1e6 / self.requests()
    }

    /// Returns the share of the requests that this metric counted.
    fn share_of(&self, counter: &str) -> f64 {
        prometheus::since(&self.metrics[0], &self.metrics[1], counter) / self.requests()
    }

    fn mean(&self, histogram: &str) -> Option<f64> {
        prometheus::mean(&self.metrics[0], &self.metrics[1], histogram)
    }
}

/// Measures issuing of a new coupon with requests at this node.
async fn issued(bench: &Bench<'_>, three: &Three, at: At) -> Result<Seen, Failed> {
    let coupon = bench.make_one(three.node(0).url(), None).await?;
    let seen = Seen::of(bench, &Pair::of(coupon, three).await?, at, coupon).await?;
    expect(&seen.run, "issued")?;
    let forwarded = seen.share_of(FORWARDED);
    let went = match at {
        At::Owner => 1.0 - forwarded,
        At::Other => forwarded,
    };
    if went < PATH_SHARE {
        return Err(format!("the node forwarded a share of {forwarded:.2}").into());
    }
    Ok(seen)
}

/// Measures requests for a sold-out coupon at this node, whose door knows that the coupon is sold out.
async fn answered_by_doors(bench: &Bench<'_>, three: &Three, at: At) -> Result<Seen, Failed> {
    let coupon = bench.sold_out(three.node(0).url()).await?;
    let pair = Pair::of(coupon, three).await?;
    wait_for_door(pair.at(at), three.client(), coupon).await?;
    let seen = Seen::of(bench, &pair, at, coupon).await?;
    expect(&seen.run, "SOLD_OUT")?;
    let by_door = seen.share_of(DOOR_ANSWERS);
    if by_door < PATH_SHARE {
        return Err(format!("the door answered a share of {by_door:.2}").into());
    }
    Ok(seen)
}

/// Waits until the node's door has answered a request for this coupon.
async fn wait_for_door(node: &ClusterNode, client: &reqwest::Client, coupon: CouponId) -> Result<(), Failed> {
    let url = format!("{}/v1/coupons/{coupon}/issuances", node.url());
    let begun = Instant::now();
    loop {
        let before = prometheus::read(node.url()).await?;
        let answer = client
            .post(&url)
            .header("X-User-Id", Bench::name())
            .send()
            .await?;
        if answer.status() != StatusCode::CONFLICT {
            return Err(format!(
                "a sold-out coupon was answered {} {}",
                answer.status(),
                answer.text().await?
            )
            .into());
        }
        if prometheus::since(&before, &prometheus::read(node.url()).await?, DOOR_ANSWERS) > 0.0 {
            return Ok(());
        }
        if begun.elapsed() > DOOR_LIMIT {
            return Err(format!(
                "the door of {} did not learn within {DOOR_LIMIT:?} that a coupon is sold out",
                node.name()
            )
            .into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Measures issuing of many new coupons with requests at all nodes.
async fn issued_everywhere(bench: &Bench<'_>, three: &Three) -> Result<Run, Failed> {
    let coupons = bench.make(three.node(0).url(), COUPONS, None).await?;
    let (urls, name) = (three.urls(None), Bench::name());
    let urls = urls.iter().map(String::as_str).collect();
    let measurement = Measurement {
        urls,
        coupons,
        users: None,
        name: &name,
        pace: Pace::Closed,
        connections: bench.connections(),
    };
    let run = bench.measure(measurement).await?;
    expect(&run, "issued")?;
    Ok(run)
}

impl Load {
    fn add(&mut self, run: &Run, at_owner: &Run) {
        self.rate.add(run.rate());
        self.share.add(run.rate() / at_owner.rate());
        self.p50.add(millis(run.percentile(50.0)));
        self.p99.add(millis(run.percentile(99.0)));
    }
}

impl Link {
    fn add(&mut self, local: &Seen, forwarded: &Seen) {
        // A short run may include no heartbeat.
        if let Some(seconds) = forwarded.mean(PEER_ROUND_TRIP) {
            self.round_trip.add(1_000.0 * seconds);
        }
        if let Some(requests) = forwarded.mean(PEER_FRAME_REQUESTS) {
            self.frame.add(requests);
        }
        self.at_owner.add(local.used_us());
        self.at_other.add(forwarded.used_us());
        self.cores
            .add((forwarded.used_us() - local.used_us()) * forwarded.run.rate() / 1e6);
    }

    fn write(&self, store: &str, text: &mut String) {
        let Self {
            frame,
            round_trip,
            at_owner,
            at_other,
            cores,
        } = self;
        let (frame, round_trip) = (frame.shown(1), round_trip.shown(1));
        let (at_owner, at_other, cores) = (at_owner.shown(1), at_other.shown(1), cores.shown(2));
        let _ = writeln!(
            text,
            "| {store} | {frame} | {round_trip} | {at_owner} | {at_other} | {cores} |"
        );
    }
}

impl Figures {
    fn write_loads(&self, store: &str, text: &mut String) {
        let many = format!("issued and committed, {COUPONS} coupons");
        let rows = [
            (
                "issued and committed",
                "at its owner",
                &self.issued_at_owner,
                None,
            ),
            (
                "issued and committed",
                "at another",
                &self.issued_at_other,
                Some(FORWARDED_SHARE),
            ),
            (many.as_str(), "at all three", &self.issued_everywhere, None),
            (
                "sold out, answered by the door",
                "at its owner",
                &self.door_at_owner,
                None,
            ),
            (
                "sold out, answered by the door",
                "at another",
                &self.door_at_other,
                Some(DOOR_SHARE),
            ),
        ];
        for (answer, asked, load, target) in rows {
            let met = target.map_or("–".to_owned(), |share| {
                format!("≥ {share}: {}", verdict(load.share.median() >= share))
            });
            let (rate, share, p50, p99) = (
                load.rate.shown(0),
                load.share.shown(2),
                load.p50.shown(1),
                load.p99.shown(1),
            );
            let _ = writeln!(
                text,
                "| {store} | {answer} | {asked} | {rate} | {share} | {met} | {p50} | {p99} |"
            );
        }
    }
}
