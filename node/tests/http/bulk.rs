//! Issuing to many users by one call.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::poll::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::hostile::metric;
use crate::keys;
use crate::setbacks::{lock, unlock};
use crate::support::{ADMIN_TOKEN, LIMIT, Reply, TestNode, send};

impl TestNode {
    /// Returns a request to issue to these users.
    fn bulk(&self, coupon: u64, users: &Value) -> RequestBuilder {
        self.admin(Method::POST, &format!("/v1/coupons/{coupon}/issuances/bulk"))
            .json(&json!({"user_ids": users}))
    }

    async fn bulk_results(&self, coupon: u64, users: &Value) -> Vec<Value> {
        results(send(self.bulk(coupon, users)).await)
    }
}

fn results(reply: Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{reply:?}");
    let Value::Array(results) = &reply.body["results"] else {
        panic!("{reply:?}");
    };
    results.clone()
}

/// Returns this many users, each with an id of the longest kind.
pub fn users(count: usize) -> Value {
    let user = |number: usize| format!("{number:0>4}|{}", "x".repeat(123));
    (0..count).map(user).collect()
}

/// Returns the status and the code of each result.
fn outcomes(results: &[Value]) -> Vec<(u64, &str)> {
    let mut outcomes = Vec::new();
    for result in results {
        let (issuance, code, applied) = (result.get("issuance"), result.get("code"), result.get("applied"));
        let is_there = result.get("existing").is_some();
        assert_eq!(is_there, result["code"] == "ALREADY_ISSUED", "{result}");
        assert_eq!(issuance.is_some(), result["status"] == 201, "{result}");
        assert_eq!(code.is_some(), issuance.is_none(), "{result}");
        assert_eq!(code.is_some(), applied.is_some(), "{result}");
        let code = code.and_then(Value::as_str).unwrap_or_default();
        outcomes.push((result["status"].as_u64().unwrap(), code));
    }
    outcomes
}

#[tokio::test]
async fn users_get_issuances_in_the_order_of_the_list_exactly_as_many_as_are_left() {
    const LEFT: usize = 699;
    // A bulk call with more requests under way would be answered OVERLOADED for some of them.
    let node = TestNode::start_with(&[("limits.requests_max", "64")]).await;
    let id = node.coupon(json!({"total_quantity": LEFT + 1})).await;
    assert_eq!(node.issue("alice", id).await.body["sequence"], 1);
    let users = users(1_000);
    let results = node.bulk_results(id, &users).await;
    assert_eq!(results.len(), 1_000);
    for (at, result) in results.iter().enumerate() {
        assert_eq!(result["user_id"], users[at], "{result}");
        if at < LEFT {
            assert_eq!(result["issuance"]["user_id"], users[at], "{result}");
            assert_eq!(
                (&result["status"], &result["issuance"]["sequence"]),
                (&json!(201), &json!(at + 2)),
                "{result}"
            );
        } else {
            let refused = json!({"user_id": users[at], "status": 409, "code": "SOLD_OUT", "applied": false});
            assert_eq!(*result, refused);
        }
    }
    let coupon = node.get(&format!("/v1/coupons/{id}")).await.body;
    assert_eq!(
        (&coupon["issued"], &coupon["remaining"]),
        (&json!(700), &json!(0))
    );
}

#[tokio::test]
async fn a_repeated_call_replays_what_was_issued_and_asks_again_for_the_others() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 2})).await;
    let call = async || {
        let request = node.bulk(id, &json!(["alice", "bob", "carol"]));
        results(send(request.header("Idempotency-Key", "k-1")).await)
    };
    let first = call().await;
    assert_eq!(outcomes(&first), [(201, ""), (201, ""), (409, "SOLD_OUT")]);
    assert!(first.iter().all(|result| result.get("replayed").is_none()));
    assert_eq!(node.patch(id, json!({"total_quantity": 3})).await.status, 200);
    let again = call().await;
    for (at, result) in again.iter().enumerate() {
        let mut expected = first[at].clone();
        if at < 2 {
            expected["replayed"] = json!(true);
            assert_eq!(*result, expected);
        } else {
            assert_eq!((&result["status"], result.get("replayed")), (&json!(201), None));
        }
    }
    // A single request with the key of the call is a repetition too.
    let single = node.issue_request("bob", id).header("Idempotency-Key", "k-1");
    assert_eq!(send(single).await.body, first[1]["issuance"]);
    // Without the key, they have as many as allowed.
    let other = node.bulk_results(id, &json!(["alice", "dave"])).await;
    assert_eq!(outcomes(&other), [(409, "ALREADY_ISSUED"), (409, "SOLD_OUT")]);
    // The first result shows what a single refusal shows.
    let single = node.issue("alice", id).await;
    single.assert_refused(409, "ALREADY_ISSUED");
    assert_eq!(other[0]["existing"], single.body["issuance"]);
    assert_eq!(other[0]["existing"], first[0]["issuance"]);
}

#[tokio::test]
async fn a_user_who_is_in_the_list_twice_gets_one_issuance_and_is_told_of_it_twice() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"per_user_limit": null})).await;
    let results = node
        .bulk_results(id, &json!(["alice", "bob", "alice", "Alice"]))
        .await;
    assert_eq!(results[2]["issuance"], results[0]["issuance"]);
    assert_eq!(
        (&results[2]["replayed"], results[0].get("replayed")),
        (&json!(true), None)
    );
    assert_eq!(results[3]["issuance"]["sequence"], 3);
    // Another call without a key is another request.
    let more = node.bulk_results(id, &json!(["alice"])).await;
    assert_eq!(more[0]["issuance"]["sequence"], 4);
}

#[tokio::test]
async fn a_call_with_a_wrong_id_issues_nothing_and_names_its_place() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    for (users, field) in [
        (json!(["a", "b", "c", "d e", "f"]), "user_ids[3]"),
        (json!(["a", ""]), "user_ids[1]"),
        (json!(["a", 5]), "user_ids[1]"),
        (json!(["a", null]), "user_ids[1]"),
        (json!(["x".repeat(129)]), "user_ids[0]"),
        (json!([]), "user_ids"),
        (json!("alice"), "user_ids"),
        (
            (0..1_001).map(|number| format!("u-{number}")).collect(),
            "user_ids",
        ),
    ] {
        send(node.bulk(id, &users)).await.assert_invalid(&[field]);
    }
    let path = format!("/v1/coupons/{id}/issuances/bulk");
    let body = json!({"user_ids": ["alice"], "users": []});
    let unknown = send(node.admin(Method::POST, &path).json(&body)).await;
    unknown.assert_invalid(&["users"]);
    send(node.admin(Method::POST, &path).json(&json!({})))
        .await
        .assert_invalid(&["user_ids"]);
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["issued"], 0);
    send(node.bulk(id + 1, &json!(["alice", "bob"])))
        .await
        .assert_refused(404, "UNKNOWN_COUPON");
    send(node.bulk(id, &json!(["alice"])).header("Idempotency-Key", "k 1"))
        .await
        .assert_refused(400, "MALFORMED");
}

#[tokio::test]
async fn all_wrong_ids_of_a_call_are_named_or_counted() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let some = json!(["a", "b c", null, "d", "é", ["e"], "x".repeat(129)]);
    let refused = send(node.bulk(id, &some)).await;
    refused.assert_invalid(&[
        "user_ids[1]",
        "user_ids[2]",
        "user_ids[4]",
        "user_ids[5]",
        "user_ids[6]",
    ]);
    let messages = refused.body["errors"].as_array().unwrap().iter();
    let messages: Vec<&str> = messages.map(|error| error["message"].as_str().unwrap()).collect();
    let (text, rule) = ("must be a string", "must be 1 to 128 visible ASCII characters");
    assert_eq!(messages, [rule, text, rule, text, rule]);

    // Every second one of 1,000 is wrong.
    let many: Value = (0..1_000)
        .map(|place| if place % 2 == 0 { "good" } else { "not good" })
        .collect();
    let named: Vec<String> = (0..20)
        .map(|wrong| format!("user_ids[{}]", 2 * wrong + 1))
        .collect();
    let mut named: Vec<&str> = named.iter().map(String::as_str).collect();
    named.push("user_ids");
    let refused = send(node.bulk(id, &many)).await;
    refused.assert_invalid(&named);
    assert_eq!(
        refused.body["errors"][20]["message"],
        "has 480 more wrong user ids"
    );
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["issued"], 0);
}

#[tokio::test]
async fn a_large_body_is_read_only_from_clients_that_may_send_one() {
    let directory = tempfile::tempdir().unwrap();
    let text = keys::entry("shop", "service") + &keys::entry("support", "viewer");
    let file = keys::write(directory.path(), &text);
    let node = TestNode::start_with(&[("auth.keys_file", file.to_str().unwrap())]).await;
    let id = node.coupon(json!({})).await;
    let path = format!("/v1/coupons/{id}/issuances/bulk");
    let padded = |bytes: usize| {
        let body = json!({"user_ids": users(1_000)}).to_string();
        let request = node
            .request(Method::POST, &path)
            .header("Content-Type", "application/json");
        request.body(format!("{}{body}", " ".repeat(bytes - body.len())))
    };
    let most = 256 * 1024;
    send(padded(most)).await.assert_refused(401, "UNAUTHENTICATED");
    send(padded(most).header("X-User-Id", "alice"))
        .await
        .assert_refused(403, "FORBIDDEN");
    send(padded(most).bearer_auth(keys::secret("support")))
        .await
        .assert_refused(403, "FORBIDDEN");
    let beyond = send(padded(most + 1).bearer_auth(ADMIN_TOKEN)).await;
    beyond.assert_refused(413, "TOO_LARGE");
    assert_eq!(beyond.body["detail"], "at most 262144 bytes");
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["issued"], 0);
    // If the client waits for `100 Continue`, the answer comes before the body is sent.
    for (token, first_line) in [("", "HTTP/1.1 401 "), (ADMIN_TOKEN, "HTTP/1.1 100 ")] {
        let mut stream = TcpStream::connect(node.service.address()).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {token}\r\nContent-Length: {most}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; first_line.len()];
        let read = tokio::time::timeout(LIMIT, stream.read_exact(&mut answer));
        read.await.unwrap().unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), first_line);
    }
    let service = send(padded(most).bearer_auth(keys::secret("shop"))).await;
    assert_eq!(results(service).len(), 1_000);
}

#[tokio::test]
async fn every_result_says_what_is_known_when_the_deadline_passes() {
    let node = TestNode::start_with(&[("http.deadline", "700ms"), ("cluster.lease", "30s")]).await;
    let id = node.coupon(json!({})).await;
    let users = users(200);
    let call = || send(node.bulk(id, &users).header("Idempotency-Key", "k-1"));
    let other = lock(&node).await;
    let stuck = results(call().await);
    // The first request is sent alone, so it may have been decided. The others were never sent.
    assert_eq!(
        (&stuck[0]["status"], &stuck[0]["code"], stuck[0].get("applied")),
        (&json!(503), &json!("OUTCOME_UNKNOWN"), Some(&Value::Null))
    );
    for result in &stuck[1..] {
        assert_eq!(
            (&result["status"], &result["code"], &result["applied"]),
            (&json!(503), &json!("OVERLOADED"), &json!(false)),
            "{result}"
        );
    }
    unlock(other).await;
    eventually("the same call goes on", async || {
        let reply = call().await;
        reply.status == 200 && results(reply).iter().all(|result| result["status"] == 201)
    })
    .await;
    let issued = results(call().await);
    for (at, result) in issued.iter().enumerate() {
        assert_eq!(result["issuance"]["sequence"], json!(at + 1), "{result}");
    }
}

#[tokio::test]
async fn a_node_admits_sixteen_calls_at_once_and_serves_single_requests_meanwhile() {
    let node = TestNode::start_with(&[("http.deadline", "15s"), ("cluster.lease", "30s")]).await;
    let id = node.coupon(json!({})).await;
    // The owner is loaded.
    assert_eq!(node.issue("early", id).await.status, 201);
    let other = lock(&node).await;
    let calls: Vec<_> = (0..16)
        .map(|number| tokio::spawn(send(node.bulk(id, &json!([format!("u-{number}")])))))
        .collect();
    eventually("all are admitted", async || {
        metric(&node, r#"coupon_queue_length{queue="bulk_calls"}"#).await >= 16.0
    })
    .await;
    send(node.bulk(id, &json!(["late"])))
        .await
        .assert_refused(503, "OVERLOADED");
    let alice = tokio::spawn(send(node.issue_request("alice", id)));
    unlock(other).await;
    assert_eq!(alice.await.unwrap().status, 201);
    for call in calls {
        let outcome = outcomes(&results(call.await.unwrap()))[0].0;
        assert_eq!(outcome, 201);
    }
    assert_eq!(node.bulk_results(id, &json!(["late"])).await.len(), 1);
}

#[tokio::test]
async fn a_call_does_not_count_for_the_rates_of_its_users() {
    let node = TestNode::start_with(&[("limits.user_rate", "0.001"), ("limits.user_burst", "1")]).await;
    let id = node.coupon(json!({"per_user_limit": 5})).await;
    for _ in 0..3 {
        let issued = node.bulk_results(id, &json!(["alice"])).await;
        assert_eq!(issued[0]["status"], 201, "{issued:?}");
    }
    assert_eq!(node.issue("alice", id).await.status, 201);
    node.issue("alice", id).await.assert_refused(429, "RATE_LIMITED");
}
