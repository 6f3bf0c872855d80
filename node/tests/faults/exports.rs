//! Exports on database servers, which may go away while an export is on its way: whole or noticeably broken,
//! and of any size in little memory.

use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::Value;
use testkit::database_proxy::DatabaseMode;
use testkit::node::ADMIN_TOKEN;
use testkit::on_each_server;
use testkit::servers::{Server, ServerKind, run};

use crate::stage::Stage;

/// Number of issuances: more than a second of an export.
const ROWS: u64 = 5_999;

/// How long an export may take until it breaks off: the deadline of a request, with a margin for a busy
/// machine.
const BREAKS_WITHIN: Duration = Duration::from_secs(8);

/// Number of issuances of a large export: more than 6 MB, because users are as long as they may be.
const MANY_ROWS: u64 = 29_999;

/// Number of exports that are not read, while one is.
const IDLE_READERS: usize = 7;

/// By how many bytes a node may grow during large exports. The texts of all of them take twice as much, and
/// their rows more.
const GROWTH_BYTES_MAX: u64 = 24_000_000;

/// Longer than a large export takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns the user of an issuance, as long as it may be.
fn user(sequence: u64) -> String {
    format!("user-{sequence:0>123}")
}

/// Stores this many issuances in the database, without the node.
async fn fill(stage: &Stage<'_>, coupon: u64, rows: u64) {
    let statement = format!(
        "INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at)
         WITH RECURSIVE digits AS (SELECT 0 AS digit UNION ALL SELECT digit + 1 FROM digits WHERE digit < 9)
         SELECT {coupon}, number, CONCAT('user-', LPAD(number, 123, '0')), 1,
                CONCAT('key-', LPAD(number, 251, '0')), 1795737600000000
           FROM (SELECT a.digit + 10 * b.digit + 100 * c.digit + 1000 * d.digit + 10000 * e.digit AS number
                   FROM digits a JOIN digits b JOIN digits c JOIN digits d JOIN digits e) AS numbers
          WHERE number BETWEEN 1 AND {rows} ORDER BY number"
    );
    run(&mut stage.shell().await, &statement).await;
}

async fn export(stage: &Stage<'_>, path: &str) -> Response {
    let request = stage
        .client
        .get(format!("http://{}{path}", stage.node.address))
        .bearer_auth(ADMIN_TOKEN)
        .timeout(LIMIT);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

/// Reads the rest of an export. Returns whether it is whole.
async fn rest(mut response: Response, text: &mut Vec<u8>) -> bool {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Adds the sequences of whole lines.
fn add_sequences(text: &[u8], sequences: &mut Vec<u64>) {
    let text = String::from_utf8_lossy(text);
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let line: Value = serde_json::from_str(line).unwrap();
        sequences.push(line["sequence"].as_u64().unwrap());
    }
}

async fn an_export_breaks_off_while_the_database_is_away_and_goes_on_where_it_ended(kind: ServerKind) {
    let server = Server::shared(kind);
    let keys = ["http.deadline=1s", "limits.export_rate=5000", "cluster.lease=20s"];
    let stage = Stage::on(server, &keys).await;
    let coupon = stage.coupon(None).await;
    fill(&stage, coupon, ROWS).await;

    let mut csv = Vec::new();
    assert!(
        rest(
            export(&stage, &format!("/v1/coupons/{coupon}/issuances.csv")).await,
            &mut csv
        )
        .await
    );
    let csv = String::from_utf8(csv).unwrap();
    for (sequence, line) in (1..=ROWS).zip(csv.split("\r\n").skip(1)) {
        let cells: Vec<&str> = line.split(',').collect();
        let (id, user) = (format!("{coupon}-{sequence}"), user(sequence));
        assert_eq!((cells[0], cells[4]), (id.as_str(), user.as_str()), "{line}");
    }
    assert_eq!(csv.matches("\r\n").count() as u64, ROWS + 1);

    for away in [DatabaseMode::Refuse, DatabaseMode::Hold] {
        let mut sequences = Vec::new();
        let path = |after: u64| format!("/v1/coupons/{coupon}/issuances.ndjson?after_sequence={after}");
        let mut response = export(&stage, &path(0)).await;
        let mut text = response.chunk().await.unwrap().unwrap().to_vec();
        stage.proxy.set(away);
        let begun = Instant::now();
        assert!(!rest(response, &mut text).await, "the export is whole");
        assert!(begun.elapsed() < BREAKS_WITHIN, "{:?}", begun.elapsed());
        add_sequences(&text, &mut sequences);
        assert!(sequences.len() < ROWS as usize);
        stage.proxy.set(DatabaseMode::Pass);
        stage.ready().await;
        let mut text = Vec::new();
        let last = sequences.last().copied().unwrap_or(0);
        assert!(rest(export(&stage, &path(last)).await, &mut text).await);
        add_sequences(&text, &mut sequences);
        assert!(
            sequences.iter().copied().eq(1..=ROWS),
            "{} lines",
            sequences.len()
        );
    }
}

/// An export is read whole, while other readers read nothing.
async fn exports_take_little_memory_however_large_they_are(kind: ServerKind) {
    let server = Server::shared(kind);
    let stage = Stage::on(
        server,
        &[
            "limits.export_rate=100000000",
            "limits.exports_max=8",
            "http.write_timeout=60s",
        ],
    )
    .await;
    let coupon = stage.coupon(None).await;
    fill(&stage, coupon, MANY_ROWS).await;
    let begin = async |after: u64| {
        let path = format!("/v1/coupons/{coupon}/issuances.csv?after_sequence={after}");
        export(&stage, &path).await
    };
    // Connections to the database and threads take their memory only once.
    let last = async || rest(begin(MANY_ROWS - 1_999).await, &mut Vec::new()).await;
    assert_eq!(
        tokio::join!(last(), last(), last(), last()),
        (true, true, true, true)
    );
    let before = stage.node.memory();
    let mut idle = Vec::new();
    for _ in 0..IDLE_READERS {
        idle.push(begin(0).await);
    }
    let mut response = begin(0).await;
    let (mut bytes, mut lines, mut most) = (0, 0, 0);
    while let Some(chunk) = response.chunk().await.unwrap() {
        bytes += chunk.len();
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        most = most.max(stage.node.memory());
    }
    let grown = most.saturating_sub(before);
    println!("{}: {bytes} bytes by {grown} bytes of memory", kind.name());
    // The first line has the names of the columns.
    assert_eq!(lines, MANY_ROWS + 1);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
}

on_each_server! {
    an_export_breaks_off_while_the_database_is_away_and_goes_on_where_it_ended
    exports_take_little_memory_however_large_they_are
}
