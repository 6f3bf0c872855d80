//! Authentication by signed tokens.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use testkit::poll::eventually;

use crate::support::{ADMIN_TOKEN, LIMIT, Reply, TestNode, send};
use crate::tokens::{self, SECRET, key_file, token};

const HS256: [(&str, &str); 3] = [
    ("auth.mode", "jwt"),
    ("auth.jwt.algorithm", "HS256"),
    ("auth.jwt.key", SECRET),
];

/// Challenges of a 401: to a request with a token, and to a request without a token.
const INVALID: &str = r#"Bearer realm="firstcome", error="invalid_token""#;
const MISSING: &str = r#"Bearer realm="firstcome""#;

fn issue(node: &TestNode, coupon: u64) -> RequestBuilder {
    node.request(Method::POST, &format!("/v1/coupons/{coupon}/issuances"))
}

async fn issue_with(node: &TestNode, coupon: u64, token: &str) -> Reply {
    send(issue(node, coupon).bearer_auth(token)).await
}

fn assert_unauthenticated(reply: &Reply, challenge: &str) {
    reply.assert_refused(401, "UNAUTHENTICATED");
    assert_eq!(reply.header("www-authenticate"), challenge, "{reply:?}");
    assert!(reply.body.get("detail").is_none(), "{reply:?}");
}

#[tokio::test]
async fn the_subject_of_the_token_names_the_user_and_the_header_does_not() {
    let node = TestNode::start_with(&HS256).await;
    let id = node.coupon(json!({})).await;
    let alice = token("alice", json!({}));
    let issued = send(issue(&node, id).bearer_auth(&alice).header("X-User-Id", "bob")).await;
    assert_eq!((issued.status, &issued.body["user_id"]), (201, &json!("alice")));
    assert_unauthenticated(&node.issue("bob", id).await, MISSING);
    // The second time, the token is in the cache.
    for _ in 0..2 {
        issue_with(&node, id, &alice)
            .await
            .assert_refused(409, "ALREADY_ISSUED");
        let mine = send(node.request(Method::GET, "/v1/me/issuances").bearer_auth(&alice)).await;
        mine.assert_list("user_id", &[json!("alice")], false);
        let issuance = node.request(Method::GET, &format!("/v1/issuances/{id}-1"));
        assert_eq!(
            send(issuance.try_clone().unwrap().bearer_auth(&alice))
                .await
                .status,
            200
        );
        send(issuance.bearer_auth(token("bob", json!({}))))
            .await
            .assert_refused(404, "UNKNOWN_ISSUANCE");
    }
}

#[tokio::test]
async fn an_invalid_token_is_refused_without_a_reason() {
    let node = TestNode::start_with(&HS256).await;
    let id = node.coupon(json!({})).await;
    let good = token("alice", json!({}));
    let too_long = token("alice", json!({"groups": "x".repeat(8 * 1024)}));
    for wrong in [
        &good[..good.len() - 1],
        "nonsense",
        "a.b.c",
        &token("alice", json!({"exp": tokens::now() - 120})),
        &token("alice", json!({"exp": null})),
        &token("alice", json!({"nbf": tokens::now() + 120})),
        &token("not a user", json!({})),
        &too_long,
        &tokens::signed(Algorithm::EdDSA, "a", &tokens::private("eddsa.private"), "alice"),
    ] {
        assert_unauthenticated(&issue_with(&node, id, wrong).await, INVALID);
        // A request with an invalid token may still do what is open to anyone.
        assert_eq!(
            send(
                node.request(Method::GET, &format!("/v1/coupons/{id}"))
                    .bearer_auth(wrong)
            )
            .await
            .status,
            200
        );
    }
    assert_unauthenticated(&send(issue(&node, id)).await, MISSING);
    assert_unauthenticated(
        &send(issue(&node, id).header("Authorization", format!("Basic {good}"))).await,
        MISSING,
    );
    let twice = issue(&node, id)
        .bearer_auth(&good)
        .header("Authorization", "Bearer other");
    send(twice).await.assert_refused(400, "MALFORMED");
    assert_eq!(node.get(&format!("/v1/coupons/{id}")).await.body["issued"], 0);
    assert_eq!(issue_with(&node, id, &good).await.status, 201);
}

#[tokio::test]
async fn an_accepted_token_is_refused_once_it_has_expired() {
    let keys = HS256
        .iter()
        .copied()
        .chain([("auth.jwt.leeway", "0s")])
        .collect::<Vec<_>>();
    let node = TestNode::start_with(&keys).await;
    let brief = token("alice", json!({"exp": tokens::now() + 2}));
    let mine = async || send(node.request(Method::GET, "/v1/me/issuances").bearer_auth(&brief)).await;
    assert_eq!(mine().await.status, 200);
    eventually("the token expires", async || mine().await.status == 401).await;
    assert_unauthenticated(&mine().await, INVALID);
}

#[tokio::test]
async fn administrators_send_the_admin_token_or_a_token_with_the_role_admin() {
    let node = TestNode::start_with(&HS256).await;
    let id = node.coupon(json!({})).await;
    let path = format!("/v1/coupons/{id}/issuances");
    let list = async |token: &str| send(node.request(Method::GET, &path).bearer_auth(token)).await;
    assert_eq!(list(ADMIN_TOKEN).await.status, 200);
    assert_eq!(list(&token("root", json!({"role": "admin"}))).await.status, 200);
    for role in [json!("service"), json!("user"), json!(["admin"]), Value::Null] {
        let refused = list(&token("alice", json!({"role": role}))).await;
        refused.assert_refused(403, "FORBIDDEN");
        assert_eq!(
            refused.header("www-authenticate"),
            r#"Bearer realm="firstcome", error="insufficient_scope""#
        );
    }
    assert_unauthenticated(&list(&ADMIN_TOKEN[1..]).await, INVALID);
    // The admin token names no user. A token with the role has a subject.
    issue_with(&node, id, ADMIN_TOKEN)
        .await
        .assert_refused(403, "FORBIDDEN");
    assert_eq!(
        issue_with(&node, id, &token("root", json!({"role": "admin"})))
            .await
            .body["user_id"],
        "root"
    );
}

#[tokio::test]
async fn only_services_issue_for_others() {
    let node = TestNode::start_with(&HS256).await;
    let id = node.coupon(json!({})).await;
    let service = token("checkout", json!({"role": "service"}));
    let as_service = |body: Value| send(issue(&node, id).bearer_auth(&service).json(&body));
    let issued = as_service(json!({"user_id": "alice"})).await;
    assert_eq!((issued.status, &issued.body["user_id"]), (201, &json!("alice")));
    as_service(json!({"user_id": "alice"}))
        .await
        .assert_refused(409, "ALREADY_ISSUED");
    // The issuance belongs to Alice, not to the service. The service sees only its own issuances.
    let alice = send(
        node.request(Method::GET, "/v1/me/issuances")
            .bearer_auth(token("alice", json!({}))),
    )
    .await;
    alice.assert_list("user_id", &[json!("alice")], false);
    let path = format!("/v1/issuances/{id}-1");
    send(node.request(Method::GET, &path).bearer_auth(&service))
        .await
        .assert_refused(404, "UNKNOWN_ISSUANCE");
    for user in [json!(""), json!("al ice"), json!(null), json!(5), json!({})] {
        as_service(json!({"user_id": user}))
            .await
            .assert_invalid(&["user_id"]);
    }
    assert_eq!(as_service(json!({})).await.body["user_id"], "checkout");
    for other in [token("bob", json!({})), token("root", json!({"role": "admin"}))] {
        for user in [json!("bob"), json!("root"), json!("carol"), json!(null)] {
            let request = issue(&node, id)
                .bearer_auth(&other)
                .json(&json!({"user_id": user}));
            send(request).await.assert_refused(403, "FORBIDDEN");
        }
    }
    send(
        issue(&node, id)
            .bearer_auth(ADMIN_TOKEN)
            .json(&json!({"user_id": "carol"})),
    )
    .await
    .assert_refused(403, "FORBIDDEN");
}

#[tokio::test]
async fn in_header_mode_no_principal_issues_for_others() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    for request in [
        node.issue_request("alice", id),
        node.issue_request("alice", id).bearer_auth(ADMIN_TOKEN),
    ] {
        for user in [json!("alice"), json!("bob"), json!(null)] {
            let request = request.try_clone().unwrap().json(&json!({"user_id": user}));
            send(request).await.assert_refused(403, "FORBIDDEN");
        }
    }
    // In header mode, a signed token is not known.
    assert_unauthenticated(&issue_with(&node, id, &token("alice", json!({}))).await, INVALID);
}

#[tokio::test]
async fn every_algorithm_verifies_with_its_public_key() {
    for (algorithm, name, text) in [
        (Algorithm::RS256, "rs256", "RS256"),
        (Algorithm::ES256, "es256", "ES256"),
        (Algorithm::EdDSA, "eddsa", "EdDSA"),
    ] {
        let file = key_file(&format!("{name}.public"));
        let keys = [
            ("auth.mode", "jwt"),
            ("auth.jwt.algorithm", text),
            ("auth.jwt.key_file", file.to_str().unwrap()),
        ];
        let node = TestNode::start_with(&keys).await;
        let id = node.coupon(json!({})).await;
        let token = tokens::signed(
            algorithm,
            "any",
            &tokens::private(&format!("{name}.private")),
            "alice",
        );
        assert_eq!(issue_with(&node, id, &token).await.status, 201, "{text}");
        // The public key is not accepted as a secret.
        let public = jsonwebtoken::EncodingKey::from_secret(&std::fs::read(&file).unwrap());
        let forged = tokens::signed(Algorithm::HS256, "any", &public, "mallory");
        assert_unauthenticated(&issue_with(&node, id, &forged).await, INVALID);
    }
}

#[tokio::test]
async fn keys_are_reloaded_while_the_node_runs() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("jwks.json");
    let write = |text: &str| {
        // The file is replaced atomically, as operators must do.
        let draft = data.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, &file).unwrap();
    };
    let (old, new, next) = (
        tokens::private("eddsa.other.private"),
        tokens::private("eddsa.private"),
        tokens::private("es256.private"),
    );
    let (old_key, new_key, next_key) = (
        (Algorithm::EdDSA, "old", &old),
        (Algorithm::EdDSA, "new", &new),
        (Algorithm::ES256, "next", &next),
    );
    write(&tokens::jwks(&[old_key]));
    let node = TestNode::start_with(&[
        ("auth.mode", "jwt"),
        ("auth.jwt.jwks_file", file.to_str().unwrap()),
    ])
    .await;
    let accepted = async |(algorithm, kid, key): (Algorithm, &str, &jsonwebtoken::EncodingKey)| {
        let token = tokens::signed(algorithm, kid, key, "alice");
        send(node.request(Method::GET, "/v1/me/issuances").bearer_auth(token))
            .await
            .status
            == 200
    };
    let old_token = tokens::signed(Algorithm::EdDSA, "old", &old, "alice");
    let old_token_accepted = async || {
        send(
            node.request(Method::GET, "/v1/me/issuances")
                .bearer_auth(&old_token),
        )
        .await
        .status
            == 200
    };
    assert!(accepted(old_key).await && !accepted(new_key).await && old_token_accepted().await);

    write(&tokens::jwks(&[old_key, new_key]));
    eventually("the new key is accepted", async || accepted(new_key).await).await;
    assert!(accepted(old_key).await && old_token_accepted().await);

    // The file is invalid, so the old keys stay.
    write("{\"keys\": [");
    tokio::time::timeout(LIMIT, async {
        let started = std::time::Instant::now();
        // This is longer than the interval at which the file is read.
        while started.elapsed() < Duration::from_secs(3) {
            assert!(accepted(old_key).await && accepted(new_key).await && old_token_accepted().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();

    write(&tokens::jwks(&[new_key, next_key]));
    eventually("the next key is accepted", async || accepted(next_key).await).await;
    // The old key is no longer accepted, and neither is the token that it verified before.
    assert!(!accepted(old_key).await && !old_token_accepted().await && accepted(new_key).await);
}
