//! Codes of issuances: every answer shows them, and they name issuances in paths.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{ConnectOptions, SqliteConnection};

use crate::process::{Serving, run};
use crate::support::{ADMIN_TOKEN, LIMIT, Reply, TestNode, send};
use crate::uses::{Shop, assert_taken, order};

/// Issues the coupon to a user. Returns the id and the code.
async fn issue(shop: &Shop, user: &str) -> (String, String) {
    let reply = shop.node.issue(user, shop.coupon).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let text = |field: &str| reply.body[field].as_str().unwrap().to_owned();
    (text("id"), text("code"))
}

async fn shell(node: &TestNode) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(node.database());
    options.connect().await.unwrap()
}

#[tokio::test]
async fn every_answer_shows_the_code_of_its_issuance() {
    let shop = Shop::open(json!({})).await;
    let node = &shop.node;
    let ask = async || {
        let request = node
            .issue_request("alice", shop.coupon)
            .header("Idempotency-Key", "k");
        send(request).await
    };
    let issued = ask().await;
    let code = issued.body["code"].as_str().unwrap().to_owned();
    let is_of_a_code = |letter: char| "0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(letter);
    assert!(code.len() == 20 && code.chars().all(is_of_a_code), "{code}");
    let id = issued.body["id"].as_str().unwrap().to_owned();
    let (other_id, other) = issue(&shop, "bob").await;
    assert_ne!(code, other);

    let path = format!("/v1/issuances/{id}");
    let mut shown = vec![
        ask().await.body["code"].clone(),
        node.issue("alice", shop.coupon).await.body["issuance"]["code"].clone(),
        node.get_as("alice", &path).await.body["code"].clone(),
    ];
    let coupon = shop.coupon;
    for (list, of) in [
        ("/v1/me/issuances".to_owned(), &id),
        (format!("/v1/coupons/{coupon}/issuances"), &id),
        ("/v1/issuances?user_id=alice".to_owned(), &id),
        ("/v1/issuances?user_id=bob".to_owned(), &other_id),
    ] {
        let request = node.admin(Method::GET, &list);
        let request = if list == "/v1/me/issuances" {
            node.request(Method::GET, &list).header("X-User-Id", "alice")
        } else {
            request
        };
        let body = send(request).await.body;
        let mut items = body["items"].as_array().unwrap().iter();
        let item = items.find(|item| item["id"] == of.as_str()).unwrap();
        shown.push(item["code"].clone());
    }
    assert_eq!(shown.pop(), Some(json!(other)));
    for (step, body) in [
        ("reserve", order("a", 20_000)),
        ("redeem", order("a", 20_000)),
        ("refund", json!({"order_id": "a"})),
        ("revoke", json!({})),
    ] {
        let reply = shop.post(&path, step, body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        shown.push(reply.body["code"].clone());
    }
    assert_eq!(shown, vec![json!(code); 10]);
}

#[tokio::test]
async fn an_issuance_is_named_by_its_code_wherever_its_id_stands() {
    let shop = Shop::open(json!({})).await;
    let (id, code) = issue(&shop, "alice").await;
    let spoken = format!("{}-{}-{}", &code[..4], &code[4..8], &code[8..]);
    let spoken = spoken.to_lowercase().replace('0', "o").replace('1', "l");
    let encoded = spoken.replace('-', "%2D");
    let encoded_id = id.replace('-', "%2d").replace('1', "%31");
    for name in [&code, &spoken, &encoded, &encoded_id] {
        let path = format!("/v1/issuances/{name}");
        let a = json!({"order_id": "a"});
        for (step, body, state) in [
            ("reserve", order("a", 20_000), "reserved"),
            ("release", a.clone(), "issued"),
            ("redeem", order("a", 20_000), "redeemed"),
            ("refund", a, "issued"),
        ] {
            let reply = shop.post(&path, step, body).await;
            assert_taken(&reply, state, false);
            assert_eq!(reply.body["id"], id.as_str());
        }
        let read = shop.node.get_as("alice", &path).await;
        assert_eq!((read.status, &read.body["id"]), (200, &json!(id)));
        let quote = format!("{path}/quote?order_amount=20000");
        assert_eq!(shop.node.get_as("alice", &quote).await.body["usable"], true);
        let uses = shop.node.admin_get(&format!("{path}/uses")).await;
        assert!(uses.body["items"].as_array().unwrap().len() >= 4, "{uses:?}");
        // A code gives no rights.
        shop.node
            .get_as("bob", &path)
            .await
            .assert_refused(404, "UNKNOWN_ISSUANCE");
        shop.node.get(&path).await.assert_refused(401, "UNAUTHENTICATED");
    }
    let revoked = shop
        .post(&format!("/v1/issuances/{spoken}"), "revoke", json!({}))
        .await;
    assert_taken(&revoked, "revoked", false);
}

/// Sends each request that names an issuance in its path.
async fn ask_all(node: &TestNode, name: &str) -> Vec<Reply> {
    let path = format!("/v1/issuances/{name}");
    let mut replies = Vec::new();
    for read in ["", "/quote?order_amount=20000", "/uses"] {
        replies.push(node.admin_get(&format!("{path}{read}")).await);
    }
    let a = json!({"order_id": "a"});
    for (step, body) in [
        ("reserve", order("a", 20_000)),
        ("redeem", order("a", 20_000)),
        ("release", a.clone()),
        ("refund", a),
        ("revoke", json!({})),
    ] {
        let request = node.admin(Method::POST, &format!("{path}/{step}"));
        replies.push(send(request.json(&body)).await);
    }
    replies
}

#[tokio::test]
async fn a_wrong_code_is_refused_without_a_read_of_the_database() {
    let shop = Shop::open(json!({})).await;
    let (_, code) = issue(&shop, "alice").await;
    let node = shop.node.restart().await;
    // From now on every read of a coupon or an issuance fails.
    sqlx::raw_sql("ALTER TABLE coupons RENAME TO c; ALTER TABLE issuances RENAME TO i")
        .execute(&mut shell(&node).await)
        .await
        .unwrap();
    for reply in ask_all(&node, &code).await {
        assert!(reply.status >= 500, "a right code is looked up: {reply:?}");
    }
    let last = if code.ends_with('0') { "2" } else { "0" };
    let other = format!("{}{last}", &code[..19]);
    let short = &code[1..];
    // A space, and other characters that no code has.
    let spaced = format!("{}%20{}", &code[..4], &code[4..]);
    let odd = ["%20", "!", "_", "%C3%A9", "%FF", "%00", "%2F", "+"].map(|odd| format!("{code}{odd}"));
    for wrong in odd.iter().map(String::as_str).chain([
        &*other,
        short,
        &spaced,
        &"0".repeat(20),
        "ABCD-EFGH-JKMN-PQRS-TVWX",
        &"u".repeat(20),
    ]) {
        for reply in ask_all(&node, wrong).await {
            reply.assert_refused(404, "UNKNOWN_ISSUANCE");
        }
    }
    for malformed in [
        "x",
        "42",
        "42-0",
        "42-17%20",
        "42%2D017",
        "42%252D17",
        "abc-def",
        "%20",
        &"%20".repeat(12),
        &"Z".repeat(99),
    ] {
        for reply in ask_all(&node, malformed).await {
            reply.assert_refused(400, "MALFORMED");
        }
    }
    // A missing right is reported first.
    let path = format!("/v1/issuances/{other}");
    node.get(&path).await.assert_refused(401, "UNAUTHENTICATED");
    let redeem = node.request(Method::POST, &format!("{path}/redeem"));
    send(redeem.header("X-User-Id", "alice").json(&order("a", 5)))
        .await
        .assert_refused(403, "FORBIDDEN");
}

#[tokio::test]
async fn a_wrong_request_is_reported_before_a_wrong_code_as_it_is_before_an_unknown_id() {
    let shop = Shop::open(json!({})).await;
    let (_, code) = issue(&shop, "alice").await;
    let wrong = format!("{}%20", &code[1..]);
    for (name, is_name) in [(wrong.as_str(), true), ("1-999", true), ("x", false)] {
        let path = format!("/v1/issuances/{name}");
        for (step, body, fields) in [
            ("reserve", json!({}), &["order_id", "order_amount"][..]),
            ("redeem", json!({"order_id": 5}), &["order_id"]),
            ("release", json!({"order_id": "a", "hold": 5}), &["hold"]),
            ("refund", json!({}), &["order_id"]),
            ("revoke", json!({"return_quantity": 1}), &["return_quantity"]),
            (
                "revoke",
                json!({"reason": "x".repeat(501), "return_quantity": 1, "order_id": "a"}),
                &["order_id", "return_quantity", "reason"],
            ),
        ] {
            let reply = shop.post(&path, step, body).await;
            match is_name {
                true => reply.assert_invalid(fields),
                false => reply.assert_refused(400, "MALFORMED"),
            }
        }
        for (query, field) in [
            ("quote", "order_amount"),
            ("quote?order_amount=x", "order_amount"),
            ("uses?limit=0", "limit"),
        ] {
            let reply = shop.node.admin_get(&format!("{path}/{query}")).await;
            match is_name {
                true => reply.assert_invalid(&[field]),
                false => reply.assert_refused(400, "MALFORMED"),
            }
        }
        // A correct request gets the answer about the name.
        let reply = shop.post(&path, "release", json!({"order_id": "a"})).await;
        match is_name {
            true => reply.assert_refused(404, "UNKNOWN_ISSUANCE"),
            false => reply.assert_refused(400, "MALFORMED"),
        }
    }
}

#[tokio::test]
async fn codes_made_before_a_restart_stay_valid() {
    let shop = Shop::open(json!({})).await;
    let (id, code) = issue(&shop, "alice").await;
    let node = shop.node.restart().await;
    let read = node.admin_get(&format!("/v1/issuances/{code}")).await.body;
    assert_eq!((&read["id"], &read["code"]), (&json!(id), &json!(code)));
}

/// A process with one issuance, `1-1`.
struct Issued {
    data: tempfile::TempDir,
    serving: Serving,
    client: reqwest::Client,
}

impl Issued {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let token = format!("auth.admin_token={ADMIN_TOKEN}");
        let serving = Serving::start(&data, &["--set", &token, "--set", "log.level=debug"]);
        let client = reqwest::Client::new();
        let url = |path: &str| format!("http://{}{path}", serving.address);
        let created = client.post(url("/v1/coupons")).bearer_auth(ADMIN_TOKEN);
        let created = created.json(&json!({"title": "T", "total_quantity": null}));
        assert_eq!(created.send().await.unwrap().status(), 201);
        let issue = client.post(url("/v1/coupons/1/issuances"));
        let issued = issue.header("X-User-Id", "alice").send().await.unwrap();
        assert_eq!(issued.status(), 201);
        Self {
            data,
            serving,
            client,
        }
    }

    /// Reads the issuance by its id or code. Returns the status and the code that the answer shows.
    async fn read(&self, name: &str) -> (u16, String) {
        let url = format!("http://{}/v1/issuances/{name}", self.serving.address);
        let response = self
            .client
            .get(url)
            .bearer_auth(ADMIN_TOKEN)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    }

    async fn shell(&self) -> SqliteConnection {
        let path = self.data.path().join("data/firstcome.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        options.connect().await.unwrap()
    }
}

#[tokio::test]
async fn a_running_node_learns_of_a_new_secret_and_accepts_former_codes() {
    let issued = Issued::start().await;
    let (_, former) = issued.read("1-1").await;
    let (succeeded, printed, errors) = run(&issued.data, &["codes", "rotate"]);
    assert!(
        succeeded && printed.starts_with("made secret 2:"),
        "{printed}{errors}"
    );
    // Other nodes may not know the new secret yet.
    assert_eq!(issued.read("1-1").await.1, former);
    // As if a minute had passed.
    let mut shell = issued.shell().await;
    sqlx::query("UPDATE code_secrets SET made_at = made_at - 60 WHERE number = 2")
        .execute(&mut shell)
        .await
        .unwrap();
    let begun = Instant::now();
    let new = loop {
        let shown = issued.read("1-1").await.1;
        if shown != former {
            break shown;
        }
        assert!(
            begun.elapsed() < LIMIT,
            "the node does not learn of the new secret"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for code in [&former, &new] {
        assert_eq!(issued.read(code).await, (200, new.clone()));
    }
    let secrets: Vec<String> = sqlx::query_scalar("SELECT secret FROM code_secrets")
        .fetch_all(&mut shell)
        .await
        .unwrap();
    let log = issued.serving.end().await;
    assert!(log.contains("learnt of a new secret of codes"), "{log}");
    assert_eq!(secrets.len(), 2);
    for secret in &secrets {
        assert!(!log.contains(secret) && !printed.contains(secret) && !errors.contains(secret));
    }
}

#[test]
fn a_secret_is_added_only_to_a_database_that_is_there() {
    let data = tempfile::tempdir().unwrap();
    let (succeeded, _, errors) = run(&data, &["codes", "rotate"]);
    let path = data.path().canonicalize().unwrap().join("data/firstcome.db");
    let (named, hint) = (path.display().to_string(), "with the node's configuration");
    assert!(
        !succeeded && errors.contains(&named) && errors.contains(hint),
        "{errors}"
    );
    assert!(!data.path().join("data").exists());
    // Another file is named, too.
    std::fs::create_dir(data.path().join("data")).unwrap();
    std::fs::write(&path, "no database".repeat(1_000)).unwrap();
    let (succeeded, _, errors) = run(&data, &["codes", "rotate"]);
    assert!(!succeeded && errors.contains(&named), "{errors}");
}
