//! Quotes, what a revocation gives back, who may use issuances, and wrong requests.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use testkit::poll::eventually;

use crate::support::{LIMIT, send};
use crate::uses::{Shop, UNKNOWN, assert_taken, each_step, order};

#[tokio::test]
async fn a_quote_says_what_a_reservation_fixes_and_stores_nothing() {
    let shop = Shop::open(json!({})).await;
    let path = shop.issue("alice").await;
    let quote = async |amount: u64| {
        let path = format!("{path}/quote?order_amount={amount}");
        shop.node.get_as("alice", &path).await.body
    };
    let expected = json!({"order_amount": 20_001, "discount": 3_000, "payable": 17_001, "usable": true});
    assert_eq!(quote(20_001).await, expected);
    let refused = |amount: u64, code: &str| json!({"order_amount": amount, "discount": 0, "payable": amount, "usable": false, "code": code});
    assert_eq!(quote(9_999).await, refused(9_999, "BELOW_MINIMUM"));
    shop.post(&path, "reserve", order("a", 20_001)).await;
    assert_eq!(quote(20_001).await, refused(20_001, "RESERVED"));
    shop.post(&path, "redeem", json!({"order_id": "a"})).await;
    assert_eq!(quote(20_001).await, refused(20_001, "REDEEMED"));
    let uses = shop.node.admin_get(&format!("{path}/uses")).await.body;
    assert_eq!(uses["items"].as_array().unwrap().len(), 2);
    for query in [
        "",
        "?order_amount=",
        "?order_amount=-1",
        "?order_amount=x",
        "?amount=5",
    ] {
        let reply = shop.node.get_as("alice", &format!("{path}/quote{query}")).await;
        assert_eq!(reply.body["code"], "INVALID", "{query}");
    }
}

#[tokio::test]
async fn a_revocation_may_give_back_to_the_quantity_and_a_sold_out_coupon_is_issued_again() {
    let shop = Shop::open(json!({"total_quantity": 2})).await;
    let (alice, bob) = (shop.issue("alice").await, shop.issue("bob").await);
    shop.node
        .issue("carol", shop.coupon)
        .await
        .assert_refused(409, "SOLD_OUT");
    assert_taken(&shop.post(&alice, "revoke", json!({})).await, "revoked", false);
    shop.node
        .issue("carol", shop.coupon)
        .await
        .assert_refused(409, "SOLD_OUT");
    let returned = shop.post(&bob, "revoke", json!({"return_quantity": true})).await;
    assert_taken(&returned, "revoked", false);
    let carol = shop.node.issue("carol", shop.coupon).await;
    assert_eq!((carol.status, &carol.body["sequence"]), (201, &json!(3)));
    shop.node
        .issue("dan", shop.coupon)
        .await
        .assert_refused(409, "SOLD_OUT");
    let coupon = shop.coupon().await;
    assert_eq!(
        [
            &coupon["issued"],
            &coupon["remaining"],
            &coupon["revoked"],
            &coupon["returned"]
        ],
        [&json!(3), &json!(0), &json!(2), &json!(1)]
    );
    assert_eq!(coupon["phase"], "sold_out");
    let listed = shop.node.get("/v1/coupons?phase=sold_out").await.body;
    assert_eq!(listed["items"][0]["id"], shop.coupon);
    let below = shop.node.patch(shop.coupon, json!({"total_quantity": 1})).await;
    below.assert_refused(409, "QUANTITY_BELOW_ISSUED");
    assert_eq!(
        (&below.body["issued"], &below.body["returned"]),
        (&json!(3), &json!(1))
    );
    assert_eq!(
        shop.node
            .patch(shop.coupon, json!({"total_quantity": 3}))
            .await
            .body["remaining"],
        1
    );

    let Shop { node, coupon } = shop;
    let shop = Shop {
        node: node.restart().await,
        coupon,
    };
    assert_eq!(shop.node.issue("dan", shop.coupon).await.status, 201);
    shop.node
        .issue("eve", shop.coupon)
        .await
        .assert_refused(409, "SOLD_OUT");
}

/// A copy of the coupon may be older than what this node has issued since, and another node may have had an
/// issuance given back meanwhile. Until the copy is read again, it is shown as it is.
#[tokio::test]
async fn the_counts_of_a_coupon_are_of_one_moment_although_its_copy_is_older_than_an_issuance() {
    let shop = Shop::open(json!({"total_quantity": 9})).await;
    let (alice, _) = (shop.issue("alice").await, shop.issue("bob").await);
    let returned = shop
        .post(&alice, "revoke", json!({"return_quantity": true}))
        .await;
    assert_taken(&returned, "revoked", false);
    let path = format!("/v1/coupons/{}", shop.coupon);
    let counts = async || {
        let body = shop.node.get(&path).await.body;
        ["issued", "returned", "remaining"].map(|count| body[count].as_u64().unwrap())
    };
    let (before, after) = ([2, 1, 8], [3, 2, 8]);
    assert_eq!(counts().await, before);
    let options = SqliteConnectOptions::new().filename(shop.node.database());
    let mut shell = options.busy_timeout(LIMIT).connect().await.unwrap();
    let use_by_another_node = format!(
        "INSERT INTO uses (coupon_id, use_sequence, sequence, kind, returns, author, used_at, reserved, redeemed,
                           revoked, returned)
         VALUES ({}, 2, 2, 'revoked', 1, 'key:shop', 1700000000000000, 0, 0, 2, 2)",
        shop.coupon
    );
    sqlx::raw_sql(AssertSqlSafe(use_by_another_node))
        .execute(&mut shell)
        .await
        .unwrap();
    shell.close().await.unwrap();
    shop.issue("carol").await;
    eventually("the copy is read again", async || {
        let shown = counts().await;
        assert!([before, after].contains(&shown), "{shown:?}");
        shown == after
    })
    .await;
}

#[tokio::test]
async fn wrong_fields_of_a_use_are_reported() {
    let shop = Shop::open(json!({})).await;
    let path = shop.issue("alice").await;
    for (step, body, fields) in [
        ("reserve", json!({}), vec!["order_id", "order_amount"]),
        (
            "reserve",
            json!({"order_id": "", "order_amount": 5}),
            vec!["order_id"],
        ),
        (
            "reserve",
            json!({"order_id": "a b", "order_amount": 5}),
            vec!["order_id"],
        ),
        (
            "reserve",
            json!({"order_id": "x".repeat(65), "order_amount": 5}),
            vec!["order_id"],
        ),
        (
            "reserve",
            json!({"order_id": "a", "order_amount": -1}),
            vec!["order_amount"],
        ),
        (
            "reserve",
            json!({"order_id": "a", "order_amount": 9_007_199_254_740_992_u64}),
            vec!["order_amount"],
        ),
        (
            "reserve",
            json!({"order_id": "a", "order_amount": 5, "hold": 0}),
            vec!["hold"],
        ),
        (
            "reserve",
            json!({"order_id": "a", "order_amount": 5, "hold": 86_401}),
            vec!["hold"],
        ),
        ("redeem", json!({"order_amount": 5}), vec!["order_id"]),
        ("redeem", json!({"order_id": "a", "hold": 5}), vec!["hold"]),
        ("release", json!({}), vec!["order_id"]),
        ("refund", json!({"order_id": 5}), vec!["order_id"]),
        ("revoke", json!({"reason": "x".repeat(501)}), vec!["reason"]),
        ("revoke", json!({"reason": "a\0b"}), vec!["reason"]),
        ("revoke", json!({"return_quantity": 1}), vec!["return_quantity"]),
    ] {
        shop.post(&path, step, body).await.assert_invalid(&fields);
    }
    let uses = shop.node.admin_get(&format!("{path}/uses")).await.body;
    assert_eq!(uses["items"], json!([]));
}

/// Reads the operation of this step from the OpenAPI document. The first value is true if `x-allowed` lists
/// users, the second if `security` lists the header with the user id.
fn names_users(document: &Value, step: &str) -> (bool, bool) {
    let operation = &document["paths"][format!("/v1/issuances/{{id}}/{step}")]["post"];
    let list = |name: &str| operation[name].as_array().unwrap().iter();
    (
        list("x-allowed").any(|allowed| allowed == "user"),
        list("security").any(|scheme| scheme.get("user_id").is_some()),
    )
}

#[tokio::test]
async fn users_use_nothing_unless_they_may_reserve_and_then_only_what_is_theirs() {
    for may_reserve in [false, true] {
        let keys: &[_] = if may_reserve {
            &[("coupon.user_may_reserve", "true")]
        } else {
            &[]
        };
        let shop = Shop::open_with(json!({}), keys).await;
        let path = shop.issue("alice").await;
        let document = shop.node.get("/openapi.json").await.body;
        let post = async |user: &str, step: &str, body: &Value| {
            let request = shop.node.request(Method::POST, &format!("{path}/{step}"));
            send(request.header("X-User-Id", user).json(body)).await
        };
        for (step, body) in each_step("a") {
            let anonymous = shop.node.request(Method::POST, &format!("{path}/{step}"));
            send(anonymous.json(&body))
                .await
                .assert_refused(401, "UNAUTHENTICATED");
            let may_user = may_reserve && ["reserve", "release"].contains(&step);
            assert_eq!(names_users(&document, step), (may_user, may_user), "{step}");
            if !may_user {
                post("alice", step, &body).await.assert_refused(403, "FORBIDDEN");
                continue;
            }
            post("bob", step, &body)
                .await
                .assert_refused(404, "UNKNOWN_ISSUANCE");
            for unknown in UNKNOWN {
                let request = shop.node.request(Method::POST, &format!("{unknown}/{step}"));
                send(request.header("X-User-Id", "alice").json(&body))
                    .await
                    .assert_refused(404, "UNKNOWN_ISSUANCE");
            }
            assert_eq!(post("alice", step, &body).await.status, 200);
        }
        let quote = format!("{path}/quote?order_amount=20000");
        assert_eq!(shop.node.get_as("alice", &quote).await.status, 200);
        shop.node
            .get_as("bob", &quote)
            .await
            .assert_refused(404, "UNKNOWN_ISSUANCE");
        shop.node
            .get_as("alice", &format!("{path}/uses"))
            .await
            .assert_refused(403, "FORBIDDEN");
        // A user is not told which order redeemed it.
        shop.post(&path, "redeem", order("z", 20_000)).await;
        if may_reserve {
            let reply = post("alice", "reserve", &order("a", 20_000)).await;
            reply.assert_refused(409, "REDEEMED");
            assert_eq!(reply.body.get("use"), None);
            let uses = shop.node.admin_get(&format!("{path}/uses")).await.body;
            assert_eq!(uses["items"][0]["by"], "user:alice");
        }
    }
}

/// Many orders want the same issuance at the same moment: exactly one gets it.
#[tokio::test]
async fn of_many_orders_at_once_exactly_one_redeems() {
    let shop = Shop::open(json!({})).await;
    let path = shop.issue("alice").await;
    let redeem = |number: u64| {
        let (shop, path) = (&shop, &path);
        async move {
            shop.post(path, "redeem", order(&format!("order-{number}"), 20_000))
                .await
        }
    };
    let replies = futures_util::future::join_all((0..50).map(redeem)).await;
    let redeemed: Vec<_> = replies.iter().filter(|reply| reply.status == 200).collect();
    assert_eq!(redeemed.len(), 1);
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        reply.assert_refused(409, "REDEEMED");
        assert_eq!(reply.body["use"], redeemed[0].body["use"]);
    }
}
