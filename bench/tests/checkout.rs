//! Runs the program `firstcome-bench load --checkout` against a service that lets every order redeem.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use testkit::time::Timestamp;

/// A service with one coupon. If `is_lax`, any order may redeem any issuance at any time; otherwise none may.
#[derive(Default)]
struct Shop {
    is_lax: bool,
    issued: Vec<Value>,
    uses: HashMap<String, Vec<Value>>,
    number: u64,
}

impl Shop {
    fn coupon(&self) -> Value {
        json!({
            "id": 42, "title": "x", "total_quantity": null, "per_user_limit": 1, "starts_at": null,
            "ends_at": null, "use_within_days": null, "status": "open", "issued": self.issued.len(), "version": 1,
            "created_at": "2026-11-21T03:00:00.000000Z"
        })
    }

    /// Returns status and body of an answer.
    fn answer(&mut self, line: &str, user: &str, body: &Value) -> (u16, Value) {
        let path = line.split(' ').nth(1).unwrap();
        let parts: Vec<&str> = path.split(['/', '?']).collect();
        match parts[..] {
            [_, _, "coupons", "42", "issuances"] => {
                let sequence = self.issued.len() + 1;
                let issued = json!({
                    "id": format!("42-{sequence}"), "coupon_id": 42, "user_id": user, "sequence": sequence,
                    "issued_at": Timestamp::now().to_string(), "expires_at": null
                });
                self.issued.push(issued.clone());
                (201, issued)
            }
            [_, _, "coupons", "42", ..] => (200, json!({"items": self.shown(), "next_cursor": null})),
            [_, _, "coupons", ..] => (200, json!({"items": [self.coupon()], "next_cursor": null})),
            [_, _, "issuances", id, "uses", ..] => {
                (200, json!({"items": self.uses.get(id), "next_cursor": null}))
            }
            [_, _, "issuances", id, "redeem"] if self.is_lax => {
                self.number += 1;
                let uses = self.uses.entry(id.to_owned()).or_default();
                uses.push(json!({
                    "number": self.number, "kind": "redeemed", "order_id": body["order_id"],
                    "order_amount": body["order_amount"].as_u64().unwrap_or(0), "discount": 0, "hold_until": null,
                    "at": Timestamp::now().to_string()
                }));
                let used = self.shown().into_iter().find(|issued| issued["id"] == id);
                (200, used.unwrap())
            }
            [_, _, "issuances", ..] => (409, json!({"code": "NOT_RESERVED"})),
            _ => panic!("{line}"),
        }
    }

    /// Returns the issuances with their latest uses.
    fn shown(&self) -> Vec<Value> {
        let with_use = |issued: &Value| {
            let mut shown = issued.clone();
            if let Some(uses) = self.uses.get(issued["id"].as_str().unwrap()) {
                shown["use"] = uses.last().unwrap().clone();
            }
            shown
        };
        self.issued.iter().map(with_use).collect()
    }
}

/// Returns the URL of a service.
fn start(is_lax: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shop = Arc::new(Mutex::new(Shop {
        is_lax,
        ..Shop::default()
    }));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let shop = Arc::clone(&shop);
            thread::spawn(move || serve(stream.unwrap(), &shop));
        }
    });
    url
}

/// Answers the requests of a connection until it ends. A request is executed even if its client is gone.
fn serve(mut stream: TcpStream, shop: &Mutex<Shop>) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut lines: Vec<String> = Vec::new();
        while lines.last().is_none_or(|line| !line.is_empty()) {
            let mut line = String::new();
            match input.read_line(&mut line) {
                Ok(1..) => lines.push(line.trim_end().to_owned()),
                _ => return,
            }
        }
        let header = |name: &str| {
            let mut fields = lines.iter().filter_map(|line| line.split_once(": "));
            let field = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
            field.map(|(_, value)| value.to_owned())
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        input.read_exact(&mut body).unwrap();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let user = header("x-user-id").unwrap_or_default();
        let (status, told) = shop.lock().unwrap().answer(&lines[0], &user, &body);
        let told = told.to_string();
        let length = told.len();
        // In one piece, so that the system sends it at once.
        let whole = format!(
            "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{told}"
        );
        if stream.write_all(whole.as_bytes()).is_err() {
            return;
        }
    }
}

/// Runs 200 customers, and returns the exit status and what was printed.
fn run(url: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_firstcome-bench"))
        .args([
            "load",
            "--url",
            url,
            "--coupon",
            "42",
            "--ceiling",
            "0s",
            "--checkout",
            "-n",
            "200",
        ])
        .args(["-c", "4", "--seed", "1", "--admin-token", "t"])
        .args(more)
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), out + &error)
}

#[test]
fn a_service_that_lets_two_orders_redeem_fails_the_run() {
    let (status, text) = run(&start(true), &["--check"]);
    assert_eq!(status, Some(1), "{text}");
    for part in [
        "FOUND: redeemed twice",
        "requests: redeem done",
        "uses stored",
        "answer dropped",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn steps_are_reported_with_rates_percentiles_and_refusals() {
    let (status, text) = run(&start(false), &["--json"]);
    assert_eq!(status, Some(0), "{text}");
    let begin = text.find('{').unwrap();
    let figures: Value = serde_json::Deserializer::from_str(&text[begin..])
        .into_iter()
        .next()
        .unwrap()
        .unwrap();
    let steps = figures["steps"].as_array().unwrap();
    let reserve = steps.iter().find(|step| step["step"] == "reserve").unwrap();
    let dropped = reserve["count"].as_u64().unwrap() - reserve["refused"]["NOT_RESERVED"].as_u64().unwrap();
    assert!(
        reserve["count"].as_u64().unwrap() > 50 && dropped < 30,
        "{reserve}"
    );
    assert!(reserve["latency"]["p99_ms"].as_f64().unwrap() > 0.0, "{reserve}");
    let (status, text) = run(&start(false), &[]);
    assert!(status == Some(0) && text.contains("  NOT_RESERVED"), "{text}");
    assert!(text.contains("reserve NOT_RESERVED"), "{text}");
}
