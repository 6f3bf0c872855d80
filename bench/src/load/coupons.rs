//! Makes the coupons of a run.

use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use testkit::ids::CouponId;
use tokio::task::JoinSet;

use testkit::history::file::{Answer, Recorder, Request};

/// Number of coupons that are made at a time, enough to be committed together.
const CALLS: u64 = 64;
/// How long making a coupon may take. The service's limit for changes is 10 s.
const CALL_LIMIT: Duration = Duration::from_secs(15);

/// The reason why coupons could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// No whole answer.
    #[error("a coupon was not made: {0}")]
    Http(#[from] reqwest::Error),
    /// The answer was not a coupon.
    #[error("a coupon was not made: {status}: {body}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// The answer's body.
        body: String,
    },
    /// A task panicked.
    #[error("a coupon was not made: {0}")]
    Lost(#[from] tokio::task::JoinError),
}

/// The coupons to make.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Number of coupons.
    pub count: u64,
    /// The quantity of each coupon; `None` means no limit.
    pub quantity: Option<u64>,
    /// The name of the run. Runs with the same name make each coupon only once.
    pub name: &'a str,
    /// True if the coupons take off something: 15 %, at most 5,000, of orders from 1,000.
    pub with_discount: bool,
}

#[derive(Debug, Deserialize)]
struct Made {
    id: u64,
}

/// Makes coupons with the token of administrators, and records the requests. Not cancel safe: some coupons
/// may be made.
pub async fn make(
    url: &str,
    admin_token: &str,
    wanted: Wanted<'_>,
    mut recorder: Option<Recorder>,
) -> Result<Vec<CouponId>, MakeError> {
    let client = Client::builder().timeout(CALL_LIMIT).no_proxy().build()?;
    let url = format!("{}/v1/coupons", url.trim_end_matches('/'));
    let mut made = Vec::new();
    let mut calls = JoinSet::new();
    let mut next = 0;
    while next < wanted.count || !calls.is_empty() {
        while next < wanted.count && (calls.len() as u64) < CALLS {
            let body = coupon(wanted, next);
            let request = client
                .post(&url)
                .bearer_auth(admin_token)
                .header("Idempotency-Key", format!("{}.{next}", wanted.name))
                .json(&body);
            calls.spawn(call(request));
            next += 1;
        }
        let Some(called) = calls.join_next().await else {
            break;
        };
        let (at, answered, status, body) = called??;
        if let Some(recorder) = &mut recorder {
            recorder.record(
                Request::Create,
                at,
                Some((
                    answered,
                    Answer {
                        status: status.as_u16(),
                        replayed: false,
                        body: body.as_bytes(),
                    },
                )),
            );
        }
        let id = serde_json::from_str::<Made>(&body)
            .ok()
            .and_then(|made| CouponId::new(made.id));
        made.push(
            id.filter(|_| status == StatusCode::CREATED)
                .ok_or(MakeError::Refused { status, body })?,
        );
    }
    made.sort_unstable();
    Ok(made)
}

/// Returns the coupon with this number.
fn coupon(wanted: Wanted<'_>, number: u64) -> serde_json::Value {
    let title = format!("{} {number}", wanted.name);
    let mut body = serde_json::json!({"title": title, "total_quantity": wanted.quantity});
    if wanted.with_discount {
        body["discount"] = serde_json::json!({"kind": "rate", "value": 15});
        body["max_discount"] = 5_000.into();
        body["min_order_amount"] = 1_000.into();
        body["use_within_days"] = 30.into();
    }
    body
}

async fn call(
    request: reqwest::RequestBuilder,
) -> Result<(Instant, Instant, StatusCode, String), reqwest::Error> {
    let called = Instant::now();
    let response = request.send().await?;
    let status = response.status();
    let body = response.text().await?;
    Ok((called, Instant::now(), status, body))
}
