//! The rate limit of users.

use reqwest::Method;
use serde_json::{Value, json};

use testkit::poll::eventually;

use crate::support::{ADMIN_TOKEN, TestNode, send};
use crate::tokens::{SECRET, token};

fn refused_so_far(metrics: &Value) -> f64 {
    let lines = metrics.as_str().unwrap().lines();
    lines
        .filter_map(|line| line.strip_prefix("coupon_rate_limited_total "))
        .map(|count| count.parse::<f64>().unwrap())
        .sum()
}

#[tokio::test]
async fn a_user_beyond_the_rate_is_refused_and_other_users_are_not() {
    let node = TestNode::start_with(&[("limits.user_rate", "0.125"), ("limits.user_burst", "3")]).await;
    let id = node.coupon(json!({})).await;
    let before = refused_so_far(&node.get("/metrics").await.body);
    assert_eq!(node.issue("alice", id).await.status, 201);
    // A refused request counts as well.
    node.issue("alice", id)
        .await
        .assert_refused(409, "ALREADY_ISSUED");
    node.issue("alice", id + 1)
        .await
        .assert_refused(404, "UNKNOWN_COUPON");
    let refused = node.issue("alice", id).await;
    refused.assert_refused(429, "RATE_LIMITED");
    // It takes up to eight seconds until the next request is admitted, and up to two seconds of jitter are
    // added.
    assert!(
        (1..=10).contains(&refused.header("retry-after").parse::<u64>().unwrap()),
        "{refused:?}"
    );
    assert!(refused_so_far(&node.get("/metrics").await.body) >= before + 1.0);

    // Reads and malformed requests are not counted, and each user has a limit of its own.
    assert_eq!(node.get_as("alice", "/v1/me/issuances").await.status, 200);
    send(node.issue_request("alice", id).body("nonsense"))
        .await
        .assert_refused(400, "MALFORMED");
    assert_eq!(node.issue("bob", id).await.status, 201);
    assert_eq!(node.issue("Alice", id).await.status, 201);

    eventually("alice may send again", async || {
        node.issue("alice", id).await.status == 409
    })
    .await;
}

#[tokio::test]
async fn a_replay_does_not_count_and_a_key_replays_after_the_wait_of_a_429() {
    let node = TestNode::start_with(&[("limits.user_rate", "0.25"), ("limits.user_burst", "3")]).await;
    let id = node.coupon(json!({})).await;
    let issue = async |key: &str| send(node.issue_request("alice", id).header("Idempotency-Key", key)).await;
    let first = issue("k-1").await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""));
    let is_replay = |reply: &crate::support::Reply| {
        reply.status == 201 && reply.header("idempotent-replayed") == "true" && reply.body == first.body
    };
    // These are more requests than the burst, and they take less time than it takes to replenish one request.
    for _ in 0..20 {
        assert!(is_replay(&issue("k-1").await));
    }
    // The rest of the burst is still there.
    issue("k-2").await.assert_refused(409, "ALREADY_ISSUED");
    issue("k-2").await.assert_refused(409, "ALREADY_ISSUED");
    eventually("the burst is used up", async || issue("k-2").await.status == 429).await;
    let refused = issue("k-1").await;
    refused.assert_refused(429, "RATE_LIMITED");
    eventually("the key replays", async || is_replay(&issue("k-1").await)).await;
}

#[tokio::test]
async fn requests_of_a_service_count_for_the_user_that_they_name() {
    let jwt = [
        ("auth.mode", "jwt"),
        ("auth.jwt.algorithm", "HS256"),
        ("auth.jwt.key", SECRET),
    ];
    let keys: Vec<_> = jwt.into_iter().chain([("limits.user_rate", "0.001")]).collect();
    let node = TestNode::start_with(&keys).await;
    let id = node.coupon(json!({})).await;
    let service = token("checkout", json!({"role": "service"}));
    let issue = |user: &str| {
        let request = node
            .request(Method::POST, &format!("/v1/coupons/{id}/issuances"))
            .bearer_auth(&service);
        send(request.json(&json!({"user_id": user})))
    };
    for user in ["alice", "bob", "carol"] {
        assert_eq!(issue(user).await.status, 201);
    }
    issue("alice").await.assert_refused(429, "RATE_LIMITED");
    // Changes by administrators are not counted.
    for _ in 0..3 {
        let pause = node
            .request(Method::POST, &format!("/v1/coupons/{id}/pause"))
            .bearer_auth(ADMIN_TOKEN);
        assert_eq!(send(pause).await.status, 200);
    }
}

#[tokio::test]
async fn without_a_rate_there_is_no_limit() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"per_user_limit": 100})).await;
    for _ in 0..100 {
        assert_eq!(node.issue("alice", id).await.status, 201);
    }
}
