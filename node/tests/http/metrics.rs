//! Which metrics exist from the start, which there are for single coupons, and how long reading `/metrics`
//! takes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use actors::coupon::metrics::{self as coupon, single};
use actors::metrics as engine;
use node::metrics as own;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use testkit::poll::eventually;

use crate::hostile::metric_in;
use crate::process::Serving;
use crate::support::{ADMIN_TOKEN, LIMIT, TestNode};

/// Metrics that not every node has: without TLS there is no certificate.
const LATER: [&str; 1] = ["coupon_tls_certificate_expiry_timestamp_seconds"];

/// A node in a process of its own, because tests in one process share its metrics.
struct Node {
    serving: Serving,
    client: Client,
    data: tempfile::TempDir,
}

impl Node {
    fn start(settings: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let token = format!("auth.admin_token={ADMIN_TOKEN}");
        let settings = [&["--set", &token], settings].concat();
        Self {
            serving: Serving::start(&data, &settings),
            client: Client::new(),
            data,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.serving.address)
    }

    async fn metrics(&self) -> String {
        let request = self.client.get(self.url("/metrics")).timeout(LIMIT);
        request.send().await.unwrap().text().await.unwrap()
    }

    async fn coupon(&self, body: Value) -> u64 {
        let request = self.client.post(self.url("/v1/coupons"));
        let response = request.bearer_auth(ADMIN_TOKEN).json(&body).send().await.unwrap();
        assert_eq!(response.status(), 201);
        response.json::<Value>().await.unwrap()["id"].as_u64().unwrap()
    }

    async fn issue(&self, user: &str, coupon: u64) -> u16 {
        let request = self
            .client
            .post(self.url(&format!("/v1/coupons/{coupon}/issuances")));
        let response = request.header("X-User-Id", user).send().await.unwrap();
        response.status().as_u16()
    }
}

/// Returns the names of all metrics that have a sample.
fn names(text: &str) -> BTreeSet<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).collect()
}

#[tokio::test]
async fn every_metric_exists_from_the_start() {
    let node = Node::start(&[]);
    let text = node.metrics().await;
    let names = names(&text);
    let missing: Vec<&str> = own::METRICS
        .iter()
        .chain(engine::METRICS)
        .chain(coupon::METRICS)
        .map(|metric| metric.name)
        .filter(|name| !names.contains(name) && !LATER.contains(name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    // A counter of an alert must be 0 before the first event. Otherwise that event is not an increase.
    for series in [
        "coupon_contradictions_total",
        "coupon_owner_panics_total",
        "coupon_database_went_backwards_total",
        "coupon_fenced_rows_total",
        r#"coupon_change_total{outcome="outcome_unknown"}"#,
        r#"coupon_use_total{step="revoke",outcome="refused_redeemed"}"#,
        r#"coupon_shard_moves_total{kind="claimed"}"#,
        r#"coupon_peer_refused_total{reason="handshake"}"#,
        r#"coupon_http_connections_cut_total{reason="write"}"#,
        r#"coupon_tls_reloads_total{result="refused"}"#,
        r#"coupon_issue_duration_seconds_count{outcome="outcome_unknown"}"#,
        r#"coupon_store_call_duration_seconds_count{call="read_back"}"#,
        r#"coupon_http_requests_total{route="/v1/coupons/{id}/issuances",method="POST",status="500"}"#,
        r#"coupon_http_requests_total{route="/v1/coupons/{id}",method="GET",status="503"}"#,
        r#"coupon_http_request_duration_seconds_count{route="/v1/coupons/{id}/issuances",method="POST",class="5xx"}"#,
    ] {
        assert!(text.contains(&format!("\n{series} ")), "{series} is missing");
    }
}

#[tokio::test]
async fn answers_are_timed_by_outcome_and_by_class_of_the_status() {
    let node = Node::start(&[]);
    let coupon = node.coupon(json!({"title": "a", "total_quantity": 1})).await;
    assert_eq!(node.issue("alice", coupon).await, 201);
    assert_eq!(node.issue("alice", coupon).await, 409);
    let text = node.metrics().await;
    let count = |series: &str| metric_in(&text, series);
    for (outcome, expected) in [("issued", 1.0), ("already_issued", 1.0), ("sold_out", 0.0)] {
        let series = format!(r#"coupon_issue_duration_seconds_count{{outcome="{outcome}"}}"#);
        assert_eq!(count(&series), expected, "{outcome}");
    }
    for (class, expected) in [("2xx", 1.0), ("4xx", 1.0), ("5xx", 0.0)] {
        let labels = r#"route="/v1/coupons/{id}/issuances",method="POST""#;
        let series = format!(r#"coupon_http_request_duration_seconds_count{{{labels},class="{class}"}}"#);
        assert_eq!(count(&series), expected, "{class}");
    }
    for bound in ["0.001", "0.1", "5"] {
        let series = format!(r#"coupon_issue_duration_seconds_bucket{{outcome="issued",le="{bound}"}} "#);
        assert!(text.contains(&series), "{series}");
    }
}

#[tokio::test]
async fn only_the_busiest_coupons_have_metrics_of_their_own() {
    let node = Node::start(&["--set", "limits.coupon_metrics_max=2"]);
    let coupons = [
        node.coupon(json!({"title": "a", "total_quantity": 5})).await,
        node.coupon(json!({"title": "b", "total_quantity": 5})).await,
        node.coupon(json!({"title": "c", "total_quantity": null})).await,
    ];
    for (coupon, requests) in coupons.iter().zip([3, 1, 4]) {
        for user in 0..requests {
            assert_eq!(node.issue(&format!("user-{user}"), *coupon).await, 201);
        }
    }
    let series = |name: &str, coupon: u64| format!("{name}{{coupon=\"{coupon}\"}}");
    eventually("everything is stored", async || {
        let text = node.metrics().await;
        metric_in(&text, &series(single::ISSUED, coupons[2])) == 4.0
    })
    .await;
    let text = node.metrics().await;
    let [first, second, third] = coupons;
    for (name, coupon, expected) in [
        (single::ISSUED, first, Some("3")),
        (single::ISSUED, second, None),
        (single::TOTAL, first, Some("5")),
        (single::TOTAL, third, None),
        (single::REQUESTS, third, Some("4")),
        (single::QUEUED, third, Some("0")),
        (single::UNSTORED, third, Some("0")),
    ] {
        let line = format!("{} ", series(name, coupon));
        let value = text.lines().find_map(|found| found.strip_prefix(&line));
        assert_eq!(value, expected, "{line}");
    }
}

#[tokio::test]
async fn steps_are_counted_by_step_and_outcome_and_coupons_show_what_is_reserved_and_redeemed() {
    let node = Node::start(&[]);
    let coupon = json!({"title": "a", "total_quantity": 5, "discount": {"kind": "rate", "value": 15}});
    let coupon = node.coupon(coupon).await;
    for user in ["alice", "bob"] {
        assert_eq!(node.issue(user, coupon).await, 201);
    }
    for (sequence, step, order, status) in [
        (1, "reserve", "a", 200),
        (1, "reserve", "a", 200),
        (1, "reserve", "b", 409),
        (2, "redeem", "b", 200),
        (2, "refund", "b", 200),
        (2, "redeem", "c", 200),
    ] {
        let path = format!("/v1/issuances/{coupon}-{sequence}/{step}");
        let mut body = json!({"order_id": order});
        if step != "refund" {
            body["order_amount"] = json!(10_000);
        }
        let request = node.client.post(node.url(&path)).bearer_auth(ADMIN_TOKEN);
        let response = request.json(&body).send().await.unwrap();
        assert_eq!(response.status(), status, "{step} {order}");
    }
    let text = node.metrics().await;
    for (step, outcome, expected) in [
        ("reserve", "done", 1.0),
        ("reserve", "replayed", 1.0),
        ("reserve", "refused_reserved", 1.0),
        ("redeem", "done", 2.0),
        ("refund", "done", 1.0),
        ("release", "done", 0.0),
    ] {
        let series = format!(r#"coupon_use_total{{step="{step}",outcome="{outcome}"}}"#);
        assert_eq!(metric_in(&text, &series), expected, "{series}");
    }
    for name in [single::RESERVED, single::REDEEMED] {
        let series = format!("{name}{{coupon=\"{coupon}\"}}");
        assert_eq!(metric_in(&text, &series), 1.0, "{series}");
    }
}

#[tokio::test]
async fn metrics_say_whether_the_node_is_ready_and_what_its_queues_hold() {
    let node = Node::start(&["--set", "limits.requests_max=77"]);
    let text = node.metrics().await;
    for (series, expected) in [
        ("coupon_ready", 1.0),
        (r#"coupon_not_ready{reason="no_store"}"#, 0.0),
        (r#"coupon_queue_length_max{queue="node"}"#, 77.0),
        (r#"coupon_queue_length{queue="node"}"#, 0.0),
        ("coupon_shards", 256.0),
        ("coupon_shards_unowned", 0.0),
        (r#"coupon_cluster_nodes{state="ready"}"#, 1.0),
        ("coupon_shard_epoch_max", 1.0),
        ("coupon_lanes", 1.0),
        (r#"coupon_store_connections_max{pool="writers"}"#, 1.0),
    ] {
        let line = format!("\n{series} {expected}\n");
        eventually(&line, async || node.metrics().await.contains(&line)).await;
    }
    for queue in [
        "moving",
        "owner",
        "owners",
        "loads",
        "lane",
        "connections",
        "store_calls",
        "bulk_calls",
        "exports",
        "log",
    ] {
        let bound = metric_in(&text, &format!(r#"coupon_queue_length_max{{queue="{queue}"}}"#));
        assert!(bound > 0.0, "{queue}");
    }
    let in_use = metric_in(&text, r#"coupon_queue_length{queue="connections"}"#);
    assert!(in_use >= 1.0, "this connection is one of them");
}

#[tokio::test]
async fn calls_of_the_database_are_timed_by_kind_and_pool() {
    let node = TestNode::start().await;
    let coupon = node.coupon(json!({"total_quantity": 1})).await;
    assert_eq!(node.issue("alice", coupon).await.status, 201);
    let reply = node.get("/metrics").await;
    let text = reply.body.as_str().unwrap();
    for call in ["batch", "load", "beat", "cluster_read", "other"] {
        let series = format!(r#"coupon_store_call_duration_seconds_count{{call="{call}"}}"#);
        assert!(metric_in(text, &series) > 0.0, "{call}");
    }
    for pool in ["writers", "beats", "others"] {
        let series = format!(r#"coupon_store_connection_wait_duration_seconds_count{{pool="{pool}"}}"#);
        assert!(metric_in(text, &series) > 0.0, "{pool}");
    }
}

/// Adds coupons to a database, like the coupon that it has.
async fn add_coupons(database: &Path, count: u32) {
    let options = SqliteConnectOptions::new().filename(database);
    let mut connection = options.busy_timeout(LIMIT).connect().await.unwrap();
    let add = "INSERT INTO coupons (title, per_user_limit, status, version, created_at, updated_at, \
               creation_key, creation_body) \
               WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) \
               SELECT title, per_user_limit, status, version, created_at, updated_at, 'more-' || i, creation_body \
               FROM coupons, n WHERE id = 1";
    let added = sqlx::query(add).bind(count).execute(&mut connection).await;
    assert_eq!(added.unwrap().rows_affected(), u64::from(count));
    connection.close().await.unwrap();
}

#[tokio::test]
async fn metrics_of_a_node_with_many_coupons_are_short_and_quick() {
    const CREATED: u32 = 100_000;
    const IN_USE: u64 = 100;
    let node = Node::start(&[]);
    assert_eq!(
        node.coupon(json!({"title": "a", "total_quantity": null})).await,
        1
    );
    add_coupons(&node.data.path().join("data/firstcome.db"), CREATED).await;
    for coupon in 1..=IN_USE {
        assert_eq!(node.issue("alice", coupon * 1_000 - 999).await, 201);
    }
    let text = node.metrics().await;
    let lines = text.lines().count();
    assert!(lines < 3_000, "{lines} lines");
    let issued = format!("\n{}{{", single::ISSUED);
    assert_eq!(text.matches(&issued).count() as u64, IN_USE);
    let mut times = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        node.metrics().await;
        times.push(begun.elapsed());
    }
    // Other tests use the same processors, and delay some of the answers.
    let quickest = times.iter().min().unwrap();
    assert!(*quickest < Duration::from_millis(20), "{times:?}");
}
