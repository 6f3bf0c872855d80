//! Sends clients' requests over HTTP and records them with their answers, for the checker.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::checker::{self, Options, Report};
use crate::fetch::Fetch;
use crate::history::file::{self, Request};
use crate::history::{self, Operation};
use crate::ids::{CouponId, IssuanceId};
use crate::node::ADMIN_TOKEN;
use crate::rows::{Rows, UseRow};
use crate::stored_uses;
use crate::time::Timestamp;

/// Where a history with findings and its rows are kept, in a folder of their own.
const HISTORY: &str = "history.jsonl";
const ROWS: &str = "rows.jsonl";

/// An answer: its status and body.
pub type Answer = (u16, Value);

/// Records a history while it sends requests.
#[derive(Debug, Default)]
pub struct HttpRecorder {
    lines: Mutex<Vec<u8>>,
    coupons: Mutex<HashSet<CouponId>>,
    issued: AtomicU64,
}

impl HttpRecorder {
    /// Makes a coupon and returns its id.
    ///
    /// # Panics
    /// If the coupon is not made.
    pub async fn create(
        &self,
        client: &Client,
        address: &str,
        total_quantity: Option<u64>,
        per_user_limit: u8,
    ) -> u64 {
        let body = json!({"title": "test", "total_quantity": total_quantity, "per_user_limit": per_user_limit, "use_within_days": 30});
        self.create_like(client, address, &body).await
    }

    /// Requests the coupon for a user. Returns the answer, or `None` if no answer came.
    pub async fn issue(
        &self,
        client: &Client,
        address: &str,
        coupon: u64,
        user: &str,
        key: &str,
    ) -> Option<Answer> {
        let request = client
            .post(format!("http://{address}/v1/coupons/{coupon}/issuances"))
            .header("X-User-Id", user)
            .header("Idempotency-Key", key);
        let issue = Request::Issue(coupon_id(coupon), user.as_bytes(), key.as_bytes());
        let answer = self.send(issue, request).await;
        if matches!(answer, Some((201, _))) {
            self.issued.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Makes a coupon like this one and returns its id.
    ///
    /// # Panics
    /// If the coupon is not made.
    pub async fn create_like(&self, client: &Client, address: &str, body: &Value) -> u64 {
        let request = client.post(format!("http://{address}/v1/coupons"));
        let request = request.bearer_auth(ADMIN_TOKEN).json(body);
        let (_, coupon) = self.send(Request::Create, request).await.expect("an answer");
        let id = coupon["id"].as_u64().and_then(CouponId::new).expect("a coupon");
        self.coupons().insert(id);
        id.get()
    }

    /// Uses an issuance: `reserve`, `redeem`, `release`, `refund` or `revoke`, with this body. Returns the
    /// answer, or `None` if no answer came.
    ///
    /// # Panics
    /// If this is no id of an issuance.
    pub async fn step(
        &self,
        client: &Client,
        address: &str,
        issuance: &str,
        step: &str,
        body: &Value,
    ) -> Option<Answer> {
        let request = client
            .post(format!("http://{address}/v1/issuances/{issuance}/{step}"))
            .bearer_auth(ADMIN_TOKEN)
            .json(body);
        let issuance = IssuanceId::parse(issuance).expect("an issuance");
        self.send(Request::Step(issuance, step, &body.to_string()), request)
            .await
    }

    /// Requests a quote. Returns the answer, or `None` if no answer came.
    ///
    /// # Panics
    /// If this is no id of an issuance.
    pub async fn quote(&self, client: &Client, address: &str, issuance: &str, amount: u64) -> Option<Answer> {
        let url = format!("http://{address}/v1/issuances/{issuance}/quote?order_amount={amount}");
        let request = client.get(url).bearer_auth(ADMIN_TOKEN);
        let issuance = IssuanceId::parse(issuance).expect("an issuance");
        self.send(Request::Quote(issuance, amount), request).await
    }

    /// Returns how many requests were answered with an issuance.
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// Returns, as lines, the operations that got no answer or a status of 500 or more.
    pub fn failures(&self) -> Vec<String> {
        let failed = |line: &&str| {
            let line: Value = serde_json::from_str(line).expect("a recorded line is JSON");
            let operation = line.as_object().and_then(|line| line.values().next());
            let status = operation.and_then(|operation| operation["answer"]["status"].as_u64());
            status.is_none_or(|status| status >= 500)
        };
        self.text().lines().filter(failed).map(str::to_owned).collect()
    }

    /// Changes the coupon as an administrator: `"pause"`, `"resume"`, `"close"` or `{"patch": {…}}`. Returns
    /// the answer, or `None` if no answer came.
    ///
    /// # Panics
    /// If the change is neither a text nor a patch.
    pub async fn change(&self, client: &Client, address: &str, coupon: u64, change: Value) -> Option<Answer> {
        let url = format!("http://{address}/v1/coupons/{coupon}");
        let request = match (&change, change.get("patch")) {
            (_, Some(patch)) => client.patch(url).json(patch),
            (Value::String(name), _) => client.post(format!("{url}/{name}")),
            other => panic!("{other:?} is no change"),
        };
        self.send(
            Request::Change(coupon_id(coupon), &change),
            request.bearer_auth(ADMIN_TOKEN),
        )
        .await
    }

    /// Sends a request and records it.
    async fn send(&self, what: Request<'_>, request: RequestBuilder) -> Option<Answer> {
        let call_us = Timestamp::now().as_micros();
        let read = read(request).await;
        let answer_us = Timestamp::now().as_micros();
        let (body, answer) = match &read {
            Some((status, replayed, body)) => (body.to_string(), Some((*status, *replayed))),
            None => (String::new(), None),
        };
        let answer = answer.map(|(status, replayed)| {
            let body = body.as_bytes();
            (
                answer_us,
                file::Answer {
                    status,
                    replayed,
                    body,
                },
            )
        });
        file::append(&mut self.lines(), what, call_us, answer);
        read.map(|(status, _, body)| (status, body))
    }

    fn lines(&self) -> MutexGuard<'_, Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn coupons(&self) -> MutexGuard<'_, HashSet<CouponId>> {
        self.coupons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lines()).into_owned()
    }

    /// Checks the history against the rows that are stored now.
    ///
    /// # Panics
    /// If a promise was broken; the message holds the findings.
    pub async fn judge(&self, address: &str) -> Report {
        self.judge_by(address, &Options::default()).await
    }

    /// Checks the history like [`Self::judge`], with other options.
    ///
    /// # Panics
    /// If a promise was broken; the message holds the findings.
    pub async fn judge_by(&self, address: &str, options: &Options) -> Report {
        let coupons = self.coupons().clone();
        judge(&self.text(), &fetch(address, &coupons).await, options)
    }

    /// Checks the history like [`Self::judge`], with the uses and their counts as the tables at this URL hold
    /// them. See [`stored_uses::read`].
    ///
    /// # Panics
    /// If a promise was broken, or if the service lists other uses; the message says so.
    pub async fn judge_tables(&self, address: &str, store_url: &str) -> Report {
        let coupons = self.coupons().clone();
        let mut rows = fetch(address, &coupons).await;
        let mut listed = std::mem::take(&mut rows.uses);
        for coupon in &coupons {
            let uses = stored_uses::read(store_url, *coupon).await;
            rows.uses.extend(uses.expect("uses are read from the tables"));
        }
        let place = |row: &UseRow| (row.issuance.coupon, row.number);
        listed.sort_by_key(place);
        rows.uses.sort_by_key(place);
        let stored = rows.uses.iter().map(|row| UseRow {
            counts: None,
            ..row.clone()
        });
        let differing = stored.zip(&listed).find(|(stored, listed)| stored != *listed);
        assert_eq!(differing, None, "a use is stored and listed differently");
        assert_eq!(rows.uses.len(), listed.len(), "uses that are stored and listed");
        judge(&self.text(), &rows, &Options::default())
    }

    /// Checks the requests for these coupons since the moment `since` against the rows that are stored now.
    /// This is for a database that has lost earlier rows. No administrator may have changed the coupons since
    /// that moment.
    ///
    /// # Panics
    /// If a promise was broken; the message holds the findings.
    pub async fn judge_issues(&self, address: &str, coupons: &[u64], since: Timestamp) -> Report {
        let text = self.text();
        let is_meant = |line: &&str| {
            let line: Value = serde_json::from_str(line).expect("a recorded line is JSON");
            let issue = &line["issue"];
            coupons.iter().any(|coupon| issue["coupon"] == *coupon)
                && issue["call_us"].as_i64() >= Some(since.as_micros())
        };
        let lines: Vec<&str> = text.lines().filter(is_meant).collect();
        let coupons = coupons.iter().map(|coupon| coupon_id(*coupon)).collect();
        let options = Options {
            foreign: true,
            ..Options::default()
        };
        judge(&lines.join("\n"), &fetch(address, &coupons).await, &options)
    }
}

async fn fetch(address: &str, coupons: &HashSet<CouponId>) -> Rows {
    let fetch = Fetch::new(&format!("http://{address}"), ADMIN_TOKEN);
    fetch.rows(coupons).await.expect("rows are read")
}

fn judge(lines: &str, rows: &Rows, options: &Options) -> Report {
    let operations: Result<Vec<Operation>, _> = history::read(lines.as_bytes()).collect();
    let operations = operations.expect("recorded lines are a history");
    let report = checker::check(&operations, rows, options);
    assert!(report.is_clean(), "{}", accusation(&report, lines, rows));
    println!("{} issuances; answers: {:?}", report.issuances, report.answers);
    report
}

/// Writes a history and the rows to files. Returns a message with the findings and the place of the files.
fn accusation(report: &Report, lines: &str, rows: &Rows) -> String {
    let kept = match keep(lines, rows) {
        Ok(folder) => {
            let (history, rows) = (folder.join(HISTORY), folder.join(ROWS));
            format!("--history {} --rows {}", history.display(), rows.display())
        }
        Err(error) => format!("the history could not be kept: {error}"),
    };
    let findings = report.findings.iter().map(ToString::to_string);
    let lines: Vec<String> = findings
        .chain([format!("firstcome-bench verify {kept}")])
        .collect();
    lines.join("\n")
}

/// Writes a history and the rows to files in a new folder that stays, and returns the folder.
fn keep(lines: &str, rows: &Rows) -> std::io::Result<PathBuf> {
    let folder = tempfile::Builder::new().prefix("firstcome-history-").tempdir()?;
    std::fs::write(folder.path().join(HISTORY), lines)?;
    rows.write(BufWriter::new(File::create(folder.path().join(ROWS))?))?;
    Ok(folder.keep())
}

fn coupon_id(coupon: u64) -> CouponId {
    CouponId::new(coupon).expect("a coupon id")
}

async fn read(request: RequestBuilder) -> Option<(u16, bool, Value)> {
    let answer = request.send().await.ok()?;
    let (status, replayed) = (
        answer.status().as_u16(),
        answer.headers().contains_key("idempotent-replayed"),
    );
    Some((status, replayed, answer.json().await.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_with_findings_is_kept_for_verify() {
        let lines = r#"{"issue":{"call_us":1,"answer_us":2,"coupon":7,"user":"a","key":"k","answer":{"status":409,"body":{"code":"PAUSED"}}}}"#;
        let lines = format!("{lines}\n");
        let read = |input: &[u8]| {
            history::read(input)
                .collect::<Result<Vec<Operation>, _>>()
                .unwrap()
        };
        let report = checker::check(&read(lines.as_bytes()), &Rows::default(), &Options::default());
        assert!(!report.is_clean());
        let text = accusation(&report, &lines, &Rows::default());
        let words: Vec<&str> = text.split_whitespace().collect();
        let [.., "--history", history, "--rows", rows] = words[..] else {
            panic!("{text}")
        };
        assert!(text.contains(&report.findings[0].to_string()), "{text}");
        let kept = std::fs::read(history).unwrap();
        let rows = Rows::read(std::fs::read(rows).unwrap().as_slice()).unwrap();
        let again = checker::check(&read(&kept), &rows, &Options::default());
        std::fs::remove_dir_all(std::path::Path::new(history).parent().unwrap()).unwrap();
        assert_eq!(again.findings, report.findings);
    }
}
