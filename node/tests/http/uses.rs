//! Uses of issuances: every row of the tables, over real sockets.

use reqwest::Method;
use serde_json::{Value, json};

use crate::keys;
use crate::support::{Reply, TestNode, send};

/// A node with one coupon: 15 percent off, at most 5,000, on orders of at least 10,000.
pub struct Shop {
    pub node: TestNode,
    pub coupon: u64,
}

impl Shop {
    pub async fn open(more: Value) -> Self {
        Self::open_with(more, &[]).await
    }

    pub async fn open_with(mut coupon: Value, keys: &[(&str, &str)]) -> Self {
        let node = TestNode::start_with(keys).await;
        coupon["discount"] = json!({"kind": "rate", "value": 15});
        coupon["max_discount"] = json!(5_000);
        coupon["min_order_amount"] = json!(10_000);
        let coupon = node.coupon(coupon).await;
        Self { node, coupon }
    }

    /// Issues the coupon to a user, and returns the path of the issuance.
    pub async fn issue(&self, user: &str) -> String {
        let reply = self.node.issue(user, self.coupon).await;
        assert_eq!((reply.status, &reply.body["status"]), (201, &json!("issued")));
        reply.header("location").to_owned()
    }

    pub async fn post(&self, path: &str, step: &str, body: Value) -> Reply {
        let request = self.node.admin(Method::POST, &format!("{path}/{step}"));
        send(request.json(&body)).await
    }

    /// Takes a step with a key that [`keys::entry`] made.
    pub async fn post_as(&self, key: &str, path: &str, step: &str, body: Value) -> Reply {
        let request = self.node.request(Method::POST, &format!("{path}/{step}"));
        send(request.bearer_auth(keys::secret(key)).json(&body)).await
    }

    pub async fn coupon(&self) -> Value {
        let path = format!("/v1/coupons/{}", self.coupon);
        // A copy may be up to a second old.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        self.node.get(&path).await.body
    }
}

pub fn order(id: &str, amount: u64) -> Value {
    json!({"order_id": id, "order_amount": amount})
}

/// Paths of issuances that do not exist: of a coupon, and of no coupon.
pub const UNKNOWN: [&str; 2] = ["/v1/issuances/1-999", "/v1/issuances/999-1"];

/// Returns each step that an order may take, with its body, and at last a revocation.
pub fn each_step(order_id: &str) -> [(&'static str, Value); 5] {
    let bare = json!({"order_id": order_id});
    [
        ("reserve", order(order_id, 20_000)),
        ("redeem", order(order_id, 20_000)),
        ("release", bare.clone()),
        ("refund", bare),
        ("revoke", json!({})),
    ]
}

#[track_caller]
pub fn assert_taken(reply: &Reply, state: &str, replayed: bool) {
    assert_eq!(
        (reply.status, &reply.body["state"]),
        (200, &json!(state)),
        "{reply:?}"
    );
    assert_eq!(
        reply.header("idempotent-replayed"),
        if replayed { "true" } else { "" }
    );
}

#[tokio::test]
async fn an_order_reserves_and_redeems_and_every_answer_shows_it() {
    let shop = Shop::open(json!({"use_within_days": 30})).await;
    let path = shop.issue("alice").await;
    let issued = shop.node.get_as("alice", &path).await.body;
    assert_eq!(issued["usable_until"], issued["expires_at"]);
    assert_eq!((issued.get("use"), &issued["status"]), (None, &json!("issued")));

    let reserved = shop.post(&path, "reserve", order("a", 20_001)).await;
    assert_taken(&reserved, "reserved", false);
    let of = &reserved.body["use"];
    assert_eq!((&of["kind"], &of["order_id"]), (&json!("reserved"), &json!("a")));
    assert_eq!(
        (&of["order_amount"], &of["discount"]),
        (&json!(20_001), &json!(3_000))
    );
    assert_eq!(reserved.body["status"], "reserved");
    let time = |text: &Value| {
        actors::time::Timestamp::parse(text.as_str().unwrap())
            .unwrap()
            .as_micros()
    };
    assert_eq!(time(&of["hold_until"]) - time(&of["at"]), 900_000_000);
    assert_eq!(shop.node.get_as("alice", &path).await.body, reserved.body);

    let redeemed = shop.post(&path, "redeem", json!({"order_id": "a"})).await;
    assert_taken(&redeemed, "redeemed", false);
    assert_eq!(
        (
            &redeemed.body["use"]["discount"],
            &redeemed.body["use"]["hold_until"]
        ),
        (&json!(3_000), &Value::Null)
    );
    let mine = shop.node.get_as("alice", "/v1/me/issuances").await.body;
    assert_eq!(mine["items"][0], redeemed.body);
}

#[tokio::test]
async fn all_that_became_of_an_issuance_is_listed_and_found_after_a_restart() {
    let shop = Shop::open(json!({})).await;
    let path = shop.issue("alice").await;
    for (step, body) in [("reserve", order("a", 20_001)), ("redeem", order("a", 20_001))] {
        assert_eq!(shop.post(&path, step, body).await.status, 200);
    }
    assert_taken(
        &shop.post(&path, "refund", json!({"order_id": "a"})).await,
        "issued",
        false,
    );
    assert_taken(
        &shop.post(&path, "redeem", order("b", 90_000)).await,
        "redeemed",
        false,
    );
    let list = shop.node.admin_get(&format!("{path}/uses?limit=3")).await.body;
    let kinds = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| item["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(kinds(&list), ["reserved", "redeemed", "refunded"]);
    assert_eq!(
        (&list["items"][0]["by"], &list["items"][0]["reason"]),
        (&json!("key:admin"), &Value::Null)
    );
    let cursor = list["next_cursor"].as_str().unwrap();
    let rest = shop
        .node
        .admin_get(&format!("{path}/uses?cursor={cursor}"))
        .await
        .body;
    assert_eq!(
        (kinds(&rest), &rest["next_cursor"]),
        (vec!["redeemed".to_owned()], &Value::Null)
    );
    assert_eq!(rest["items"][0]["discount"], 5_000);
    let coupon = shop.coupon().await;
    assert_eq!(
        (&coupon["reserved"], &coupon["redeemed"], &coupon["issued"]),
        (&json!(0), &json!(1), &json!(1))
    );

    // Everything is there after a restart.
    let Shop { node, coupon } = shop;
    let shop = Shop {
        node: node.restart().await,
        coupon,
    };
    assert_taken(
        &shop.post(&path, "redeem", order("b", 90_000)).await,
        "redeemed",
        true,
    );
    shop.post(&path, "redeem", order("c", 90_000))
        .await
        .assert_refused(409, "REDEEMED");
}

#[tokio::test]
async fn a_late_retry_is_replayed_whatever_came_after_its_step_even_after_a_restart() {
    let mut shop = Shop::open(json!({})).await;
    let path = shop.issue("alice").await;
    let a = json!({"order_id": "a"});
    assert_taken(
        &shop.post(&path, "redeem", order("a", 20_000)).await,
        "redeemed",
        false,
    );
    assert_taken(&shop.post(&path, "refund", a.clone()).await, "issued", false);
    assert_taken(&shop.post(&path, "redeem", a.clone()).await, "issued", true);
    assert_taken(
        &shop.post(&path, "reserve", order("b", 30_000)).await,
        "reserved",
        false,
    );
    assert_taken(
        &shop.post(&path, "release", json!({"order_id": "b"})).await,
        "issued",
        false,
    );
    assert_taken(
        &shop.post(&path, "reserve", order("c", 30_000)).await,
        "reserved",
        false,
    );
    for _ in 0..2 {
        for (step, order_id) in [("redeem", "a"), ("refund", "a"), ("release", "b")] {
            let reply = shop.post(&path, step, json!({"order_id": order_id})).await;
            assert_taken(&reply, "reserved", true);
            assert_eq!(reply.body["use"]["order_id"], "c");
        }
        let other = shop.post(&path, "redeem", order("a", 20_001)).await;
        other.assert_refused(422, "ORDER_MISMATCH");
        assert_eq!(other.body["use"]["kind"], "refunded");
        shop.post(&path, "release", a.clone())
            .await
            .assert_refused(409, "RESERVED");
        shop = Shop {
            node: shop.node.restart().await,
            ..shop
        };
    }
    let uses = shop.node.admin_get(&format!("{path}/uses")).await.body;
    assert_eq!(uses["items"].as_array().unwrap().len(), 5, "{uses}");
}

#[tokio::test]
async fn the_same_step_is_told_again_and_other_figures_are_refused() {
    let shop = Shop::open(json!({})).await;
    let path = shop.issue("alice").await;
    for replayed in [false, true] {
        assert_taken(
            &shop.post(&path, "reserve", order("a", 20_000)).await,
            "reserved",
            replayed,
        );
    }
    for (step, body) in [("reserve", order("a", 20_001)), ("redeem", order("a", 19_999))] {
        let reply = shop.post(&path, step, body).await;
        reply.assert_refused(422, "ORDER_MISMATCH");
        assert_eq!(reply.body["use"]["order_amount"], 20_000);
    }
    for replayed in [false, true] {
        assert_taken(
            &shop.post(&path, "release", json!({"order_id": "a"})).await,
            "issued",
            replayed,
        );
    }
    for replayed in [false, true] {
        assert_taken(
            &shop.post(&path, "redeem", order("a", 20_000)).await,
            "redeemed",
            replayed,
        );
    }
    // The order has redeemed it, so its reservation is refused: with another amount because of that, otherwise
    // because it is redeemed.
    let other = shop.post(&path, "reserve", order("a", 20_001)).await;
    other.assert_refused(422, "ORDER_MISMATCH");
    assert_eq!(other.body["use"]["kind"], "redeemed");
    shop.post(&path, "reserve", order("a", 20_000))
        .await
        .assert_refused(409, "REDEEMED");
    for replayed in [false, true] {
        assert_taken(
            &shop.post(&path, "refund", json!({"order_id": "a"})).await,
            "issued",
            replayed,
        );
    }
    for replayed in [false, true] {
        let reply = send(shop.node.admin(Method::POST, &format!("{path}/revoke"))).await;
        assert_taken(&reply, "revoked", replayed);
    }
    let other = shop.post(&path, "revoke", json!({"return_quantity": true})).await;
    other.assert_refused(422, "ORDER_MISMATCH");
}

#[tokio::test]
async fn an_issuance_that_an_order_has_is_refused_to_others() {
    let shop = Shop::open(json!({})).await;
    let path = shop.issue("alice").await;
    let reserved = shop.post(&path, "reserve", order("a", 20_000)).await.body;
    let others = each_step("b");
    for (step, body) in others.clone() {
        let reply = shop.post(&path, step, body).await;
        reply.assert_refused(409, "RESERVED");
        assert_eq!(reply.body["hold_until"], reserved["use"]["hold_until"]);
    }
    shop.post(&path, "refund", json!({"order_id": "a"}))
        .await
        .assert_refused(409, "NOT_REDEEMED");
    shop.post(&path, "redeem", json!({"order_id": "a"})).await;
    for (step, body) in others.clone() {
        let reply = shop.post(&path, step, body).await;
        reply.assert_refused(409, "REDEEMED");
        assert_eq!(reply.body["use"]["order_id"], "a");
    }
    shop.post(&path, "refund", json!({"order_id": "a"})).await;
    let revoked = shop.post(&path, "revoke", json!({"reason": "가 fraud"})).await;
    assert_taken(&revoked, "revoked", false);
    for (step, body) in others.into_iter().take(4) {
        shop.post(&path, step, body).await.assert_refused(409, "REVOKED");
    }
    let uses = shop.node.admin_get(&format!("{path}/uses")).await.body;
    assert_eq!(
        uses["items"].as_array().unwrap().last().unwrap()["reason"],
        "가 fraud"
    );
}

#[tokio::test]
async fn a_service_takes_every_step_of_orders_and_is_told_what_refuses_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = keys::write(directory.path(), &keys::entry("till", "service"));
    let shop = Shop::open_with(json!({}), &[("auth.keys_file", file.to_str().unwrap())]).await;
    let path = shop.issue("alice").await;
    let post = async |path: &str, step: &str, body: Value| shop.post_as("till", path, step, body).await;
    let a = json!({"order_id": "a"});
    for (step, body, state) in [
        ("reserve", order("a", 20_000), "reserved"),
        ("release", a.clone(), "issued"),
        ("redeem", order("a", 20_000), "redeemed"),
    ] {
        for replayed in [false, true] {
            assert_taken(&post(&path, step, body.clone()).await, state, replayed);
        }
    }
    for (step, body) in each_step("b").into_iter().take(4) {
        let reply = post(&path, step, body).await;
        reply.assert_refused(409, "REDEEMED");
        assert_eq!(reply.body["use"]["order_id"], "a", "{step}");
    }
    let other = post(&path, "redeem", order("a", 20_001)).await;
    other.assert_refused(422, "ORDER_MISMATCH");
    assert_eq!(other.body["use"]["order_amount"], 20_000);
    assert_taken(&post(&path, "refund", a).await, "issued", false);
    post(&path, "revoke", json!({}))
        .await
        .assert_refused(403, "FORBIDDEN");
    let uses = shop.node.admin_get(&format!("{path}/uses")).await;
    uses.assert_list(
        "by",
        &["key:till", "key:till", "key:till", "key:till"].map(Value::from),
        false,
    );
    for path in UNKNOWN {
        for (step, body) in each_step("a").into_iter().take(4) {
            post(path, step, body)
                .await
                .assert_refused(404, "UNKNOWN_ISSUANCE");
        }
    }
}

#[tokio::test]
async fn small_orders_ended_issuances_and_undone_steps_are_refused() {
    let shop = Shop::open(json!({"use_until": "2020-01-01T00:00:00Z"})).await;
    let path = shop.issue("alice").await;
    for (step, body) in [
        ("reserve", order("a", 1)),
        ("redeem", order("a", 1)),
        ("redeem", json!({"order_id": "a"})),
        ("release", json!({"order_id": "a"})),
        ("refund", json!({"order_id": "a"})),
        ("revoke", json!({})),
    ] {
        let reply = shop.post(&path, step, body).await;
        reply.assert_refused(409, "EXPIRED");
        assert_eq!(reply.body["usable_until"], "2020-01-01T00:00:00.000000Z");
    }
    let expired = shop.node.get_as("alice", &path).await.body;
    assert_eq!(
        (&expired["state"], &expired["status"]),
        (&json!("expired"), &json!("issued"))
    );

    let shop = Shop::open(json!({})).await;
    let path = shop.issue("alice").await;
    for step in ["reserve", "redeem"] {
        let reply = shop.post(&path, step, order("a", 9_999)).await;
        reply.assert_refused(409, "BELOW_MINIMUM");
        assert_eq!(reply.body["min_order_amount"], 10_000);
    }
    let a = json!({"order_id": "a"});
    shop.post(&path, "redeem", a.clone())
        .await
        .assert_refused(409, "NOT_RESERVED");
    shop.post(&path, "release", a.clone())
        .await
        .assert_refused(409, "NOT_RESERVED");
    shop.post(&path, "refund", a.clone())
        .await
        .assert_refused(409, "NOT_REDEEMED");
    for path in UNKNOWN {
        for (step, body) in each_step("a") {
            shop.post(path, step, body)
                .await
                .assert_refused(404, "UNKNOWN_ISSUANCE");
        }
        shop.node
            .admin_get(&format!("{path}/uses"))
            .await
            .assert_refused(404, "UNKNOWN_ISSUANCE");
        let quote = format!("{path}/quote?order_amount=5");
        shop.node
            .admin_get(&quote)
            .await
            .assert_refused(404, "UNKNOWN_ISSUANCE");
    }
}

#[tokio::test]
async fn a_hold_lapses_and_its_order_may_redeem_until_another_reserves() {
    let shop = Shop::open(json!({})).await;
    let hold = |id: &str| json!({"order_id": id, "order_amount": 20_000, "hold": 1});
    let (one, other) = (shop.issue("alice").await, shop.issue("bob").await);
    for path in [&one, &other] {
        assert_taken(&shop.post(path, "reserve", hold("a")).await, "reserved", false);
    }
    // Polls for the lapse, which no event announces.
    let began = std::time::Instant::now();
    while shop.node.admin_get(&other).await.body["state"] != "issued" {
        assert!(began.elapsed().as_secs() < 20);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_taken(
        &shop.post(&one, "redeem", json!({"order_id": "a"})).await,
        "redeemed",
        false,
    );
    assert_taken(
        &shop.post(&other, "reserve", order("b", 20_000)).await,
        "reserved",
        false,
    );
    shop.post(&other, "redeem", json!({"order_id": "a"}))
        .await
        .assert_refused(409, "RESERVED");
}

#[tokio::test]
async fn a_repeated_issue_request_shows_what_became_of_the_issuance() {
    let shop = Shop::open(json!({})).await;
    let ask = async |user: &str, key: &str| {
        let request = shop.node.issue_request(user, shop.coupon);
        send(request.header("Idempotency-Key", key)).await
    };
    let id = ask("alice", "first").await.body["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/issuances/{id}");
    for (step, body, state) in [
        ("reserve", order("a", 20_000), "reserved"),
        ("redeem", json!({"order_id": "a"}), "redeemed"),
        ("refund", json!({"order_id": "a"}), "issued"),
        ("revoke", json!({}), "revoked"),
    ] {
        assert_taken(&shop.post(&path, step, body).await, state, false);
        let now = shop.node.get_as("alice", &path).await.body;
        assert_eq!(now["state"], state);
        let replayed = ask("alice", "first").await;
        assert_eq!(
            (replayed.status, replayed.header("idempotent-replayed")),
            (201, "true")
        );
        assert_eq!(replayed.body, now);
        let refused = ask("alice", "second").await;
        assert_eq!((refused.status, &refused.body["issuance"]), (409, &now));
    }
}
