//! Everything the API says no with, and the one place that knows how: status, code, and what goes with it (RFC 9457).
//!
//! Nothing internal passes here: what a store or a library said goes to the log, the client gets a name and a number.

use std::fmt;
use std::time::Duration;

use actors::coupon::message::{ChangeRefusal, Refusal, Setback};
use actors::offer::{InvalidField, Issuance};
use actors::store::StoreError;
use actors::time::Timestamp;
use http::header::{ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use rand::Rng;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use warp::reply::Response;

use super::issuances::IssuanceBody;
use super::json::{self, Text};

/// Why a request is not answered as it hoped.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The request is not one: not JSON, not an object, an id that is none.
    Malformed(String),
    /// Nobody is recognised, and no token was shown.
    Unauthenticated,
    /// A token was shown that is nobody's.
    InvalidToken,
    /// Somebody is, who may not.
    Forbidden(&'static str),
    /// There is no such page.
    NotFound,
    /// There is no such issuance, or it is none of the asker's business.
    UnknownIssuance,
    /// The page does not take this method, only these.
    MethodNotAllowed(&'static str),
    /// The body is larger than any of ours.
    TooLarge,
    /// The head is larger than any of ours.
    HeaderTooLarge,
    /// The request did not come to its end in time.
    RequestTimeout,
    /// The body is said to be something else than JSON.
    UnsupportedMediaType,
    /// Fields that make no sense, each by name.
    Invalid(Vec<FieldError>),
    /// An owner's decision on an issue request.
    Refused(Refusal),
    /// An owner's decision on a change.
    ChangeRefused(ChangeRefusal),
    /// There is no decision to tell.
    SetBack(Setback),
    /// The user asks too much, and may again after this time.
    RateLimited(Duration),
    /// Our fault; the log knows more. `applied` says whether anything may have been changed.
    Internal {
        /// As in the answer: `Some(false)` if surely nothing was, `None` if that is not known.
        applied: Option<bool>,
    },
}

/// One field that makes no sense.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Its path, like `discount.value`.
    pub(crate) field: String,
    /// What it must be.
    pub(crate) message: String,
}

impl FieldError {
    /// A field by name, and what it must be.
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl Problem {
    /// One field that makes no sense.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }

    /// What to say when reading from the store failed: reading changes nothing.
    pub(crate) fn reading(error: &StoreError) -> Self {
        match error {
            StoreError::NotStored(_) | StoreError::Unknown(_) => Self::SetBack(Setback::StoreUnavailable),
            StoreError::Clash(_) | StoreError::Unreadable(_) | StoreError::Fatal(_) => Self::Internal { applied: Some(false) },
        }
    }

    /// What to say when the store failed at making something.
    pub(crate) fn making(error: &StoreError) -> Self {
        match error {
            StoreError::NotStored(_) => Self::SetBack(Setback::StoreUnavailable),
            StoreError::Unknown(_) => Self::SetBack(Setback::Unknown),
            StoreError::Clash(_) => Self::Internal { applied: Some(false) },
            StoreError::Unreadable(_) | StoreError::Fatal(_) => Self::Internal { applied: None },
        }
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response {
        let Said { status, header, body } = self.say();
        let mut response = json::response_of("application/problem+json", status, &body);
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }

    /// From refusal to status: the only match there is.
    fn say(self) -> Said {
        use StatusCode as S;
        match self {
            Self::Malformed(detail) => said(S::BAD_REQUEST, "MALFORMED", "The request cannot be read").detail(detail),
            Self::Unauthenticated => unauthenticated(r#"Bearer realm="firstcome""#),
            // What is wrong with it is for whoever made it, not for whoever tries.
            Self::InvalidToken => unauthenticated(r#"Bearer realm="firstcome", error="invalid_token""#),
            Self::Forbidden(detail) => said(S::FORBIDDEN, "FORBIDDEN", "Not allowed for whoever asks")
                .detail(detail)
                .header(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="firstcome", error="insufficient_scope""#)),
            Self::NotFound => said(S::NOT_FOUND, "NOT_FOUND", "There is no such page"),
            Self::UnknownIssuance => said(S::NOT_FOUND, "UNKNOWN_ISSUANCE", "There is no such issuance"),
            Self::MethodNotAllowed(allow) => said(S::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "The page does not take this method")
                .header(ALLOW, HeaderValue::from_static(allow)),
            Self::TooLarge => said(S::PAYLOAD_TOO_LARGE, "TOO_LARGE", "The body is too large")
                .detail(format!("at most {} bytes", super::call::BODY_BYTES_MAX)),
            Self::HeaderTooLarge => said(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADER_TOO_LARGE", "The head of the request is too large"),
            Self::RequestTimeout => said(S::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "The request was not sent in time"),
            Self::UnsupportedMediaType => said(S::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", "The body must be JSON")
                .detail("Content-Type must be application/json"),
            Self::Invalid(errors) => said(S::UNPROCESSABLE_ENTITY, "INVALID", "Some fields make no sense").errors(errors),
            Self::Refused(refusal) => refused(refusal),
            Self::ChangeRefused(refusal) => change_refused(refusal),
            Self::SetBack(setback) => set_back(setback),
            Self::RateLimited(wait) => rate_limited(wait),
            Self::Internal { applied } => said(S::INTERNAL_SERVER_ERROR, "INTERNAL", "Something is wrong on our side").applied(applied),
        }
    }
}

/// Nobody is recognised; the challenge is as RFC 6750 has it.
fn unauthenticated(challenge: &'static str) -> Said {
    said(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "Nobody is recognised in the request")
        .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// The part of the match about issue requests.
fn refused(refusal: Refusal) -> Said {
    let conflict = |code, title| said(StatusCode::CONFLICT, code, title);
    match refusal {
        Refusal::UnknownCoupon => unknown_coupon(),
        Refusal::AlreadyIssued(issuance) => {
            conflict("ALREADY_ISSUED", "The user has as many as allowed").with(|body| body.issuance = Some(issuance))
        }
        Refusal::Closed => closed(),
        Refusal::Paused => conflict("PAUSED", "The coupon is paused"),
        Refusal::NotStarted { starts_at, server_time } => conflict("NOT_STARTED", "The coupon is not issued yet").with(|body| {
            body.starts_at = Some(Text(starts_at));
            body.server_time = Some(Text(server_time));
        }),
        Refusal::Ended { ends_at, server_time } => conflict("ENDED", "The coupon is not issued any more").with(|body| {
            body.ends_at = Some(Text(ends_at));
            body.server_time = Some(Text(server_time));
        }),
        Refusal::SoldOut { total_quantity } => {
            conflict("SOLD_OUT", "All are given out").with(|body| body.total_quantity = Some(total_quantity))
        }
    }
}

/// The part of the match about changes.
fn change_refused(refusal: ChangeRefusal) -> Said {
    match refusal {
        ChangeRefusal::UnknownCoupon => unknown_coupon(),
        ChangeRefusal::VersionMismatch { version } => {
            said(StatusCode::PRECONDITION_FAILED, "VERSION_MISMATCH", "The coupon has another version")
                .with(|body| body.version = Some(version))
        }
        ChangeRefusal::Closed => closed(),
        ChangeRefusal::QuantityBelowIssued { issued } => {
            said(StatusCode::CONFLICT, "QUANTITY_BELOW_ISSUED", "More are given out than there would be")
                .with(|body| body.issued = Some(issued))
        }
        ChangeRefusal::Invalid(fields) => {
            let error = |InvalidField { field, message }| FieldError::new(field, message);
            Problem::Invalid(fields.into_iter().map(error).collect()).say()
        }
    }
}

/// The part of the match about no decision. Each says whether there may be one, and when to ask again.
fn set_back(setback: Setback) -> Said {
    let (code, title, applied) = match setback {
        // Too late at its owner is what a queue that is too long looks like.
        Setback::Overloaded | Setback::Expired => ("OVERLOADED", "Too much is asked at once", Some(false)),
        Setback::Moved => ("OWNER_MOVING", "The coupon is changing nodes", Some(false)),
        Setback::StoreUnavailable => ("STORE_UNAVAILABLE", "The database does not answer", Some(false)),
        Setback::Unknown => ("OUTCOME_UNKNOWN", "It may have been done; asking again with the same key tells", None),
    };
    // Jitter, or all who were turned away together come back together.
    let seconds = rand::rng().random_range(RETRY_AFTER_SECONDS);
    said(StatusCode::SERVICE_UNAVAILABLE, code, title).applied(applied).header(RETRY_AFTER, HeaderValue::from(seconds))
}

/// The user may ask again after this time; with jitter, as those who began together are refused together.
fn rate_limited(wait: Duration) -> Said {
    let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).saturating_add(rand::rng().random_range(RATE_JITTER_SECONDS));
    said(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "The user asks too much").header(RETRY_AFTER, HeaderValue::from(seconds))
}

/// How much longer some are told to wait than they must: enough to spread them out, too little to be felt.
const RATE_JITTER_SECONDS: std::ops::RangeInclusive<u64> = 0..=2;

/// When to ask again: soon, as hand-offs and fail-overs take about a lease.
const RETRY_AFTER_SECONDS: std::ops::RangeInclusive<u16> = 1..=4;

/// Both issue requests and changes meet it.
fn unknown_coupon() -> Said {
    said(StatusCode::NOT_FOUND, "UNKNOWN_COUPON", "There is no such coupon")
}

/// Both issue requests and changes meet it.
fn closed() -> Said {
    said(StatusCode::CONFLICT, "CLOSED", "The coupon is closed")
}

/// A problem, ready to be written.
struct Said {
    status: StatusCode,
    header: Option<(HeaderName, HeaderValue)>,
    body: Body,
}

/// A problem with nothing more to it.
fn said(status: StatusCode, code: &'static str, title: &'static str) -> Said {
    let body = Body { kind: Text(Urn(code)), title, status: status.as_u16(), code, applied: Some(false), ..Body::default() };
    Said { status, header: None, body }
}

impl Said {
    fn applied(self, applied: Option<bool>) -> Self {
        self.with(|body| body.applied = applied)
    }

    fn detail(self, detail: impl Into<String>) -> Self {
        self.with(|body| body.detail = Some(detail.into()))
    }

    fn errors(self, errors: Vec<FieldError>) -> Self {
        self.with(|body| body.errors = Some(errors))
    }

    fn with(mut self, add: impl FnOnce(&mut Body)) -> Self {
        add(&mut self.body);
        self
    }

    fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

/// A code as the type that RFC 9457 asks for.
#[derive(Debug, Default)]
struct Urn(&'static str);

impl fmt::Display for Urn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("urn:firstcome:problem:")?;
        f.write_str(self.0)
    }
}

/// A problem as it is written: what all have, and what goes with some.
#[derive(Default, Serialize)]
struct Body {
    #[serde(rename = "type")]
    kind: Text<Urn>,
    title: &'static str,
    status: u16,
    code: &'static str,
    applied: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<FieldError>>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_body")]
    issuance: Option<Box<Issuance>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_at: Option<Text<Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<Text<Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_time: Option<Text<Timestamp>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_quantity: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

/// The issuance whole, as anywhere else in the API.
#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
fn as_body<S: Serializer>(issuance: &Option<Box<Issuance>>, serializer: S) -> Result<S::Ok, S::Error> {
    issuance.as_deref().map(IssuanceBody::from).serialize(serializer)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ChangeRefusal> for Problem {
    fn from(refusal: ChangeRefusal) -> Self {
        Self::ChangeRefused(refusal)
    }
}

impl From<Setback> for Problem {
    fn from(setback: Setback) -> Self {
        Self::SetBack(setback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::CONTENT_TYPE;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    async fn answer(problem: Problem) -> (u16, Value, Option<u64>) {
        let response = problem.into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let retry_after = response.headers().get(RETRY_AFTER).map(|seconds| seconds.to_str().unwrap().parse().unwrap());
        let status = response.status().as_u16();
        let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(body["status"], status);
        (status, body, retry_after)
    }

    #[tokio::test]
    async fn setbacks_say_when_to_ask_again_and_whether_anything_was_done() {
        for (setback, code, applied) in [
            (Setback::Overloaded, "OVERLOADED", json!(false)),
            (Setback::Expired, "OVERLOADED", json!(false)),
            (Setback::Moved, "OWNER_MOVING", json!(false)),
            (Setback::StoreUnavailable, "STORE_UNAVAILABLE", json!(false)),
            (Setback::Unknown, "OUTCOME_UNKNOWN", Value::Null),
        ] {
            let (status, body, retry_after) = answer(setback.into()).await;
            assert_eq!((status, &body["code"]), (503, &json!(code)));
            assert_eq!(body.as_object().unwrap().get("applied"), Some(&applied), "{code}");
            assert!((1..=4).contains(&retry_after.unwrap()), "{code}");
        }
    }

    #[tokio::test]
    async fn those_turned_away_together_do_not_come_back_together() {
        let mut waits = std::collections::BTreeSet::new();
        for _ in 0..200 {
            waits.insert(answer(Setback::Overloaded.into()).await.2);
        }
        assert!(waits.len() > 1, "{waits:?}");
    }

    #[tokio::test]
    async fn whoever_asks_too_much_is_told_to_wait_as_long_as_needed_and_a_little_longer() {
        for (wait, shortest) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
            let mut waits = std::collections::BTreeSet::new();
            for _ in 0..200 {
                let (status, body, retry_after) = answer(Problem::RateLimited(Duration::from_millis(wait))).await;
                assert_eq!((status, &body["code"], &body["applied"]), (429, &json!("RATE_LIMITED"), &json!(false)));
                waits.insert(retry_after.unwrap());
            }
            assert_eq!(Vec::from_iter(waits), [shortest, shortest + 1, shortest + 2]);
        }
    }

    #[tokio::test]
    async fn what_the_store_says_stays_here() {
        let errors = || {
            let text = || "SELECT secret FROM /var/lib".to_owned();
            [
                (StoreError::NotStored(text()), "STORE_UNAVAILABLE", "STORE_UNAVAILABLE", json!(false)),
                (StoreError::Unknown(text()), "STORE_UNAVAILABLE", "OUTCOME_UNKNOWN", Value::Null),
                (StoreError::Clash(text()), "INTERNAL", "INTERNAL", json!(false)),
                (StoreError::Unreadable(text()), "INTERNAL", "INTERNAL", Value::Null),
                (StoreError::Fatal(text()), "INTERNAL", "INTERNAL", Value::Null),
            ]
        };
        for (error, reading, making, applied) in errors() {
            let (_, read, _) = answer(Problem::reading(&error)).await;
            let (_, made, _) = answer(Problem::making(&error)).await;
            assert_eq!((&read["code"], &read["applied"]), (&json!(reading), &json!(false)), "{error}");
            assert_eq!((&made["code"], &made["applied"]), (&json!(making), &applied), "{error}");
            assert!(!read.to_string().contains("secret") && !made.to_string().contains("secret"));
        }
    }
}
