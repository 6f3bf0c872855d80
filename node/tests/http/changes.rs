//! Changes of coupons: which versions they require, and what happens when a change is repeated.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use testkit::poll::eventually;

use crate::setbacks::{assert_setback, lock, unlock};
use crate::support::{Reply, TestNode, send};

fn patch(node: &TestNode, id: u64, key: &str, body: &Value) -> RequestBuilder {
    node.admin(Method::PATCH, &format!("/v1/coupons/{id}"))
        .header("Idempotency-Key", key)
        .json(body)
}

fn act(node: &TestNode, id: u64, action: &str, key: &str) -> RequestBuilder {
    node.admin(Method::POST, &format!("/v1/coupons/{id}/{action}"))
        .header("Idempotency-Key", key)
}

/// Asserts the answer to a change: whether it is a replay, the version, and the status.
fn assert_changed(reply: &Reply, is_replay: bool, version: u64, status: &str) {
    assert_eq!(
        (
            reply.status,
            reply.header("idempotent-replayed") == "true",
            reply.body["version"].as_u64(),
            reply.body["status"].as_str()
        ),
        (200, is_replay, Some(version), Some(status)),
        "{reply:?}"
    );
    assert_eq!(reply.header("etag"), format!("W/\"{version}\""));
}

#[tokio::test]
async fn a_change_with_the_key_of_an_earlier_one_is_not_executed_again() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 5})).await;
    assert_changed(&send(act(&node, id, "pause", "p")).await, false, 2, "paused");
    assert_changed(&send(act(&node, id, "pause", "p")).await, true, 2, "paused");
    assert_changed(&send(act(&node, id, "resume", "r")).await, false, 3, "open");
    // A late repetition does not pause the coupon again.
    assert_changed(&send(act(&node, id, "pause", "p")).await, true, 3, "open");

    let six = json!({"total_quantity": 6});
    assert_changed(&send(patch(&node, id, "q", &six)).await, false, 4, "open");
    node.patch(id, json!({"total_quantity": 9})).await;
    let again = send(patch(&node, id, "q", &six)).await;
    assert_changed(&again, true, 5, "open");
    assert_eq!(again.body["total_quantity"], 9, "the coupon as it is now");
    // The condition is that of the first request, which was satisfied.
    let conditional = patch(&node, id, "q", &six).header("If-Match", "\"3\"");
    assert_changed(&send(conditional).await, true, 5, "open");

    // For another coupon, the key is new.
    let other = node.coupon(json!({})).await;
    assert_changed(&send(act(&node, other, "pause", "p")).await, false, 2, "paused");
    // A restart forgets nothing.
    let node = node.restart().await;
    assert_changed(&send(act(&node, id, "pause", "p")).await, true, 5, "open");
    assert_changed(&send(patch(&node, id, "q", &six)).await, true, 5, "open");
}

#[tokio::test]
async fn a_key_of_another_change_is_refused() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 5})).await;
    assert_changed(&send(act(&node, id, "pause", "k")).await, false, 2, "paused");
    for request in [
        act(&node, id, "resume", "k"),
        act(&node, id, "close", "k"),
        patch(&node, id, "k", &json!({"total_quantity": 6})),
        patch(&node, id, "k", &json!({})),
    ] {
        send(request).await.assert_invalid(&["Idempotency-Key"]);
    }
    send(patch(&node, id, "l", &json!({"total_quantity": 6}))).await;
    send(patch(&node, id, "l", &json!({"total_quantity": 7})))
        .await
        .assert_invalid(&["Idempotency-Key"]);
    send(patch(&node, id, "l", &json!({"total_quantity": null})))
        .await
        .assert_invalid(&["Idempotency-Key"]);
    send(act(&node, id, "pause", "two words"))
        .await
        .assert_refused(400, "MALFORMED");
    let body = node.get(&format!("/v1/coupons/{id}")).await.body;
    assert_eq!(
        (&body["version"], &body["total_quantity"]),
        (&json!(3), &json!(6))
    );
}

#[tokio::test]
async fn a_refused_change_is_decided_again_but_a_change_without_effect_is_not() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 5})).await;
    let stale = || patch(&node, id, "s", &json!({"title": "New"})).header("If-Match", "W/\"2\"");
    send(stale()).await.assert_refused(412, "VERSION_MISMATCH");
    // The coupon is open already, so this changes nothing. A retry with the same key changes nothing either,
    // even after a pause.
    assert_changed(&send(act(&node, id, "resume", "r")).await, false, 1, "open");
    assert_changed(
        &node.admin_post(&format!("/v1/coupons/{id}/pause")).await,
        false,
        2,
        "paused",
    );
    assert_changed(&send(act(&node, id, "resume", "r")).await, true, 2, "paused");
    let node = node.restart().await;
    assert_changed(&send(act(&node, id, "resume", "r")).await, true, 2, "paused");
    let stale = patch(&node, id, "s", &json!({"title": "New"})).header("If-Match", "W/\"2\"");
    assert_changed(&send(stale).await, false, 3, "paused");
}

#[tokio::test]
async fn a_change_of_unknown_outcome_is_found_by_its_key() {
    let node = TestNode::start_with(&[("http.change_deadline", "300ms")]).await;
    let id = node.coupon(json!({"total_quantity": 5})).await;
    assert_eq!(node.issue("early", id).await.status, 201);
    let pause = || act(&node, id, "pause", "key");
    let other = lock(&node).await;
    assert_setback(&send(pause()).await, "OUTCOME_UNKNOWN", None);
    // The change is decided, but not stored yet.
    assert_setback(&send(pause()).await, "OUTCOME_UNKNOWN", None);
    unlock(other).await;
    eventually("the change is stored", async || {
        let reply = send(pause()).await;
        reply.status == 200 && {
            assert_changed(&reply, true, 2, "paused");
            true
        }
    })
    .await;
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["version"], 2);
}

#[tokio::test]
async fn if_match_allows_only_a_change_of_the_version_that_it_names() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let patch = |tag: &str, title: &str| {
        send(
            node.admin(Method::PATCH, &format!("/v1/coupons/{id}"))
                .header("If-Match", tag)
                .json(&json!({"title": title})),
        )
    };
    assert_eq!(patch("\"1\"", "A").await.body["version"], 2);
    let stale = patch("\"1\"", "B").await;
    stale.assert_refused(412, "VERSION_MISMATCH");
    assert_eq!(stale.body["version"], 2);
    for tag in ["\"3\"", "W/\"3\"", "\"two\"", "\"\""] {
        patch(tag, "B").await.assert_refused(412, "VERSION_MISMATCH");
    }
    for tag in ["2", "\"2\" \"3\"", "\"2"] {
        patch(tag, "B").await.assert_refused(400, "MALFORMED");
    }
    assert_eq!(patch("*", "C").await.body["version"], 3);
    let unknown = node
        .admin(Method::PATCH, "/v1/coupons/999")
        .header("If-Match", "\"two\"")
        .json(&json!({}));
    send(unknown).await.assert_refused(404, "UNKNOWN_COUPON");
}

#[tokio::test]
async fn a_patch_that_no_coupon_could_take_is_refused_before_its_if_match_is_evaluated() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    for (body, field) in [
        (json!({"total_quantity": 1_000_000_001}), "total_quantity"),
        (json!({"title": ""}), "title"),
        (
            json!({"discount": {"kind": "rate", "value": 101}}),
            "discount.value",
        ),
        (json!({"discount": {"value": 0}}), "discount.value"),
        (
            json!({"starts_at": "2026-11-27T00:00:00Z", "ends_at": "2026-11-27T00:00:00Z"}),
            "ends_at",
        ),
    ] {
        let request = node.admin(Method::PATCH, &format!("/v1/coupons/{id}"));
        let reply = send(request.header("If-Match", "\"7\"").json(&body)).await;
        reply.assert_refused(422, "INVALID");
        assert_eq!(reply.body["errors"][0]["field"], field, "{body}");
    }
}

#[tokio::test]
async fn if_match_guards_changes_of_status_too() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let act = |action: &str, tag: &str| {
        send(
            node.admin(Method::POST, &format!("/v1/coupons/{id}/{action}"))
                .header("If-Match", tag),
        )
    };
    assert_eq!(act("pause", "\"1\"").await.body["version"], 2);
    for action in ["pause", "resume", "close"] {
        act(action, "\"1\"").await.assert_refused(412, "VERSION_MISMATCH");
        act(action, "1").await.assert_refused(400, "MALFORMED");
    }
    assert_eq!(act("resume", "\"2\"").await.body["version"], 3);
    assert_eq!(act("close", "*").await.body["version"], 4);
}

#[tokio::test]
async fn if_match_takes_weak_tags_and_lists_and_one_spelling_of_a_version() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let patch = |tags: &str, title: &str| {
        let request = node.admin(Method::PATCH, &format!("/v1/coupons/{id}"));
        send(request.header("If-Match", tags).json(&json!({"title": title})))
    };
    let mut version = 1;
    for tags in [
        "\"V\"",
        "W/\"V\"",
        "\"7000\", W/\"V\"",
        "W/\"V\",\"7000\", \"7001\"",
        "\"not a number\", \"V\"",
        "*",
    ] {
        let reply = patch(&tags.replace('V', &version.to_string()), tags).await;
        version += 1;
        assert_changed(&reply, false, version, "open");
    }
    for tags in [
        format!("\"0{version}\""),
        format!("W/\"0{version}\""),
        format!("\"+{version}\""),
        format!("\"{version}.0\""),
        "\"6000\", W/\"6001\"".to_owned(),
    ] {
        let reply = patch(&tags, "refused").await;
        reply.assert_refused(412, "VERSION_MISMATCH");
        assert_eq!(reply.body["version"], version);
    }
    for tags in [
        format!("{version}"),
        "*, \"1\"".to_owned(),
        "W/*".to_owned(),
        "\"1\" \"2\"".to_owned(),
    ] {
        patch(&tags, "refused").await.assert_refused(400, "MALFORMED");
    }
    // If-Match takes the tag of an answer.
    let tag = node
        .get(&format!("/v1/coupons/{id}"))
        .await
        .header("etag")
        .to_owned();
    assert_eq!(tag, format!("W/\"{version}\""));
    assert_changed(&patch(&tag, "by the tag").await, false, version + 1, "open");
}

#[tokio::test]
async fn all_fields_that_are_wrong_are_named() {
    let node = TestNode::start().await;
    let id = node
        .coupon(json!({"total_quantity": 5, "discount": {"kind": "rate", "value": 15}}))
        .await;
    for (body, fields) in [
        (
            json!({"title": 5, "total_quantity": "x", "starts_at": "2026-11-27 09:00:00Z", "colour": "red"}),
            vec!["colour", "starts_at", "title", "total_quantity"],
        ),
        (
            json!({"title": 5, "total_quantity": 0, "status": "shut", "per_user_limit": 101}),
            vec!["per_user_limit", "status", "title", "total_quantity"],
        ),
        (
            json!({"title": 5, "discount": {"kind": {"rate": null}, "value": -1}}),
            vec!["discount.kind", "discount.value", "title", "total_quantity"],
        ),
        (
            json!({"total_quantity": 5, "title": "T", "discount": {"kind": {"rate": null}, "value": 5}}),
            vec!["discount.kind"],
        ),
        (
            json!({"total_quantity": 5, "title": "T", "discount": {"kind": null, "value": 5}}),
            vec!["discount.kind"],
        ),
    ] {
        assert_names(&node.create(body).await, &fields);
    }
    for (body, fields) in [
        (
            json!({"title": null, "total_quantity": 0, "ends_at": 5}),
            vec!["ends_at", "title", "total_quantity"],
        ),
        (json!({"discount": {"kind": null}}), vec!["discount.kind"]),
        (
            json!({"discount": {"value": null, "kind": {"amount": null}}}),
            vec!["discount.kind", "discount.value"],
        ),
        (
            json!({"status": "open", "per_user_limit": 2, "use_within_days": 0}),
            vec!["per_user_limit", "status", "use_within_days"],
        ),
        (
            json!({"starts_at": "2026-11-27T09:00:00+25:59", "title": ""}),
            vec!["starts_at", "title"],
        ),
        (
            json!({"starts_at": "2026-11-27T09:00+09:00[Asia/Seoul]"}),
            vec!["starts_at"],
        ),
    ] {
        assert_names(&node.patch(id, body).await, &fields);
    }
    let issue = node
        .issue_request("alice", id)
        .json(&json!({"user": "bob", "count": 2}));
    assert_names(&send(issue).await, &["count", "user"]);
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["version"], 1);
}

/// Asserts that exactly these fields are named, in any order.
fn assert_names(reply: &Reply, fields: &[&str]) {
    reply.assert_refused(422, "INVALID");
    let errors = reply.body["errors"].as_array().unwrap().iter();
    let mut named: Vec<&str> = errors.map(|error| error["field"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, fields, "{reply:?}");
}
