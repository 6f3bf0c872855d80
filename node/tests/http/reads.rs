//! Reads of coupons come from copies, and do not slow down issuing. Searches find coupons by phase and title.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::process::Serving;
use crate::support::{ADMIN_TOKEN, TestNode};

/// Duration of a storm.
const STORM: Duration = Duration::from_secs(2);
/// Number of clients that read, and number of clients that issue at the same time.
const READERS: usize = 32;
const ISSUERS: usize = 16;

/// A node in a separate process, so that its counters count this test alone.
struct Alone {
    serving: Serving,
    client: reqwest::Client,
    _data: tempfile::TempDir,
}

impl Alone {
    async fn with_a_coupon() -> Self {
        let data = tempfile::tempdir().unwrap();
        let serving = Serving::start(&data, &["--set", &format!("auth.admin_token={ADMIN_TOKEN}")]);
        let alone = Self {
            serving,
            client: reqwest::Client::new(),
            _data: data,
        };
        let create = alone
            .client
            .post(alone.url("/v1/coupons"))
            .bearer_auth(ADMIN_TOKEN)
            .json(&json!({"title": "T", "total_quantity": null}));
        assert_eq!(create.send().await.unwrap().status(), 201);
        alone
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.serving.address)
    }

    /// Returns the number of reads of a coupon from the store.
    async fn reads(&self) -> u64 {
        let text = self
            .client
            .get(self.url("/metrics"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let line = text.lines().find(|line| {
            line.starts_with("coupon_reads_total{") && line.contains("coupon\"") && line.contains("\"store\"")
        });
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Returns how often the path was read, and how many coupons were issued meanwhile.
    async fn storm(&self, path: &str) -> (u64, u64) {
        let over = AtomicBool::new(false);
        let (requests, issued) = (AtomicU64::new(0), AtomicU64::new(0));
        let end = async {
            tokio::time::sleep(STORM).await;
            over.store(true, Ordering::Relaxed);
        };
        let readers = async {
            join_all((0..READERS).map(|_| async {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(
                        self.client.get(self.url(path)).send().await.unwrap().status(),
                        200
                    );
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            }))
            .await
        };
        let issuers = async {
            join_all((0..ISSUERS).map(|_| async {
                while !over.load(Ordering::Relaxed) {
                    let issue = self
                        .client
                        .post(self.url("/v1/coupons/1/issuances"))
                        .header("X-User-Id", newcomer());
                    assert_eq!(issue.send().await.unwrap().status(), 201);
                    issued.fetch_add(1, Ordering::Relaxed);
                }
            }))
            .await
        };
        tokio::join!(readers, issuers, end);
        (requests.into_inner(), issued.into_inner())
    }
}

/// Returns a user without issuances.
fn newcomer() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("user-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reads_causes_one_store_read_a_second_and_does_not_slow_issuing() {
    let alone = Alone::with_a_coupon().await;
    let mut paces = Vec::new();
    // The same storm runs against `/livez`, which costs as much in HTTP but reads nothing. The difference
    // between the two shows how much reads of the coupon slow down issuing. Other programs may disturb a
    // round, so one good round suffices.
    for _ in 0..5 {
        let (_, beside_livez) = alone.storm("/livez").await;
        let (before, begun) = (alone.reads().await, Instant::now());
        let (requests, beside_reads) = alone.storm("/v1/coupons/1").await;
        let reads = alone.reads().await - before;
        let most = begun.elapsed().as_secs() + 2;
        println!(
            "{requests} requests caused {reads} reads, beside {beside_reads} issuances; {beside_livez} beside a page that reads nothing"
        );
        assert!(
            requests > 50 && (1..=most).contains(&reads),
            "{reads} reads for {requests} requests"
        );
        paces.push(beside_reads as f64 / beside_livez as f64);
        if paces.iter().any(|pace| *pace > 0.7) {
            return;
        }
    }
    panic!("issuing slows down beside reads: {paces:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_visible_at_once_during_a_storm_of_reads() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let path = format!("/v1/coupons/{id}");
    let over = AtomicBool::new(false);
    let change = async {
        for number in 1..=40_u64 {
            let changed = node.patch(id, json!({"min_order_amount": number})).await.body;
            assert_eq!(node.get(&path).await.body, changed);
            assert_eq!(node.get("/v1/coupons").await.body["items"][0], changed);
        }
        for action in ["pause", "resume", "close"] {
            let changed = node.admin_post(&format!("{path}/{action}")).await.body;
            assert_eq!(node.get(&path).await.body, changed);
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(change, join_all((0..8).map(|_| read_until(&over, &node, &path))));
}

async fn read_until(over: &AtomicBool, node: &TestNode, path: &str) {
    while !over.load(Ordering::Relaxed) {
        assert_eq!(node.get(path).await.status, 200);
        node.get("/v1/coupons?limit=1").await;
    }
}

#[tokio::test]
async fn what_this_node_issued_and_created_is_visible_at_once() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 3})).await;
    let path = format!("/v1/coupons/{id}");
    for issued in 0..3_u64 {
        assert_eq!(node.get(&path).await.body["issued"], issued);
        assert_eq!(node.issue(&format!("user-{issued}"), id).await.status, 201);
    }
    let body = node.get(&path).await.body;
    assert_eq!(
        (&body["issued"], &body["remaining"], &body["phase"]),
        (&json!(3), &json!(0), &json!("sold_out"))
    );
    // A coupon is found as soon as it is created, even if a read just before was answered with 404.
    let next = format!("/v1/coupons/{}", id + 1);
    node.get(&next).await.assert_refused(404, "UNKNOWN_COUPON");
    let listed = node.get("/v1/coupons").await.body["items"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(node.coupon(json!({})).await, id + 1);
    assert_eq!(node.get(&next).await.status, 200);
    assert_eq!(
        node.get("/v1/coupons").await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        listed + 1
    );
}

/// Number of closed coupons, and number of ended coupons: so many that a search takes several steps.
const CLOSED: usize = 5_000;
const ENDED: usize = 9_000;

/// Returns a node with many coupons, and the id of the oldest coupon, which is the only live one.
async fn with_many_coupons() -> (TestNode, u64) {
    let node = TestNode::start().await;
    let live = node.coupon(json!({})).await;
    let mut shell = SqliteConnectOptions::new()
        .filename(node.database())
        .connect()
        .await
        .unwrap();
    let made = sqlx::query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1 + ?2)
         INSERT INTO coupons (title, per_user_limit, ends_at, status, version, created_at, updated_at,
                              creation_key, creation_body)
         SELECT CASE i WHEN ?1 + 5 THEN 'Rare' ELSE 'T' END, 1, 1,
                CASE WHEN i <= ?1 THEN 'closed' ELSE 'open' END, 1, 0, 0, 'made-' || i, '' FROM n",
    );
    let made = made.bind(CLOSED as i64).bind(ENDED as i64);
    made.execute(&mut shell).await.unwrap();
    (node, live)
}

#[tokio::test]
async fn a_rare_coupon_is_on_the_first_page_which_is_also_the_last() {
    let (node, live) = with_many_coupons().await;
    let rare = live + CLOSED as u64 + 5;
    for (query, found) in [
        ("phase=live", vec![json!(live)]),
        ("title=bLACK", vec![json!(live)]),
        ("title=rar", vec![json!(rare)]),
        ("title=rar&phase=ended", vec![json!(rare)]),
        ("title=rar&phase=closed", vec![]),
        ("phase=paused", vec![]),
        ("phase=scheduled", vec![]),
        ("phase=sold_out", vec![]),
        ("title=nothing", vec![]),
    ] {
        let begun = Instant::now();
        let list = node.get(&format!("/v1/coupons?{query}&limit=1")).await;
        println!("{query} among {} coupons: {:?}", CLOSED + ENDED, begun.elapsed());
        list.assert_list("id", &found, false);
    }
    for title in ["", &"x".repeat(201), "%00"] {
        node.get(&format!("/v1/coupons?title={title}"))
            .await
            .assert_invalid(&["title"]);
    }
}

#[tokio::test]
async fn the_pages_of_a_frequent_phase_are_full_and_list_each_coupon_once() {
    let (node, _) = with_many_coupons().await;
    for (phase, count) in [("closed", CLOSED), ("ended", ENDED)] {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/coupons?phase={phase}&limit=199{cursor}");
            let body = node.get(&path).await.body;
            let items = body["items"].as_array().unwrap();
            ids.extend(items.iter().map(|item| item["id"].as_u64().unwrap()));
            match &body["next_cursor"] {
                Value::String(next) => cursor = format!("&cursor={next}"),
                _ => break,
            }
            assert_eq!(items.len(), 199);
        }
        assert!(
            ids.is_sorted_by(|one, next| one > next) && ids.len() == count,
            "{phase}: {}",
            ids.len()
        );
    }
}
