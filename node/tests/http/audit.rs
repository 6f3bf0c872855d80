//! The audit log: who changed a coupon, when, and how.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::keys;
use crate::support::{Reply, TestNode, send};
use crate::tokens::{SECRET, token};

async fn changes(node: &TestNode, coupon: u64, query: &str) -> Reply {
    node.admin_get(&format!("/v1/coupons/{coupon}/changes{query}"))
        .await
}

/// Returns a request that the key of this name sends.
fn by(node: &TestNode, name: &str, method: Method, path: &str) -> RequestBuilder {
    node.request(method, path).bearer_auth(keys::secret(name))
}

#[tokio::test]
async fn every_change_is_told_with_its_author_its_time_and_what_it_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let text = keys::entry("ops", "operator") + &keys::entry("root", "admin");
    let file = keys::write(directory.path(), &text);
    let node = TestNode::start_with(&[("auth.keys_file", file.to_str().unwrap())]).await;
    let body = json!({"title": "T", "total_quantity": 5, "description": "\u{ac00}"});
    let created = send(by(&node, "ops", Method::POST, "/v1/coupons").json(&body)).await;
    let id = created.body["id"].as_u64().unwrap();
    let path = format!("/v1/coupons/{id}");
    let patch = json!({"total_quantity": 6, "description": null});
    let patched = send(by(&node, "root", Method::PATCH, &path).json(&patch)).await;
    assert_eq!(patched.status, 200);
    let paused = node.admin_post(&format!("{path}/pause")).await;
    // Neither a repetition nor a refused change is a change.
    assert_eq!(node.admin_post(&format!("{path}/pause")).await.status, 200);
    let keyed = node
        .admin(Method::POST, &format!("{path}/pause"))
        .header("Idempotency-Key", "again");
    assert_eq!(send(keyed).await.status, 200);
    node.patch(id, json!({"total_quantity": 0}))
        .await
        .assert_invalid(&["total_quantity"]);

    let reply = changes(&node, id, "").await;
    let key = |name: &str| json!({"kind": "key", "name": name});
    assert_eq!(
        reply.body,
        json!({"items": [
            {"version": 1, "who": key("ops"), "when": created.body["created_at"],
             "what": {"change": "create", "fields": body}},
            {"version": 2, "who": key("root"), "when": patched.body["updated_at"],
             "what": {"change": "patch", "fields": patch}},
            {"version": 3, "who": key("admin"), "when": paused.body["updated_at"],
             "what": {"change": "pause", "fields": {}}},
        ], "next_cursor": null}),
        "{reply:?}"
    );
    changes(&node, id + 1, "")
        .await
        .assert_refused(404, "UNKNOWN_COUPON");
    // The log is in the database, and not only in the memory of the node.
    let node = node.restart().await;
    assert_eq!(changes(&node, id, "").await.body, reply.body);
}

#[tokio::test]
async fn the_audit_log_is_read_in_pages() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    for quantity in 1..=4 {
        let patched = node.patch(id, json!({"total_quantity": quantity})).await;
        assert_eq!(patched.status, 200);
    }
    let versions = |numbers: &[u64]| numbers.iter().map(|number| json!(number)).collect::<Vec<Value>>();
    let first = changes(&node, id, "?limit=2").await;
    first.assert_list("version", &versions(&[1, 2]), true);
    let second = changes(&node, id, &format!("?limit=2&cursor={}", first.next_cursor())).await;
    second.assert_list("version", &versions(&[3, 4]), true);
    let third = changes(&node, id, &format!("?limit=2&cursor={}", second.next_cursor())).await;
    third.assert_list("version", &versions(&[5]), false);
    changes(&node, id, "?cursor=5").await.assert_invalid(&["cursor"]);
}

#[tokio::test]
async fn the_author_of_a_change_by_a_token_is_its_user() {
    let settings = [
        ("auth.mode", "jwt"),
        ("auth.jwt.algorithm", "HS256"),
        ("auth.jwt.key", SECRET),
    ];
    let node = TestNode::start_with(&settings).await;
    let id = node.coupon(json!({})).await;
    let close = node.request(Method::POST, &format!("/v1/coupons/{id}/close"));
    let closed = send(close.bearer_auth(token("auth0|root", json!({"role": "operator"})))).await;
    assert_eq!(closed.status, 200);
    let reply = changes(&node, id, "").await;
    assert_eq!(
        reply.body["items"][1]["who"],
        json!({"kind": "user", "name": "auth0|root"}),
        "{reply:?}"
    );
}
