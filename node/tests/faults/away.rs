//! A database that goes away under load and returns. It refuses connections, or it is silent. Every answer is
//! correct and in time, memory stays bounded, and the node goes on without a restart.
//!
//! `FIRSTCOME_AWAY_SECONDS` sets how long the database is away each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use testkit::on_each_server;
use testkit::poll::eventually;

use actors::owning::door::DOOR_TTL;
use reqwest::Client;
use serde_json::{Value, json};
use testkit::database_proxy::DatabaseMode;
use testkit::servers::{Server, ServerKind};

use crate::stage::Stage;
use testkit::clients::from_environment;
use testkit::recorder::HttpRecorder;

/// Number of clients that load the node. The same number of other clients requests coupons while the database
/// is away.
const CLIENTS: u64 = 16;
const DEADLINE: Duration = Duration::from_millis(1_500);
/// More than twice the time that a batch waits for a silent database. If the lease ended before that, the
/// node would try no batch, and would not notice that the store takes no writes.
const LEASE: Duration = Duration::from_secs(6);
/// Delay with which a busy machine notices something.
const SLACK: Duration = Duration::from_secs(2);
/// Long enough for the lease and the door's knowledge to end.
const AWAY_SECONDS: u64 = 11;

/// Maximum growth of a process while its database is away. A request waits at most until its deadline, and
/// each connection has at most one request that waits. All other requests are refused before anything is kept
/// for them. Memory grows by the records of coupons that were requested during the lease, and by what the
/// allocator keeps. Each record is kept until its read fails.
const GROWTH_BYTES_MAX: u64 = 48 << 20;

/// The line of the log when the store accepts writes again.
const ACCEPTS: &str = "the store accepts writes again";

/// An answer while the database is away.
struct TimedAnswer {
    coupon: u64,
    /// Time from the loss of the database to the request.
    asked: Duration,
    took: Duration,
    code: String,
}

struct Requester {
    client: Client,
    address: String,
    history: Arc<HttpRecorder>,
    coupons: [u64; 2],
    next: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    away: Instant,
}

impl Requester {
    /// Requests an open coupon, a sold-out coupon and a coupon that does not exist, in turn. Each request is
    /// for another user.
    async fn request_until_over(self) -> Vec<TimedAnswer> {
        let mut answers = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let (asked, begun, user) = (self.away.elapsed(), Instant::now(), format!("other-{number}"));
            let coupon = self
                .coupons
                .get(number as usize % 3)
                .copied()
                .unwrap_or(1_000_000 + number);
            let answer = if self.coupons.contains(&coupon) {
                self.history
                    .issue(&self.client, &self.address, coupon, &user, "key")
                    .await
            } else {
                let url = format!("http://{}/v1/coupons/{coupon}/issuances", self.address);
                let response = self
                    .client
                    .post(url)
                    .header("X-User-Id", user)
                    .send()
                    .await
                    .unwrap();
                Some((
                    response.status().as_u16(),
                    response.json::<Value>().await.unwrap(),
                ))
            };
            let code = match answer.expect("the node answers") {
                (201, _) => "issued".to_owned(),
                (_, problem) => problem["code"].as_str().expect("a problem has a code").to_owned(),
            };
            answers.push(TimedAnswer {
                coupon,
                asked,
                took: begun.elapsed(),
                code,
            });
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        answers
    }
}

/// Takes the database away for a while. Returns the answers during that time.
async fn away(
    stage: &Stage<'_>,
    mode: DatabaseMode,
    coupons: [u64; 2],
    next: &Arc<AtomicU64>,
) -> Vec<TimedAnswer> {
    let over = Arc::new(AtomicBool::new(false));
    stage.proxy.set(mode);
    let away = Instant::now();
    let requesters = (0..CLIENTS).map(|_| Requester {
        client: stage.client.clone(),
        address: stage.node.address.clone(),
        history: Arc::clone(&stage.history),
        coupons,
        next: Arc::clone(next),
        over: Arc::clone(&over),
        away,
    });
    let requesters: Vec<_> = requesters
        .map(|requester| tokio::spawn(requester.request_until_over()))
        .collect();
    stage.not_ready("no_store").await;
    let accepted = stage.logged(ACCEPTS);
    stage.not_ready("no_lease").await;
    // This holds even while a beat hangs.
    assert_eq!(stage.metric("coupon_lease_remaining_seconds").await, 0.0);
    let seconds = from_environment("FIRSTCOME_AWAY_SECONDS").unwrap_or(AWAY_SECONDS);
    eventually("the time has passed", async || {
        away.elapsed() > Duration::from_secs(seconds)
    })
    .await;
    assert!(stage.reasons().await.contains(&"no_lease".to_owned()));
    assert_eq!(
        stage.logged(ACCEPTS),
        accepted,
        "the log says that the store accepts writes"
    );
    over.store(true, Ordering::Relaxed);
    let mut answers = Vec::new();
    for requester in requesters {
        answers.extend(requester.await.unwrap());
    }
    answers
}

/// Checks that the door refuses requests for the sold-out coupon only while its notice is valid, and that
/// later the answer is `STORE_UNAVAILABLE`.
fn check_refusals(answers: &[TimedAnswer], sold_out: u64) {
    let refused_as_sold_out: Vec<&TimedAnswer> = answers
        .iter()
        .filter(|answer| answer.code == "SOLD_OUT")
        .collect();
    assert!(
        refused_as_sold_out
            .iter()
            .all(|answer| answer.coupon == sold_out && answer.asked + answer.took < LEASE + DOOR_TTL + SLACK)
    );
    assert!(!refused_as_sold_out.is_empty(), "no request met the door");
    assert!(answers.iter().any(|answer| answer.coupon == sold_out
        && answer.asked > LEASE + DOOR_TTL
        && answer.code == "STORE_UNAVAILABLE"));
}

async fn every_request_is_answered_in_time_while_the_database_is_away(kind: ServerKind) {
    let server = Server::shared(kind);
    let settings = [
        "http.deadline=1500ms",
        "cluster.lease=6s",
        "log.level=warn,actors::owning::write_back=info",
    ];
    let stage = Stage::on(server, &settings).await;
    let sold_out = stage.coupon(Some(1)).await;
    assert_eq!(stage.issue(sold_out, "winner", "key").await.0.0, 201);
    let (clients, coupons) = stage.clients(CLIENTS).await;
    stage.goes_on().await;
    let next = Arc::default();
    for (total, mode) in [(2, DatabaseMode::Refuse), (3, DatabaseMode::Hold)] {
        eventually("the door knows that the coupon is sold out", async || {
            stage.metric("coupon_door_notices").await > 0.0
        })
        .await;
        let quiet = stage.without_changes(&clients, coupons).await;
        let before = stage.node.memory();
        let answers = away(&stage, mode, [coupons[1], sold_out], &next).await;
        let after = stage.node.memory();
        let longest = answers.iter().map(|answer| answer.took).max().unwrap();
        println!(
            "{mode:?}: {} answers, the longest after {longest:?}; {before} bytes before, {after} after",
            answers.len()
        );
        assert!(longest < DEADLINE + SLACK, "an answer after {longest:?}");
        check_refusals(&answers, sold_out);
        assert!(
            after < before + GROWTH_BYTES_MAX,
            "{before} bytes before, {after} after"
        );
        stage.proxy.set(DatabaseMode::Pass);
        stage.ready().await;
        // Refusals that were true before the change are not repeated.
        stage
            .change(sold_out, json!({"patch": {"total_quantity": total}}))
            .await;
        eventually("one more coupon is issued", async || {
            match stage.issue(sold_out, &format!("winner-{total}"), "key").await.0 {
                (200 | 201, _) => true,
                (503, _) => false,
                other => panic!("{other:?}"),
            }
        })
        .await;
        drop(quiet);
        stage.goes_on().await;
    }
    clients.end().await;
    stage.history.judge(&stage.node.address).await;
    assert_eq!(stage.metric("coupon_contradictions_total").await, 0.0);
}

/// Number of reads that fail. Each is of another coupon, so that no two reads share an answer.
const READS: u64 = 300;

async fn reads_cost_a_line_while_the_database_is_away(kind: ServerKind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &[]).await;
    stage.proxy.set(DatabaseMode::Refuse);
    stage.not_ready("no_lease").await;
    for number in 0..READS {
        let url = format!("http://{}/v1/coupons/{}", stage.node.address, 1_000 + number);
        let response = stage.client.get(url).send().await.unwrap();
        assert_eq!(response.status(), 503);
    }
    let read = stage.logged("failed to read from the store");
    assert!((1..=3).contains(&read), "{read} lines");
    eventually("the log says how many lines were left out", async || {
        let log = stage.node.log();
        let counts = log.lines().filter_map(|line| {
            let (_, count) = line.split_once("further reads from the store failed suppressed=")?;
            count.parse::<u64>().ok()
        });
        counts.sum::<u64>() + stage.logged("failed to read from the store") as u64 >= READS
    })
    .await;
}

on_each_server! {
    every_request_is_answered_in_time_while_the_database_is_away
    reads_cost_a_line_while_the_database_is_away
}
