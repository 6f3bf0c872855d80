//! Creates, reads and changes coupons.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestNode, send};

#[tokio::test]
async fn a_new_coupon_is_returned_with_all_fields() {
    let node = TestNode::start().await;
    let reply = node
        .create(json!({
            "title": "Black Friday", "discount": {"kind": "amount", "value": 10000}, "min_order_amount": 30000, "total_quantity": 500,
            "per_user_limit": 2, "starts_at": "2026-11-27T09:00:00+09:00", "ends_at": "2096-11-28T00:00:00.5Z", "use_within_days": 30
        }))
        .await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let id = reply.body["id"].as_u64().unwrap();
    assert_eq!(reply.header("location"), format!("/v1/coupons/{id}"));
    assert_eq!(
        (reply.header("etag"), reply.header("content-type")),
        ("W/\"1\"", "application/json")
    );
    let created_at = reply.body["created_at"].as_str().unwrap();
    assert!(
        created_at.len() == "2026-11-21T03:00:00.000000Z".len() && created_at.ends_with('Z'),
        "{created_at}"
    );
    let phase = reply.body["phase"].as_str().unwrap();
    assert!(["scheduled", "live"].contains(&phase), "{phase}");
    let whole = json!({
        "id": id, "title": "Black Friday", "discount": {"kind": "amount", "value": 10000}, "min_order_amount": 30000,
        "total_quantity": 500, "per_user_limit": 2, "starts_at": "2026-11-27T00:00:00.000000Z", "ends_at": "2096-11-28T00:00:00.500000Z",
        "description": null, "metadata": {}, "max_discount": null, "use_until": null, "time_zone": null,
        "use_within_days": 30, "status": "open", "phase": phase, "issued": 0, "remaining": 500, "version": 1,
        "reserved": 0, "redeemed": 0, "revoked": 0, "returned": 0,
        "created_at": created_at, "updated_at": created_at
    });
    assert_eq!(reply.body, whole);
    let read = node.get(&format!("/v1/coupons/{id}")).await;
    assert_eq!(
        (read.status, read.header("etag"), &read.body),
        (200, "W/\"1\"", &whole)
    );
}

#[tokio::test]
async fn omitted_fields_of_a_coupon_are_null() {
    let node = TestNode::start().await;
    let body =
        node.create(json!({"title": "T", "total_quantity": null, "discount": null, "starts_at": null, "status": "paused"})).await.body;
    for field in [
        "discount",
        "min_order_amount",
        "total_quantity",
        "starts_at",
        "ends_at",
        "use_within_days",
        "remaining",
    ] {
        assert_eq!(
            body.as_object().unwrap().get(field),
            Some(&Value::Null),
            "{field}"
        );
    }
    assert_eq!(
        (&body["per_user_limit"], &body["status"], &body["phase"]),
        (&json!(1), &json!("paused"), &json!("paused"))
    );
}

/// Asserts that no coupon is created from these bodies, and that each refusal names this field.
async fn assert_not_created<const N: usize>(cases: [(Value, &str); N]) {
    let node = TestNode::start().await;
    for (body, field) in cases {
        node.create(body).await.assert_invalid(&[field]);
    }
    node.get("/v1/coupons").await.assert_list("id", &[], false);
}

#[tokio::test]
async fn an_invalid_title_of_a_new_coupon_is_reported() {
    let long = "가".repeat(201);
    assert_not_created([
        (json!({"total_quantity": 5}), "title"),
        (json!({"title": null, "total_quantity": 5}), "title"),
        (json!({"title": "", "total_quantity": 5}), "title"),
        (json!({"title": long, "total_quantity": 5}), "title"),
        (json!({"title": 5, "total_quantity": 5}), "title"),
        (json!({"title": "a\0b", "total_quantity": 5}), "title"),
    ])
    .await;
}

#[tokio::test]
async fn an_invalid_number_of_a_new_coupon_is_reported() {
    assert_not_created([
        (json!({"title": "T"}), "total_quantity"),
        (json!({"title": "T", "total_quantity": 0}), "total_quantity"),
        (
            json!({"title": "T", "total_quantity": 1_000_000_001}),
            "total_quantity",
        ),
        (json!({"title": "T", "total_quantity": -1}), "total_quantity"),
        (json!({"title": "T", "total_quantity": 1.5}), "total_quantity"),
        (json!({"title": "T", "total_quantity": "5"}), "total_quantity"),
        (
            json!({"title": "T", "total_quantity": 5, "per_user_limit": 0}),
            "per_user_limit",
        ),
        (
            json!({"title": "T", "total_quantity": 5, "per_user_limit": 101}),
            "per_user_limit",
        ),
        (
            json!({"title": "T", "total_quantity": 5, "per_user_limit": 257}),
            "per_user_limit",
        ),
        (
            json!({"title": "T", "total_quantity": 5, "use_within_days": 0}),
            "use_within_days",
        ),
        (
            json!({"title": "T", "total_quantity": 5, "use_within_days": 3651}),
            "use_within_days",
        ),
        (
            json!({"title": "T", "total_quantity": 5, "use_within_days": 65537}),
            "use_within_days",
        ),
        (
            json!({"title": "T", "total_quantity": 5, "min_order_amount": -1}),
            "min_order_amount",
        ),
        (
            json!({"title": "T", "total_quantity": 5, "min_order_amount": 9_007_199_254_740_992_u64}),
            "min_order_amount",
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_invalid_time_of_a_new_coupon_is_reported() {
    assert_not_created([
        (json!({"title": "T", "total_quantity": 5, "starts_at": "tomorrow"}), "starts_at"),
        (
            json!({"title": "T", "total_quantity": 5, "starts_at": "2026-01-02T00:00:00Z", "ends_at": "2026-01-02T00:00:00Z"}),
            "ends_at",
        ),
    ])
    .await;
}

#[tokio::test]
async fn invalid_discounts_of_a_new_coupon_are_reported() {
    let discount = |discount| json!({"title": "T", "total_quantity": 5, "discount": discount});
    assert_not_created([
        (
            discount(json!({"kind": "amount", "value": 9_007_199_254_740_992_u64})),
            "discount.value",
        ),
        (discount(json!({"kind": "rate", "value": 0})), "discount.value"),
        (discount(json!({"kind": "rate", "value": 101})), "discount.value"),
        (discount(json!({"kind": "rate", "value": 257})), "discount.value"),
        (discount(json!({"kind": "amount", "value": 0})), "discount.value"),
        (discount(json!({"kind": "gift", "value": 1})), "discount.kind"),
        (discount(json!({"kind": "rate"})), "discount.value"),
        (
            discount(json!({"kind": "rate", "value": 1, "unit": "%"})),
            "discount.unit",
        ),
        (discount(json!(["rate", 1])), "discount"),
    ])
    .await;
}

#[tokio::test]
async fn unknown_fields_and_an_invalid_status_of_a_new_coupon_are_reported() {
    let node = TestNode::start().await;
    for (body, fields) in [
        (
            json!({"title": "T", "total_quantity": 5, "status": "closed"}),
            vec!["status"],
        ),
        (
            json!({"title": "T", "total_quantity": 5, "status": "shut"}),
            vec!["status"],
        ),
        (
            json!({"title": "T", "total_quantity": 5, "quantity": 5}),
            vec!["quantity"],
        ),
        (json!({"title": "T", "total_quantity": 5, "id": 5}), vec!["id"]),
        (
            json!({"title": "", "status": "shut", "total_quantity": 0}),
            vec!["status", "title", "total_quantity"],
        ),
        (
            json!({"title": "", "status": "shut"}),
            vec!["status", "total_quantity", "title"],
        ),
    ] {
        node.create(body).await.assert_invalid(&fields);
    }
    node.get("/v1/coupons").await.assert_list("id", &[], false);
}

#[tokio::test]
async fn bounds_are_inclusive() {
    let node = TestNode::start().await;
    for body in [
        json!({"title": "가".repeat(200), "total_quantity": 1_000_000_000, "per_user_limit": 100, "use_within_days": 3650}),
        json!({"title": "T", "total_quantity": 1, "per_user_limit": 1, "use_within_days": 1, "min_order_amount": 0}),
        json!({"title": "T", "total_quantity": 5, "discount": {"kind": "rate", "value": 100}}),
    ] {
        assert_eq!(node.create(body).await.status, 201);
    }
}

#[tokio::test]
async fn requests_with_the_same_key_create_one_coupon() {
    let node = TestNode::start().await;
    let create = |key: &str, title: &str| {
        send(
            node.admin(Method::POST, "/v1/coupons")
                .header("Idempotency-Key", key)
                .json(&json!({"title": title, "total_quantity": 5})),
        )
    };
    let first = create("k-1", "One").await;
    let again = create("k-1", "One").await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body);
    assert_eq!(
        (
            first.header("idempotent-replayed"),
            again.header("idempotent-replayed")
        ),
        ("", "true")
    );
    create("k-1", "Two").await.assert_invalid(&["Idempotency-Key"]);
    create("k 1", "One").await.assert_refused(400, "MALFORMED");
    create(&"k".repeat(256), "One")
        .await
        .assert_refused(400, "MALFORMED");
    node.get("/v1/coupons")
        .await
        .assert_list("id", &[first.body["id"].clone()], false);
}

#[tokio::test]
async fn only_administrators_create_and_change_coupons() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let calls = [
        (Method::POST, "/v1/coupons".to_owned()),
        (Method::PATCH, format!("/v1/coupons/{id}")),
        (Method::POST, format!("/v1/coupons/{id}/pause")),
        (Method::POST, format!("/v1/coupons/{id}/resume")),
        (Method::POST, format!("/v1/coupons/{id}/close")),
        (Method::GET, format!("/v1/coupons/{id}/issuances")),
        (Method::GET, "/v1/cluster".to_owned()),
        (Method::GET, format!("/v1/cluster/coupons/{id}")),
    ];
    for (method, path) in calls {
        let request = || node.request(method.clone(), &path);
        send(request()).await.assert_refused(401, "UNAUTHENTICATED");
        send(request().bearer_auth("something-else"))
            .await
            .assert_refused(401, "UNAUTHENTICATED");
        send(request().header("X-User-Id", "alice"))
            .await
            .assert_refused(403, "FORBIDDEN");
        send(
            request()
                .header("X-User-Id", "alice")
                .bearer_auth("something-else"),
        )
        .await
        .assert_refused(403, "FORBIDDEN");
    }
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["version"], 1);
}

#[tokio::test]
async fn a_patch_sets_clears_or_keeps_a_field() {
    let node = TestNode::start().await;
    let id = node
        .coupon(
            json!({"total_quantity": 5, "use_within_days": 30, "discount": {"kind": "rate", "value": 15}}),
        )
        .await;
    let reply = node
        .patch(id, json!({"total_quantity": 6, "use_within_days": null}))
        .await;
    assert_eq!(
        (reply.status, reply.header("etag")),
        (200, "W/\"2\""),
        "{reply:?}"
    );
    let body = &reply.body;
    assert_eq!(
        (&body["title"], &body["total_quantity"], &body["use_within_days"]),
        (&json!("Black Friday"), &json!(6), &Value::Null)
    );
    assert_eq!(
        (&body["discount"], &body["version"]),
        (&json!({"kind": "rate", "value": 15}), &json!(2))
    );
    assert!(body["updated_at"].as_str().unwrap() > body["created_at"].as_str().unwrap());
    // A read is never older than a change that this node answered.
    assert_eq!(&node.get(&format!("/v1/coupons/{id}")).await.body, body);

    let all = json!({"title": "New", "total_quantity": null, "discount": null, "min_order_amount": 5, "use_within_days": 7,
        "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2096-01-01T00:00:00Z"});
    let body = node.patch(id, all).await.body;
    assert_eq!(
        (&body["title"], &body["remaining"], &body["discount"]),
        (&json!("New"), &Value::Null, &Value::Null)
    );
    assert_eq!(body["starts_at"], "2026-01-01T00:00:00.000000Z");
    let merge = node
        .admin(Method::PATCH, &format!("/v1/coupons/{id}"))
        .header("Content-Type", "application/merge-patch+json");
    assert_eq!(
        send(merge.body(r#"{"min_order_amount": null}"#)).await.body["min_order_amount"],
        Value::Null
    );
}

#[tokio::test]
async fn invalid_fields_of_a_patch_are_reported() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"starts_at": "2026-01-02T00:00:00Z"})).await;
    for (body, field) in [
        (json!({"title": null}), "title"),
        (json!({"title": ""}), "title"),
        (json!({"status": "open"}), "status"),
        (json!({"per_user_limit": 2}), "per_user_limit"),
        (json!({"total_quantity": 0}), "total_quantity"),
        (json!({"use_within_days": 65537}), "use_within_days"),
        (
            json!({"discount": {"kind": "rate", "value": 101}}),
            "discount.value",
        ),
        (json!({"discount": {"value": 1}}), "discount.kind"),
        (json!({"ends_at": "2026-01-01T00:00:00Z"}), "ends_at"),
        (json!({"version": 7}), "version"),
    ] {
        node.patch(id, body).await.assert_invalid(&[field]);
    }
    node.patch(id + 1, json!({"title": "New"}))
        .await
        .assert_refused(404, "UNKNOWN_COUPON");
    let empty = send(node.admin(Method::PATCH, &format!("/v1/coupons/{id}"))).await;
    empty.assert_refused(400, "MALFORMED");
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["version"], 1);
}

#[tokio::test]
async fn a_quantity_below_the_number_issued_is_refused() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 5})).await;
    for user in ["a", "b", "c"] {
        assert_eq!(node.issue(user, id).await.status, 201);
    }
    let reply = node.patch(id, json!({"total_quantity": 2})).await;
    reply.assert_refused(409, "QUANTITY_BELOW_ISSUED");
    assert_eq!(reply.body["issued"], 3);
    let body = node.patch(id, json!({"total_quantity": 3})).await.body;
    assert_eq!(
        (&body["phase"], &body["issued"], &body["remaining"]),
        (&json!("sold_out"), &json!(3), &json!(0))
    );
}

#[tokio::test]
async fn repeating_a_change_of_status_changes_nothing() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let act = async |action: &str| node.admin_post(&format!("/v1/coupons/{id}/{action}")).await;
    for (action, status, phase, version) in [
        ("pause", "paused", "paused", 2),
        ("pause", "paused", "paused", 2),
        ("resume", "open", "live", 3),
        ("resume", "open", "live", 3),
    ] {
        let reply = act(action).await;
        assert_eq!(
            (reply.status, reply.header("etag")),
            (200, format!("W/\"{version}\"").as_str()),
            "{reply:?}"
        );
        assert_eq!(
            (
                &reply.body["status"],
                &reply.body["phase"],
                &reply.body["version"]
            ),
            (&json!(status), &json!(phase), &json!(version))
        );
    }
    for _ in 0..2 {
        let reply = act("close").await;
        assert_eq!(
            (reply.status, &reply.body["status"], &reply.body["version"]),
            (200, &json!("closed"), &json!(4))
        );
    }
    act("pause").await.assert_refused(409, "CLOSED");
    act("resume").await.assert_refused(409, "CLOSED");
    node.admin_post(&format!("/v1/coupons/{}/pause", id + 1))
        .await
        .assert_refused(404, "UNKNOWN_COUPON");
}

#[tokio::test]
async fn the_body_of_a_change_of_status_is_absent_or_empty() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let pause = || node.admin(Method::POST, &format!("/v1/coupons/{id}/pause"));
    assert_eq!(send(pause().json(&json!({}))).await.status, 200);
    assert_eq!(
        send(pause().header("Content-Type", "text/plain").body(""))
            .await
            .status,
        200
    );
    send(pause().json(&json!({"reason": "rain"})))
        .await
        .assert_invalid(&["reason"]);
    send(pause().json(&json!([1])))
        .await
        .assert_refused(400, "MALFORMED");
}

#[tokio::test]
async fn a_coupon_survives_a_restart() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"total_quantity": 2})).await;
    assert_eq!(node.issue("alice", id).await.status, 201);
    let node = node.restart().await;
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["issued"], 1);
    assert_eq!(node.issue("bob", id).await.body["sequence"], 2);
    node.issue("carol", id).await.assert_refused(409, "SOLD_OUT");
}

#[tokio::test]
async fn a_patch_of_the_discount_is_merged_into_the_old_discount() {
    let node = TestNode::start().await;
    let id = node
        .coupon(json!({"discount": {"kind": "rate", "value": 15}}))
        .await;
    let merged = node.patch(id, json!({"discount": {"value": 20}})).await.body;
    assert_eq!(
        (&merged["discount"], &merged["version"]),
        (&json!({"kind": "rate", "value": 20}), &json!(2))
    );
    let merged = node.patch(id, json!({"discount": {"kind": "amount"}})).await.body;
    assert_eq!(merged["discount"], json!({"kind": "amount", "value": 20}));
}
