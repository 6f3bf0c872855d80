//! Where a request or a response begins and ends, over real sockets: `Host`, transfer codings, and the bytes
//! of clients in responses.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{ADMIN_TOKEN, LIMIT, TestNode, send};

/// Sends bytes, and reads until the node closes the connection.
async fn exchange(node: &TestNode, bytes: &str) -> String {
    let mut stream = TcpStream::connect(node.service.address()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(answer).unwrap()
}

/// Splits the head of the first response off.
fn head(text: &str) -> (String, &str) {
    let (head, rest) = text.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), rest)
}

fn assert_problem(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(
        answer.contains(&format!("\"code\":\"{code}\"")) && answer.contains("\"applied\":false"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_request_id_that_looks_like_a_response_is_only_a_header() {
    let node = TestNode::start().await;
    for id in [
        "HTTP/1.1_400_x",
        "HTTP/1.1_431_x",
        "HTTP/1.0_400_x-request-id:_x",
        "HTTP/1.1",
    ] {
        for (request, status) in [("HEAD /livez", 200), ("HEAD /nowhere", 404)] {
            let requests = format!(
                "{request} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\n\r\n\
                 GET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\nConnection: close\r\n\r\n"
            );
            let answer = exchange(&node, &requests).await;
            let (first, rest) = head(&answer);
            let (second, body) = head(rest);
            for (head, status) in [(first, status), (second, 200)] {
                assert!(head.starts_with(&format!("http/1.1 {status} ")), "{answer}");
                let echoed = format!("\r\nx-request-id: {}\r\n", id.to_lowercase());
                assert_eq!(format!("{head}\r\n").matches(&echoed).count(), 1, "{answer}");
            }
            assert_eq!(body, "{\"live\":true}", "{answer}");
        }
    }
}

#[tokio::test]
async fn a_request_without_exactly_one_host_is_malformed() {
    let node = TestNode::start().await;
    let ask = async |hosts: &str| {
        exchange(
            &node,
            &format!("GET /livez HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n"),
        )
        .await
    };
    for hosts in [
        "",
        "Host: x\r\nHost: x\r\n",
        "Host: x\r\nHost: y\r\n",
        "Host: user@x\r\n",
        "Host: x/y\r\n",
    ] {
        assert_problem(&ask(hosts).await, 400, "MALFORMED");
    }
    for hosts in ["Host: x\r\n", "Host: x:8080\r\n", "Host:\r\n"] {
        assert!(ask(hosts).await.starts_with("HTTP/1.1 200 "), "{hosts}");
    }
    // HTTP/1.0 does not require it.
    let old = exchange(&node, "GET /livez HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
    // Nothing is done for a request that is refused.
    let create = format!(
        "POST /v1/coupons HTTP/1.1\r\nHost: x\r\nHost: y\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Connection: close\r\nContent-Length: 36\r\n\r\n{{\"title\": \"T\", \"total_quantity\": 1}}\n"
    );
    assert_problem(&exchange(&node, &create).await, 400, "MALFORMED");
    assert_eq!(node.get("/v1/coupons").await.body["items"], json!([]));
}

#[tokio::test]
async fn a_coding_that_the_node_does_not_decode_is_refused() {
    let node = TestNode::start().await;
    let body = "{\"title\": \"T\", \"total_quantity\": 1}";
    let chunked = |codings: &str| {
        format!(
            "POST /v1/coupons HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nConnection: close\r\n\
             {codings}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    for codings in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    ] {
        assert_problem(&exchange(&node, &chunked(codings)).await, 501, "NOT_IMPLEMENTED");
    }
    for codings in ["Transfer-Encoding: chunked, chunked", "Transfer-Encoding: gzip"] {
        assert_problem(&exchange(&node, &chunked(codings)).await, 400, "MALFORMED");
    }
    let encoded = |coding: &str| {
        let create = node.admin(Method::POST, "/v1/coupons");
        let create = create.header("Content-Type", "application/json");
        send(create.header("Content-Encoding", coding).body(body))
    };
    for coding in ["gzip", "br", "identity, gzip"] {
        let refused = encoded(coding).await;
        refused.assert_refused(415, "UNSUPPORTED_MEDIA_TYPE");
        assert_eq!(refused.header("accept-encoding"), "identity", "{refused:?}");
    }
    assert_eq!(node.get("/v1/coupons").await.body["items"], json!([]));
    assert_eq!(encoded("identity").await.status, 201);
    let answer = exchange(&node, &chunked("Transfer-Encoding: chunked")).await;
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}
