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

/// Returns a use of the issuance, as answers show it, and the line of the step by which this order redeemed
/// it.
fn redeemed(order: &str, ms: u64) -> (String, String) {
    let at = format!("2026-11-21T03:00:0{}.{:03}000Z", ms / 1_000, ms % 1_000);
    let shown = format!(
        r#""kind":"redeemed","order_id":"{order}","order_amount":50,"discount":0,"hold_until":null,"at":"{at}""#
    );
    let issuance = ISSUANCE.trim_end_matches('}');
    let (call_us, answer_us) = (BEGIN_US + ms * 1_000 - 100, BEGIN_US + ms * 1_000 + 100);
    let step = format!(
        r#"{{"step":{{"call_us":{call_us},"answer_us":{answer_us},"issuance":"42-1","step":"redeem","body":{{"order_id":"{order}","order_amount":50}},"answer":{{"status":200,"body":{issuance},"use":{{{shown}}}}}}}}}}}"#
    );
    (shown, step)
}

#[test]
fn uses_are_judged_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (one, redeem_one) = redeemed("one", 2_000);
    let (other, redeem_other) = redeemed("other", 3_000);
    let line = |number: u32, shown: &str| format!(r#"{{"issuance_id":"42-1","number":{number},{shown}}}"#);
    let both = format!("{COUPON}\n{ISSUANCE}\n{}\n", line(1, &one));
    let rows_of_one = rows(directory.path(), &both);
    let output = verify(
        directory.path(),
        &(history() + &redeem_one + "\n"),
        &["--rows", &rows_of_one],
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("uses stored") && text.contains("requests: redeem done"),
        "{text}"
    );
    let rows_of_both = rows(directory.path(), &format!("{both}{}\n", line(2, &other)));
    let history = history() + &redeem_one + "\n" + &redeem_other + "\n";
    let output = verify(directory.path(), &history, &["--rows", &rows_of_both]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("FOUND: redeemed twice") && text.contains("line 5: {\"step\""),
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

/// Returns the pages of a service in which the issuance has this use, by path.
fn pages(shown: &str) -> Vec<(&'static str, String)> {
    let other = COUPON.replace("\"id\":42", "\"id\":43");
    let used = format!(r#"{},"use":{{{shown}}}}}"#, ISSUANCE.trim_end_matches('}'));
    vec![
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
            format!(r#"{{"items":[{used}],"next_cursor":"d"}}"#),
        ),
        (
            "/v1/coupons/42/issuances?after_sequence=1&limit=200",
            r#"{"items":[],"next_cursor":null}"#.to_owned(),
        ),
        (
            "/v1/issuances/42-1/uses?limit=200",
            format!(r#"{{"items":[{{"number":1,{shown}}}],"next_cursor":null}}"#),
        ),
    ]
}

#[test]
fn rows_are_read_over_http_page_by_page() {
    let (shown, redeem) = redeemed("one", 2_000);
    let url = serve(Box::leak(pages(&shown).into_boxed_slice()));
    let directory = tempfile::tempdir().unwrap();
    let history = history() + &redeem + "\n";
    let history = || history.clone();
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
