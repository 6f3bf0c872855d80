//! Clients that read their responses slowly or not at all, over real sockets: what they cost, and that their
//! responses are whole.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::poll::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::bulk::users;
use crate::clients::connect_from;
use crate::contract;
use crate::hostile::metric_in;
use crate::process::Serving;
use crate::support::{ADMIN_TOKEN, LIMIT, Reply, TestNode, send};

/// The largest file in the program, of 1.5 MB.
const FILE: &str = "/docs/swagger-ui-bundle.js";

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads a response to the end of its body.
async fn read_whole(stream: &mut TcpStream, pause: Duration) -> (String, Vec<u8>) {
    let (mut bytes, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            if bytes.len() >= end + 4 + length.parse::<usize>().unwrap() {
                return (head, bytes.split_off(end + 4));
            }
        }
        let read = tokio::time::timeout(LIMIT, stream.read(&mut part))
            .await
            .unwrap()
            .unwrap();
        assert!(read > 0, "cut after {} bytes", bytes.len());
        bytes.extend_from_slice(&part[..read]);
        tokio::time::sleep(pause).await;
    }
}

/// Returns the memory of a process, in bytes.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_a_file_cost_little_memory() {
    const CLIENTS: usize = 400;
    let data = tempfile::tempdir().unwrap();
    let token = format!("auth.admin_token={ADMIN_TOKEN}");
    let serving = Serving::start(
        &data,
        &[
            "--set",
            &token,
            "--set",
            "http.write_timeout=60s",
            "--set",
            "limits.client_connections_max=1000",
        ],
    );
    let before = resident(serving.process.id());
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(serving.address.parse().unwrap()).await.unwrap();
        ask(&mut stream, FILE).await;
        streams.push(stream);
    }
    let answered = r#"coupon_http_requests_total{route="/docs/{file}",method="GET",status="200"}"#;
    eventually("all requests are answered", async || {
        let url = format!("http://{}/metrics", serving.address);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        metric_in(&text, answered) >= CLIENTS as f64
    })
    .await;
    let grown = resident(serving.process.id()).saturating_sub(before);
    // A copy for each client would be 600 MB.
    assert!(grown < 100_000_000, "{grown} bytes");
    // The response is complete nevertheless.
    let (_, body) = read_whole(&mut streams[0], Duration::ZERO).await;
    let url = format!("http://{}{FILE}", serving.address);
    let expected = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    assert!(body == expected, "{} bytes of {}", body.len(), expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_read_slowly_is_not_cut_by_the_idle_timeout() {
    let node = TestNode::start_with(&[("http.idle_timeout", "300ms")]).await;
    let mut stream = connect_from(1, node.service.address()).await;
    ask(&mut stream, FILE).await;
    // Reading takes many times the idle timeout.
    let (head, body) = read_whole(&mut stream, Duration::from_millis(20)).await;
    assert!(
        head.starts_with("http/1.1 200 ") && body.len() > 1_000_000,
        "{head}"
    );
    // The connection is idle from the last byte on.
    let closed = tokio::time::timeout(LIMIT, stream.read(&mut [0; 16]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(closed, 0);
}

/// A client at an address of its own, so that the limit of another address does not apply to it.
struct ClientAt(Client, SocketAddr);

impl ClientAt {
    fn new(last: u8, node: SocketAddr) -> Self {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        Self(Client::builder().local_address(address).build().unwrap(), node)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.0.request(method, format!("http://{}{path}", self.1))
    }

    async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    /// Returns the unsent bytes of the node. The response itself is not in this number, because its text is
    /// written before its bytes are reserved.
    async fn unsent(&self) -> f64 {
        let text = self.get("/metrics").await.body;
        let text = text.as_str().unwrap();
        metric_in(text, "coupon_http_unsent_bytes")
    }
}

/// The longest list, of about a quarter of a mebibyte.
const LIST: &str = "/v1/coupons?limit=200";
/// Minimum of `limits.unsent_bytes_max`: room for six or seven of these lists, and the reserve.
const UNSENT_BYTES_MAX: f64 = 2_097_152.0;
/// The part of it that lists may take.
const LISTS_BYTES_MAX: f64 = UNSENT_BYTES_MAX / 4.0 * 3.0;

/// A node in a process of its own, so that its metrics count one test alone.
struct Listed {
    _serving: Serving,
    _data: tempfile::TempDir,
    node: SocketAddr,
    /// Of the last coupon.
    id: Value,
}

impl Listed {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let token = format!("auth.admin_token={ADMIN_TOKEN}");
        let bound = format!("limits.unsent_bytes_max={UNSENT_BYTES_MAX}");
        let keys = [token.as_str(), &bound, "http.write_timeout=60s"];
        let flags: Vec<&str> = keys.iter().flat_map(|key| ["--set", key]).collect();
        let serving = Serving::start(&data, &flags);
        let node: SocketAddr = serving.address.parse().unwrap();
        contract::learn(node).await;
        let coupon = json!({"title": "\u{1f39f}".repeat(200), "total_quantity": 5});
        let (admin, mut id) = (ClientAt::new(1, node), Value::Null);
        for _ in 0..200 {
            let create = admin
                .request(Method::POST, "/v1/coupons")
                .bearer_auth(ADMIN_TOKEN);
            let created = send(create.json(&coupon)).await;
            assert_eq!(created.status, 201, "{created:?}");
            id = created.body["id"].clone();
        }
        Self {
            _serving: serving,
            _data: data,
            node,
            id,
        }
    }

    /// Opens connections from an address that ask for the list and do not read it.
    async fn readers_at(&self, last: u8) -> Vec<TcpStream> {
        let mut readers = Vec::new();
        for _ in 0..8 {
            let mut stream = connect_from(last, self.node).await;
            ask(&mut stream, LIST).await;
            readers.push(stream);
        }
        readers
    }
}

/// Checks that each reader gets the whole list or the refusal.
async fn assert_whole(readers: &mut [TcpStream]) {
    for stream in readers {
        let (head, body) = read_whole(stream, Duration::ZERO).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let is_whole = body["items"].as_array().is_some_and(|items| items.len() == 200);
        assert!(
            head.starts_with("http/1.1 200 ") && is_whole
                || head.starts_with("http/1.1 503 ") && body["code"] == "OVERLOADED",
            "{head}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_beyond_the_bound_of_unsent_bytes_are_refused_and_issuing_goes_on() {
    let listed = Listed::start().await;
    let [here, other, watcher] = [1, 2, 3].map(|last| ClientAt::new(last, listed.node));
    let mut readers = listed.readers_at(1).await;
    // One address gets half, which is room for three lists.
    eventually("three lists wait for their readers", async || {
        (600_000.0..=LISTS_BYTES_MAX / 2.0).contains(&watcher.unsent().await)
    })
    .await;
    let refused = here.get(LIST).await;
    refused.assert_refused(503, "OVERLOADED");
    assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    // This address still gets small responses, and others get lists.
    let issue = here.request(Method::POST, &format!("/v1/coupons/{}/issuances", listed.id));
    assert_eq!(send(issue.header("X-User-Id", "alice")).await.status, 201);
    assert_eq!(other.get(LIST).await.status, 200);
    assert_whole(&mut readers).await;
    assert_eq!(here.get(LIST).await.status, 200);
    eventually("nothing is left", async || watcher.unsent().await == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_gets_a_list_while_others_hold_all_unsent_bytes() {
    let listed = Listed::start().await;
    let third = ClientAt::new(3, listed.node);
    let mut readers = listed.readers_at(1).await;
    readers.extend(listed.readers_at(2).await);
    // What two addresses may hold can leave room for one more list, which a fourth address takes.
    eventually("lists that wait for their readers leave no room", async || {
        readers.extend(listed.readers_at(4).await);
        third.get(LIST).await.status == 503
    })
    .await;
    // The third address holds nothing itself.
    third.get(LIST).await.assert_refused(503, "OVERLOADED");
    let issue = third.request(Method::POST, &format!("/v1/coupons/{}/issuances", listed.id));
    assert_eq!(send(issue.header("X-User-Id", "alice")).await.status, 201);
    assert_whole(&mut readers).await;
    assert_eq!(third.get(LIST).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_answered_while_clients_that_do_not_read_hold_all_that_is_not_reserved() {
    let listed = Listed::start().await;
    let [one, other, operator] = [1, 2, 3].map(|last| ClientAt::new(last, listed.node));
    let mut readers = Vec::new();
    eventually("lists that wait for their readers leave no room", async || {
        for last in [1, 2, 4] {
            readers.extend(listed.readers_at(last).await);
        }
        operator.get(LIST).await.status == 503
    })
    .await;
    // Each of these addresses gets room for one response in the reserve, and reads none.
    let mut unread = Vec::new();
    for (last, client) in [(1, &one), (2, &other)] {
        eventually("an address has taken its room in the reserve", async || {
            let mut stream = connect_from(last, listed.node).await;
            ask(&mut stream, "/metrics").await;
            unread.push(stream);
            client.get("/metrics").await.status == 503
        })
        .await;
    }
    for _ in 0..3 {
        let reply = operator.get("/metrics").await;
        assert_eq!(reply.status, 200);
        let unsent = metric_in(reply.body.as_str().unwrap(), "coupon_http_unsent_bytes");
        assert!(
            (LISTS_BYTES_MAX / 2.0..=UNSENT_BYTES_MAX).contains(&unsent),
            "{unsent}"
        );
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(one.get(path).await.status, 200, "{path}");
    }
    operator.get(LIST).await.assert_refused(503, "OVERLOADED");
    assert_whole(&mut readers).await;
}

/// Sends a request of an administrator.
async fn post(stream: &mut TcpStream, path: &str, body: &str) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {ADMIN_TOKEN}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
}

/// Number of bulk calls that a node admits at once.
const BULK_CALLS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_call_keeps_its_place_until_its_response_is_read() {
    let data = tempfile::tempdir().unwrap();
    let token = format!("auth.admin_token={ADMIN_TOKEN}");
    let serving = Serving::start(&data, &["--set", &token, "--set", "http.write_timeout=60s"]);
    let node: SocketAddr = serving.address.parse().unwrap();
    contract::learn(node).await;
    let admin = ClientAt::new(1, node);
    let coupon = json!({"title": "Bulk", "total_quantity": null, "per_user_limit": null});
    let create = admin
        .request(Method::POST, "/v1/coupons")
        .bearer_auth(ADMIN_TOKEN);
    let id = send(create.json(&coupon)).await.body["id"].clone();
    let path = format!("/v1/coupons/{id}/issuances/bulk");
    let body = json!({"user_ids": users(1_000)}).to_string();
    let mut readers = Vec::new();
    for _ in 0..BULK_CALLS {
        let mut stream = connect_from(1, node).await;
        post(&mut stream, &path, &body).await;
        readers.push(stream);
    }
    let answered =
        r#"coupon_http_requests_total{route="/v1/coupons/{id}/issuances/bulk",method="POST",status="200"}"#;
    eventually("all calls are answered", async || {
        let text = admin.get("/metrics").await.body;
        metric_in(text.as_str().unwrap(), answered) >= BULK_CALLS as f64
    })
    .await;
    let unsent = admin.unsent().await;
    println!("{BULK_CALLS} responses of bulk calls have {unsent} bytes");
    assert!(unsent >= BULK_CALLS as f64 * 450_000.0, "{unsent}");
    let call = || {
        let request = admin.request(Method::POST, &path).bearer_auth(ADMIN_TOKEN);
        send(request.json(&json!({"user_ids": ["late"]})))
    };
    call().await.assert_refused(503, "OVERLOADED");
    // One response that is read makes room for one call.
    let (head, body) = read_whole(&mut readers[0], Duration::ZERO).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let results = body["results"].as_array().map(Vec::len);
    assert!(
        head.starts_with("http/1.1 200 ") && results == Some(1_000),
        "{head}"
    );
    eventually("a call is admitted", async || call().await.status == 200).await;
    drop(readers);
    eventually("nothing is left", async || admin.unsent().await == 0.0).await;
}
