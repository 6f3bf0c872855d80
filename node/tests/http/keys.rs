//! Named keys: the file, its reload, and the command that makes a key.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use testkit::poll::eventually;

use crate::hostile::metric_in;
use crate::process::{Serving, run};
use crate::support::{ADMIN_TOKEN, Reply, TestNode, send};

/// Returns the entry of a key whose secret is its name after `secret-of-`.
pub fn entry(name: &str, role: &str) -> String {
    let sha256 = hex::encode(Sha256::digest(secret(name)));
    format!("[[keys]]\nname = \"{name}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n")
}

/// Returns the secret of a key that [`entry`] made.
pub fn secret(name: &str) -> String {
    format!("secret-of-{name}")
}

/// Writes the file of keys, and returns its path. The file is replaced atomically, as operators must do.
pub fn write(directory: &Path, text: &str) -> PathBuf {
    let (draft, file) = (directory.join("keys.draft"), directory.join("keys.toml"));
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(&draft, &file).unwrap();
    file
}

async fn node(directory: &TempDir, text: &str) -> TestNode {
    let file = write(directory.path(), text);
    TestNode::start_with(&[("auth.keys_file", file.to_str().unwrap())]).await
}

async fn me(node: &TestNode, token: &str) -> Reply {
    send(node.request(Method::GET, "/v1/me").bearer_auth(token)).await
}

#[tokio::test]
async fn a_request_is_told_who_asks_and_with_which_role() {
    let directory = tempfile::tempdir().unwrap();
    let text = entry("shop", "service") + &entry("support", "viewer");
    let node = node(&directory, &text).await;
    let as_key = |name: &str, role: &str| json!({"kind": "key", "name": name, "role": role});
    assert_eq!(me(&node, ADMIN_TOKEN).await.body, as_key("admin", "admin"));
    for (name, role) in [("shop", "service"), ("support", "viewer")] {
        assert_eq!(me(&node, &secret(name)).await.body, as_key(name, role));
    }
    let alice = node.get_as("alice", "/v1/me").await;
    assert_eq!(
        alice.body,
        json!({"kind": "user", "name": "alice", "role": "user"})
    );
    assert_eq!(alice.header("cache-control"), "no-store");
    node.get("/v1/me").await.assert_refused(401, "UNAUTHENTICATED");
    let unknown = me(&node, "secret-of-nobody").await;
    unknown.assert_refused(401, "UNAUTHENTICATED");
    // A gateway names a user beside the key: the key counts.
    let both = node
        .request(Method::GET, "/v1/me")
        .header("X-User-Id", "alice")
        .bearer_auth(secret("shop"));
    assert_eq!(send(both).await.body, as_key("shop", "service"));
}

#[tokio::test]
async fn a_service_key_issues_for_the_user_that_it_names() {
    let directory = tempfile::tempdir().unwrap();
    let text = entry("shop", "service") + &entry("ops", "operator");
    let node = node(&directory, &text).await;
    let coupon = node.coupon(json!({})).await;
    let issue = |name: &str, body: Value| {
        let path = format!("/v1/coupons/{coupon}/issuances");
        send(
            node.request(Method::POST, &path)
                .bearer_auth(secret(name))
                .json(&body),
        )
    };
    let issued = issue("shop", json!({"user_id": "alice"})).await;
    assert_eq!((issued.status, &issued.body["user_id"]), (201, &json!("alice")));
    issue("shop", json!({})).await.assert_invalid(&["user_id"]);
    issue("ops", json!({"user_id": "bob"}))
        .await
        .assert_refused(403, "FORBIDDEN");
    let list = send(
        node.request(Method::GET, "/v1/issuances?user_id=alice")
            .bearer_auth(secret("shop")),
    )
    .await;
    list.assert_list("user_id", &[json!("alice")], false);
}

#[tokio::test]
async fn a_key_is_refused_from_the_time_on_that_the_file_says() {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "{}until = 2020-01-01T00:00:00Z\n{}until = \"2999-01-01T00:00:00+09:00\"\n",
        entry("old", "viewer"),
        entry("new", "viewer")
    );
    let node = node(&directory, &text).await;
    me(&node, &secret("old"))
        .await
        .assert_refused(401, "UNAUTHENTICATED");
    assert_eq!(me(&node, &secret("new")).await.status, 200);
}

#[tokio::test]
async fn keys_are_read_again_when_the_file_changes_and_stay_while_it_is_broken() {
    let (data, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = write(directory.path(), &entry("first", "viewer"));
    let settings = [
        format!("auth.admin_token={ADMIN_TOKEN}"),
        format!("auth.keys_file={}", file.display()),
    ];
    let arguments = settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
    let serving = Serving::start(&data, &arguments.collect::<Vec<_>>());
    let client = reqwest::Client::new();
    let get = async |path: &str, token: &str| {
        let request = client.get(format!("http://{}{path}", serving.address));
        request.bearer_auth(token).send().await.unwrap()
    };
    let accepted = async |name: &str| get("/v1/me", &secret(name)).await.status() == 200;
    let metric = async |series: &str| {
        let text = get("/metrics", "").await.text().await.unwrap();
        metric_in(&text, series)
    };
    let refused = r#"coupon_key_reloads_total{source="keys_file",result="refused"}"#;
    let stale = r#"coupon_keys_stale{source="keys_file"}"#;
    assert!(accepted("first").await && !accepted("second").await);
    assert_eq!(metric(stale).await, 0.0);

    write(directory.path(), &entry("second", "viewer"));
    eventually("the second key is accepted", async || accepted("second").await).await;
    assert!(!accepted("first").await, "a key that was taken out is refused");

    for (number, broken) in (1..).zip(["[[keys]", "", "keys = 5"]) {
        write(directory.path(), broken);
        eventually("the broken file is noticed", async || {
            (metric(refused).await, metric(stale).await) == (f64::from(number), 1.0)
        })
        .await;
        assert!(accepted("second").await && !accepted("first").await, "{broken}");
    }
    write(directory.path(), &entry("second", "viewer"));
    eventually("the file is read again", async || metric(stale).await == 0.0).await;
    std::fs::remove_file(&file).unwrap();
    eventually("the missing file is noticed", async || metric(stale).await == 1.0).await;
    assert!(accepted("second").await && get("/v1/me", ADMIN_TOKEN).await.status() == 200);

    write(directory.path(), "keys = []\n");
    eventually("the last key is gone", async || !accepted("second").await).await;
    assert_eq!(metric(refused).await, 4.0);
    let log = serving.end().await;
    let lines = log
        .lines()
        .filter(|line| line.contains("failed to reload the named keys"));
    let lines: Vec<&str> = lines.collect();
    assert!(
        lines.len() == 4 && lines.iter().all(|line| line.contains("ERROR")),
        "{log}"
    );
    assert!(!log.contains("secret-of"), "{log}");
}

#[test]
fn config_check_and_a_start_refuse_a_broken_file_of_keys() {
    let data = tempfile::tempdir().unwrap();
    for (text, message) in [
        (entry("admin", "viewer"), "that of the admin token"),
        (entry("shop", "root"), "unknown variant `root`"),
        (
            entry("shop", "viewer").replace("sha256 = \"", "sha256 = \"x"),
            "sha256 must be",
        ),
    ] {
        let file = write(data.path(), &text);
        let setting = format!("auth.keys_file={}", file.display());
        for command in [&["config", "check"][..], &["serve"][..]] {
            let (ok, stdout, stderr) = run(&data, &[command, &["--set", &setting]].concat());
            assert!(!ok && stdout.is_empty(), "{stdout}");
            assert!(
                stderr.contains("auth.keys_file") && stderr.contains(message),
                "{stderr}"
            );
        }
    }
    let file = write(data.path(), &entry("shop", "viewer"));
    let setting = format!("auth.keys_file={}", file.display());
    let (ok, stdout, stderr) = run(&data, &["config", "check", "--set", &setting]);
    assert!(ok && stdout.contains("keys_file"), "{stdout}{stderr}");
}

#[tokio::test]
async fn a_node_accepts_a_key_that_the_command_made() {
    let data = tempfile::tempdir().unwrap();
    let arguments = ["key", "--name", "shop", "--role", "service", "--until"];
    let (ok, stdout, stderr) = run(&data, &[&arguments[..], &["2999-01-01T00:00:00Z"]].concat());
    assert!(ok, "{stderr}");
    let made = stderr.lines().last().unwrap();
    assert!(made.len() >= 40 && !stdout.contains(made), "{stderr}");
    let node = node(&data, &stdout).await;
    assert_eq!(
        me(&node, made).await.body,
        json!({"kind": "key", "name": "shop", "role": "service"})
    );
    for (arguments, message) in [
        (&["--name", "admin", "--role", "admin"][..], "--name"),
        (&["--name", "a b", "--role", "admin"][..], "--name"),
        (&["--name", "shop", "--role", "user"][..], "--role"),
        (
            &["--name", "shop", "--role", "viewer", "--until", "soon"][..],
            "--until",
        ),
    ] {
        let (ok, stdout, stderr) = run(&data, &[&["key"], arguments].concat());
        assert!(!ok && stdout.is_empty() && stderr.contains(message), "{stderr}");
    }
}
