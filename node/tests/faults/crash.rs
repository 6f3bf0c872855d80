//! kill -9 at random moments under load, many rounds. Clients do what clients do: they ask again with the same key until they are answered. An
//! administrator changes the coupons meanwhile. In the end the checker judges all that anybody saw.
//!
//! `FIRSTCOME_SEED` gives a run's moments again, `FIRSTCOME_CRASH_ROUNDS` its length.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use serde_json::json;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::sync::watch;

use crate::history::History;
use crate::process::Process;
use bench::servers::{Kind, Server};

const CLIENTS: u64 = 48;
const TOTAL: u64 = 1_000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[derive(Clone)]
struct Crowd {
    client: Client,
    address: watch::Receiver<String>,
    history: Arc<History>,
    coupons: [u64; 2],
    next: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Crowd {
    /// One client: asks for one coupon or the other, now and then as a user who has asked before.
    async fn ask_until_it_is_over(mut self, mut rng: StdRng) {
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let user = if rng.random_ratio(1, 5) { rng.random_range(0..=number) } else { number };
            let coupon = self.coupons[rng.random_range(0..2)];
            self.ask(coupon, &format!("user-{user}"), &format!("key-{number}")).await;
        }
    }

    /// Asks with one key until there is an answer that says what became of it.
    async fn ask(&mut self, coupon: u64, user: &str, key: &str) {
        loop {
            let address = self.address.borrow_and_update().clone();
            match self.history.issue(&self.client, &address, coupon, user, key).await {
                Some((status, _)) if status != 503 => return,
                // The process is gone, or says that it does not know: asked again when there is another, or in a moment.
                _ => drop(tokio::time::timeout(Duration::from_millis(50), self.address.changed()).await),
            }
        }
    }

    /// The administrator: pauses, resumes, and puts more on offer.
    async fn change_until_it_is_over(mut self, mut rng: StdRng) {
        let mut total = TOTAL;
        while !self.over.load(Ordering::Relaxed) {
            let coupon = self.coupons[rng.random_range(0..2)];
            let change = match rng.random_range(0..4) {
                0 => json!("pause"),
                1 | 2 => json!("resume"),
                _ => {
                    total += rng.random_range(0..500);
                    json!({"patch": {"total_quantity": total}})
                }
            };
            let address = self.address.borrow_and_update().clone();
            let coupon = if change.get("patch").is_some() { self.coupons[0] } else { coupon };
            self.history.change(&self.client, &address, coupon, change).await;
            let _ = tokio::time::timeout(Duration::from_millis(rng.random_range(1..40)), self.address.changed()).await;
        }
    }
}

/// Kills the process, and the database server if there is one, at moments that nobody chose.
async fn rounds_of_kills(server: Option<&Server>, rounds: u64) {
    let seed = from_environment("FIRSTCOME_SEED").unwrap_or_else(rand::random);
    let rounds = from_environment("FIRSTCOME_CRASH_ROUNDS").unwrap_or(rounds);
    println!("FIRSTCOME_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let mut keys = Vec::new();
    if let Some(server) = server {
        keys.push(format!("store.url={}", database(server).await));
    }
    let mut process = Process::start_with(data.path(), &keys);
    let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    let history = Arc::new(History::default());
    let coupons = [history.create(&client, &process, Some(TOTAL), 1).await, history.create(&client, &process, None, 1).await];
    let (addresses, address) = watch::channel(process.address.clone());
    let (next, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let crowd = Crowd { client: client.clone(), address, history: Arc::clone(&history), coupons, next, over: Arc::clone(&over) };
    let mut clients: Vec<_> =
        (1..=CLIENTS).map(|number| tokio::spawn(crowd.clone().ask_until_it_is_over(StdRng::seed_from_u64(seed ^ number)))).collect();
    clients.push(tokio::spawn(crowd.change_until_it_is_over(StdRng::seed_from_u64(!seed))));
    for round in 0..rounds {
        // The fault itself: a moment that nobody chose.
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..300))).await;
        match server {
            // The process stays, and must find its way back by itself.
            Some(server) if round % 3 == 1 => tokio::task::block_in_place(|| {
                server.kill();
                server.resume().unwrap();
            }),
            _ => {
                process.kill();
                process = Process::start_with(data.path(), &keys);
                addresses.send_replace(process.address.clone());
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let report = history.judge(&process).await;
    assert!(report.issuances > rounds, "there was no load to speak of");
}

/// An empty database on the server; its URL.
async fn database(server: &Server) -> String {
    let options = MySqlConnectOptions::new().socket(server.socket()).username("root").ssl_mode(MySqlSslMode::Disabled);
    let name = Server::fresh_name();
    let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::raw_sql(create).execute(&mut options.connect().await.unwrap()).await.unwrap();
    server.url(&name, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_told_is_lost_however_often_the_process_is_killed() {
    rounds_of_kills(None, 20).await;
}

/// With durable commits, and rounds that last longer: a server takes seconds to come back.
async fn rounds_on(kind: Kind) {
    if let Some(server) = Server::own(kind, &["--innodb-flush-log-at-trx-commit=1"]) {
        rounds_of_kills(Some(&server), 6).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_told_is_lost_however_often_the_process_or_mysql_is_killed() {
    rounds_on(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_told_is_lost_however_often_the_process_or_mariadb_is_killed() {
    rounds_on(Kind::MariaDb).await;
}
