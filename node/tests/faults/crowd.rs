//! Crowds over real sockets: thousands of users and as many repetitions at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;

use crate::history::{Told, check};
use crate::process::Process;

const CONNECTIONS: usize = 128;
const USERS: u64 = 4_000;

async fn crowd(total_quantity: u64, per_user_limit: u8, requests_per_user: u64) {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path());
    let client = Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
    let coupon = process.coupon(&client, Some(total_quantity), per_user_limit).await;
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (client, next) = (client.clone(), Arc::clone(&next));
            let url = format!("http://{}/v1/coupons/{coupon}/issuances", process.address);
            tokio::spawn(async move {
                let mut told = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= USERS * requests_per_user {
                        return told;
                    }
                    // A user's requests stand side by side, so that they meet each other.
                    let user = format!("user-{}", number / requests_per_user);
                    let sent = Instant::now();
                    let answer = client.post(&url).header("X-User-Id", &user).send().await.unwrap();
                    let status = answer.status().as_u16();
                    let body = answer.json().await.unwrap();
                    told.push(Told { coupon, user, sent, answered: Instant::now(), status, body });
                }
            })
        })
        .collect();
    let mut told = Vec::new();
    for worker in workers {
        told.extend(worker.await.unwrap());
    }
    let stored = process.issuances(&client, coupon).await;
    check(&told, coupon, Some(total_quantity), usize::from(per_user_limit), &stored);
    assert_eq!(stored.len() as u64, total_quantity.min(USERS * u64::from(per_user_limit).min(requests_per_user)), "exactly what there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_ask_twice_for_five_hundred() {
    crowd(500, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_as_many_as_allowed_where_there_is_enough() {
    crowd(1_000_000, 2, 3).await;
}
