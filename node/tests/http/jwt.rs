//! Authentication by signed tokens.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use testkit::poll::eventually;

use crate::hostile::metric_in;
use crate::process::Serving;
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
    for role in [
        json!("service"),
        json!("user"),
        json!({"admin": true}),
        Value::Null,
    ] {
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
    // The issuance belongs to Alice, not to the service, which may read it.
    let alice = send(
        node.request(Method::GET, "/v1/me/issuances")
            .bearer_auth(token("alice", json!({}))),
    )
    .await;
    alice.assert_list("user_id", &[json!("alice")], false);
    let path = format!("/v1/issuances/{id}-1");
    let read = send(node.request(Method::GET, &path).bearer_auth(&service)).await;
    assert_eq!((read.status, &read.body["user_id"]), (200, &json!("alice")));
    // The service may list what a user has.
    let of_alice = node.request(Method::GET, "/v1/issuances?user_id=alice");
    send(of_alice.bearer_auth(&service))
        .await
        .assert_list("user_id", &[json!("alice")], false);
    for user in [json!(""), json!("al ice"), json!(null), json!(5), json!({})] {
        as_service(json!({"user_id": user}))
            .await
            .assert_invalid(&["user_id"]);
    }
    let wrong = json!({"user_id": "al ice", "count": 2});
    as_service(wrong).await.assert_invalid(&["count", "user_id"]);
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
    let list = node.request(Method::GET, &format!("/v1/coupons/{id}/issuances"));
    let signed = token("root", json!({"role": "admin"}));
    assert_unauthenticated(&send(list.bearer_auth(signed)).await, INVALID);
}

#[tokio::test]
async fn the_subject_may_be_any_that_identity_providers_issue() {
    let node = TestNode::start_with(&HS256).await;
    let id = node.coupon(json!({})).await;
    let long = "x".repeat(128);
    for sub in [
        "auth0|507f1f77bcf86cd799439011",
        "bob+x@example.com",
        "CN=bob,OU=staff/x==",
        &long,
    ] {
        let reply = issue_with(&node, id, &token(sub, json!({}))).await;
        assert_eq!((reply.status, &reply.body["user_id"]), (201, &json!(sub)));
    }
    for sub in [
        json!("x".repeat(129)),
        json!("al ice"),
        json!("\u{e5}lice"),
        json!(5),
        json!(""),
    ] {
        let token = token("alice", json!({"sub": sub}));
        assert_unauthenticated(&issue_with(&node, id, &token).await, INVALID);
    }
}

/// Starts a process that demands issuer and audience, and logs in JSON.
fn strict(data: &tempfile::TempDir) -> Serving {
    let settings = [
        "log.format=json".to_owned(),
        format!("auth.admin_token={ADMIN_TOKEN}"),
        "auth.mode=jwt".to_owned(),
        "auth.jwt.algorithm=HS256".to_owned(),
        format!("auth.jwt.key={SECRET}"),
        "auth.jwt.issuer=https://id.example".to_owned(),
        "auth.jwt.audience=coupons".to_owned(),
        "auth.jwt.leeway=0s".to_owned(),
    ];
    let arguments = settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
    Serving::start(data, &arguments.collect::<Vec<_>>())
}

/// Returns a token for [`strict`] nodes with these claims changed.
fn strict_token(change: Value) -> String {
    let mut claims = json!({"iss": "https://id.example", "aud": ["coupons"]});
    claims
        .as_object_mut()
        .unwrap()
        .extend(change.as_object().unwrap().clone());
    token("alice", claims)
}

/// Returns a token for each of the reasons for which a [`strict`] node refuses a token.
fn refused_tokens() -> [(&'static str, String); 10] {
    let good = strict_token(json!({}));
    let (head, _) = good.rsplit_once('.').unwrap();
    let es256 = tokens::private("es256.private");
    [
        ("signature", format!("{head}.{}", "A".repeat(43))),
        ("malformed", "nonsense".to_owned()),
        ("too_long", "x".repeat(8 * 1024 + 1)),
        (
            "unknown_key",
            tokens::signed(Algorithm::ES256, "other", &es256, "alice"),
        ),
        ("expiry", strict_token(json!({"exp": null}))),
        ("expired", strict_token(json!({"exp": tokens::now()}))),
        ("issuer", strict_token(json!({"iss": "https://mallory.example"}))),
        ("audience", strict_token(json!({"aud": "shop"}))),
        ("subject", strict_token(json!({"sub": 5}))),
        ("not_yet_valid", strict_token(json!({"nbf": tokens::now() + 600}))),
    ]
}

#[tokio::test]
async fn the_log_and_a_counter_say_why_a_token_was_refused() {
    let data = tempfile::tempdir().unwrap();
    let serving = strict(&data);
    let client = reqwest::Client::new();
    let get = async |path: &str, token: &str| {
        let request = client.get(format!("http://{}{path}", serving.address));
        request.bearer_auth(token).send().await.unwrap()
    };
    let status = async |token: &str| get("/v1/me/issuances", token).await.status().as_u16();
    assert_eq!(status(&strict_token(json!({}))).await, 200);
    let cases = refused_tokens();
    for (reason, token) in &cases {
        assert_eq!(status(token).await, 401, "{reason}");
    }
    // A request for what is open to anyone is not refused.
    assert_eq!(get("/v1/coupons", &cases[0].1).await.status(), 200);
    for _ in 0..100 {
        assert_eq!(status(&cases[0].1).await, 401);
    }
    let metrics = get("/metrics", "").await.text().await.unwrap();
    for (reason, _) in &cases {
        let line = format!("coupon_tokens_refused_total{{reason=\"{reason}\"}}");
        let expected = if *reason == "signature" { 101.0 } else { 1.0 };
        assert_eq!(metric_in(&metrics, &line), expected, "{line}");
    }
    assert!(metrics.contains("coupon_tokens_refused_total{reason=\"not_admin\"} 0"));
    let log = serving.end().await;
    let lines = log.lines().filter(|line| line.contains("refused a token"));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    // The interval of the log limit may have begun anew once during the test.
    assert!((cases.len()..=2 * cases.len()).contains(&lines.len()), "{log}");
    for ((reason, token), line) in cases.iter().zip(&lines) {
        let told = (&line["level"], &line["reason"], &line["client"]);
        assert_eq!(
            told,
            (&json!("WARN"), &json!(reason), &json!("127.0.0.1")),
            "{line}"
        );
        assert!(!log.contains(token.rsplit('.').next().unwrap()), "{reason}");
    }
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
