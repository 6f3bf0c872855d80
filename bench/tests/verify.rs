//! The program `firstcome-bench verify` from outside: files in, exit status and report out, and rows over
//! HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

const COUPON: &str = r#"{"id":42,"title":"x","discount":null,"total_quantity":1,"per_user_limit":1,"starts_at":null,"ends_at":null,"use_within_days":null,"status":"open","phase":"sold_out","issued":1,"remaining":0,"version":1,"created_at":"2026-11-21T03:00:00.000000Z","updated_at":"2026-11-21T03:00:00.000000Z"}"#;
const ISSUANCE: &str = r#"{"id":"42-1","coupon_id":42,"user_id":"alice","sequence":1,"status":"issued","issued_at":"2026-11-21T03:00:01.000500Z","expires_at":null}"#;

/// 2026-11-21T03:00:00Z.
const BEGIN_US: u64 = 1_795_230_000_000_000;

fn history() -> String {
    let fresh = COUPON.replace("\"issued\":1", "\"issued\":0");
    [
        format!(r#"{{"create":{{"call_us":{BEGIN_US},"answer_us":{},"answer":{{"status":201,"body":{fresh}}}}}}}"#, BEGIN_US + 900),
        format!(
            r#"{{"issue":{{"call_us":{},"answer_us":{},"coupon":42,"user":"alice","answer":{{"status":201,"body":{ISSUANCE}}}}}}}"#,
            BEGIN_US + 1_000_000,
            BEGIN_US + 1_001_000
        ),
        format!(
            r#"{{"issue":{{"call_us":{},"answer_us":{},"coupon":42,"user":"bob","key":"k","answer":{{"status":409,"body":{{"code":"SOLD_OUT","total_quantity":1}}}}}}}}"#,
            BEGIN_US + 1_002_000,
            BEGIN_US + 1_003_000
        ),
    ]
    .join("\n")
        + "\n"
}

fn verify(directory: &Path, history: &str, more: &[&str]) -> Output {
    command(directory, history, more).output().unwrap()
}

/// Returns the command, without a token in the environment.
fn command(directory: &Path, history: &str, more: &[&str]) -> Command {
    let path = directory.join("history.jsonl");
    fs::write(&path, history).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_firstcome-bench"));
    command
        .env_remove("ADMIN_TOKEN")
        .arg("verify")
        .arg("--history")
        .arg(path)
        .args(more);
    command
}

fn rows(directory: &Path, text: &str) -> String {
    let path = directory.join("rows.jsonl");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_clean_history_exits_with_0() {
    let directory = tempfile::tempdir().unwrap();
    let rows = rows(directory.path(), &format!("{ISSUANCE}\n{COUPON}\n"));
    let output = verify(directory.path(), &history(), &["--rows", &rows]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("requests: SOLD_OUT") && text.contains("every promise was kept"),
        "{text}"
    );
}

#[test]
fn findings_exit_with_1_and_show_their_evidence() {
    let directory = tempfile::tempdir().unwrap();
    let rows = rows(
        directory.path(),
        &format!("{}\n", COUPON.replace("\"issued\":1", "\"issued\":0")),
    );
    let output = verify(directory.path(), &history(), &["--rows", &rows]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("FOUND: answered not stored")
            && text.contains("line 2: {\"issue\"")
            && text.contains("\"42-1\""),
        "{text}"
    );
}

#[test]
fn bad_input_exits_with_2_and_names_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let good = rows(directory.path(), &format!("{COUPON}\n{ISSUANCE}\n"));
    let output = verify(directory.path(), &(history() + "{\"issue\":"), &["--rows", &good]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("history.jsonl: line 4"), "{text}");
    let bad = rows(
        directory.path(),
        &format!("{COUPON}\n{}\n", ISSUANCE.replace("42-1", "42-2")),
    );
    let output = verify(directory.path(), &history(), &["--rows", &bad]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("rows.jsonl: line 2"), "{text}");
    assert_eq!(
        verify(directory.path(), &history(), &["--rows", "nowhere"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(verify(directory.path(), &history(), &[]).status.code(), Some(2));
}

/// Answers each connection's requests by path, until the process ends.
fn serve(pages: &'static [(&'static str, String)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer(stream.unwrap(), pages));
        }
    });
    url
}

fn answer(mut stream: TcpStream, pages: &[(&str, String)]) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(request)) = lines.next() {
        let path = request.split(' ').nth(1).unwrap().to_owned();
        let heads: Vec<String> = lines
            .by_ref()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        let is_admin = heads
            .iter()
            .any(|head| head.eq_ignore_ascii_case("authorization: Bearer secret"));
        let page = pages.iter().find(|(known, _)| *known == path && is_admin);
        let (status, body) = page.map_or(("401 Unauthorized", "{}"), |(_, body)| ("200 OK", body));
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
    }
}

#[test]
fn rows_are_read_over_http_page_by_page() {
    let other = COUPON.replace("\"id\":42", "\"id\":43");
    let pages = vec![
        (
            "/v1/coupons?limit=200",
            format!(r#"{{"items":[{other}],"next_cursor":"c"}}"#),
        ),
        (
            "/v1/coupons?limit=200&cursor=c",
            format!(r#"{{"items":[{COUPON}],"next_cursor":null}}"#),
        ),
        (
            "/v1/coupons/42/issuances?after_sequence=0&limit=200",
            format!(r#"{{"items":[{ISSUANCE}],"next_cursor":"d"}}"#),
        ),
        (
            "/v1/coupons/42/issuances?after_sequence=1&limit=200",
            r#"{"items":[],"next_cursor":null}"#.to_owned(),
        ),
    ];
    let url = serve(Box::leak(pages.into_boxed_slice()));
    let directory = tempfile::tempdir().unwrap();
    let output = verify(
        directory.path(),
        &history(),
        &["--url", &url, "--admin-token", "secret"],
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = verify(
        directory.path(),
        &history(),
        &["--url", &url, "--admin-token", "wrong"],
    );
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("401"), "{text}");
    // `verify` uses the environment's token by default, as `load` does.
    let output = command(directory.path(), &history(), &["--url", &url])
        .env("ADMIN_TOKEN", "secret")
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = verify(directory.path(), &history(), &["--url", &url]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(2) && text.contains("ADMIN_TOKEN"),
        "{text}"
    );
}
