//! `/livez`, `/readyz`, `/metrics` and `/v1/cluster`.

use std::io::Write;
use std::process::{Command, Stdio};

use actors::coupon::metrics as coupon;
use actors::metrics as engine;
use node::metrics as own;
use serde_json::json;

use crate::support::TestNode;

#[tokio::test]
async fn a_started_node_is_alive_and_ready() {
    let node = TestNode::start().await;
    assert_eq!(node.get("/livez").await.status, 200);
    let ready = node.get("/readyz").await;
    assert_eq!((ready.status, ready.body), (200, json!({"ready": true})));
}

#[tokio::test]
async fn metrics_match_their_tables() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 1})).await;
    node.issue("alice", id).await;
    node.issue("bob", id).await;
    let reply = node.get("/metrics").await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    let text = reply.body.as_str().unwrap();
    for line in text.lines().filter(|line| line.starts_with("coupon_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        assert!(
            own::METRICS
                .iter()
                .chain(engine::METRICS)
                .chain(coupon::METRICS)
                .chain(coupon::single::METRICS)
                .any(|metric| metric.name == name),
            "{line}"
        );
    }
    for metric in own::METRICS
        .iter()
        .chain(engine::METRICS)
        .chain(coupon::METRICS)
        .filter(|metric| text.contains(&format!("# TYPE {} ", metric.name)))
    {
        assert!(
            text.contains(&format!("# HELP {} ", metric.name)),
            "{}",
            metric.name
        );
    }
    for name in [
        "coupon_build_info",
        "coupon_http_connections",
        "coupon_runtime_workers",
        "process_cpu_seconds_total",
    ] {
        assert!(text.contains(&format!("\n{name}")), "{name}");
    }
    let issued =
        r#"coupon_http_requests_total{route="/v1/coupons/{id}/issuances",method="POST",status="201"}"#;
    assert!(text.contains(issued), "{text}");
    assert!(
        text.contains("coupon_http_request_duration_seconds_bucket{route=\"/v1/coupons/{id}/issuances\""),
        "{text}"
    );
    for seconds in ["process_cpu_seconds_total", "coupon_runtime_busy_seconds_total"] {
        let value = testkit::prometheus::value(text, seconds);
        assert!(value > 0.0 && value.fract() != 0.0, "{seconds} {value}");
        assert!(text.contains(&format!("# TYPE {seconds} counter\n")), "{text}");
    }
    assert_promtool_accepts(text);
}

/// Asserts that promtool accepts the metrics. If promtool is not installed, writes that straight to the
/// standard error, which shows it even if the test passes. `.ci/run` installs promtool.
fn assert_promtool_accepts(text: &str) {
    let command = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = command else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: promtool is not installed, so the metrics were not checked"
        );
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[tokio::test]
async fn administrators_see_nodes_and_shards() {
    let node = TestNode::start_with(&[("node.id", "node-a")]).await;
    let body = node.admin_get("/v1/cluster").await.body;
    assert_eq!(body["node"], "node-a");
    let own = &body["nodes"][0];
    assert_eq!(
        (&own["id"], &own["state"], &own["shards"]),
        (&json!("node-a"), &json!("ready"), &json!(256))
    );
    assert_eq!(own["http"], node.service.address().to_string());
    assert!(
        own["incarnation"].is_string() && own["cluster"].is_string(),
        "{own}"
    );
    let shards = body["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 256);
    assert!(
        shards
            .iter()
            .all(|shard| shard["owner"] == "node-a" && shard["epoch"].as_u64() > Some(0))
    );
}

#[tokio::test]
async fn administrators_see_where_a_coupon_is() {
    let node = TestNode::start_with(&[("node.id", "node-a")]).await;
    let id = node.coupon(json!({})).await;
    let body = node.admin_get(&format!("/v1/cluster/coupons/{id}")).await.body;
    let shard = body["shard"].as_u64().unwrap();
    assert!(shard < 256);
    assert_eq!(
        body,
        json!({"coupon_id": id, "shard": shard, "owner": "node-a", "epoch": 1})
    );
    node.admin_get(&format!("/v1/cluster/coupons/{}", id + 1))
        .await
        .assert_refused(404, "UNKNOWN_COUPON");
}
