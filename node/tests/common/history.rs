//! Records what clients did and saw, and has it judged by the checker.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use actors::ids::CouponId;
use actors::time::{Timestamp, timestamp};
use bench::checker::{self, Options, Report};
use bench::fetch::Fetch;
use bench::history::{self, Operation};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::process::ADMIN_TOKEN;

/// The answer to a request: its status and body.
pub type Answer = (u16, Value);

/// The history of a test, in the file format of the checker.
#[derive(Default)]
pub struct History {
    lines: Mutex<String>,
    coupons: Mutex<HashSet<CouponId>>,
    issued: AtomicU64,
}

impl History {
    /// Makes a coupon.
    pub async fn create(
        &self,
        client: &Client,
        address: &str,
        total_quantity: Option<u64>,
        per_user_limit: u8,
    ) -> u64 {
        let body = json!({"title": "test", "total_quantity": total_quantity, "per_user_limit": per_user_limit, "use_within_days": 30});
        let request = client
            .post(format!("http://{address}/v1/coupons"))
            .bearer_auth(ADMIN_TOKEN)
            .json(&body);
        let (_, coupon) = self
            .send("create", json!({}), request)
            .await
            .expect("a coupon is made");
        let id = coupon["id"].as_u64().unwrap();
        self.coupons.lock().unwrap().insert(CouponId::new(id).unwrap());
        id
    }

    /// A user asks for the coupon; `None` if no answer came.
    pub async fn issue(
        &self,
        client: &Client,
        address: &str,
        coupon: u64,
        user: &str,
        key: &str,
    ) -> Option<Answer> {
        let url = format!("http://{address}/v1/coupons/{coupon}/issuances");
        let request = client
            .post(url)
            .header("X-User-Id", user)
            .header("Idempotency-Key", key);
        let answer = self
            .send(
                "issue",
                json!({"coupon": coupon, "user": user, "key": key}),
                request,
            )
            .await;
        if matches!(answer, Some((201, _))) {
            self.issued.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// How many requests were answered with an issuance.
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// The operations that got no answer, or one that something failed, as their lines.
    pub fn failures(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap().clone();
        let failed = |line: &&str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let answer = line
                .as_object()
                .and_then(|line| line.values().next())
                .map(|operation| &operation["answer"]["status"]);
            answer.and_then(Value::as_u64).is_none_or(|status| status >= 500)
        };
        lines.lines().filter(failed).map(str::to_owned).collect()
    }

    /// An administrator changes the coupon: `"pause"`, `"resume"`, or `{"patch": {…}}`.
    pub async fn change(&self, client: &Client, address: &str, coupon: u64, change: Value) -> Option<Answer> {
        let url = format!("http://{address}/v1/coupons/{coupon}");
        let request = match (&change, change.get("patch")) {
            (_, Some(patch)) => client.patch(url).json(patch),
            (Value::String(name), _) => client.post(format!("{url}/{name}")),
            other => panic!("{other:?} is no change"),
        };
        self.send(
            "change",
            json!({"coupon": coupon, "change": change}),
            request.bearer_auth(ADMIN_TOKEN),
        )
        .await
    }

    async fn send(&self, kind: &str, mut operation: Value, request: RequestBuilder) -> Option<Answer> {
        operation["call_us"] = timestamp().as_micros().into();
        let answer = read(request).await;
        operation["answer_us"] = timestamp().as_micros().into();
        operation["answer"] = match &answer {
            Some((status, replayed, body)) => json!({"status": status, "replayed": replayed, "body": body}),
            None => Value::Null,
        };
        let line = json!({kind: operation}).to_string() + "\n";
        self.lines.lock().unwrap().push_str(&line);
        answer.map(|(status, _, body)| (status, body))
    }

    /// Holds it against what is stored now. Panics with what was told and is not so.
    pub async fn judge(&self, address: &str) -> Report {
        self.judge_by(address, &Options::default()).await
    }

    /// The same where something else is promised.
    pub async fn judge_by(&self, address: &str, options: &Options) -> Report {
        let lines = self.lines.lock().unwrap().clone();
        let operations: Vec<Operation> = history::read(lines.as_bytes()).collect::<Result<_, _>>().unwrap();
        let coupons = self.coupons.lock().unwrap().clone();
        let rows = Fetch::new(&format!("http://{address}"), ADMIN_TOKEN)
            .rows(&coupons)
            .await
            .unwrap();
        clean(checker::check(&operations, &rows, options))
    }

    /// Holds what users were told of these coupons, as far as they asked since then, against what is stored
    /// now: for a database that has lost what was before. Nobody may have changed the coupons meanwhile.
    pub async fn judge_issues(&self, address: &str, coupons: &[u64], since: Timestamp) -> Report {
        let lines = self.lines.lock().unwrap().clone();
        let is_meant = |line: &&str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let issue = &line["issue"];
            coupons.iter().any(|coupon| issue["coupon"] == *coupon)
                && issue["call_us"].as_i64() >= Some(since.as_micros())
        };
        let lines: Vec<&str> = lines.lines().filter(is_meant).collect();
        let operations: Vec<Operation> = history::read(lines.join("\n").as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let coupons = coupons
            .iter()
            .map(|coupon| CouponId::new(*coupon).unwrap())
            .collect();
        let rows = Fetch::new(&format!("http://{address}"), ADMIN_TOKEN)
            .rows(&coupons)
            .await
            .unwrap();
        clean(checker::check(
            &operations,
            &rows,
            &Options {
                foreign: true,
                ..Options::default()
            },
        ))
    }
}

fn clean(report: Report) -> Report {
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.is_clean(), "{}", findings.join("\n"));
    println!("{} issuances; answers: {:?}", report.issuances, report.answers);
    report
}

async fn read(request: RequestBuilder) -> Option<(u16, bool, Value)> {
    let answer = request.send().await.ok()?;
    let (status, replayed) = (
        answer.status().as_u16(),
        answer.headers().contains_key("idempotent-replayed"),
    );
    Some((status, replayed, answer.json().await.ok()?))
}
