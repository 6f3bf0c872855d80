//! Hostile and broken clients, over real sockets. Their connections end in time, and other clients do not
//! notice.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use testkit::poll::eventually;

use crate::support::{ADMIN_TOKEN, LIMIT, TestNode};

/// Number of hostile clients at the same time: many more than the node has threads.
const CROWD: usize = 64;

/// Time that a request of another client may take meanwhile. It is shorter than all timeouts that the tests
/// set, so the tests notice a request that waits for a hostile client.
const UNDISTURBED: Duration = Duration::from_millis(2_500);

/// Runs hostile clients while another client sends requests, in turn on a kept connection and on a new one.
async fn while_others_are_served<T>(node: &TestNode, hostile: impl Future<Output = T>) -> T {
    let others = async {
        for asked in 0_u32.. {
            let started = Instant::now();
            let reply = if asked % 2 == 0 {
                node.get("/v1/coupons").await
            } else {
                fresh(node).await
            };
            let took = started.elapsed();
            assert!(
                reply.status == 200 && took < UNDISTURBED,
                "request {asked} took {took:?}: {reply:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(LIMIT, async {
        tokio::select! {
            done = hostile => done,
            () = others => unreachable!("the others never end"),
        }
    });
    done.await.expect("the hostile clients end in time")
}

/// Sends a read on a new connection.
async fn fresh(node: &TestNode) -> crate::support::Reply {
    let client = reqwest::Client::new();
    crate::support::send(client.get(format!("http://{}/livez", node.service.address()))).await
}

/// Runs many clients at the same time, and returns their results.
async fn crowd<F: Future<Output = String> + Send + 'static>(
    node: &TestNode,
    client: impl Fn(TcpStream) -> F,
) -> Vec<String> {
    let mut clients = JoinSet::new();
    for _ in 0..CROWD {
        clients.spawn(client(TcpStream::connect(node.service.address()).await.unwrap()));
    }
    clients.join_all().await
}

/// Sends bytes one by one until that fails, and reads the response to its end.
async fn trickle(stream: TcpStream, bytes: Vec<u8>) -> String {
    let (mut reading, mut writing) = stream.into_split();
    let sending = tokio::spawn(async move {
        for byte in bytes.into_iter().chain(std::iter::repeat(b'x')) {
            if writing.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = Vec::new();
    // A client that keeps sending into a closed connection may see a reset after the response.
    let _ = reading.read_to_end(&mut answer).await;
    sending.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends bytes as fast as possible, and reads the response to its end.
async fn flood(stream: TcpStream, bytes: Vec<u8>) -> String {
    let (mut reading, mut writing) = stream.into_split();
    let sending = tokio::spawn(async move { writing.write_all(&bytes).await });
    let mut answer = Vec::new();
    let _ = reading.read_to_end(&mut answer).await;
    sending.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asserts that the only response of a connection is a problem with this code and all general headers.
fn assert_last(answer: &str, status: u16, code: &str) {
    let lower = answer.to_lowercase();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
    assert!(
        answer.contains(&format!("\"code\":\"{code}\"")) && answer.contains("\"applied\":false"),
        "{answer}"
    );
    for header in [
        "x-request-id: ",
        "content-type: application/problem+json",
        "date: ",
    ] {
        assert_eq!(
            lower.matches(&format!("\r\n{header}")).count(),
            1,
            "{header} of {answer}"
        );
    }
    let is_status_line = |rest: &&str| rest.starts_with(|first: char| first.is_ascii_digit());
    let status_lines = lower.split("http/1.1 ").skip(1).filter(is_status_line);
    assert_eq!(status_lines.count(), 1, "{answer}");
}

/// Returns the value of a line of the metrics; 0 if the line is missing.
pub async fn metric(node: &TestNode, line: &str) -> f64 {
    metric_in(node.get("/metrics").await.body.as_str().unwrap(), line)
}

/// Returns the value of a line of metrics that were read before; 0 if the line is missing.
pub fn metric_in(text: &str, line: &str) -> f64 {
    let value = text
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_does_not_extend_the_timeout_of_a_head() {
    let node = TestNode::start_with(&[("http.header_timeout", "3s")]).await;
    let started = Instant::now();
    let head = || b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec();
    let answers = while_others_are_served(&node, crowd(&node, |stream| trickle(stream, head()))).await;
    let took = started.elapsed();
    for answer in answers {
        assert_last(&answer, 408, "REQUEST_TIMEOUT");
    }
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(metric(&node, r#"coupon_http_connections_cut_total{reason="header"}"#).await >= CROWD as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_does_not_extend_the_timeout_of_a_body() {
    let node = TestNode::start_with(&[("http.body_timeout", "3s")]).await;
    let head = format!(
        "POST /v1/coupons HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nX-Request-Id: slow-1\r\nContent-Length: 9000\r\n\r\n"
    );
    let answers = while_others_are_served(
        &node,
        crowd(&node, |mut stream| {
            let head = head.clone();
            async move {
                stream.write_all(head.as_bytes()).await.unwrap();
                trickle(stream, Vec::new()).await
            }
        }),
    )
    .await;
    for answer in answers {
        assert_last(&answer, 408, "REQUEST_TIMEOUT");
        assert!(answer.contains("x-request-id: slow-1\r\n"), "{answer}");
    }
    assert!(
        node.get("/v1/coupons").await.body["items"]
            .as_array()
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_responses_is_cut() {
    let node = TestNode::start_with(&[("http.write_timeout", "3s")]).await;
    let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
        .repeat(4096)
        .into_bytes();
    let outcomes = while_others_are_served(
        &node,
        crowd(&node, |mut stream| {
            let requests = requests.clone();
            async move {
                // The client never reads, and sends requests until the connection is closed.
                while stream.write_all(&requests).await.is_ok() {}
                "cut".to_owned()
            }
        }),
    )
    .await;
    assert_eq!(outcomes.len(), CROWD);
    assert!(metric(&node, r#"coupon_http_connections_cut_total{reason="write"}"#).await >= CROWD as f64);
    eventually("only the connection of this test is left", async || {
        metric(&node, "coupon_http_connections").await <= 2.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_sending_side_gets_its_responses() {
    let node = TestNode::start().await;
    let id = node.coupon(serde_json::json!({})).await;
    let half_closed = async |bytes: String| {
        let mut stream = TcpStream::connect(node.service.address()).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer
    };
    let issue = format!("POST /v1/coupons/{id}/issuances HTTP/1.1\r\nHost: x\r\nX-User-Id: alice\r\n");
    // The request is executed and answered, and so is the next request.
    let answer = while_others_are_served(
        &node,
        half_closed(format!("{issue}\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n")),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 201 ") && answer.ends_with("{\"live\":true}"),
        "{answer}"
    );
    // An incomplete body is malformed; an incomplete head is not a request.
    assert_last(
        &half_closed(format!("{issue}Content-Length: 10\r\n\r\n{{")).await,
        400,
        "MALFORMED",
    );
    assert_eq!(half_closed(issue).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_as_malformed() {
    let node = TestNode::start().await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        .iter()
        .copied()
        .chain(0..=255)
        .collect::<Vec<u8>>();
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|byte| (byte.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80)
        .collect();
    for garbage in [
        hello,
        noise,
        b"GET / HTTP/7.0\r\n\r\n".to_vec(),
        b"GET\0/ HTTP/1.1\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n".to_vec(),
    ] {
        let answers =
            while_others_are_served(&node, crowd(&node, |stream| flood(stream, garbage.clone()))).await;
        for answer in answers {
            assert_last(&answer, 400, "MALFORMED");
        }
    }
    assert!(
        metric(&node, r#"coupon_http_connections_cut_total{reason="malformed"}"#).await >= (5 * CROWD) as f64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_after_a_request_does_not_affect_its_response() {
    let node = TestNode::start().await;
    let mut stream = TcpStream::connect(node.service.address()).await.unwrap();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n\x00\x01garbage\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let end = answer.find("{\"live\":true}").expect("the request is answered") + "{\"live\":true}".len();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_last(&answer[end..], 400, "MALFORMED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_above_sixteen_kib_or_with_over_a_hundred_headers_is_too_large() {
    let node = TestNode::start().await;
    let wide = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\nCookie: {}\r\n\r\n",
        "c".repeat(2_000_000)
    );
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "p".repeat(200_000));
    let many = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "X-More: y\r\n".repeat(200)
    );
    for head in [wide, long, many] {
        let answers = while_others_are_served(
            &node,
            crowd(&node, |stream| flood(stream, head.clone().into_bytes())),
        )
        .await;
        for answer in answers {
            assert_last(&answer, 431, "HEADER_TOO_LARGE");
        }
    }
    let mut fits = TcpStream::connect(node.service.address()).await.unwrap();
    let head = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {}\r\n\r\n",
        "c".repeat(15_000)
    );
    fits.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    fits.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_is_refused() {
    let node = TestNode::start_with(&[("http.body_timeout", "10s")]).await;
    let head = format!(
        "POST /v1/coupons HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let answers = while_others_are_served(
        &node,
        crowd(&node, |stream| {
            let head = head.clone();
            async move {
                let (mut reading, mut writing) = stream.into_split();
                let sending = tokio::spawn(async move {
                    writing.write_all(head.as_bytes()).await?;
                    let chunk = format!("2000\r\n{}\r\n", "z".repeat(0x2000));
                    loop {
                        writing.write_all(chunk.as_bytes()).await?;
                    }
                    #[expect(unreachable_code, reason = "says which type of error `?` returns above")]
                    Ok::<(), std::io::Error>(())
                });
                let mut answer = vec![0; 8192];
                let read = reading.read(&mut answer).await.unwrap_or(0);
                sending.abort();
                String::from_utf8_lossy(&answer[..read]).into_owned()
            }
        }),
    )
    .await;
    for answer in answers {
        assert_last(&answer, 413, "TOO_LARGE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_response_even_if_the_node_does_not_read_its_body() {
    let node = TestNode::start().await;
    // The first body is sent to an unknown path. The second body is larger than what is read before a 401.
    assert_answered_without_reset(&node, "/nowhere", 100_000, (404, "NOT_FOUND")).await;
    assert_answered_without_reset(&node, "/v1/coupons", 3_000_000, (401, "UNAUTHENTICATED")).await;
}

async fn assert_answered_without_reset(
    node: &TestNode,
    path: &'static str,
    length: usize,
    (status, code): (u16, &str),
) {
    let answers = while_others_are_served(
        node,
        crowd(node, |mut stream| async move {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = vec![0; 8192];
            let read = stream.read(&mut answer).await.unwrap();
            // The response arrives while the client still sends. Some clients read only after they have sent
            // everything, so the node must accept the whole body.
            for _ in 0..10 {
                stream.write_all(&[b'z'; 10_000]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            String::from_utf8_lossy(&answer[..read]).into_owned()
        }),
    )
    .await;
    for answer in answers {
        assert_last(&answer, status, code);
    }
}
