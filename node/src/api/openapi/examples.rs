//! Examples of the OpenAPI document. The examples of requests work if they are sent one after the other to a
//! fresh node: the first coupon of a node has the id 1, and its first issuance is `1-1`.

use serde_json::{Value, json};

/// The user of all examples.
pub(super) const USER: &str = "alice";

/// The code of the issuance. Each database has a secret of its own, so no node takes it.
const CODE: &str = "0000000GGGYTHC1FGYHH";

/// The amount of the order in all examples.
pub(super) const ORDER_AMOUNT: u64 = 45_000;

/// Returns the example of a path's parameter.
pub(super) fn path_parameter(template: &str) -> Value {
    match template {
        _ if template.starts_with("/v1/issuances/{id}") => json!("1-1"),
        "/docs/{file}" => json!("swagger-ui.css"),
        _ => json!(1),
    }
}

/// Returns the example of a request's body.
pub(super) fn request(schema: &str) -> Value {
    match schema {
        "CreateCoupon" => json!({
            "title": "Black Friday",
            "total_quantity": 500,
            "discount": {"kind": "amount", "value": 10_000},
            "min_order_amount": 30_000,
            "use_within_days": 30
        }),
        "Reserve" => json!({"order_id": "order-1", "order_amount": ORDER_AMOUNT, "hold": 900}),
        "Redeem" => json!({"order_id": "order-1", "order_amount": ORDER_AMOUNT}),
        "Order" => json!({"order_id": "order-1"}),
        "Revoke" => json!({"reason": "fraud", "return_quantity": true}),
        "PatchCoupon" => json!({"total_quantity": 600}),
        "BulkIssueRequest" => json!({"user_ids": ["bob", "carol"]}),
        // Only services name a user.
        _ => json!({}),
    }
}

/// Returns the example of a response with this schema.
pub(super) fn response(schema: &str) -> Value {
    match schema {
        "Coupon" => coupon(),
        "CouponPage" => json!({"items": [coupon()], "next_cursor": null}),
        "Issuance" => issuance(),
        "IssuancePage" => json!({"items": [issuance()], "next_cursor": null}),
        "BulkIssueResponse" => json!({"results": [
            {"user_id": USER, "status": 201, "issuance": issuance()},
            {"user_id": "bob", "status": 409, "code": "SOLD_OUT", "applied": false}
        ]}),
        "Change" => change(),
        "ChangePage" => json!({"items": [change()], "next_cursor": null}),
        "Me" => json!({"kind": "key", "name": "admin", "role": "admin"}),
        "Quote" => json!({
            "order_amount": ORDER_AMOUNT, "discount": 10_000, "payable": 35_000, "usable": true
        }),
        "Statistics" => statistics(),
        "UsePage" => json!({"items": [past_use()], "next_cursor": null}),
        "Cluster" => json!({
            "node": "node-1",
            "nodes": [{
                "id": "node-1", "incarnation": "1f0a4be2d39e71", "http": "10.0.0.1:8080",
                "cluster": "10.0.0.1:7400", "state": "ready", "shards": 256
            }],
            "shards": [{"id": 0, "epoch": 1, "owner": "node-1"}]
        }),
        "Place" => json!({"coupon_id": 1, "shard": 17, "owner": "node-1", "epoch": 1}),
        "Alive" => json!({"live": true}),
        "Ready" => json!({"ready": true}),
        "NotReady" => json!({"ready": false, "reasons": ["starting"]}),
        _ => json!({}),
    }
}

fn statistics() -> Value {
    let total = json!({
        "issued": 1, "reserved": 2, "redeemed": 1, "released": 1, "refunded": 0, "revoked": 0,
        "discount_given": 10_000, "discount_refunded": 0
    });
    let mut bucket = total.clone();
    bucket["at"] = json!("2026-11-27T00:00:00.000000Z");
    json!({
        "coupon_id": 1,
        "bucket_seconds": 86_400,
        "from": null,
        "to": null,
        "as_of": "2026-11-27T12:00:00.000000Z",
        "total": total,
        "buckets": [bucket],
        "next_to": null
    })
}

fn change() -> Value {
    json!({
        "version": 2,
        "who": {"kind": "key", "name": "admin"},
        "when": "2026-11-27T00:00:00.000000Z",
        "what": {"change": "patch", "fields": {"total_quantity": 600}}
    })
}

fn coupon() -> Value {
    json!({
        "id": 1,
        "title": "Black Friday",
        "description": null,
        "metadata": {},
        "discount": {"kind": "amount", "value": 10_000},
        "max_discount": null,
        "min_order_amount": 30_000,
        "total_quantity": 500,
        "per_user_limit": 1,
        "starts_at": null,
        "ends_at": null,
        "use_within_days": 30,
        "use_until": null,
        "time_zone": null,
        "status": "open",
        "phase": "live",
        "issued": 17,
        "remaining": 483,
        "reserved": 2,
        "redeemed": 9,
        "revoked": 0,
        "returned": 0,
        "version": 1,
        "created_at": "2026-11-21T03:00:00.000000Z",
        "updated_at": "2026-11-21T03:00:00.000000Z"
    })
}

/// Returns an issuance.
pub(super) fn issuance() -> Value {
    json!({
        "id": "1-1",
        "code": CODE,
        "coupon_id": 1,
        "user_id": USER,
        "sequence": 1,
        "status": "reserved",
        "state": "reserved",
        "issued_at": "2026-11-27T00:00:00.012345Z",
        "expires_at": "2026-12-27T00:00:00.012345Z",
        "usable_until": "2026-12-27T00:00:00.012345Z",
        "use": latest_use()
    })
}

/// Returns a use.
pub(super) fn latest_use() -> Value {
    json!({
        "kind": "reserved",
        "order_id": "order-1",
        "order_amount": ORDER_AMOUNT,
        "discount": 10_000,
        "hold_until": "2026-11-28T12:15:00.000000Z",
        "at": "2026-11-28T12:00:00.000000Z"
    })
}

fn past_use() -> Value {
    let mut past = latest_use();
    past["reason"] = Value::Null;
    past["number"] = json!(3);
    past["return_quantity"] = json!(false);
    past["by"] = json!("key:shop");
    past
}
