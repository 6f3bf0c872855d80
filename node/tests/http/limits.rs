//! Bounds and timeouts of the listener, over real sockets, and stopping with slow clients.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::hostile::metric;
use crate::process::Serving;
use testkit::poll::eventually;

use crate::support::{ADMIN_TOKEN, LIMIT, TestNode};

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

/// Sends a request, and reads the first bytes of the response.
async fn ask(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 8192];
    let read = tokio::time::timeout(LIMIT, stream.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn assert_refused(answer: &str) {
    let lower = answer.to_lowercase();
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"code\":\"OVERLOADED\""),
        "{answer:?}"
    );
    for header in [
        "x-request-id: ",
        "retry-after: ",
        "connection: close\r\n",
        "content-type: application/problem+json",
    ] {
        assert!(lower.contains(&format!("\r\n{header}")), "{header} of {answer}");
    }
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_until_there_is_room() {
    let node = TestNode::start_with(&[
        ("http.connections_max", "2"),
        ("limits.client_connections_max", "1000"),
        ("http.idle_timeout", "60s"),
    ])
    .await;
    let connect = async || TcpStream::connect(node.service.address()).await.unwrap();
    let (mut first, mut second) = (connect().await, connect().await);
    for stream in [&mut first, &mut second] {
        assert!(ask(stream, LIVEZ).await.starts_with("HTTP/1.1 200 "));
    }
    // A client is refused whether it sends nothing or a request.
    assert_refused(&rest(&mut connect().await).await);
    let mut third = connect().await;
    third.write_all(LIVEZ).await.unwrap();
    assert_refused(&rest(&mut third).await);
    assert!(
        ask(&mut first, LIVEZ).await.starts_with("HTTP/1.1 200 "),
        "a connection within the limit stays open"
    );
    drop(second);
    eventually("there is room again", async || {
        ask(&mut connect().await, LIVEZ)
            .await
            .starts_with("HTTP/1.1 200 ")
    })
    .await;
    drop(first);
    eventually("refusals are counted", async || {
        metric(&node, "coupon_http_connections_refused_total").await >= 2.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_bounded_and_reach_every_client() {
    let node = TestNode::start_with(&[
        ("http.connections_max", "1"),
        ("limits.client_connections_max", "1000"),
        ("http.idle_timeout", "60s"),
    ])
    .await;
    let mut only = TcpStream::connect(node.service.address()).await.unwrap();
    assert!(ask(&mut only, LIVEZ).await.starts_with("HTTP/1.1 200 "));
    let started = Instant::now();
    // There are more clients than are refused at the same time, and no client closes its connection.
    let mut streams = Vec::new();
    for _ in 0..600 {
        streams.push(TcpStream::connect(node.service.address()).await.unwrap());
    }
    for stream in &mut streams {
        let mut answer = vec![0; 8192];
        let read = tokio::time::timeout(LIMIT, stream.read(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_refused(&String::from_utf8_lossy(&answer[..read]));
    }
    // 256 clients are refused per second, so the last clients wait for the first.
    assert!(
        started.elapsed() > Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert!(ask(&mut only, LIVEZ).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn idle_and_silent_connections_are_closed() {
    let node =
        TestNode::start_with(&[("http.idle_timeout", "300ms"), ("http.header_timeout", "600ms")]).await;
    let mut idle = TcpStream::connect(node.service.address()).await.unwrap();
    assert!(ask(&mut idle, LIVEZ).await.starts_with("HTTP/1.1 200 "));
    let started = Instant::now();
    assert_eq!(rest(&mut idle).await, "");
    assert!(
        (Duration::from_millis(200)..Duration::from_secs(3)).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    let mut silent = TcpStream::connect(node.service.address()).await.unwrap();
    assert_eq!(rest(&mut silent).await, "");
    for reason in ["idle", "silent"] {
        assert!(
            metric(
                &node,
                &format!("coupon_http_connections_cut_total{{reason=\"{reason}\"}}")
            )
            .await
                >= 1.0,
            "{reason}"
        );
    }
}

#[tokio::test]
async fn a_response_does_not_wait_for_the_rest_of_the_next_request() {
    let node = TestNode::start().await;
    let mut stream = TcpStream::connect(node.service.address()).await.unwrap();
    let answer = ask(&mut stream, &[LIVEZ, b"GET /livez HT"].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        ask(&mut stream, b"TP/1.1\r\nHost: x\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_does_not_wait_for_stalled_clients() {
    // All timeouts have their defaults of many seconds; stopping takes less.
    let node = TestNode::start().await;
    let connect = async || TcpStream::connect(node.service.address()).await.unwrap();
    let (mut head, mut body, mut unread, mut idle) =
        (connect().await, connect().await, connect().await, connect().await);
    head.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let post = format!(
        "POST /v1/coupons HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Length: 10\r\n\r\n{{"
    );
    body.write_all(post.as_bytes()).await.unwrap();
    assert!(ask(&mut idle, LIVEZ).await.starts_with("HTTP/1.1 200 "));
    let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4096);
    // Sends requests until the server reads no more, because it cannot send responses.
    while let Ok(sent) =
        tokio::time::timeout(Duration::from_millis(500), unread.write_all(requests.as_bytes())).await
    {
        sent.unwrap();
    }
    let started = Instant::now();
    node.service.stop().await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(rest(&mut idle).await, "");
    assert!(rest(&mut head).await.starts_with("HTTP/1.1 408 "));
    assert!(rest(&mut body).await.starts_with("HTTP/1.1 408 "));
}

/// Returns the limit of open files of this process.
fn open_files_max() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    line.split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap_or(u64::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_do_not_delay_requests() {
    const CONNECTIONS: usize = 10_000;
    if open_files_max() < 12_000 {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: 12,000 open files are not allowed here, so ten thousand connections were not opened"
        );
        return;
    }
    let data = tempfile::tempdir().unwrap();
    // The node is a separate process, because both ends of all connections would not fit into one process.
    let serving = Serving::start(
        &data,
        &[
            "--set",
            &format!("auth.admin_token={ADMIN_TOKEN}"),
            "--set",
            "http.header_timeout=60s",
            "--set",
            "limits.client_connections_max=20000",
        ],
    );
    let mut streams = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        streams.push(
            tokio::time::timeout(LIMIT, TcpStream::connect(&serving.address))
                .await
                .unwrap()
                .unwrap(),
        );
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..50 {
        let started = Instant::now();
        let mut stream = TcpStream::connect(&serving.address).await.unwrap();
        assert!(ask(&mut stream, LIVEZ).await.starts_with("HTTP/1.1 200 "));
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let metrics = reqwest::get(format!("http://{}/metrics", serving.address))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let open = metrics
        .lines()
        .find_map(|line| line.strip_prefix("coupon_http_connections "))
        .unwrap();
    assert!(open.parse::<f64>().unwrap() >= CONNECTIONS as f64, "{open}");
    drop(streams);
}

#[tokio::test]
async fn connections_max_is_lowered_with_a_warning_if_the_system_allows_fewer() {
    let data = tempfile::tempdir().unwrap();
    let serving = Serving::start_below(
        &data,
        700,
        &[
            "--set",
            &format!("auth.admin_token={ADMIN_TOKEN}"),
            "--set",
            "limits.client_connections_max=1000",
        ],
    );
    // There is room for 188 connections: 700 less 256 for other files and 256 for refusals.
    let mut streams = Vec::new();
    for _ in 0..188 {
        let mut stream = TcpStream::connect(&serving.address).await.unwrap();
        assert!(ask(&mut stream, LIVEZ).await.starts_with("HTTP/1.1 200 "));
        streams.push(stream);
    }
    let mut more = TcpStream::connect(&serving.address).await.unwrap();
    assert_refused(&rest(&mut more).await);
    drop(streams);
    let log = serving.end().await;
    assert!(
        log.contains("http.connections_max") && log.contains("fit=188"),
        "{log}"
    );
}

#[tokio::test]
async fn a_request_is_answered_overloaded_if_the_queue_of_the_node_or_owner_is_full() {
    for (key, bound) in [
        ("limits.requests_max", "node"),
        ("limits.coupon_requests_max", "owner"),
    ] {
        let node = TestNode::start_with(&[(key, "1"), ("http.deadline", "5s")]).await;
        let id = node.coupon(json!({})).await;
        assert_eq!(node.issue("early", id).await.status, 201);
        let before = metric(
            &node,
            &format!("coupon_requests_refused_total{{bound=\"{bound}\"}}"),
        )
        .await;
        let lock = crate::setbacks::lock(&node).await;
        let mut asked = [
            tokio::spawn(crate::support::send(node.issue_request("alice", id))),
            tokio::spawn(crate::support::send(node.issue_request("bob", id))),
        ];
        let [alice, bob] = &mut asked;
        let (refused, held) = tokio::select! {
            reply = &mut *alice => (reply.unwrap(), bob),
            reply = &mut *bob => (reply.unwrap(), alice),
        };
        assert_eq!(
            (refused.status, refused.body["code"].as_str()),
            (503, Some("OVERLOADED")),
            "{bound}: {refused:?}"
        );
        assert!(
            !refused.header("retry-after").is_empty() && refused.body["applied"] == json!(false),
            "{refused:?}"
        );
        let after = metric(
            &node,
            &format!("coupon_requests_refused_total{{bound=\"{bound}\"}}"),
        )
        .await;
        assert!(after > before, "{bound}: {before} {after}");
        crate::setbacks::unlock(lock).await;
        assert_eq!(held.await.unwrap().status, 201, "{bound}");
    }
}
