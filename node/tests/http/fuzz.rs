//! Random requests: every request gets a response that the contract allows and that is not a 500.
//!
//! Requests are generated from a seed, which is printed. `FIRSTCOME_SEED=<number>` replays the requests of
//! that seed.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::contract;
use crate::support::{ADMIN_TOKEN, LIMIT, Reply, TestNode};

/// Number of requests in each test.
const REQUESTS: u32 = 1_500;

/// Number of issuances that exist before. So few of them are revoked that steps are taken with the others.
const ISSUANCES: u32 = 40;

#[derive(Debug, Clone)]
struct RawRequest {
    method: String,
    path: String,
    query: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("1".to_owned()),
        4 => (1..=ISSUANCES).prop_map(|sequence| format!("1-{sequence}")),
        1 => any::<i128>().prop_map(|number| number.to_string()),
        1 => "[0-9a-z%._~:@!$&'()*+,;=-]{0,30}",
        1 => "(%[0-9a-f]{2}){1,8}",
        1 => Just("..".to_owned()),
    ]
}

fn path() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "/v1/coupons",
        "/v1/coupons/{id}",
        "/v1/coupons/{id}/pause",
        "/v1/coupons/{id}/resume",
        "/v1/coupons/{id}/issuances",
        "/v1/coupons/{id}/issuances/bulk",
        "/v1/coupons/{id}/issuances.csv",
        "/v1/coupons/{id}/issuances.ndjson",
        "/v1/coupons/{id}/statistics",
        "/v1/coupons/{id}/changes",
        "/v1/me",
        "/v1/me/issuances",
        "/v1/issuances",
        "/v1/issuances/{id}",
        "/v1/issuances/{id}/quote",
        "/v1/issuances/{id}/reserve",
        "/v1/issuances/{id}/redeem",
        "/v1/issuances/{id}/release",
        "/v1/issuances/{id}/refund",
        "/v1/issuances/{id}/revoke",
        "/v1/issuances/{id}/uses",
        "/v1/cluster",
        "/v1/cluster/coupons/{id}",
        "/livez",
        "/readyz",
        "/metrics",
        "/docs",
        "/docs/{id}",
        "/openapi.json",
    ]);
    prop_oneof![
        6 => (known, id()).prop_map(|(path, id)| path.replace("{id}", &id)),
        1 => "/[0-9a-z%._~:@/-]{0,40}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "limit",
        "cursor",
        "phase",
        "user_id",
        "after_sequence",
        "coupon_id",
        "title",
        "state",
        "order_amount",
        "expand",
        "bucket",
        "from",
        "to",
        "other",
    ]);
    let value = prop_oneof![
        "[0-9]{0,25}",
        "[A-Za-z0-9%+._-]{0,60}",
        "(%[0-9a-f]{2}){0,20}",
        prop::sample::select(vec!["live", "alice", "usable", "coupon", "1h", "5"]).prop_map(str::to_owned),
    ];
    vec((name, value), 0..4).prop_map(|pairs| {
        pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("&")
    })
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let name = prop::sample::select(vec![
        "X-User-Id",
        "Authorization",
        "Idempotency-Key",
        "If-Match",
        "Content-Type",
        "X-Request-Id",
        "Accept",
        "Cookie",
        "X-Forwarded-For",
    ]);
    let bytes = vec(prop_oneof![8 => 0x20_u8..0x7f, 1 => 0x80_u8..=0xff], 0..90);
    let known = prop::sample::select(vec![
        "alice",
        "application/json",
        "application/json; charset=latin1",
        "Bearer ",
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
        "\"1\"",
        "*",
        "k-1",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    let admin = Just(format!("Bearer {ADMIN_TOKEN}").into_bytes());
    let sane = prop_oneof![
        3 => admin.prop_map(|token| vec![("Authorization", token)]),
        3 => Just(vec![("X-User-Id", b"alice".to_vec())]),
        1 => Just(vec![]),
    ];
    let odd = vec((name, prop_oneof![known, bytes]), 0..4);
    (sane, odd).prop_map(|(sane, odd)| sane.into_iter().chain(odd).collect())
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0..100_u64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        prop::sample::select(vec![
            "open",
            "paused",
            "rate",
            "alice",
            "2026-11-27T00:00:00Z",
            "9999-12-31T23:59:60+23:59",
            "\0"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((field(), inner), 0..5).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "title",
        "total_quantity",
        "per_user_limit",
        "starts_at",
        "ends_at",
        "discount",
        "kind",
        "value",
        "min_order_amount",
        "use_within_days",
        "use_until",
        "time_zone",
        "description",
        "metadata",
        "max_discount",
        "status",
        "user_id",
        "user_ids",
        "order_id",
        "order_amount",
        "hold",
        "reason",
        "return_quantity",
    ]);
    prop_oneof![6 => known.prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => Just(Vec::new()),
        2 => Just(b"{}".to_vec()),
        2 => prop::sample::select(vec![
            r#"{"order_id": "b", "order_amount": 5, "hold": 1}"#,
            r#"{"user_ids": ["alice", "bob", "alice"]}"#,
        ]).prop_map(|text| text.as_bytes().to_vec()),
        6 => vec((field(), json_value()), 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect()).to_string().into_bytes()),
        2 => json_value().prop_map(|value| value.to_string().into_bytes()),
        2 => vec(any::<u8>(), 0..200),
        1 => (1_usize..20_000).prop_map(|depth| "[".repeat(depth).into_bytes()),
        1 => (1_usize..2_500).prop_map(|depth| "{\"title\":".repeat(depth).into_bytes()),
        1 => "[0-9]{1,400}".prop_map(|digits| format!("{{\"total_quantity\": {digits}}}").into_bytes()),
        1 => (16_000_usize..40_000).prop_map(|bytes| vec![b' '; bytes]),
    ]
}

/// A step that may succeed: random requests hardly ever take one that rests on another. One in three steps has
/// random values in place of some fields.
fn step() -> impl Strategy<Value = RawRequest> {
    let steps = vec!["reserve", "redeem", "release", "refund", "revoke"];
    let fields = vec!["order_id", "order_amount", "hold", "reason", "return_quantity"];
    let field = (prop::sample::select(fields), json_value());
    let odd = prop_oneof![2 => Just(Vec::new()), 1 => vec(field, 1..3)];
    (1..=ISSUANCES, prop::sample::select(steps), odd).prop_map(|(sequence, step, odd)| {
        let mut body = match step {
            "reserve" | "redeem" => json!({"order_id": "a", "order_amount": 5}),
            "revoke" => json!({}),
            _ => json!({"order_id": "a"}),
        };
        for (field, value) in odd {
            body[field] = value;
        }
        RawRequest {
            method: "POST".to_owned(),
            path: format!("/v1/issuances/1-{sequence}/{step}"),
            query: String::new(),
            headers: vec![("Authorization", format!("Bearer {ADMIN_TOKEN}").into_bytes())],
            body: body.to_string().into_bytes(),
        }
    })
}

fn request() -> impl Strategy<Value = RawRequest> {
    prop_oneof![3 => any_request(), 1 => step()]
}

fn any_request() -> impl Strategy<Value = RawRequest> {
    let method = prop_oneof![
        8 => prop::sample::select(vec!["GET", "POST", "PATCH"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"]).prop_map(str::to_owned),
        1 => "[A-Z]{1,4}X",
    ];
    (method, path(), query(), headers(), body()).prop_map(|(method, path, query, headers, body)| RawRequest {
        method,
        path,
        query,
        headers,
        body,
    })
}

impl RawRequest {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!(
            "{} {}?{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
            self.method, self.path, self.query
        )
        .into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", self.body.len()).as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Sends bytes and reads the response to its end. If the request may be incomplete, closes the sending side.
async fn exchange(node: &TestNode, bytes: &[u8], is_whole: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.service.address()).await.unwrap();
    let mut answer = Vec::new();
    let both = async {
        // The server may close first.
        let _ = stream.write_all(bytes).await;
        if !is_whole {
            let _ = stream.shutdown().await;
        }
        let _ = stream.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(LIMIT, both)
        .await
        .expect("the node answers or closes the connection in time");
    answer
}

/// Parses a response.
fn parse(answer: &[u8]) -> Reply {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a head");
    let (head, body) = (std::str::from_utf8(&answer[..end]).unwrap(), &answer[end + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let text = String::from_utf8_lossy(body).into_owned();
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    };
    Reply {
        status,
        headers: headers.collect(),
        body,
    }
}

/// Runs a test with the values of the seed.
fn with_seed(test: impl FnOnce(&mut TestRunner)) {
    let seed = std::env::var("FIRSTCOME_SEED")
        .ok()
        .map_or(20_261_121, |seed| seed.parse::<u64>().unwrap());
    println!("FIRSTCOME_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: REQUESTS,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    test(&mut TestRunner::new_with_rng(
        config,
        TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
    ));
}

#[test]
fn every_response_to_a_random_request_is_in_the_contract() {
    let runtime = Runtime::new().unwrap();
    let node = runtime.block_on(async {
        let node = TestNode::start().await;
        let id = node.coupon(json!({"per_user_limit": 100})).await;
        assert_eq!(id, 1);
        for _ in 0..ISSUANCES {
            assert_eq!(node.issue("alice", id).await.status, 201);
        }
        node
    });
    with_seed(|runner| {
        let outcome = runner.run(&request(), |request| {
            let reply = parse(&runtime.block_on(exchange(&node, &request.bytes(), true)));
            assert!(
                reply.status != 500 && (1..=64).contains(&reply.header("x-request-id").len()),
                "{reply:?}"
            );
            let method: Method = request.method.parse().unwrap();
            contract::check(&method, &request.path, None, &reply);
            let text = if reply.status >= 400 {
                reply.body.to_string()
            } else {
                String::new()
            };
            for trace in ["Some(", "Err(", "SELECT", "sqlx", ".rs:", "panicked", ADMIN_TOKEN] {
                assert!(
                    !text.contains(trace)
                        || request
                            .bytes()
                            .windows(trace.len())
                            .any(|part| part == trace.as_bytes()),
                    "{text}"
                );
            }
            Ok(())
        });
        outcome.unwrap();
    });
    assert_eq!(runtime.block_on(node.get("/readyz")).status, 200);
    let kinds = runtime.block_on(kinds_of_uses(&node));
    let all = ["redeemed", "refunded", "released", "reserved", "revoked"];
    assert!(kinds.iter().eq(all), "some step was never taken: {kinds:?}");
}

/// Returns the kinds of the uses that were made.
async fn kinds_of_uses(node: &TestNode) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for sequence in 1..=ISSUANCES {
        let list = node.admin_get(&format!("/v1/issuances/1-{sequence}/uses")).await;
        let uses = list.body["items"].as_array().unwrap().iter();
        kinds.extend(uses.map(|made| made["kind"].as_str().unwrap().to_owned()));
    }
    kinds
}

#[test]
fn random_bytes_are_refused_or_dropped() {
    let runtime = Runtime::new().unwrap();
    let node = runtime.block_on(TestNode::start());
    let pieces = prop_oneof![
        vec(any::<u8>(), 0..300),
        (request(), any::<prop::sample::Index>()).prop_map(|(request, cut)| {
            let bytes = request.bytes();
            bytes[..cut.index(bytes.len())].to_vec()
        }),
        (request(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(request, place, byte)| {
            let mut bytes = request.bytes();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            bytes
        }),
    ];
    with_seed(|runner| {
        let outcome = runner.run(&pieces, |bytes| {
            let answer = runtime.block_on(exchange(&node, &bytes, false));
            assert!(
                answer.is_empty() || answer.starts_with(b"HTTP/1.1 ") || answer.starts_with(b"HTTP/1.0 "),
                "{answer:?}"
            );
            assert!(
                !answer.starts_with(b"HTTP/1.1 500"),
                "{}",
                String::from_utf8_lossy(&answer)
            );
            Ok(())
        });
        outcome.unwrap();
    });
    assert_eq!(runtime.block_on(node.get("/readyz")).status, 200);
}
