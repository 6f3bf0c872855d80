//! Holds that lapse are not counted, without a step that ends them.

use actors::time::{Timestamp, timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use crate::hostile::metric_in;
use crate::support::{LIMIT, TestNode, send};
use crate::uses::Shop;

/// Holds an issuance. Returns when the hold lapses.
async fn hold(shop: &Shop, path: &str, order: &str, seconds: u32) -> Timestamp {
    let body = json!({"order_id": order, "order_amount": 20_000, "hold": seconds});
    let reply = shop.post(path, "reserve", body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    Timestamp::parse(reply.body["use"]["hold_until"].as_str().unwrap()).unwrap()
}

/// Returns what the owner answers to a change.
async fn told_by_owner(shop: &Shop, title: &str) -> Value {
    let path = format!("/v1/coupons/{}", shop.coupon);
    let request = shop.node.admin(Method::PATCH, &path);
    let reply = send(request.json(&json!({"title": title}))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.body["reserved"].clone()
}

/// What a coupon, the list of coupons and the metric show as reserved.
async fn shown(node: &TestNode, coupon: u64) -> [Value; 3] {
    let shown = node.get(&format!("/v1/coupons/{coupon}")).await;
    let listed = node.get("/v1/coupons").await;
    let metrics = node.get("/metrics").await;
    let series = format!("coupon_reserved_quantity{{coupon=\"{coupon}\"}}");
    let counted = metric_in(metrics.body.as_str().unwrap(), &series);
    [
        shown.body["reserved"].clone(),
        listed.body["items"][0]["reserved"].clone(),
        json!(counted as u64),
    ]
}

async fn until_shown(shop: &Shop, reserved: u64) {
    let what = format!("{reserved} are shown as reserved");
    testkit::poll::within(LIMIT, &what, async || {
        shown(&shop.node, shop.coupon).await == [json!(reserved), json!(reserved), json!(reserved)]
    })
    .await;
}

#[tokio::test]
async fn a_hold_that_lapsed_is_not_reserved_any_more() {
    let shop = Shop::open(json!({"per_user_limit": null})).await;
    let (long, short) = (shop.issue("alice").await, shop.issue("alice").await);
    hold(&shop, &long, "a", 900).await;
    until_shown(&shop, 1).await;
    let lapse = hold(&shop, &short, "b", 2).await;
    let told = told_by_owner(&shop, "while both are held").await;
    assert!(told == 2 || timestamp() >= lapse, "{told}");
    until_shown(&shop, 1).await;
    assert!(timestamp() >= lapse, "the hold has not lapsed");
    assert_eq!(told_by_owner(&shop, "after one has lapsed").await, 1);
    // Another step with the issuance does not count the hold once more.
    hold(&shop, &short, "c", 900).await;
    until_shown(&shop, 2).await;
    let body = json!({"order_id": "c"});
    assert_eq!(shop.post(&short, "release", body).await.status, 200);
    until_shown(&shop, 1).await;
    let Shop { node, coupon } = shop;
    let shop = Shop {
        node: node.restart().await,
        coupon,
    };
    let path = format!("/v1/coupons/{coupon}");
    assert_eq!(shop.node.get(&path).await.body["reserved"], 1);
    assert_eq!(told_by_owner(&shop, "after a restart").await, 1);
}
