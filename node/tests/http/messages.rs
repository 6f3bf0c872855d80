//! What answers say about wrong fields and parameters.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Reply, TestNode, send};

/// What `total_quantity` must be.
const QUANTITY: &str = "must be from 1 to 1000000000, or null for unlimited";
/// What amounts must be.
const AMOUNT: &str = "must be from 0 to 2^53 - 1";

/// What the value of a discount must be.
const VALUE: &str = "must be from 1 to 2^53 - 1, or from 1 to 100 for a rate";

/// Returns the field and the message of each error, sorted.
fn errors(reply: &Reply) -> Vec<(&str, &str)> {
    reply.assert_refused(422, "INVALID");
    let errors = reply.body["errors"].as_array().unwrap().iter();
    let mut errors: Vec<_> = errors
        .map(|error| {
            (
                error["field"].as_str().unwrap(),
                error["message"].as_str().unwrap(),
            )
        })
        .collect();
    errors.sort_unstable();
    errors
}

/// Asserts that this body is refused with these fields and messages.
async fn assert_errors(node: &TestNode, call: &str, body: Value, expected: &[(&str, &str)]) {
    let (method, path) = call.split_once(' ').unwrap();
    let reply = send(node.admin(method.parse().unwrap(), path).json(&body)).await;
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(errors(&reply), expected, "{call} {body}");
}

#[tokio::test]
async fn a_wrong_field_of_a_new_coupon_is_named_in_words_of_the_api_with_its_bound() {
    let node = TestNode::start().await;
    for (body, expected) in [
        (
            json!({}),
            &[
                ("total_quantity", "is required: a number, or null for unlimited"),
                ("title", "is required"),
            ][..],
        ),
        (
            json!({"title": 5, "total_quantity": "5", "metadata": [], "starts_at": 5, "status": 5}),
            &[
                ("title", "must be a string"),
                ("total_quantity", "must be a whole number"),
                ("metadata", "must be an object"),
                (
                    "starts_at",
                    "must be a time in RFC 3339, like 2026-11-27T00:00:00Z",
                ),
                ("status", "must be a string"),
            ],
        ),
        (
            json!({"title": "T", "total_quantity": -1, "discount": {"kind": "rate"}}),
            &[("discount.value", "is required"), ("total_quantity", QUANTITY)],
        ),
        (
            json!({"title": "T", "total_quantity": 1e30, "per_user_limit": -5, "min_order_amount": u64::MAX}),
            &[
                ("min_order_amount", AMOUNT),
                ("total_quantity", QUANTITY),
                ("per_user_limit", "must be from 1 to 100, or null for unlimited"),
            ],
        ),
    ] {
        assert_errors(&node, "POST /v1/coupons", body, expected).await;
    }
    // A value of `serde_json` cannot have a field twice, so this body is a text.
    let body = r#"{"title": "T", "title": "T"}"#;
    let twice = send(node.admin(Method::POST, "/v1/coupons").body(body)).await;
    assert!(
        errors(&twice).contains(&("title", "must occur only once")),
        "{twice:?}"
    );
}

#[tokio::test]
async fn a_wrong_field_of_another_call_is_named_in_words_of_the_api_with_its_bound() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    let issued = node.issue("alice", id).await.body;
    let issuance = format!("POST /v1/issuances/{}", issued["id"].as_str().unwrap());
    let (patch, coupon) = (
        format!("PATCH /v1/coupons/{id}"),
        format!("POST /v1/coupons/{id}"),
    );
    for (call, body, expected) in [
        (
            patch.clone(),
            json!({"total_quantity": 1.5, "use_within_days": -1, "discount": {"value": -1}}),
            &[
                ("total_quantity", "must be a whole number"),
                ("discount.value", VALUE),
                ("use_within_days", "must be from 1 to 3650"),
            ][..],
        ),
        (
            patch,
            json!({"discount": {"kind": {"rate": null}}}),
            &[("discount.kind", "must be amount or rate")],
        ),
        (
            format!("{issuance}/reserve"),
            json!({"order_amount": -1, "hold": 1e20, "more": 1}),
            &[
                (
                    "more",
                    "unknown field, expected one of `order_id`, `order_amount`, `hold`",
                ),
                ("order_id", "is required"),
                ("order_amount", AMOUNT),
                ("hold", "must be from 1 to 86400 seconds"),
            ],
        ),
        (
            format!("{issuance}/revoke"),
            json!({"return_quantity": "yes", "reason": ["fraud"]}),
            &[
                ("return_quantity", "must be true or false"),
                ("reason", "must be a string"),
            ],
        ),
        (
            format!("{coupon}/pause"),
            json!({"reason": "stock"}),
            &[("reason", "unknown field, expected none")],
        ),
        (
            format!("{coupon}/issuances/bulk"),
            json!({"user_ids": "alice"}),
            &[("user_ids", "must be a list")],
        ),
    ] {
        assert_errors(&node, &call, body, expected).await;
    }
}

#[tokio::test]
async fn a_wrong_number_of_a_query_is_refused_with_its_bound() {
    let node = TestNode::start().await;
    let number = "must be a whole number from 0 to 2^53 - 1";
    for (path, expected) in [
        (
            "/v1/issuances/1-1/quote?order_amount=9007199254740992",
            ("order_amount", number),
        ),
        (
            "/v1/issuances/1-1/quote?order_amount=-1",
            ("order_amount", number),
        ),
        ("/v1/issuances/1-1/quote", ("order_amount", "is required")),
        (
            "/v1/issuances?user_id=alice&order_amount=9007199254740992",
            ("order_amount", number),
        ),
        ("/v1/issuances", ("user_id", "is required")),
        (
            "/v1/coupons/1/issuances?after_sequence=9007199254740992",
            ("after_sequence", number),
        ),
        (
            "/v1/coupons/1/issuances.csv?after_sequence=x",
            ("after_sequence", number),
        ),
        (
            "/v1/coupons?limit=201",
            ("limit", "must be a whole number from 1 to 200"),
        ),
    ] {
        assert_eq!(errors(&node.admin_get(path).await), [expected], "{path}");
    }
}
