//! Lists and single issuances: order, pages and rights.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestNode, send};

const FUTURE: &str = "2096-01-01T00:00:00Z";
const PAST: &str = "2001-01-01T00:00:00Z";

#[tokio::test]
async fn coupons_are_listed_newest_first_page_by_page() {
    let node = TestNode::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, json!(node.coupon(json!({})).await));
    }
    node.get("/v1/coupons").await.assert_list("id", &ids, false);
    let first = node.get("/v1/coupons?limit=2").await;
    first.assert_list("id", &ids[..2], true);
    let second = node
        .get(&format!("/v1/coupons?limit=2&cursor={}", first.next_cursor()))
        .await;
    second.assert_list("id", &ids[2..4], true);
    // A newer coupon does not shift pages.
    node.coupon(json!({})).await;
    node.get(&format!("/v1/coupons?limit=2&cursor={}", second.next_cursor()))
        .await
        .assert_list("id", &ids[4..], false);
    let whole = node.get(&format!("/v1/coupons/{}", ids[4])).await.body;
    assert_eq!(
        node.get(&format!("/v1/coupons?cursor={}", second.next_cursor()))
            .await
            .body["items"][0],
        whole
    );
}

#[tokio::test]
async fn coupons_are_listed_by_phase() {
    let node = TestNode::start().await;
    let live = node.coupon(json!({})).await;
    let scheduled = node.coupon(json!({"starts_at": FUTURE})).await;
    let ended = node.coupon(json!({"ends_at": PAST})).await;
    let paused = node.coupon(json!({"status": "paused"})).await;
    let closed = node.coupon(json!({})).await;
    node.admin_post(&format!("/v1/coupons/{closed}/close")).await;
    let sold_out = node.coupon(json!({"total_quantity": 1})).await;
    assert_eq!(node.issue("alice", sold_out).await.status, 201);
    for (phase, id) in [
        ("live", live),
        ("scheduled", scheduled),
        ("ended", ended),
        ("paused", paused),
        ("closed", closed),
        ("sold_out", sold_out),
    ] {
        let list = node.get(&format!("/v1/coupons?phase={phase}")).await;
        list.assert_list("id", &[json!(id)], false);
        assert_eq!(list.body["items"][0]["phase"], phase);
        assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["phase"], phase);
    }
    node.get("/v1/coupons?phase=open")
        .await
        .assert_invalid(&["phase"]);
}

#[tokio::test]
async fn invalid_limits_and_cursors_are_refused_in_every_list() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    for path in [
        "/v1/coupons".to_owned(),
        "/v1/me/issuances".to_owned(),
        format!("/v1/coupons/{id}/issuances"),
    ] {
        let get = |query: &str| {
            send(
                node.admin(Method::GET, &format!("{path}?{query}"))
                    .header("X-User-Id", "alice"),
            )
        };
        for limit in ["0", "201", "-1", "x", ""] {
            get(&format!("limit={limit}")).await.assert_invalid(&["limit"]);
        }
        for cursor in ["1", "!!", "", "AAAA"] {
            get(&format!("cursor={cursor}")).await.assert_invalid(&["cursor"]);
        }
        assert_eq!(get("limit=200").await.status, 200);
        assert_eq!(get("limit=1").await.status, 200);
    }
}

#[tokio::test]
async fn a_users_issuances_are_listed_newest_first_page_by_page() {
    let node = TestNode::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let coupon = node.coupon(json!({})).await;
        node.issue("bob", coupon).await;
        ids.insert(0, node.issue("alice", coupon).await.body["id"].clone());
    }
    node.get_as("alice", "/v1/me/issuances")
        .await
        .assert_list("id", &ids, false);
    let first = node.get_as("alice", "/v1/me/issuances?limit=2").await;
    first.assert_list("id", &ids[..2], true);
    let rest = node
        .get_as(
            "alice",
            &format!("/v1/me/issuances?cursor={}", first.next_cursor()),
        )
        .await;
    rest.assert_list("id", &ids[2..], false);
    node.get_as("carol", "/v1/me/issuances")
        .await
        .assert_list("id", &[], false);
    node.get("/v1/me/issuances")
        .await
        .assert_refused(401, "UNAUTHENTICATED");
    node.admin_get("/v1/me/issuances")
        .await
        .assert_refused(403, "FORBIDDEN");
}

#[tokio::test]
async fn an_issuance_is_visible_to_its_user_and_to_administrators() {
    let node = TestNode::start().await;
    let coupon = node.coupon(json!({})).await;
    let issuance = node.issue("alice", coupon).await.body;
    let path = format!("/v1/issuances/{}", issuance["id"].as_str().unwrap());
    let (own, admin) = (node.get_as("alice", &path).await, node.admin_get(&path).await);
    assert_eq!(
        (own.status, &own.body, admin.status, &admin.body),
        (200, &issuance, 200, &issuance)
    );
    node.get_as("bob", &path)
        .await
        .assert_refused(404, "UNKNOWN_ISSUANCE");
    node.get(&path).await.assert_refused(401, "UNAUTHENTICATED");
    node.get_as("alice", &format!("/v1/issuances/{coupon}-2"))
        .await
        .assert_refused(404, "UNKNOWN_ISSUANCE");
    node.admin_get("/v1/issuances/99-1")
        .await
        .assert_refused(404, "UNKNOWN_ISSUANCE");
    for id in ["1", "1-", "1-0", "x-1", "1-1-1", "01-1"] {
        node.get_as("alice", &format!("/v1/issuances/{id}"))
            .await
            .assert_refused(400, "MALFORMED");
    }
}

#[tokio::test]
async fn a_coupons_issuances_are_listed_by_sequence() {
    let node = TestNode::start().await;
    let coupon = node.coupon(json!({"per_user_limit": 2})).await;
    for user in ["alice", "bob", "alice", "carol"] {
        assert_eq!(node.issue(user, coupon).await.status, 201);
    }
    let list = async |query: &str| {
        node.admin_get(&format!("/v1/coupons/{coupon}/issuances{query}"))
            .await
    };
    let sequences = |numbers: &[u64]| numbers.iter().map(|number| json!(number)).collect::<Vec<Value>>();
    list("")
        .await
        .assert_list("sequence", &sequences(&[1, 2, 3, 4]), false);
    list("?after_sequence=2")
        .await
        .assert_list("sequence", &sequences(&[3, 4]), false);
    list("?after_sequence=4")
        .await
        .assert_list("sequence", &[], false);
    list("?user_id=alice")
        .await
        .assert_list("sequence", &sequences(&[1, 3]), false);
    list("?user_id=alice&after_sequence=1")
        .await
        .assert_list("sequence", &sequences(&[3]), false);
    let first = list("?limit=3").await;
    first.assert_list("sequence", &sequences(&[1, 2, 3]), true);
    list(&format!("?limit=3&cursor={}", first.next_cursor()))
        .await
        .assert_list("sequence", &sequences(&[4]), false);
    list("?user_id=al%20ice").await.assert_invalid(&["user_id"]);
    list("?after_sequence=-1")
        .await
        .assert_invalid(&["after_sequence"]);
    node.admin_get(&format!("/v1/coupons/{}/issuances", coupon + 1))
        .await
        .assert_refused(404, "UNKNOWN_COUPON");
}
