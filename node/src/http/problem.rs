//! Everything the API says no with, and the one place that knows how: status, code, and what goes with it
//! (RFC 9457).
//!
//! Nothing internal passes here: what a store or a library said goes to the log, the client gets a name and a
//! number.

use std::borrow::Cow;
use std::time::Duration;

use actors::coupon::offer::{InvalidField, Issuance};
use actors::owning::message::{ChangeRefusal, Refusal, Setback};
use actors::store::StoreError;
use actors::time::Timestamp;
use http::header::{ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use rand::Rng;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use warp::reply::Response;

use super::json::{self, Text, Written};
use crate::api::issuances::IssuanceBody;

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
        Self {
            field: field.into(),
            message: message.into(),
        }
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
            StoreError::Clash(_) | StoreError::Unreadable(_) | StoreError::Fatal(_) => {
                Self::Internal { applied: Some(false) }
            }
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
        let said = self.say();
        let mut response = json::response_of_text("application/problem+json", said.status, said.written());
        if let Some((name, value)) = said.header {
            response.headers_mut().insert(name, value);
        }
        response
    }

    /// From refusal to status: the only match there is.
    fn say(self) -> Said {
        use StatusCode as S;
        match self {
            Self::Malformed(detail) => {
                said(S::BAD_REQUEST, "MALFORMED", "The request cannot be read").detail(detail)
            }
            Self::Unauthenticated => unauthenticated(r#"Bearer realm="firstcome""#),
            // What is wrong with it is for whoever made it, not for whoever tries.
            Self::InvalidToken => unauthenticated(r#"Bearer realm="firstcome", error="invalid_token""#),
            Self::Forbidden(detail) => said(S::FORBIDDEN, "FORBIDDEN", "Not allowed for whoever asks")
                .detail(detail)
                .header(
                    WWW_AUTHENTICATE,
                    HeaderValue::from_static(r#"Bearer realm="firstcome", error="insufficient_scope""#),
                ),
            Self::NotFound => said(S::NOT_FOUND, "NOT_FOUND", "There is no such page"),
            Self::UnknownIssuance => said(S::NOT_FOUND, "UNKNOWN_ISSUANCE", "There is no such issuance"),
            Self::MethodNotAllowed(allow) => said(
                S::METHOD_NOT_ALLOWED,
                "METHOD_NOT_ALLOWED",
                "The page does not take this method",
            )
            .header(ALLOW, HeaderValue::from_static(allow)),
            Self::TooLarge => said(S::PAYLOAD_TOO_LARGE, "TOO_LARGE", "The body is too large")
                .detail(format!("at most {} bytes", super::call::BODY_BYTES_MAX)),
            Self::HeaderTooLarge => said(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "HEADER_TOO_LARGE",
                "The head of the request is too large",
            ),
            Self::RequestTimeout => said(
                S::REQUEST_TIMEOUT,
                "REQUEST_TIMEOUT",
                "The request was not sent in time",
            ),
            Self::UnsupportedMediaType => said(
                S::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "The body must be JSON",
            )
            .detail("Content-Type must be application/json"),
            Self::Invalid(errors) => said(S::UNPROCESSABLE_ENTITY, "INVALID", "Some fields make no sense")
                .with(Extension::Errors { errors }),
            Self::Refused(refusal) => refused(refusal),
            Self::ChangeRefused(refusal) => change_refused(refusal),
            Self::SetBack(setback) => set_back(setback),
            Self::RateLimited(wait) => rate_limited(wait),
            Self::Internal { applied } => said(
                S::INTERNAL_SERVER_ERROR,
                "INTERNAL",
                "Something is wrong on our side",
            )
            .applied(applied),
        }
    }
}

/// Nobody is recognised; the challenge is as RFC 6750 has it.
fn unauthenticated(challenge: &'static str) -> Said {
    said(
        StatusCode::UNAUTHORIZED,
        "UNAUTHENTICATED",
        "Nobody is recognised in the request",
    )
    .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// The part of the match about issue requests.
fn refused(refusal: Refusal) -> Said {
    let conflict = |code, title| said(StatusCode::CONFLICT, code, title);
    match refusal {
        Refusal::UnknownCoupon => unknown_coupon(),
        Refusal::AlreadyIssued(issuance) => {
            conflict("ALREADY_ISSUED", "The user has as many as allowed").with(Extension::Issued { issuance })
        }
        Refusal::Closed => closed(),
        Refusal::Paused => conflict("PAUSED", "The coupon is paused"),
        Refusal::NotStarted {
            starts_at,
            server_time,
        } => conflict("NOT_STARTED", "The coupon is not issued yet").with(Extension::Start {
            starts_at: Text(starts_at),
            server_time: Text(server_time),
        }),
        Refusal::Ended { ends_at, server_time } => conflict("ENDED", "The coupon is not issued any more")
            .with(Extension::End {
                ends_at: Text(ends_at),
                server_time: Text(server_time),
            }),
        Refusal::SoldOut { total_quantity } => {
            conflict("SOLD_OUT", "All are given out").with(Extension::Quantity { total_quantity })
        }
    }
}

/// The part of the match about changes.
fn change_refused(refusal: ChangeRefusal) -> Said {
    match refusal {
        ChangeRefusal::UnknownCoupon => unknown_coupon(),
        ChangeRefusal::VersionMismatch { version } => said(
            StatusCode::PRECONDITION_FAILED,
            "VERSION_MISMATCH",
            "The coupon has another version",
        )
        .with(Extension::Version { version }),
        ChangeRefusal::Closed => closed(),
        ChangeRefusal::QuantityBelowIssued { issued } => said(
            StatusCode::CONFLICT,
            "QUANTITY_BELOW_ISSUED",
            "More are given out than there would be",
        )
        .with(Extension::Count { issued }),
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
        Setback::Unknown => (
            "OUTCOME_UNKNOWN",
            "It may have been done; asking again with the same key tells",
            None,
        ),
    };
    // Jitter, or all who were turned away together come back together.
    let seconds = rand::rng().random_range(RETRY_AFTER_SECONDS);
    said(StatusCode::SERVICE_UNAVAILABLE, code, title)
        .applied(applied)
        .header(RETRY_AFTER, HeaderValue::from(seconds))
}

/// The user may ask again after this time; with jitter, as those who began together are refused together.
fn rate_limited(wait: Duration) -> Said {
    let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
    let seconds = u64::try_from(seconds)
        .unwrap_or(u64::MAX)
        .saturating_add(rand::rng().random_range(RATE_JITTER_SECONDS));
    said(
        StatusCode::TOO_MANY_REQUESTS,
        "RATE_LIMITED",
        "The user asks too much",
    )
    .header(RETRY_AFTER, HeaderValue::from(seconds))
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
    code: &'static str,
    title: &'static str,
    applied: Option<bool>,
    extension: Option<Extension>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// A problem with nothing more to it.
fn said(status: StatusCode, code: &'static str, title: &'static str) -> Said {
    debug_assert!([code, title].iter().all(|text| {
        text.bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte))
    }));
    Said {
        status,
        code,
        title,
        applied: Some(false),
        extension: None,
        header: None,
    }
}

impl Said {
    fn applied(self, applied: Option<bool>) -> Self {
        Self { applied, ..self }
    }

    fn detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.with(Extension::Detail {
            detail: detail.into(),
        })
    }

    fn with(self, extension: Extension) -> Self {
        Self {
            extension: Some(extension),
            ..self
        }
    }

    fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self {
            header: Some((name, value)),
            ..self
        }
    }

    /// The body. What all problems have is put together as it is, being ours and plain: a serializer looks at
    /// each of its characters, and there is no answer that is given more often.
    fn written(&self) -> serde_json::Result<Written> {
        let applied = self
            .applied
            .map_or("null", |applied| if applied { "true" } else { "false" });
        let mut text = Written::new();
        for part in [
            r#"{"type":"urn:firstcome:problem:"#,
            self.code,
            r#"","title":""#,
            self.title,
            r#"","status":"#,
            self.status.as_str(),
            r#","code":""#,
            self.code,
            r#"","applied":"#,
            applied,
        ] {
            text.extend_from_slice(part.as_bytes());
        }
        match &self.extension {
            None => text.push(b'}'),
            Some(extension) => {
                // An object with a field at least: a comma in place of its first brace, and it goes on.
                let brace = text.len();
                serde_json::to_writer(&mut text, extension)?;
                debug_assert!(text[brace..].starts_with(b"{\"") && text.ends_with(b"}"));
                text[brace] = b',';
            }
        }
        Ok(text)
    }
}

/// What goes with some problems: one of these, and each a struct.
#[derive(Serialize)]
#[serde(untagged)]
enum Extension {
    Detail {
        detail: Cow<'static, str>,
    },
    Errors {
        errors: Vec<FieldError>,
    },
    Issued {
        #[serde(serialize_with = "as_body")]
        issuance: Box<Issuance>,
    },
    Start {
        starts_at: Text<Timestamp>,
        server_time: Text<Timestamp>,
    },
    End {
        ends_at: Text<Timestamp>,
        server_time: Text<Timestamp>,
    },
    Quantity {
        total_quantity: u64,
    },
    Count {
        issued: u64,
    },
    Version {
        version: u64,
    },
}

/// The issuance whole, as anywhere else in the API.
fn as_body<S: Serializer>(issuance: &Issuance, serializer: S) -> Result<S::Ok, S::Error> {
    IssuanceBody::from(issuance).serialize(serializer)
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
    use actors::ids::{IssuanceId, RequestKey, UserId};
    use http::header::CONTENT_TYPE;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    async fn answer(problem: Problem) -> (u16, Value, Option<u64>) {
        let response = problem.into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .map(|seconds| seconds.to_str().unwrap().parse().unwrap());
        let status = response.status().as_u16();
        let body: Value =
            serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(body["status"], status);
        (status, body, retry_after)
    }

    #[tokio::test]
    async fn each_is_whole_with_what_goes_with_it_and_nothing_else() {
        let at = Timestamp::parse("2026-11-27T00:00:00Z").unwrap();
        let issuance = Issuance {
            id: IssuanceId::parse("7-1").unwrap(),
            user: UserId::parse("alice").unwrap(),
            nth: 1,
            key: RequestKey::parse("key").unwrap(),
            issued_at: at,
            expires_at: None,
        };
        let time = json!("2026-11-27T00:00:00.000000Z");
        let refused = Problem::Refused;
        let change_refused = Problem::ChangeRefused;
        for (problem, code, with) in [
            (
                Problem::Malformed("a \"quoted\" \\ word\n".into()),
                "MALFORMED",
                json!({"detail": "a \"quoted\" \\ word\n"}),
            ),
            (Problem::Unauthenticated, "UNAUTHENTICATED", json!({})),
            (Problem::InvalidToken, "UNAUTHENTICATED", json!({})),
            (Problem::Forbidden("no"), "FORBIDDEN", json!({"detail": "no"})),
            (Problem::NotFound, "NOT_FOUND", json!({})),
            (Problem::UnknownIssuance, "UNKNOWN_ISSUANCE", json!({})),
            (Problem::MethodNotAllowed("GET"), "METHOD_NOT_ALLOWED", json!({})),
            (
                Problem::TooLarge,
                "TOO_LARGE",
                json!({"detail": "at most 16384 bytes"}),
            ),
            (Problem::HeaderTooLarge, "HEADER_TOO_LARGE", json!({})),
            (Problem::RequestTimeout, "REQUEST_TIMEOUT", json!({})),
            (
                Problem::UnsupportedMediaType,
                "UNSUPPORTED_MEDIA_TYPE",
                json!({"detail": "Content-Type must be application/json"}),
            ),
            (
                Problem::invalid("title", "is missing"),
                "INVALID",
                json!({"errors": [{"field": "title", "message": "is missing"}]}),
            ),
            (refused(Refusal::UnknownCoupon), "UNKNOWN_COUPON", json!({})),
            (refused(Refusal::Closed), "CLOSED", json!({})),
            (refused(Refusal::Paused), "PAUSED", json!({})),
            (
                refused(Refusal::SoldOut { total_quantity: 500 }),
                "SOLD_OUT",
                json!({"total_quantity": 500}),
            ),
            (
                refused(Refusal::NotStarted {
                    starts_at: at,
                    server_time: at,
                }),
                "NOT_STARTED",
                json!({"starts_at": time, "server_time": time}),
            ),
            (
                refused(Refusal::Ended {
                    ends_at: at,
                    server_time: at,
                }),
                "ENDED",
                json!({"ends_at": time, "server_time": time}),
            ),
            (
                refused(Refusal::AlreadyIssued(issuance.clone().into())),
                "ALREADY_ISSUED",
                json!({"issuance": serde_json::to_value(IssuanceBody::from(&issuance)).unwrap()}),
            ),
            (
                change_refused(ChangeRefusal::VersionMismatch { version: 3 }),
                "VERSION_MISMATCH",
                json!({"version": 3}),
            ),
            (
                change_refused(ChangeRefusal::QuantityBelowIssued { issued: 9 }),
                "QUANTITY_BELOW_ISSUED",
                json!({"issued": 9}),
            ),
        ] {
            let (status, mut body, _) = answer(problem).await;
            let title = body.as_object_mut().unwrap().remove("title");
            assert!(
                title.is_some_and(|title| title.as_str().is_some_and(|title| !title.is_empty())),
                "{code}"
            );
            let mut expected = json!({"type": format!("urn:firstcome:problem:{code}"), "status": status, "code": code, "applied": false});
            expected
                .as_object_mut()
                .unwrap()
                .extend(with.as_object().unwrap().clone());
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn a_refusal_is_these_bytes() {
        let said = Problem::Refused(Refusal::SoldOut { total_quantity: 500 }).say();
        let text = concat!(
            r#"{"type":"urn:firstcome:problem:SOLD_OUT","title":"All are given out","status":409,"#,
            r#""code":"SOLD_OUT","applied":false,"total_quantity":500}"#
        );
        assert_eq!(std::str::from_utf8(&said.written().unwrap()).unwrap(), text);
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
                let (status, body, retry_after) =
                    answer(Problem::RateLimited(Duration::from_millis(wait))).await;
                assert_eq!(
                    (status, &body["code"], &body["applied"]),
                    (429, &json!("RATE_LIMITED"), &json!(false))
                );
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
                (
                    StoreError::NotStored(text()),
                    "STORE_UNAVAILABLE",
                    "STORE_UNAVAILABLE",
                    json!(false),
                ),
                (
                    StoreError::Unknown(text()),
                    "STORE_UNAVAILABLE",
                    "OUTCOME_UNKNOWN",
                    Value::Null,
                ),
                (StoreError::Clash(text()), "INTERNAL", "INTERNAL", json!(false)),
                (
                    StoreError::Unreadable(text()),
                    "INTERNAL",
                    "INTERNAL",
                    Value::Null,
                ),
                (StoreError::Fatal(text()), "INTERNAL", "INTERNAL", Value::Null),
            ]
        };
        for (error, reading, making, applied) in errors() {
            let (_, read, _) = answer(Problem::reading(&error)).await;
            let (_, made, _) = answer(Problem::making(&error)).await;
            assert_eq!(
                (&read["code"], &read["applied"]),
                (&json!(reading), &json!(false)),
                "{error}"
            );
            assert_eq!(
                (&made["code"], &made["applied"]),
                (&json!(making), &applied),
                "{error}"
            );
            assert!(!read.to_string().contains("secret") && !made.to_string().contains("secret"));
        }
    }
}
