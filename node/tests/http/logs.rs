//! Logs about requests: access log, request id, client address and trace.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use testkit::poll::eventually;

use crate::hostile::metric_in;
use crate::process::Serving;
use crate::setbacks::{hide_tables, hold_lock, unlock};
use crate::support::ADMIN_TOKEN;
use crate::tokens::{SECRET, token};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Starts a process that logs in JSON.
fn serving(data: &tempfile::TempDir, settings: &[&str]) -> Serving {
    let token = format!("auth.admin_token={ADMIN_TOKEN}");
    let settings = ["log.format=json", &token]
        .into_iter()
        .chain(settings.iter().copied());
    let arguments: Vec<&str> = settings.flat_map(|setting| ["--set", setting]).collect();
    Serving::start(data, &arguments)
}

/// Returns the lines with this request id.
fn about<'a>(log: &'a str, id: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .map(|line: &'a str| serde_json::from_str::<Value>(line).expect(line));
    lines.filter(|line| line["span"]["id"] == id).collect()
}

/// Sends a read with these headers.
async fn get(serving: &Serving, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let request = reqwest::Client::new().get(format!("http://{}{path}", serving.address));
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn the_first_line_has_the_settings_that_differ_and_no_secret() {
    let data = tempfile::tempdir().unwrap();
    let serving = serving(&data, &["limits.user_rate=7.5"]);
    let log = serving.end().await;
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["message"], &first["version"]),
        (&Value::from("starting"), &Value::from(env!("CARGO_PKG_VERSION")))
    );
    let settings = first["settings"].as_str().unwrap();
    for expected in [
        "limits.user_rate = 7.5",
        "log.format = \"json\"",
        "auth.admin_token = \"[hidden]\"",
    ] {
        assert!(settings.contains(expected), "{settings}");
    }
    for unexpected in [ADMIN_TOKEN, "http.deadline", "limits.requests_max"] {
        assert!(!settings.contains(unexpected), "{settings}");
    }
}

#[tokio::test]
async fn slow_commits_are_logged_in_one_line() {
    let data = tempfile::tempdir().unwrap();
    let serving = serving(&data, &[]);
    let url = |path: &str| format!("http://{}{path}", serving.address);
    let client = reqwest::Client::new();
    let coupon = json!({"title": "a", "total_quantity": null});
    let created = client
        .post(url("/v1/coupons"))
        .bearer_auth(ADMIN_TOKEN)
        .json(&coupon);
    assert_eq!(created.send().await.unwrap().status(), 201);
    let issue = |user: &str| {
        client
            .post(url("/v1/coupons/1/issuances"))
            .header("X-User-Id", user)
            .send()
    };
    assert_eq!(issue("alice").await.unwrap().status(), 201);

    let other = hold_lock(&data.path().join("data/firstcome.db")).await;
    let issuing = tokio::spawn(issue("bob"));
    eventually("the batch is with the database", async || {
        let metrics = client
            .get(url("/metrics"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        metric_in(&metrics, "coupon_lanes_busy") == 1.0
    })
    .await;
    // Longer than a commit may take, and shorter than SQLite waits for the lock.
    tokio::time::sleep(Duration::from_millis(400)).await;
    unlock(other).await;
    assert_eq!(issuing.await.unwrap().unwrap().status(), 201);
    let log = serving.end().await;
    let slow: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("commits were slow"))
        .collect();
    assert_eq!(slow.len(), 1, "{log}");
    assert!(slow[0].contains("1 rows in"), "{}", slow[0]);
}

#[tokio::test]
async fn the_access_log_has_a_line_for_each_selected_request() {
    for (access, lines) in [("off", 0), ("all", 40), ("errors", 0), ("sample:2", 20)] {
        let data = tempfile::tempdir().unwrap();
        let serving = serving(
            &data,
            &[
                &format!("log.access={access}"),
                "auth.trusted_proxies=127.0.0.0/8",
            ],
        );
        for _ in 0..40 {
            let headers = [
                ("X-Request-Id", "r-1"),
                ("X-Forwarded-For", "203.0.113.9, 198.51.100.7"),
            ];
            assert_eq!(
                get(&serving, "/v1/coupons/7?secret=1", &headers).await.status(),
                422
            );
        }
        let log = serving.end().await;
        let found = about(&log, "r-1");
        let is_as_many = if access == "sample:2" {
            (3..=37).contains(&found.len())
        } else {
            found.len() == lines
        };
        assert!(is_as_many, "{access}: {} lines\n{log}", found.len());
        for line in found {
            assert_eq!(
                (&line["target"], &line["level"], &line["message"]),
                (&"access".into(), &"INFO".into(), &"answered".into()),
                "{line}"
            );
            assert_eq!(
                (&line["route"], &line["status"]),
                (&"/v1/coupons/{id}".into(), &422.into()),
                "{line}"
            );
            assert_eq!(
                (&line["span"]["client"], &line["span"]["method"]),
                (&"198.51.100.7".into(), &"GET".into()),
                "{line}"
            );
            assert!(
                line["took_us"].is_u64() && !line.to_string().contains("secret"),
                "{line}"
            );
        }
    }
}

#[tokio::test]
async fn every_line_about_a_failed_request_has_the_requests_id() {
    let data = tempfile::tempdir().unwrap();
    let serving = serving(&data, &["log.access=errors"]);
    hide_tables(&data.path().join("data/firstcome.db")).await;
    let headers = [
        ("X-Request-Id", "r-2"),
        ("X-User-Id", "alice"),
        ("X-Forwarded-For", "203.0.113.9"),
    ];
    let headers: Vec<_> = headers
        .into_iter()
        .chain([(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )])
        .collect();
    let response = get(&serving, "/v1/me/issuances", &headers).await;
    assert!(
        response.status().is_server_error() && response.headers()["x-request-id"] == "r-2",
        "{response:?}"
    );
    let log = serving.end().await;
    let lines = about(&log, "r-2");
    let levels: Vec<&str> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(
        levels,
        ["WARN", "INFO"],
        "what went wrong, and the answer:\n{log}"
    );
    // No proxy is trusted, so the header is ignored.
    assert!(
        lines
            .iter()
            .all(|line| line["span"]["client"] == "127.0.0.1" && line["span"]["trace_id"] == TRACE),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_response_has_the_trace_of_its_request_and_a_malformed_trace_is_ignored() {
    let data = tempfile::tempdir().unwrap();
    let serving = serving(&data, &[]);
    let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let answer = get(&serving, "/livez", &[("traceparent", &good)]).await;
    let response = answer.headers()["traceresponse"].to_str().unwrap();
    assert!(
        response.starts_with(&format!("00-{TRACE}-"))
            && response.ends_with("-01")
            && response.len() == good.len(),
        "{response}"
    );
    assert_ne!(response, good);
    for bad in ["", "00", "00-0-0-0", &good.to_uppercase()] {
        let answer = get(&serving, "/livez", &[("traceparent", bad)]).await;
        assert!(
            answer.status() == 200 && !answer.headers().contains_key("traceresponse"),
            "{bad}"
        );
    }
    let twice = get(
        &serving,
        "/livez",
        &[("traceparent", &good), ("traceparent", &good)],
    )
    .await;
    assert!(!twice.headers().contains_key("traceresponse"));
}

#[tokio::test]
async fn each_change_by_an_administrator_is_a_line_with_who_made_it() {
    let data = tempfile::tempdir().unwrap();
    let key = format!("auth.jwt.key={SECRET}");
    let serving = serving(&data, &["auth.mode=jwt", "auth.jwt.algorithm=HS256", &key]);
    let carol = token("carol", json!({"role": "admin"}));
    let client = reqwest::Client::new();
    let send = async |method: Method, path: &str, token: &str, id: &str, body: Value| {
        let request = client.request(method, format!("http://{}{path}", serving.address));
        let request = request.bearer_auth(token).header("X-Request-Id", id).json(&body);
        request.send().await.unwrap().status().as_u16()
    };
    let coupon = json!({"title": "a", "total_quantity": 5});
    assert_eq!(
        send(Method::POST, "/v1/coupons", ADMIN_TOKEN, "c-1", coupon).await,
        201
    );
    let patch = json!({"total_quantity": 7, "title": "b"});
    for (id, status, body) in [
        ("c-2", 200, patch.clone()),
        // This changes nothing, and this is refused.
        ("c-3", 200, patch),
        ("c-4", 422, json!({"total_quantity": 0})),
    ] {
        assert_eq!(
            send(Method::PATCH, "/v1/coupons/1", &carol, id, body).await,
            status
        );
    }
    assert_eq!(
        send(Method::POST, "/v1/coupons/1/pause", &carol, "c-5", json!({})).await,
        200
    );
    let log = serving.end().await;
    let (created, changed) = ("a coupon was created", "a coupon was changed");
    for (id, fields) in [
        ("c-1", json!([[created, "admin", "1", null, null, null, null]])),
        (
            "c-2",
            json!([[changed, "carol", "1", "patch", "title,total_quantity", 1, 2]]),
        ),
        ("c-3", json!([])),
        ("c-4", json!([])),
        ("c-5", json!([[changed, "carol", "1", "pause", null, 2, 3]])),
    ] {
        assert_eq!(change_fields(&log, id), fields, "{id}:\n{log}");
    }
}

/// Returns what the lines about this request say about a change.
fn change_fields(log: &str, id: &str) -> Value {
    let fields = |line: Value| -> Value {
        let own = [
            "message",
            "by",
            "coupon",
            "change",
            "fields",
            "from_version",
            "version",
        ];
        own.iter().map(|name| line[name].clone()).collect()
    };
    about(log, id).into_iter().map(fields).collect()
}

#[tokio::test]
async fn a_start_and_a_stop_are_logged_in_a_few_lines() {
    let data = tempfile::tempdir().unwrap();
    let serving = serving(&data, &[]);
    let log = serving.end().await;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let shards = |message: &str| -> u64 {
        let counts = lines.iter().filter(|line| line["message"] == message);
        counts.map(|line| line["count"].as_u64().unwrap()).sum()
    };
    assert_eq!(
        (shards("claimed shards"), shards("released shards")),
        (256, 256),
        "{log}"
    );
    assert!(lines.len() <= 12, "{log}");
    let last = lines.last().unwrap();
    assert_eq!(last["message"], "stopped", "{log}");
}

#[tokio::test]
async fn a_line_quotes_at_most_64_characters_of_a_method_and_a_key_id() {
    let data = tempfile::tempdir().unwrap();
    let (method, kid) = ("M".repeat(9_000), "K".repeat(9_000));
    let keys = json!({"keys": [
        {"kty": "oct", "k": "c2VjcmV0LW9mLXRoZS10ZXN0cy13aXRoLTMyLWJ5dGVz", "alg": "HS256", "kid": "a"},
        {"kty": "unknown", "kid": kid},
    ]});
    let file = data.path().join("keys.json");
    std::fs::write(&file, keys.to_string()).unwrap();
    let file = format!("auth.jwt.jwks_file={}", file.display());
    let serving = serving(&data, &["log.access=all", "auth.mode=jwt", &file]);
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = reqwest::Client::new().request(method, format!("http://{}/v1/me", serving.address));
    let answer = request.header("X-Request-Id", "long").send().await.unwrap();
    assert_eq!(answer.status(), 405);
    let log = serving.end().await;
    let line = &about(&log, "long")[0];
    assert_eq!(line["span"]["method"], format!("{}…", "M".repeat(64)));
    let skipped = log.lines().find(|line| line.contains("KK")).unwrap();
    assert!(skipped.contains(&format!("{}…", "K".repeat(64))) && !skipped.contains(&"K".repeat(65)));
    assert!(!log.contains(&"M".repeat(65)));
}
