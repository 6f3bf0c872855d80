//! A database that goes away under load and returns: refused, and silent. Everybody is answered in time and
//! truly, memory stays bounded, and afterwards the node goes on without a restart.
//!
//! `FIRSTCOME_AWAY_SECONDS` says how long it is away each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use testkit::on_each_server;
use testkit::poll::eventually;

use actors::owning::door::DOOR_TTL;
use reqwest::Client;
use serde_json::{Value, json};
use testkit::database_proxy::DatabaseMode;
use testkit::servers::{Kind, Server};

use crate::stage::Stage;
use testkit::clients::from_environment;
use testkit::recorder::HttpRecorder;

/// Clients that ask, and who ask about what there is not to be decided.
const CLIENTS: u64 = 16;
const DEADLINE: Duration = Duration::from_millis(1_500);
/// More than twice what a batch waits for a database that says nothing: without a lease nothing is tried, and
/// nobody would see that the store takes nothing.
const LEASE: Duration = Duration::from_secs(6);
/// How far from its moment something is noticed on a busy machine.
const SLACK: Duration = Duration::from_secs(2);
/// Long enough for the lease and the door's knowledge to be over.
const AWAY_SECONDS: u64 = 11;

/// What a process may take more while its database is away. Whoever waits does so for the deadline at the
/// most, and there are no more of them than connections; all else is refused before anything is kept. So it
/// is the coupons asked for while the lease lasts, each a small record until its read has failed, and what
/// the allocator does not give back.
const GROWTH_BYTES_MAX: u64 = 48 << 20;

/// What one of those who ask meanwhile was told.
struct Told {
    coupon: u64,
    /// From when the database went away.
    asked: Duration,
    took: Duration,
    code: String,
}

struct Asking {
    client: Client,
    address: String,
    history: Arc<HttpRecorder>,
    coupons: [u64; 2],
    next: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    away: Instant,
}

impl Asking {
    /// Always another user; for what there is, for what is sold out, and for what there never was.
    async fn ask_until_it_is_over(self) -> Vec<Told> {
        let mut told = Vec::new();
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
            let (_, body) = answer.expect("the process answers");
            let code = body["code"].as_str().unwrap_or("issued").to_owned();
            told.push(Told {
                coupon,
                asked,
                took: begun.elapsed(),
                code,
            });
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        told
    }
}

/// Takes the database away for a while; what those were told who asked meanwhile.
async fn away(stage: &Stage<'_>, mode: DatabaseMode, coupons: [u64; 2], next: &Arc<AtomicU64>) -> Vec<Told> {
    let over = Arc::new(AtomicBool::new(false));
    stage.proxy.set(mode);
    let away = Instant::now();
    let asking = (0..CLIENTS).map(|_| Asking {
        client: stage.client.clone(),
        address: stage.process.address.clone(),
        history: Arc::clone(&stage.history),
        coupons,
        next: Arc::clone(next),
        over: Arc::clone(&over),
        away,
    });
    let asking: Vec<_> = asking
        .map(|one| tokio::spawn(one.ask_until_it_is_over()))
        .collect();
    stage.not_ready("no_store").await;
    stage.not_ready("no_lease").await;
    let seconds = from_environment("FIRSTCOME_AWAY_SECONDS").unwrap_or(AWAY_SECONDS);
    eventually("the time is over", async || {
        away.elapsed() > Duration::from_secs(seconds)
    })
    .await;
    assert!(stage.reasons().await.contains(&"no_lease".to_owned()));
    over.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for one in asking {
        told.extend(one.await.unwrap());
    }
    told
}

async fn every_request_is_answered_in_time_while_the_database_is_away(kind: Kind) {
    let server = Server::shared(kind);
    let stage = Stage::on(server, &["http.deadline=1500ms", "cluster.lease=6s"]).await;
    let sold_out = stage.coupon(Some(1)).await;
    assert_eq!(stage.issue(sold_out, "winner", "key").await.0.0, 201);
    let (clients, coupons) = stage.clients(CLIENTS).await;
    stage.goes_on().await;
    let next = Arc::default();
    for (total, mode) in [(2, DatabaseMode::Refuse), (3, DatabaseMode::Hold)] {
        eventually("the door knows", async || {
            stage.metric("coupon_door_notices").await > 0.0
        })
        .await;
        let quiet = stage.without_changes(&clients, coupons).await;
        let before = stage.process.memory();
        let told = away(&stage, mode, [coupons[1], sold_out], &next).await;
        let after = stage.process.memory();
        let longest = told.iter().map(|told| told.took).max().unwrap();
        println!(
            "{mode:?}: {} answers, the longest after {longest:?}; {before} bytes before, {after} after",
            told.len()
        );
        assert!(longest < DEADLINE + SLACK, "an answer after {longest:?}");
        let refused_as_sold_out: Vec<&Told> = told.iter().filter(|told| told.code == "SOLD_OUT").collect();
        assert!(
            refused_as_sold_out
                .iter()
                .all(|told| told.coupon == sold_out && told.asked + told.took < LEASE + DOOR_TTL + SLACK)
        );
        assert!(
            !refused_as_sold_out.is_empty(),
            "nobody asked while the door knew"
        );
        assert!(told.iter().any(|told| told.coupon == sold_out
            && told.asked > LEASE + DOOR_TTL
            && told.code == "STORE_UNAVAILABLE"));
        assert!(
            after < before + GROWTH_BYTES_MAX,
            "{before} bytes before, {after} after"
        );
        stage.proxy.set(DatabaseMode::Pass);
        stage.ready().await;
        // What was true before is not told when it is no more.
        stage
            .change(sold_out, json!({"patch": {"total_quantity": total}}))
            .await;
        eventually("there is one more", async || {
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
    stage.history.judge(&stage.process.address).await;
    assert_eq!(stage.metric("coupon_contradictions_total").await, 0.0);
}

on_each_server! { every_request_is_answered_in_time_while_the_database_is_away }
