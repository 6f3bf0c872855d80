//! Crowds over real sockets: thousands of users and as many repetitions at once.

use crate::FIRSTCOME;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Client;

use testkit::node::Node;
use testkit::recorder::HttpRecorder;

const CONNECTIONS: usize = 128;
const USERS: u64 = 4_000;

async fn crowd(total_quantity: u64, per_user_limit: u8, requests_per_user: u64) {
    let data = tempfile::tempdir().unwrap();
    // Far longer than the crowd takes: what is asked for here is how many there are, not how soon.
    let process = Node::start(
        FIRSTCOME,
        data.path(),
        &["http.deadline=15s".to_owned(), "cluster.lease=15s".to_owned()],
    );
    let client = Client::builder()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let history = Arc::new(HttpRecorder::default());
    let coupon = history
        .create(&client, &process.address, Some(total_quantity), per_user_limit)
        .await;
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (client, next, history) = (client.clone(), Arc::clone(&next), Arc::clone(&history));
            let address = process.address.clone();
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= USERS * requests_per_user {
                        break;
                    }
                    // A user's requests stand side by side, so that they meet each other.
                    let user = format!("user-{}", number / requests_per_user);
                    let answer = history
                        .issue(&client, &address, coupon, &user, &format!("key-{number}"))
                        .await;
                    assert!(matches!(answer, Some((201 | 409, _))), "{answer:?}");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let report = history.judge(&process.address).await;
    let wanted = USERS * u64::from(per_user_limit).min(requests_per_user);
    assert_eq!(
        report.issuances,
        total_quantity.min(wanted),
        "exactly what there is"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_ask_twice_for_five_hundred() {
    crowd(500, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_as_many_as_allowed_where_there_is_enough() {
    crowd(1_000_000, 2, 3).await;
}
