//! Exports of all issuances of a coupon, over real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use testkit::poll::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients::connect_from;
use crate::hostile::metric;
use crate::process::Serving;
use crate::setbacks::hide_tables;
use crate::support::{ADMIN_TOKEN, LIMIT, TestNode, send};

/// The time of issuances that a test stores itself.
const ISSUED_AT: &str = "2026-11-27T00:00:00.000000Z";
const ISSUED_AT_MICROS: u64 = 1_795_737_600_000_000;

/// Number of rows of a portion.
const PORTION: u64 = 400;

impl TestNode {
    /// Makes a coupon, and stores this many issuances of it in the database, without the node.
    async fn filled(&self, issuances: u64) -> u64 {
        let coupon = self.coupon(json!({})).await;
        fill(&self.database(), coupon, issuances).await;
        coupon
    }

    /// Begins an export as an administrator.
    async fn export(&self, coupon: u64, kind: &str, query: &str) -> Download {
        let stream = TcpStream::connect(self.service.address()).await.unwrap();
        Download::begin(stream, &export_path(coupon, kind, query)).await
    }
}

/// Stores this many issuances of a coupon. Users and keys are as long as they may be, so that few issuances
/// make a large export.
async fn fill(database: &Path, coupon: u64, issuances: u64) {
    let mut database = SqliteConnectOptions::new()
        .filename(database)
        .busy_timeout(LIMIT)
        .connect()
        .await
        .unwrap();
    let statement = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {issuances})
         INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at)
         SELECT {coupon}, n, printf('user-%0123d', n), 1, printf('key-%0251d', n), {ISSUED_AT_MICROS}
           FROM numbers"
    );
    let stored = sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut database)
        .await;
    assert_eq!(stored.unwrap().rows_affected(), issuances);
}

fn export_path(coupon: u64, kind: &str, query: &str) -> String {
    format!("/v1/coupons/{coupon}/issuances.{kind}{query}")
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// With its last chunk.
    Whole,
    /// Without it.
    Broken,
}

/// The last chunk, after the end of the chunk before it. No line of an export ends with this.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// A response in chunks that is being received, byte by byte.
struct Download {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Download {
    async fn begin(mut stream: TcpStream, path: &str) -> Self {
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let bytes = Vec::new();
        Self { stream, bytes }
    }

    /// Reads some bytes; false at the end of the connection.
    async fn read(&mut self) -> bool {
        let mut part = vec![0; 64 * 1024];
        let read = tokio::time::timeout(LIMIT, self.stream.read(&mut part))
            .await
            .unwrap();
        // A reset is an end too.
        let read = read.unwrap_or(0);
        self.bytes.extend_from_slice(&part[..read]);
        read > 0
    }

    /// Reads until the body has this many lines.
    async fn lines(&mut self, count: usize) {
        while self.parts().1.iter().filter(|byte| **byte == b'\n').count() < count {
            assert!(self.read().await, "the response ended");
        }
    }

    /// Reads to the end. Returns the head in lower case, the body, and how it ended.
    async fn end(mut self) -> (String, String, Ending) {
        while !self.bytes.ends_with(LAST_CHUNK) && self.read().await {}
        let (head, body, ending) = self.parts();
        (head.to_lowercase(), String::from_utf8(body).unwrap(), ending)
    }

    /// Returns the head, the body without the marks of chunks, and whether the last chunk is there.
    fn parts(&self) -> (String, Vec<u8>, Ending) {
        let Some(end) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return (String::new(), Vec::new(), Ending::Broken);
        };
        let head = String::from_utf8(self.bytes[..end].to_vec()).unwrap();
        let (mut rest, mut body) = (&self.bytes[end + 4..], Vec::new());
        while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&rest[..line]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                return (head, body, Ending::Whole);
            }
            let chunk = &rest[line + 2..];
            body.extend_from_slice(&chunk[..size.min(chunk.len())]);
            rest = chunk.get(size + 2..).unwrap_or_default();
        }
        (head, body, Ending::Broken)
    }
}

/// Returns the sequences of whole lines of NDJSON.
fn sequences(body: &str) -> Vec<u64> {
    let whole = body.rfind('\n').map_or("", |end| &body[..end]);
    let sequence = |line: &str| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_u64();
    whole.lines().map(|line| sequence(line).unwrap()).collect()
}

fn assert_all(body: &str, expected: std::ops::RangeInclusive<u64>) {
    let found = sequences(body);
    assert!(
        found.iter().copied().eq(expected.clone()),
        "{} lines in place of {expected:?}",
        found.len()
    );
}

#[tokio::test]
async fn an_export_has_every_issuance_once_in_order_as_the_api_shows_it() {
    let node = TestNode::start().await;
    let id = node
        .coupon(json!({"discount": {"kind": "amount", "value": 5}, "use_within_days": 1}))
        .await;
    for user in ["alice", "b,o\"b", "=1+1", "-carol", "'dave"] {
        assert_eq!(node.issue(user, id).await.status, 201, "{user}");
    }
    let order = json!({"order_id": "@order", "order_amount": 50});
    let redeem = node.admin(Method::POST, &format!("/v1/issuances/{id}-2/redeem"));
    assert_eq!(send(redeem.json(&order)).await.status, 200);

    let list = node.admin_get(&format!("/v1/coupons/{id}/issuances")).await.body;
    let (head, body, ending) = node.export(id, "ndjson", "").await.end().await;
    assert_eq!(ending, Ending::Whole);
    let lines: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(json!(lines), list["items"]);
    assert_eq!(
        (&lines[1]["state"], &lines[1]["use"]["order_id"]),
        (&json!("redeemed"), &json!("@order"))
    );
    for header in [
        "http/1.1 200 ",
        "\r\ncontent-type: application/x-ndjson\r\n",
        "\r\ntransfer-encoding: chunked",
        "\r\ncache-control: no-store\r\n",
        &format!("\r\ncontent-disposition: attachment; filename=\"coupon-{id}-issuances.ndjson\"\r\n"),
    ] {
        assert!(head.contains(header), "{header} of {head}");
    }

    let (head, body, ending) = node.export(id, "csv", "").await.end().await;
    assert_eq!(ending, Ending::Whole);
    assert!(
        head.contains("\r\ncontent-type: text/csv; charset=utf-8; header=present\r\n")
            && head.contains(&format!("filename=\"coupon-{id}-issuances.csv\"\r\n")),
        "{head}"
    );
    let lines: Vec<&str> = body.split("\r\n").collect();
    assert_eq!((lines.len(), lines[6]), (7, ""), "{body}");
    assert!(lines[0].starts_with("id,code,coupon_id,sequence,user"), "{body}");
    let items = list["items"].as_array().unwrap();
    let users = ["alice", "\"b,o\"\"b\"", "'=1+1", "'-carol", "''dave"];
    for (at, (item, user)) in items.iter().zip(users).enumerate() {
        let text = |field: &str| item[field].as_str().unwrap().to_owned();
        let used = match at {
            1 => format!("redeemed,'@order,50,5,,{}", item["use"]["at"].as_str().unwrap()),
            _ => ",,,,,".to_owned(),
        };
        let times = ["status", "state", "issued_at", "expires_at"].map(text).join(",");
        let (code, sequence) = (text("code"), at + 1);
        let expected = format!("{id}-{sequence},{code},{id},{sequence},{user},{times},{used}");
        assert_eq!(lines[at + 1], expected);
    }
}

#[tokio::test]
async fn an_export_has_as_many_portions_as_it_needs_and_goes_on_after_a_sequence() {
    let node = TestNode::start_with(&[("limits.export_rate", "1000000")]).await;
    let rows = 3 * PORTION + 1;
    let id = node.filled(rows).await;
    let (_, body, ending) = node.export(id, "ndjson", "").await.end().await;
    assert_eq!(ending, Ending::Whole);
    assert_all(&body, 1..=rows);
    let first: Value = serde_json::from_str(body.lines().next().unwrap()).unwrap();
    assert_eq!(first["issued_at"], ISSUED_AT);
    for after in [1, PORTION, rows - 1, rows, rows + 5] {
        let query = format!("?after_sequence={after}");
        let (_, body, ending) = node.export(id, "ndjson", &query).await.end().await;
        assert_eq!(ending, Ending::Whole);
        assert_all(&body, after + 1..=rows);
        let (_, body, _) = node.export(id, "csv", &query).await.end().await;
        // With its header line.
        assert_eq!(body.lines().count() as u64, 1 + rows.saturating_sub(after));
    }
    assert!(metric(&node, r#"coupon_exports_total{end="complete"}"#).await >= 11.0);
}

#[tokio::test]
async fn an_export_is_refused_like_any_other_read_and_head_has_no_body() {
    let node = TestNode::start().await;
    let id = node.coupon(json!({})).await;
    for kind in ["csv", "ndjson"] {
        let path = export_path(id, kind, "");
        node.get(&path).await.assert_refused(401, "UNAUTHENTICATED");
        node.get_as("alice", &path).await.assert_refused(403, "FORBIDDEN");
        let unknown = export_path(id + 1, kind, "");
        node.admin_get(&unknown)
            .await
            .assert_refused(404, "UNKNOWN_COUPON");
        for query in ["after_sequence=-1", "after_sequence=x"] {
            let reply = node.admin_get(&format!("{path}?{query}")).await;
            reply.assert_invalid(&["after_sequence"]);
        }
        node.admin_get(&format!("{path}?limit=5"))
            .await
            .assert_invalid(&["limit"]);
        let head = send(node.admin(Method::HEAD, &path)).await;
        assert_eq!((head.status, &head.body), (200, &Value::Null));
        assert!(head.header("content-disposition").contains(kind), "{head:?}");
        // Nothing is compressed, and an empty export is whole.
        let request = node
            .admin(Method::GET, &path)
            .header("Accept-Encoding", "gzip, br");
        let empty = send(request).await;
        assert_eq!((empty.status, empty.header("content-encoding")), (200, ""));
        let lines = empty.body.as_str().map_or(0, |body| body.lines().count());
        assert_eq!(lines, usize::from(kind == "csv"), "{empty:?}");
    }
}

#[tokio::test]
async fn an_export_outlives_the_deadline_of_a_request_and_has_nothing_that_is_issued_later() {
    let rows = 4 * PORTION;
    // Reading takes more than three times the deadline.
    let rate = rows.to_string();
    let node = TestNode::start_with(&[("http.deadline", "300ms"), ("limits.export_rate", &rate)]).await;
    let id = node.filled(rows).await;
    let begun = Instant::now();
    let mut export = node.export(id, "ndjson", "").await;
    export.lines(1).await;
    for user in ["late-1", "late-2"] {
        assert_eq!(node.issue(user, id).await.status, 201);
    }
    let (_, body, ending) = export.end().await;
    assert_eq!(ending, Ending::Whole);
    assert_all(&body, 1..=rows);
    assert!(
        begun.elapsed() > Duration::from_millis(600),
        "{:?}",
        begun.elapsed()
    );
    let query = format!("?after_sequence={rows}");
    let (_, body, _) = node.export(id, "ndjson", &query).await.end().await;
    assert_all(&body, rows + 1..=rows + 2);
}

#[tokio::test]
async fn an_export_breaks_off_without_its_last_chunk_if_the_database_fails() {
    let rows = 10 * PORTION;
    let node = TestNode::start_with(&[("limits.export_rate", "2000")]).await;
    let id = node.filled(rows).await;
    for kind in ["csv", "ndjson"] {
        let mut export = node.export(id, kind, "").await;
        export.lines(5).await;
        hide_tables(&node.database()).await;
        let (_, body, ending) = export.end().await;
        assert_eq!(ending, Ending::Broken);
        // Before the response begins, the failure is answered as usual.
        let refused = node.admin_get(&export_path(id, kind, "")).await;
        assert!(refused.status >= 500, "{refused:?}");
        let mut other = SqliteConnectOptions::new()
            .filename(node.database())
            .connect()
            .await
            .unwrap();
        sqlx::query("ALTER TABLE hidden RENAME TO issuances")
            .execute(&mut other)
            .await
            .unwrap();
        if kind == "ndjson" {
            let last = *sequences(&body).last().unwrap();
            assert_all(&body, 1..=last);
            let query = format!("?after_sequence={last}");
            let mut rest = node.export(id, kind, &query).await;
            rest.lines(3).await;
            assert_eq!(
                sequences(&String::from_utf8(rest.parts().1).unwrap())[0],
                last + 1
            );
        }
    }
    assert!(metric(&node, r#"coupon_exports_total{end="broken"}"#).await >= 2.0);
}

#[tokio::test]
async fn an_export_breaks_off_at_once_when_the_node_stops() {
    let rows = 100 * PORTION;
    let node = TestNode::start_with(&[("limits.export_rate", "2000")]).await;
    let id = node.filled(rows).await;
    let mut export = node.export(id, "ndjson", "").await;
    export.lines(5).await;
    let begun = Instant::now();
    let (stopped, (_, body, ending)) = tokio::join!(node.service.stop(), export.end());
    stopped.unwrap();
    // The whole export would take twenty seconds, and the node waits only ten seconds for requests when it
    // stops.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(ending, Ending::Broken);
    assert!(!sequences(&body).is_empty());
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_cut_and_frees_its_place_and_its_bytes() {
    let keys = [
        ("http.write_timeout", "1s"),
        ("limits.export_rate", "1000000"),
        ("limits.exports_max", "1"),
    ];
    let node = TestNode::start_with(&keys).await;
    let id = node.filled(50 * PORTION).await;
    let stream = connect_from(1, node.service.address()).await;
    let mut idle = Download::begin(stream, &export_path(id, "ndjson", "")).await;
    idle.lines(1).await;
    // One portion is counted until the export ends, and there is no room for another export.
    let unsent = metric(&node, "coupon_http_unsent_bytes").await;
    assert!(unsent >= 512_000.0, "{unsent}");
    let refused = node
        .admin_get(&export_path(id, "csv", "?after_sequence=19999"))
        .await;
    refused.assert_refused(503, "OVERLOADED");
    assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    eventually("the reader is cut", async || {
        let reply = node
            .admin_get(&export_path(id, "csv", "?after_sequence=19999"))
            .await;
        reply.status == 200
    })
    .await;
    let (_, body, ending) = idle.end().await;
    assert_eq!(ending, Ending::Broken);
    let last = sequences(&body).len() as u64;
    assert!(last < 50 * PORTION, "{last}");
    assert_all(&body, 1..=last);
}

/// Asks with HTTP/1.0, whose bodies end with the connection, as some proxies do.
#[tokio::test]
async fn a_client_of_an_old_version_notices_a_broken_export_too() {
    let node = TestNode::start_with(&[("limits.export_rate", "2000")]).await;
    let id = node.filled(10 * PORTION).await;
    let address: SocketAddr = node.service.address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let path = export_path(id, "ndjson", "");
    let head = format!("GET {path} HTTP/1.0\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut part = vec![0; 1024];
    assert!(stream.read(&mut part).await.unwrap() > 0);
    hide_tables(&node.database()).await;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(end.is_err(), "the body ends like a whole one");
}

/// In a process of its own, so that its metrics count this test alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_the_head_alone_is_no_export_that_was_left() {
    let data = tempfile::tempdir().unwrap();
    let token = format!("auth.admin_token={ADMIN_TOKEN}");
    let serving = Serving::start(&data, &["--set", &token]);
    let client = reqwest::Client::new();
    let ask = async |method, path: &str| {
        let request = client.request(method, format!("http://{}{path}", serving.address));
        let request = request
            .bearer_auth(ADMIN_TOKEN)
            .json(&json!({"title": "T", "total_quantity": null}));
        request.send().await.unwrap().text().await.unwrap()
    };
    let coupon: Value = serde_json::from_str(&ask(Method::POST, "/v1/coupons").await).unwrap();
    let path = export_path(coupon["id"].as_u64().unwrap(), "csv", "");
    for method in [Method::HEAD, Method::GET] {
        ask(method, &path).await;
    }
    let counted = async |line| {
        let metrics = ask(Method::GET, "/metrics").await;
        metrics.lines().any(|found| found == line)
    };
    eventually("the export is counted", async || {
        counted(r#"coupon_exports_total{end="complete"} 1"#).await
    })
    .await;
    assert!(counted(r#"coupon_exports_total{end="left"} 0"#).await);
}

/// An export of 40,000 issuances has more than 10 MB. It is read whole, while other readers read nothing. The
/// node would take much more memory than it may if it kept what they do not read, or all rows of one of them.
#[tokio::test(flavor = "multi_thread")]
async fn exports_take_the_same_memory_however_large_they_are() {
    const ROWS: u64 = 40_000;
    const IDLE_READERS: usize = 7;
    const GROWTH_BYTES_MAX: u64 = 24_000_000;
    let data = tempfile::tempdir().unwrap();
    let token = format!("auth.admin_token={ADMIN_TOKEN}");
    let keys = [
        &token,
        "limits.export_rate=100000000",
        "limits.exports_max=8",
        "http.write_timeout=60s",
    ];
    let flags: Vec<&str> = keys.into_iter().flat_map(|key| ["--set", key]).collect();
    let serving = Serving::start(&data, &flags);
    let create = reqwest::Client::new()
        .post(format!("http://{}/v1/coupons", serving.address))
        .bearer_auth(ADMIN_TOKEN)
        .json(&json!({"title": "T", "total_quantity": null}));
    let coupon: Value = create.send().await.unwrap().json().await.unwrap();
    let coupon = coupon["id"].as_u64().unwrap();
    fill(&data.path().join("data/firstcome.db"), coupon, ROWS).await;
    let begin = async |query: &str| {
        let stream = connect_from(1, serving.address.parse().unwrap()).await;
        Download::begin(stream, &export_path(coupon, "ndjson", query)).await
    };
    // Connections to the database and threads take their memory only once.
    let last = async || begin("?after_sequence=38000").await.end().await;
    let ((_, body, _), ..) = tokio::join!(last(), last(), last(), last());
    assert_all(&body, 38_001..=ROWS);
    let memory = || serving.process.memory("RssAnon").unwrap();
    let before = memory();
    let mut idle = Vec::new();
    for _ in 0..IDLE_READERS {
        let mut reader = begin("").await;
        reader.lines(1).await;
        idle.push(reader);
    }
    let mut reading = tokio::spawn(begin("").await.end());
    let mut most = 0;
    let (_, body, ending) = loop {
        let pause = tokio::time::sleep(Duration::from_millis(20));
        tokio::select! {
            end = &mut reading => break end.unwrap(),
            () = pause => most = most.max(memory()),
        }
    };
    assert_eq!(ending, Ending::Whole);
    assert!(body.len() > 10_000_000, "{} bytes", body.len());
    let grown = most.saturating_sub(before);
    println!("{} bytes by {grown} bytes of memory", body.len());
    assert!(most > 0 && grown < GROWTH_BYTES_MAX, "{grown} bytes");
}
