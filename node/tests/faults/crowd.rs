//! Crowds over real sockets: thousands of users at once, each with several requests.

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
    // Deadline and lease are far longer than the crowd takes, because this test is about the number of
    // issuances and not about time.
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
                    // A user's requests have consecutive numbers, so that they are sent at about the same
                    // time.
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
        "exactly the quantity or the demand is issued"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_requests_twice_gets_exactly_the_quantity() {
    crowd(500, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_user_gets_the_limit_per_user_while_coupons_are_left() {
    crowd(1_000_000, 2, 3).await;
}
