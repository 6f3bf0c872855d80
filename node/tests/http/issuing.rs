//! Issuing: each outcome, and the precedence of refusals.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestNode, send};

const PAST: &str = "2001-01-01T00:00:00Z";
const FUTURE: &str = "2096-01-01T00:00:00Z";

#[tokio::test]
async fn an_issuance_is_returned_with_all_fields() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"use_within_days": 30})).await;
    let reply = node.issue("alice", id).await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (201, format!("/v1/issuances/{id}-1").as_str()),
        "{reply:?}"
    );
    assert_eq!(reply.header("idempotent-replayed"), "");
    let (issued_at, expires_at) = (reply.body["issued_at"].clone(), reply.body["expires_at"].clone());
    assert!(expires_at.as_str().unwrap() > issued_at.as_str().unwrap());
    let whole = json!({"id": format!("{id}-1"), "code": reply.body["code"], "coupon_id": id, "user_id": "alice", "sequence": 1, "status": "issued",
        "state": "issued", "issued_at": issued_at, "expires_at": expires_at, "usable_until": expires_at});
    assert_eq!(reply.body, whole);
    assert_eq!(
        node.get_as("alice", &format!("/v1/issuances/{id}-1")).await.body,
        whole
    );

    let lasting = node.coupon(json!({})).await;
    assert_eq!(
        node.issue("alice", lasting).await.body.as_object().unwrap()["expires_at"],
        Value::Null
    );
}

#[tokio::test]
async fn an_unknown_coupon_is_refused() {
    let node = TestNode::start().await;
    node.issue("alice", 42)
        .await
        .assert_refused(404, "UNKNOWN_COUPON");
    node.get("/v1/coupons/42")
        .await
        .assert_refused(404, "UNKNOWN_COUPON");
}

#[tokio::test]
async fn the_same_key_returns_the_first_issuance_whatever_the_state_of_the_coupon() {
    let node = TestNode::start().await;
    let id = node
        .coupon(json!({"total_quantity": 1, "per_user_limit": 2}))
        .await;
    let issue = async |key: &str| send(node.issue_request("alice", id).header("Idempotency-Key", key)).await;
    let first = issue("k-1").await;
    let again = issue("k-1").await;
    assert_eq!(
        (first.status, again.status, again.header("idempotent-replayed")),
        (201, 201, "true")
    );
    assert_eq!(
        (&first.body, first.header("location")),
        (&again.body, again.header("location"))
    );
    issue("k-2").await.assert_refused(409, "SOLD_OUT");
    assert_eq!(
        node.admin_post(&format!("/v1/coupons/{id}/close")).await.status,
        200
    );
    assert_eq!(issue("k-1").await.body, first.body);
    issue("k-2").await.assert_refused(409, "CLOSED");
    issue("k 3").await.assert_refused(400, "MALFORMED");
    issue(&"k".repeat(256)).await.assert_refused(400, "MALFORMED");
}

#[tokio::test]
async fn keys_have_up_to_255_visible_characters_and_replay() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"per_user_limit": 10})).await;
    let visible: String = ('!'..='~').collect();
    let long = format!("{}\\", "'".repeat(254));
    for (sequence, key) in [(1, visible.as_str()), (2, &long), (3, "a/b|c+d=")] {
        let issue = || send(node.issue_request("alice", id).header("Idempotency-Key", key));
        let (first, again) = (issue().await, issue().await);
        assert_eq!((first.status, &first.body["sequence"]), (201, &json!(sequence)));
        assert_eq!(
            (again.header("idempotent-replayed"), &again.body),
            ("true", &first.body)
        );
    }
    let create = || {
        let request = node
            .admin(Method::POST, "/v1/coupons")
            .header("Idempotency-Key", &long);
        send(request.json(&json!({"title": "T", "total_quantity": 1})))
    };
    assert_eq!(create().await.body["id"], create().await.body["id"]);
}

#[tokio::test]
async fn refusals_are_not_stored() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"status": "paused"})).await;
    let issue = || send(node.issue_request("alice", id).header("Idempotency-Key", "k-1"));
    issue().await.assert_refused(409, "PAUSED");
    assert_eq!(
        node.admin_post(&format!("/v1/coupons/{id}/resume")).await.status,
        200
    );
    let reply = issue().await;
    assert_eq!((reply.status, reply.header("idempotent-replayed")), (201, ""));
}

#[tokio::test]
async fn a_refused_user_gets_the_latest_issuance() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"per_user_limit": 2})).await;
    assert_eq!(node.issue("alice", id).await.body["sequence"], 1);
    assert_eq!(node.issue("bob", id).await.body["sequence"], 2);
    let latest = node.issue("alice", id).await;
    let refused = node.issue("alice", id).await;
    refused.assert_refused(409, "ALREADY_ISSUED");
    assert_eq!(refused.body["issuance"], latest.body);
    // User ids are case-sensitive.
    assert_eq!(node.issue("Alice", id).await.status, 201);
}

#[tokio::test]
async fn already_issued_takes_precedence_over_the_state_of_the_coupon() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 1})).await;
    assert_eq!(node.issue("alice", id).await.status, 201);
    node.issue("alice", id)
        .await
        .assert_refused(409, "ALREADY_ISSUED");
    node.patch(id, json!({"ends_at": PAST})).await;
    node.issue("alice", id)
        .await
        .assert_refused(409, "ALREADY_ISSUED");
    node.admin_post(&format!("/v1/coupons/{id}/pause")).await;
    node.issue("alice", id)
        .await
        .assert_refused(409, "ALREADY_ISSUED");
    node.admin_post(&format!("/v1/coupons/{id}/close")).await;
    node.issue("alice", id)
        .await
        .assert_refused(409, "ALREADY_ISSUED");
}

#[tokio::test]
async fn closed_and_paused_come_before_the_window_and_the_window_comes_before_sold_out() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 1})).await;
    assert_eq!(node.issue("alice", id).await.status, 201);
    let sold_out = node.issue("bob", id).await;
    sold_out.assert_refused(409, "SOLD_OUT");
    assert_eq!(sold_out.body["total_quantity"], 1);

    node.patch(id, json!({"starts_at": FUTURE})).await;
    let early = node.issue("bob", id).await;
    early.assert_refused(409, "NOT_STARTED");
    assert_eq!(early.body["starts_at"], "2096-01-01T00:00:00.000000Z");
    assert!(early.body["server_time"].as_str().unwrap() < early.body["starts_at"].as_str().unwrap());

    node.patch(id, json!({"starts_at": null, "ends_at": PAST})).await;
    let late = node.issue("bob", id).await;
    late.assert_refused(409, "ENDED");
    assert_eq!(late.body["ends_at"], "2001-01-01T00:00:00.000000Z");
    assert!(late.body["server_time"].as_str().unwrap() > late.body["ends_at"].as_str().unwrap());

    node.admin_post(&format!("/v1/coupons/{id}/pause")).await;
    node.issue("bob", id).await.assert_refused(409, "PAUSED");
    node.admin_post(&format!("/v1/coupons/{id}/close")).await;
    node.issue("bob", id).await.assert_refused(409, "CLOSED");
}

#[tokio::test]
async fn a_rush_gets_exactly_the_quantity_in_an_unbroken_sequence() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 20})).await;
    let users: Vec<String> = (0..60).map(|number| format!("user-{number}")).collect();
    let replies = join_all(users.iter().map(|user| node.issue(user, id))).await;
    let mut sequences: Vec<u64> = replies
        .iter()
        .filter(|reply| reply.status == 201)
        .map(|reply| reply.body["sequence"].as_u64().unwrap())
        .collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=20).collect::<Vec<_>>());
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        reply.assert_refused(409, "SOLD_OUT");
    }
    let coupon = node.get(&format!("/v1/coupons/{id}")).await.body;
    assert_eq!(
        (&coupon["issued"], &coupon["remaining"], &coupon["phase"]),
        (&json!(20), &json!(0), &json!("sold_out"))
    );
}

#[tokio::test]
async fn a_raised_quantity_reopens_a_sold_out_coupon() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 1})).await;
    node.issue("alice", id).await;
    node.issue("bob", id).await.assert_refused(409, "SOLD_OUT");
    assert_eq!(node.patch(id, json!({"total_quantity": 2})).await.status, 200);
    assert_eq!(node.issue("bob", id).await.body["sequence"], 2);
}

#[tokio::test]
async fn only_users_get_coupons() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let path = format!("/v1/coupons/{id}/issuances");
    send(node.request(Method::POST, &path))
        .await
        .assert_refused(401, "UNAUTHENTICATED");
    send(node.request(Method::POST, &path).bearer_auth("something-else"))
        .await
        .assert_refused(401, "UNAUTHENTICATED");
    node.admin_post(&path).await.assert_refused(403, "FORBIDDEN");
    let long = "u".repeat(129);
    for user in ["", "al ice", "a\tb", long.as_str()] {
        node.issue(user, id).await.assert_refused(400, "MALFORMED");
    }
    for bytes in ["\u{e5}lice".as_bytes(), b"\xffalice"] {
        let user = reqwest::header::HeaderValue::from_bytes(bytes).unwrap();
        for request in [
            node.request(Method::POST, &path),
            node.request(Method::GET, "/v1/me/issuances"),
        ] {
            let reply = send(request.header("X-User-Id", &user)).await;
            reply.assert_refused(400, "MALFORMED");
            assert!(
                reply.body["detail"].as_str().unwrap().contains("x-user-id"),
                "{reply:?}"
            );
        }
    }
    let twice = node.issue_request("alice", id).header("X-User-Id", "bob");
    send(twice).await.assert_refused(400, "MALFORMED");
}

#[tokio::test]
async fn user_ids_of_any_visible_characters_have_their_own_issuances() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let visible: String = ('!'..='~').collect();
    let long = "u".repeat(128);
    for user in [
        "auth0|507f1f77bcf86cd799439011",
        "bob+x@example.com",
        "al/ice",
        "alice,bob",
        "a'b\"c\\",
        "&=%26",
        "AL/ICE",
        &visible,
        &long,
    ] {
        let issued = node.issue(user, id).await;
        assert_eq!((issued.status, &issued.body["user_id"]), (201, &json!(user)));
        let refused = node.issue(user, id).await;
        refused.assert_refused(409, "ALREADY_ISSUED");
        assert_eq!(refused.body["issuance"], issued.body);
        node.get_as(user, "/v1/me/issuances")
            .await
            .assert_list("user_id", &[json!(user)], false);
        // The user id is percent-encoded, as by every client library, because `+` is a space in a query.
        let list = node
            .admin(Method::GET, &format!("/v1/coupons/{id}/issuances"))
            .query(&[("user_id", user)]);
        send(list).await.assert_list("user_id", &[json!(user)], false);
    }
    node.admin_get(&format!(
        "/v1/coupons/{id}/issuances?user_id=bob%2Bx%40example.com"
    ))
    .await
    .assert_list("user_id", &[json!("bob+x@example.com")], false);
    node.admin_get(&format!("/v1/coupons/{id}/issuances?user_id=bob+x@example.com"))
        .await
        .assert_invalid(&["user_id"]);
}

#[tokio::test]
async fn the_response_to_a_request_without_a_user_names_the_missing_header() {
    const HEADER: &str = r#"X-User-Id realm="firstcome""#;
    const BEARER: &str = r#"Bearer realm="firstcome""#;
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let detail = |reply: &crate::support::Reply| reply.body["detail"].as_str().unwrap_or_default().to_owned();
    for request in [
        node.request(Method::POST, &format!("/v1/coupons/{id}/issuances")),
        node.request(Method::GET, "/v1/me/issuances"),
        // A token names no user in this mode.
        node.request(Method::GET, "/v1/me/issuances")
            .bearer_auth("something"),
    ] {
        let reply = send(request).await;
        reply.assert_refused(401, "UNAUTHENTICATED");
        assert_eq!(reply.header("www-authenticate"), HEADER);
        assert!(detail(&reply).contains("X-User-Id"), "{reply:?}");
    }
    let either = node.get(&format!("/v1/issuances/{id}-1")).await;
    either.assert_refused(401, "UNAUTHENTICATED");
    assert_eq!(either.header("www-authenticate"), format!("{HEADER}, {BEARER}"));
    assert!(detail(&either).contains("X-User-Id"), "{either:?}");
    let of_administrators = node.get("/v1/cluster").await;
    of_administrators.assert_refused(401, "UNAUTHENTICATED");
    assert_eq!(of_administrators.header("www-authenticate"), BEARER);
}

#[tokio::test]
async fn untrusted_peers_cannot_name_users() {
    let node = TestNode::start_with(&[("auth.trusted_proxies", "10.0.0.0/8")]).await;
    let id = node.coupon(json!({})).await;
    node.issue("alice", id)
        .await
        .assert_refused(401, "UNAUTHENTICATED");
    node.get_as("alice", "/v1/me/issuances")
        .await
        .assert_refused(401, "UNAUTHENTICATED");
    let node = TestNode::start_with(&[("auth.trusted_proxies", "10.0.0.0/8,127.0.0.0/8")]).await;
    let id = node.coupon(json!({})).await;
    assert_eq!(node.issue("alice", id).await.status, 201);
}

#[tokio::test]
async fn the_body_of_an_issue_request_is_absent_or_empty() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"per_user_limit": 10})).await;
    let issue = || node.issue_request("alice", id);
    assert_eq!(send(issue()).await.status, 201);
    assert_eq!(send(issue().body("")).await.status, 201);
    assert_eq!(send(issue().json(&json!({}))).await.status, 201);
    assert_eq!(send(issue().body("{}")).await.status, 201);
    send(issue().json(&json!({"user_id": "bob"})))
        .await
        .assert_refused(403, "FORBIDDEN");
    send(issue().json(&json!({"user_id": null})))
        .await
        .assert_refused(403, "FORBIDDEN");
    send(issue().json(&json!({"count": 2})))
        .await
        .assert_invalid(&["count"]);
    // PHP writes an object without fields as an array.
    assert_eq!(send(issue().json(&json!([]))).await.status, 201);
    send(issue().json(&json!([1])))
        .await
        .assert_refused(400, "MALFORMED");
    send(issue().header("Content-Type", "text/plain").body("[]"))
        .await
        .assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
    send(issue().body("{")).await.assert_refused(400, "MALFORMED");
    send(issue().header("Content-Type", "text/plain").body("{}"))
        .await
        .assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["issued"], 5);
    for change in ["pause", "resume", "close"] {
        let request = node.admin(Method::POST, &format!("/v1/coupons/{id}/{change}"));
        assert_eq!(send(request.json(&json!([]))).await.status, 200, "{change}");
    }
}
