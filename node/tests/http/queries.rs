//! Query parameters: errors name unknown, repeated and wrong ones. Also lists by user and by coupon.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Reply, TestNode, send};

/// Sends a request with the rights of an administrator and of a user.
async fn with_all_rights(node: &TestNode, method: &str, path: &str) -> Reply {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    send(node.admin(method, path).header("X-User-Id", "alice")).await
}

#[tokio::test]
async fn every_operation_names_unknown_and_repeated_parameters() {
    let node = TestNode::start().await;
    let document = node.get("/openapi.json").await.body;
    let mut operations = 0;
    for (template, item) in document["paths"].as_object().unwrap() {
        let id = if template.starts_with("/v1/issuances") {
            "1-1"
        } else {
            "1"
        };
        let path = template.replace("{id}", id).replace("{file}", "index.css");
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let known = operation["parameters"].as_array().into_iter().flatten();
            let known = known.filter(|parameter| parameter["in"] == "query");
            let required: Vec<&str> = known
                .clone()
                .filter(|parameter| parameter["required"] == true)
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            with_all_rights(&node, method, &format!("{path}?utm=1&Limit=1&utm=2"))
                .await
                .assert_invalid(&[&["Limit", "utm"][..], required.as_slice()].concat());
            for parameter in known {
                let name = parameter["name"].as_str().unwrap();
                let mut named = if name < "q" {
                    vec![name, "q"]
                } else {
                    vec!["q", name]
                };
                named.extend(required.iter().filter(|required| **required != name));
                with_all_rights(&node, method, &format!("{path}?{name}=1&{name}=1&q"))
                    .await
                    .assert_invalid(&named);
            }
        }
    }
    assert!(operations >= 20, "{operations}");
    let refused = node.get("/v1/coupons?status=open").await;
    let message = refused.body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("`phase`"), "{message}");
    // An empty query counts as none, and a request with a wrong query issues nothing.
    let coupon = node.coupon(json!({"total_quantity": 1})).await;
    assert_eq!(node.get(&format!("/v1/coupons/{coupon}?")).await.status, 200);
    send(node.request(
        Method::POST,
        &format!("/v1/coupons/{coupon}/issuances?user_id=alice"),
    ))
    .await
    .assert_refused(401, "UNAUTHENTICATED");
    with_all_rights(&node, "post", &format!("/v1/coupons/{coupon}/issuances?key=1"))
        .await
        .assert_invalid(&["key"]);
    assert_eq!(node.get(&format!("/v1/coupons/{coupon}")).await.body["issued"], 0);
}

#[tokio::test]
async fn a_missing_right_is_reported_before_a_wrong_parameter() {
    let node = TestNode::start().await;
    for (path, wrong) in [
        ("/v1/cluster", &["x"][..]),
        ("/v1/coupons/1/issuances", &["x"]),
        ("/v1/issuances", &["x", "user_id"]),
    ] {
        let path = format!("{path}?x=1");
        node.get(&path).await.assert_refused(401, "UNAUTHENTICATED");
        node.get_as("alice", &path).await.assert_refused(403, "FORBIDDEN");
        node.admin_get(&path).await.assert_invalid(wrong);
    }
    node.get("/v1/me/issuances?x=1")
        .await
        .assert_refused(401, "UNAUTHENTICATED");
    node.admin_get("/v1/me/issuances?x=1")
        .await
        .assert_refused(403, "FORBIDDEN");
    node.get("/v1/issuances/1-1?x=1")
        .await
        .assert_refused(401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_wrong_parameter_of_a_use_is_named_to_all_who_may_use_and_to_them_only() {
    for may_reserve in ["false", "true"] {
        let node = TestNode::start_with(&[("coupon.user_may_reserve", may_reserve)]).await;
        for (step, by_users) in [
            ("reserve", true),
            ("release", true),
            ("redeem", false),
            ("refund", false),
        ] {
            let path = format!("/v1/issuances/1-1/{step}?x=1");
            let post = || node.request(Method::POST, &path);
            send(post()).await.assert_refused(401, "UNAUTHENTICATED");
            send(post().bearer_auth(ADMIN_TOKEN)).await.assert_invalid(&["x"]);
            let of_user = send(post().header("X-User-Id", "alice")).await;
            if by_users && may_reserve == "true" {
                of_user.assert_invalid(&["x"]);
            } else {
                of_user.assert_refused(403, "FORBIDDEN");
            }
        }
    }
}

#[tokio::test]
async fn every_parameter_with_a_wrong_value_is_named() {
    let node = TestNode::start().await;
    node.get("/v1/coupons?limit=0&phase=open&cursor=x")
        .await
        .assert_invalid(&["phase", "cursor", "limit"]);
    node.admin_get("/v1/coupons/1/issuances?after_sequence=-1&user_id=")
        .await
        .assert_invalid(&["user_id", "after_sequence"]);
    node.get_as("alice", "/v1/me/issuances?coupon_id=0&limit=201")
        .await
        .assert_invalid(&["coupon_id", "limit"]);
    node.admin_get("/v1/issuances?limit=x")
        .await
        .assert_invalid(&["user_id", "limit"]);
    node.admin_get("/v1/issuances?user_id=a%20b")
        .await
        .assert_invalid(&["user_id"]);
    // An unknown or repeated parameter hides none of the others.
    node.get("/v1/coupons?limit=0&phase=open&cursor=x&colour=red")
        .await
        .assert_invalid(&["colour", "phase", "cursor", "limit"]);
    node.admin_get("/v1/coupons/1/statistics?bucket=2d&from=x&to=y&to=z&by=1s")
        .await
        .assert_invalid(&["by", "to", "bucket", "from"]);
    node.admin_get("/v1/issuances?limit=x&state=new")
        .await
        .assert_invalid(&["user_id", "state", "limit"]);
    node.admin_get("/v1/coupons/1/issuances.csv?after_sequence=x&limit=5")
        .await
        .assert_invalid(&["limit", "after_sequence"]);
}

#[tokio::test]
async fn a_users_issuances_are_listed_by_coupon_and_for_administrators() {
    let node = TestNode::start().await;
    let coupons = [
        node.coupon(json!({"per_user_limit": 3})).await,
        node.coupon(json!({})).await,
    ];
    let mut ids: Vec<Value> = Vec::new();
    for coupon in [coupons[0], coupons[1], coupons[0], coupons[0]] {
        node.issue("bob", coupon).await;
        ids.insert(0, node.issue("alice", coupon).await.body["id"].clone());
    }
    let of_first = [ids[0].clone(), ids[1].clone(), ids[3].clone()];
    let path = format!("/v1/me/issuances?coupon_id={}", coupons[0]);
    node.get_as("alice", &path)
        .await
        .assert_list("id", &of_first, false);
    let first = node.get_as("alice", &format!("{path}&limit=2")).await;
    first.assert_list("id", &of_first[..2], true);
    let rest = format!("{path}&cursor={}", first.next_cursor());
    node.get_as("alice", &rest)
        .await
        .assert_list("id", &of_first[2..], false);
    node.get_as("alice", "/v1/me/issuances?coupon_id=99")
        .await
        .assert_list("id", &[], false);

    node.admin_get("/v1/issuances?user_id=alice")
        .await
        .assert_list("id", &ids, false);
    let first = node.admin_get("/v1/issuances?user_id=alice&limit=3").await;
    first.assert_list("id", &ids[..3], true);
    let rest = format!("/v1/issuances?user_id=alice&cursor={}", first.next_cursor());
    node.admin_get(&rest).await.assert_list("id", &ids[3..], false);
    node.admin_get("/v1/issuances?user_id=carol")
        .await
        .assert_list("id", &[], false);
    // The query names the user; the header does not matter.
    let as_alice = node.request(Method::GET, "/v1/issuances?user_id=carol");
    send(as_alice.bearer_auth(ADMIN_TOKEN).header("X-User-Id", "alice"))
        .await
        .assert_list("id", &[], false);
    node.get_as("alice", "/v1/issuances?user_id=alice")
        .await
        .assert_refused(403, "FORBIDDEN");
}
