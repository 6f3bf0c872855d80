//! Keys of tokens that are fetched from a URL, with a server that rotates, fails, hangs and lies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use testkit::poll::eventually;

use crate::hostile::metric_in;
use crate::process::{Serving, firstcome};
use crate::support::{ADMIN_TOKEN, TestNode, send};
use crate::tokens;

/// What the server answers.
#[derive(Debug, Clone)]
enum Answer {
    /// This JWK set.
    Set(String),
    /// This JWK set, after this time.
    Late(String, Duration),
    /// A status without keys.
    Status(&'static str),
    /// This body, which is no JWK set.
    Text(String),
    /// Nothing; the connection stays open.
    Nothing,
}

/// A server of keys.
struct Keys {
    port: u16,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl Keys {
    async fn start(answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keys = Self {
            port: listener.local_addr().unwrap().port(),
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
        };
        let (answer, asked) = (Arc::clone(&keys.answer), Arc::clone(&keys.asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, asked, tls) = (Arc::clone(&answer), Arc::clone(&asked), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &answer, &asked).await,
                        // A client that does not trust the certificate ends the handshake.
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &answer, &asked).await,
                            Err(_) => Ok(()),
                        },
                    }
                });
            }
        });
        keys
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/keys?of=tests", self.port)
    }

    fn answer(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &Mutex<Answer>,
    asked: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    assert!(head.starts_with(b"GET /keys?of=tests HTTP/1.1\r\n"));
    asked.fetch_add(1, Ordering::SeqCst);
    let answer = answer.lock().unwrap().clone();
    let (status, body) = match answer {
        Answer::Set(body) | Answer::Text(body) => ("200 OK", body),
        Answer::Late(body, time) => {
            tokio::time::sleep(time).await;
            ("200 OK", body)
        }
        Answer::Status(status) => (status, String::new()),
        Answer::Nothing => {
            // Until the client gives up.
            let _ = stream.read_u8().await;
            return Ok(());
        }
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.flush().await?;
    // The client closes.
    let _ = stream.read_u8().await;
    Ok(())
}

/// The keys of the tests, by their `kid`.
struct Signers {
    old: EncodingKey,
    new: EncodingKey,
}

impl Signers {
    fn new() -> Self {
        Self {
            old: tokens::private("eddsa.other.private"),
            new: tokens::private("eddsa.private"),
        }
    }

    fn key(&self, kid: &str) -> &EncodingKey {
        if kid == "old" { &self.old } else { &self.new }
    }

    fn set(&self, kids: &[&'static str]) -> String {
        let keys = kids.iter().map(|kid| (Algorithm::EdDSA, *kid, self.key(kid)));
        tokens::jwks(&keys.collect::<Vec<_>>())
    }

    fn token(&self, kid: &str) -> String {
        tokens::signed(Algorithm::EdDSA, kid, self.key(kid), "alice")
    }
}

async fn node(keys: &Keys) -> TestNode {
    TestNode::start_with(&[("auth.mode", "jwt"), ("auth.jwt.jwks_url", &keys.url())]).await
}

async fn status(node: &TestNode, token: &str) -> u16 {
    send(node.request(Method::GET, "/v1/me").bearer_auth(token))
        .await
        .status
}

#[tokio::test]
async fn keys_are_fetched_at_the_start_and_for_an_unknown_key_but_not_for_each() {
    let signers = Signers::new();
    let keys = Keys::start(Answer::Set(signers.set(&["old"])), None).await;
    let node = node(&keys).await;
    let old = signers.token("old");
    assert_eq!(status(&node, &old).await, 200);
    assert_eq!(keys.asked(), 1);
    // The provider adds a key, and takes the old one back. The first token of the new key finds it.
    keys.answer(Answer::Set(signers.set(&["new"])));
    assert_eq!(status(&node, &signers.token("new")).await, 200);
    assert_eq!(keys.asked(), 2);
    // So the old key is refused, also with a token that was verified before.
    assert_eq!(status(&node, &old).await, 401);
    // Anyone can send tokens of unknown keys: they cause no fetch within ten seconds.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(status(&node, &signers.token("other")).await, 401);
    }
    assert_eq!(keys.asked(), 2);
    assert_eq!(status(&node, &signers.token("new")).await, 200);
}

#[tokio::test]
async fn keys_are_fetched_for_a_wrong_signature_because_a_key_may_be_replaced_under_its_name() {
    let signers = Signers::new();
    let named = |key| tokens::jwks(&[(Algorithm::EdDSA, "key", key)]);
    let token = |key| tokens::signed(Algorithm::EdDSA, "key", key, "alice");
    let keys = Keys::start(Answer::Set(named(&signers.old)), None).await;
    let node = node(&keys).await;
    assert_eq!(status(&node, &token(&signers.old)).await, 200);
    keys.answer(Answer::Set(named(&signers.new)));
    assert_eq!(status(&node, &token(&signers.new)).await, 200);
    // Anyone can send wrong signatures: they cause no fetch within ten seconds.
    for _ in 0..3 {
        assert_eq!(status(&node, &token(&signers.old)).await, 401);
    }
    assert_eq!(keys.asked(), 2);
}

#[tokio::test]
async fn a_large_body_is_read_though_the_key_of_its_token_is_fetched_only_then() {
    let signers = Signers::new();
    let keys = Keys::start(Answer::Set(signers.set(&["old"])), None).await;
    let settings = [
        ("auth.mode", "jwt"),
        ("auth.jwt.jwks_url", &keys.url()),
        ("auth.jwt.role_claim", "sub"),
        ("auth.jwt.roles", "alice=service"),
    ];
    let node = TestNode::start_with(&settings).await;
    assert_eq!(status(&node, &signers.token("old")).await, 200);
    keys.answer(Answer::Set(signers.set(&["new"])));
    let coupon = node.coupon(json!({})).await;
    let users: Vec<String> = (0..1_000).map(|number| format!("{number:0>100}")).collect();
    let bulk = node
        .request(Method::POST, &format!("/v1/coupons/{coupon}/issuances/bulk"))
        .bearer_auth(signers.token("new"))
        .json(&json!({"user_ids": users}));
    let reply = send(bulk).await;
    assert_eq!((reply.status, keys.asked()), (200, 2), "{reply:?}");
}

#[tokio::test]
async fn requests_with_an_unknown_key_share_one_fetch_and_wait_for_it() {
    let signers = Signers::new();
    let keys = Keys::start(Answer::Set(signers.set(&["old"])), None).await;
    let node = node(&keys).await;
    assert_eq!(status(&node, &signers.token("old")).await, 200);
    keys.answer(Answer::Late(
        signers.set(&["old", "new"]),
        Duration::from_millis(700),
    ));
    // The first client gives up, which must not end the fetch.
    let impatient = node
        .request(Method::GET, "/v1/me")
        .bearer_auth(signers.token("new"))
        .timeout(Duration::from_millis(200));
    assert!(impatient.send().await.is_err());
    let token = signers.token("new");
    let (first, second) = tokio::join!(status(&node, &token), status(&node, &token));
    assert_eq!((first, second, keys.asked()), (200, 200, 2));
}

#[tokio::test]
async fn the_old_keys_stay_while_the_url_fails() {
    let signers = Signers::new();
    let too_large = format!("{{\"keys\": [], \"x\": \"{}\"}}", "x".repeat(1024 * 1024));
    for answer in [
        Answer::Status("500 Internal Server Error"),
        Answer::Status("302 Found\r\nLocation: /other"),
        Answer::Text("no keys".to_owned()),
        Answer::Text("{\"keys\": []}".to_owned()),
        Answer::Text(too_large),
        Answer::Nothing,
    ] {
        let keys = Keys::start(Answer::Set(signers.set(&["old"])), None).await;
        let node = node(&keys).await;
        let (old, new) = (signers.token("old"), signers.token("new"));
        assert_eq!(status(&node, &old).await, 200);
        keys.answer(answer.clone());
        let begun = Instant::now();
        let waiting = async {
            let status = status(&node, &new).await;
            (status, begun.elapsed())
        };
        let known = async {
            let status = status(&node, &old).await;
            (status, begun.elapsed())
        };
        let ((refused, waited), (accepted, took)) = tokio::join!(waiting, known);
        assert_eq!((refused, accepted, keys.asked()), (401, 200, 2), "{answer:?}");
        // A request with a known key waits for nothing.
        assert!(waited < Duration::from_secs(15), "{answer:?}: {waited:?}");
        assert!(took <= waited, "{answer:?}: {took:?} {waited:?}");
        assert_eq!(status(&node, &old).await, 200, "{answer:?}");
        node.service.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_node_starts_while_the_url_fails_and_fetches_the_keys_later() {
    let signers = Signers::new();
    let keys = Keys::start(Answer::Status("503 Service Unavailable"), None).await;
    let data = tempfile::tempdir().unwrap();
    let settings = [
        format!("auth.admin_token={ADMIN_TOKEN}"),
        "auth.mode=jwt".to_owned(),
        format!("auth.jwt.jwks_url={}", keys.url()),
    ];
    let arguments = settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
    let serving = Serving::start(&data, &arguments.collect::<Vec<_>>());
    let client = reqwest::Client::new();
    let get = async |path: &str, token: &str| {
        let request = client.get(format!("http://{}{path}", serving.address));
        request.bearer_auth(token).send().await.unwrap()
    };
    let stale = async || {
        let text = get("/metrics", "").await.text().await.unwrap();
        metric_in(&text, r#"coupon_keys_stale{source="jwks_url"}"#)
    };
    assert_eq!(get("/v1/me", ADMIN_TOKEN).await.status(), 200);
    // The token may be valid.
    let unknown = get("/v1/me", &signers.token("old")).await;
    let wait = unknown.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse::<u32>()
        .unwrap();
    assert!(unknown.status() == 503 && wait >= 1, "{unknown:?}");
    let body: serde_json::Value = unknown.json().await.unwrap();
    assert_eq!(
        (&body["code"], &body["applied"]),
        (&"KEYS_UNAVAILABLE".into(), &false.into())
    );
    // This is no token, and this path needs none.
    assert_eq!(get("/v1/me", "x").await.status(), 401);
    assert_eq!(get("/v1/coupons", &signers.token("old")).await.status(), 200);
    assert_eq!(stale().await, 1.0);
    keys.answer(Answer::Set(signers.set(&["old"])));
    let token = signers.token("old");
    eventually("the keys are fetched", async || {
        get("/v1/me", &token).await.status() == 200
    })
    .await;
    assert_eq!(stale().await, 0.0);
    let log = serving.end().await;
    assert!(
        log.lines()
            .any(|line| line.contains("ERROR") && line.contains("failed to fetch the keys of tokens")),
        "{log}"
    );
}

#[tokio::test]
async fn keys_are_fetched_by_https_from_a_server_that_the_machine_trusts_only() {
    let signers = Signers::new();
    let (certificate, acceptor) = crate::tls::server("localhost");
    let keys = Keys::start(Answer::Set(signers.set(&["old"])), Some(acceptor)).await;
    let data = tempfile::tempdir().unwrap();
    let (trusted, other) = (data.path().join("trusted.pem"), data.path().join("other.pem"));
    std::fs::write(&trusted, certificate).unwrap();
    std::fs::write(&other, crate::tls::server("localhost").0).unwrap();
    let settings = [
        format!("auth.admin_token={ADMIN_TOKEN}"),
        "auth.mode=jwt".to_owned(),
        format!("auth.jwt.jwks_url=https://localhost:{}/keys?of=tests", keys.port),
    ];
    let arguments = settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
    let arguments: Vec<&str> = arguments.collect();
    for (roots, expected) in [(trusted, 200), (other, 503)] {
        let data = tempfile::tempdir().unwrap();
        let mut command = firstcome(&data, &arguments);
        command.env("SSL_CERT_FILE", roots).env_remove("SSL_CERT_DIR");
        let serving = Serving::started(&data, command, &arguments);
        let request = reqwest::Client::new().get(format!("http://{}/v1/me", serving.address));
        let response = request.bearer_auth(signers.token("old")).send().await.unwrap();
        assert_eq!(response.status(), expected, "{}", serving.end().await);
    }
}
