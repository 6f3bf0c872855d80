//! Description, metadata, the most that a rate takes off, the end of use, and users without a limit.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestNode, send};

#[tokio::test]
async fn texts_pairs_and_ends_of_use_are_returned_and_patched() {
    let node = TestNode::start().await;
    let id = node
        .coupon(json!({
            "per_user_limit": null, "description": "가\n".repeat(1_000), "metadata": {"campaign": "bf", "shop": "7"},
            "discount": {"kind": "rate", "value": 15}, "max_discount": 5_000, "use_within_days": 30,
            "use_until": "2027-01-01T00:00:00+09:00", "time_zone": "Asia/Seoul"
        }))
        .await;
    let path = format!("/v1/coupons/{id}");
    let body = node.get(&path).await.body;
    assert_eq!(body["description"], "가\n".repeat(1_000));
    assert_eq!(body["metadata"], json!({"campaign": "bf", "shop": "7"}));
    assert_eq!(
        (&body["per_user_limit"], &body["max_discount"]),
        (&Value::Null, &json!(5_000))
    );
    assert_eq!(
        (&body["use_until"], &body["time_zone"]),
        (&json!("2026-12-31T15:00:00.000000Z"), &json!("Asia/Seoul"))
    );

    let merge = json!({"metadata": {"campaign": null, "shop": "8", "new": ""}, "description": null});
    let body = node.patch(id, merge).await.body;
    assert_eq!(
        (&body["metadata"], &body["description"], &body["version"]),
        (&json!({"shop": "8", "new": ""}), &Value::Null, &json!(2))
    );
    let clear = json!({"metadata": null, "max_discount": null, "use_until": null, "time_zone": null});
    let body = node.patch(id, clear).await.body;
    assert_eq!(body["metadata"], json!({}));
    for field in ["max_discount", "use_until", "time_zone"] {
        assert_eq!(body.get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(&node.get(&path).await.body, &body);
}

#[tokio::test]
async fn a_wrong_value_of_these_fields_is_reported() {
    let node = TestNode::start().await;
    let pairs: serde_json::Map<String, Value> =
        (0..21).map(|pair| (format!("k{pair}"), json!("v"))).collect();
    let rate = json!({"kind": "rate", "value": 15});
    for (body, field) in [
        (json!({"description": "x".repeat(2_001)}), "description"),
        (json!({"description": "a\0b"}), "description"),
        (json!({"metadata": pairs}), "metadata"),
        (json!({"metadata": {("k".repeat(41)): "v"}}), "metadata"),
        (json!({"metadata": {"k": "v".repeat(501)}}), "metadata"),
        (json!({"metadata": {"k": "a\0b"}}), "metadata"),
        (json!({"metadata": {"k": 5}}), "metadata.k"),
        (json!({"metadata": [["k", "v"]]}), "metadata"),
        (json!({"max_discount": 0, "discount": rate}), "max_discount"),
        (
            json!({"max_discount": 5, "discount": {"kind": "amount", "value": 5}}),
            "max_discount",
        ),
        (json!({"use_until": "2027-01-01"}), "use_until"),
        (json!({"time_zone": "asia/seoul"}), "time_zone"),
        (json!({"time_zone": "Mars/Base"}), "time_zone"),
        (json!({"time_zone": ""}), "time_zone"),
    ] {
        let mut new = body.clone();
        new["title"] = json!("T");
        new["total_quantity"] = json!(5);
        node.create(new).await.assert_invalid(&[field]);
        let id = node.coupon(json!({"discount": rate})).await;
        node.patch(id, body).await.assert_invalid(&[field]);
    }
    node.create(json!({"title": "T", "total_quantity": 5, "max_discount": 5}))
        .await
        .assert_invalid(&["max_discount"]);
}

#[tokio::test]
async fn metadata_may_have_twenty_pairs_of_the_longest_texts() {
    let node = TestNode::start().await;
    let pairs = |pairs: std::ops::Range<u32>| -> serde_json::Map<String, Value> {
        let pair = |pair| (format!("{pair:🎉>40}"), json!("🎉".repeat(500)));
        pairs.map(pair).collect()
    };
    // A request with all of them has more than 16 KiB, so they take several.
    let id = node.coupon(json!({"metadata": pairs(0..5)})).await;
    for first in [5, 10, 15] {
        let patch = json!({"metadata": pairs(first..first + 5)});
        assert_eq!(node.patch(id, patch).await.status, 200, "{first}");
    }
    let path = format!("/v1/coupons/{id}");
    assert_eq!(node.get(&path).await.body["metadata"], json!(pairs(0..20)));
    node.patch(id, json!({"metadata": {"one more": ""}}))
        .await
        .assert_invalid(&["metadata"]);
    // A key may be empty.
    let patch = json!({"metadata": {"": "", (format!("{:🎉>40}", 7)): null}});
    let patched = node.patch(id, patch).await;
    assert_eq!((patched.status, &patched.body["metadata"][""]), (200, &json!("")));
    let node = node.restart().await;
    assert_eq!(node.get(&path).await.body["metadata"], patched.body["metadata"]);
    let listed = node.get("/v1/coupons").await;
    assert_eq!(listed.body["items"][0]["metadata"], patched.body["metadata"]);
}

#[tokio::test]
async fn what_is_issued_after_the_end_of_use_is_expired_at_once() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"use_until": "2020-01-01T00:00:00Z"})).await;
    let issued = node.issue("alice", id).await;
    assert_eq!(issued.status, 201);
    assert_eq!(
        (&issued.body["status"], &issued.body["state"]),
        (&json!("issued"), &json!("expired"))
    );
}

#[tokio::test]
async fn the_end_of_use_of_an_issuance_is_the_earlier_one() {
    let node = TestNode::start().await;
    let expiry = async |body: Value| {
        let id = node.coupon(body).await;
        let body = node.issue("alice", id).await.body;
        (body["issued_at"].clone(), body["expires_at"].clone())
    };
    let (_, until) = expiry(json!({"use_until": "2020-01-01T00:00:00Z", "use_within_days": 30})).await;
    assert_eq!(until, "2020-01-01T00:00:00.000000Z");
    let (_, local) = expiry(json!({"time_zone": "Asia/Seoul", "use_within_days": 30})).await;
    assert_eq!(&local.as_str().unwrap()[10..], "T15:00:00.000000Z");
    let (issued_at, days) = expiry(json!({"use_until": "2999-01-01T00:00:00Z", "use_within_days": 30})).await;
    assert_eq!(&days.as_str().unwrap()[10..], &issued_at.as_str().unwrap()[10..]);
}

#[tokio::test]
async fn a_user_without_a_limit_gets_any_number_and_each_key_once() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({"per_user_limit": null})).await;
    for number in 1..=300 {
        for replayed in ["", "true"] {
            let request = node.issue_request("alice", id);
            let reply = send(request.header("Idempotency-Key", format!("key-{number}"))).await;
            assert_eq!((reply.status, &reply.body["sequence"]), (201, &json!(number)));
            assert_eq!(reply.header("idempotent-replayed"), replayed);
        }
    }
    let node = node.restart().await;
    let request = node.issue_request("alice", id).header("Idempotency-Key", "key-7");
    assert_eq!(send(request).await.body["sequence"], 7);
    assert_eq!(node.issue("alice", id).await.body["sequence"], 301);
    let path = format!("/v1/coupons/{id}/close");
    assert_eq!(
        send(node.admin(Method::POST, &path)).await.body["per_user_limit"],
        Value::Null
    );
}
