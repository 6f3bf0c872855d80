//! kill -9 at random moments under load, many rounds. Clients do what clients do: they ask again with the same key until they are answered.
//!
//! `FIRSTCOME_SEED` gives a run's moments again, `FIRSTCOME_CRASH_ROUNDS` its length.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use serde_json::Value;
use tokio::sync::watch;

use crate::history::{Told, check};
use crate::process::Process;

const CLIENTS: u64 = 48;
const TOTAL: u64 = 2_000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

struct Crowd {
    client: Client,
    address: watch::Receiver<String>,
    coupons: [u64; 2],
    next: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Crowd {
    /// One client: asks for one coupon or the other, now and then as a user who has asked before.
    async fn run(mut self, mut rng: StdRng) -> Vec<Told> {
        let mut told = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let user = if rng.random_ratio(1, 5) { rng.random_range(0..=number) } else { number };
            let coupon = self.coupons[rng.random_range(0..2)];
            told.push(self.ask(coupon, format!("user-{user}"), format!("key-{number}")).await);
        }
        told
    }

    /// Asks with one key until there is an answer that says what became of it.
    async fn ask(&mut self, coupon: u64, user: String, key: String) -> Told {
        let sent = Instant::now();
        loop {
            let address = self.address.borrow_and_update().clone();
            let url = format!("http://{address}/v1/coupons/{coupon}/issuances");
            let answer = self.client.post(url).header("X-User-Id", &user).header("Idempotency-Key", &key).send().await;
            if let Some((status, body)) = read(answer).await
                && status != 503
            {
                return Told { coupon, user, sent, answered: Instant::now(), status, body };
            }
            // The process is gone, or says that it does not know: asked again when there is another, or in a moment.
            let _ = tokio::time::timeout(Duration::from_millis(50), self.address.changed()).await;
        }
    }
}

async fn read(answer: reqwest::Result<reqwest::Response>) -> Option<(u16, Value)> {
    let answer = answer.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.json().await.ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_told_is_lost_however_often_the_process_is_killed() {
    let seed = from_environment("FIRSTCOME_SEED").unwrap_or_else(rand::random);
    let rounds = from_environment("FIRSTCOME_CRASH_ROUNDS").unwrap_or(20);
    println!("FIRSTCOME_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::start(data.path());
    let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    let coupons = [process.coupon(&client, Some(TOTAL), 1).await, process.coupon(&client, None, 1).await];
    let (addresses, address) = watch::channel(process.address.clone());
    let (next, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (next, over) = (Arc::clone(&next), Arc::clone(&over));
            let crowd = Crowd { client: client.clone(), address: address.clone(), coupons, next, over };
            tokio::spawn(crowd.run(StdRng::seed_from_u64(seed ^ (number + 1))))
        })
        .collect();
    for _ in 0..rounds {
        // The fault itself: a moment that nobody chose.
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..300))).await;
        process.kill();
        process = Process::start(data.path());
        addresses.send_replace(process.address.clone());
    }
    over.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for client in clients {
        told.extend(client.await.unwrap());
    }
    let given = told.iter().filter(|told| told.status == 201).count();
    println!("{rounds} kills, {} requests answered, {given} of them with a coupon", told.len());
    assert!(given as u64 > rounds, "there was no load to speak of");
    for (coupon, total) in coupons.into_iter().zip([Some(TOTAL), None]) {
        let stored = process.issuances(&client, coupon).await;
        check(&told, coupon, total, 1, &stored);
    }
}
