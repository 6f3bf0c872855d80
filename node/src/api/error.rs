//! Errors of the API, and the one place that maps the service's errors to status, code and extra members.

use std::time::Duration;

use actors::coupon::offer::InvalidField;
use actors::coupon::uses::decide::UseRefusal;
use actors::time::{self, Timestamp};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use rand::Rng;
use serde::Serialize;
use warp::reply::Response;

use super::issuances::IssuanceBody;
use super::uses::UseBody;
use crate::http::json::Text;
use crate::http::problem::{FieldError, Problem, RequestError};
use crate::service;
use crate::service::auth::{MissingCredentials, TokenRefusal};
use crate::service::codes::Codes;
use crate::service::engine::{ChangeRefusal, Refusal, Setback};

/// Range of the random number of seconds that is added to the `Retry-After` of a rate limit. This spreads out
/// users that were refused together, and hardly delays a single user.
const RATE_JITTER_SECONDS: std::ops::RangeInclusive<u64> = 0..=2;

/// Why a handler refuses a request.
#[derive(Debug)]
pub(crate) enum Error {
    /// The request is not valid.
    Request(RequestError),
    /// The service refused the request or failed.
    Service(service::Error),
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<service::Error> for Error {
    fn from(error: service::Error) -> Self {
        Self::Service(error)
    }
}

impl Error {
    /// The response. An issuance in it has a code.
    pub(crate) fn into_response(self, codes: &Codes) -> Response {
        match self {
            Self::Request(error) => error.into_response(),
            Self::Service(error) => service_error(error, codes),
        }
    }
}

fn service_error(error: service::Error, codes: &Codes) -> Response {
    use service::Error as E;
    match error {
        E::Unauthenticated(missing) => lacks_credentials(missing),
        E::InvalidToken(TokenRefusal::NoKeys) => Problem::unavailable(
            "KEYS_UNAVAILABLE",
            "The keys of tokens cannot be fetched at present",
        )
        .into_response(),
        // The response does not give the reason, because the reason would help to forge a token.
        E::InvalidToken(_) => {
            unauthenticated(r#"Bearer realm="firstcome", error="invalid_token""#).into_response()
        }
        E::InvalidUser(reason) => RequestError::Malformed(format!("X-User-Id: {reason}")).into_response(),
        E::Forbidden(detail) => {
            let challenge =
                HeaderValue::from_static(r#"Bearer realm="firstcome", error="insufficient_scope""#);
            Problem::new(StatusCode::FORBIDDEN, "FORBIDDEN", "Not allowed")
                .header(WWW_AUTHENTICATE, challenge)
                .into_response_with_detail(detail)
        }
        E::UnknownIssuance => use_refused(UseRefusal::UnknownIssuance),
        E::KeyReused => key_reused("was used for another coupon"),
        E::Refused(refusal) => refused(refusal, codes),
        E::ChangeRefused(refusal) => change_refused(refusal),
        E::UseRefused(refusal) => use_refused(refusal),
        E::RedeemedByAnother => conflict("REDEEMED", "The issuance was redeemed").into_response(),
        E::Setback(Setback::Unknown) => outcome_unknown().into_response_with_detail(
            "a request with the same Idempotency-Key is told what became of this one",
        ),
        E::UseUnknown => outcome_unknown().into_response_with_detail(
            "the same step for the same order again is told what became of this one",
        ),
        E::Setback(setback) => without_decision(setback).into_response(),
        E::RateLimited(wait) => rate_limited(wait).into_response(),
        E::Internal { applied } => Problem::internal(applied).into_response(),
    }
}

/// Returns a 401 with this challenge. Challenges for tokens are those of RFC 6750. HTTP has no authentication
/// scheme for a header that a gateway sets, so the challenge for it has the name of the header.
fn unauthenticated(challenge: &'static str) -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "UNAUTHENTICATED",
        "Valid credentials are required",
    )
    .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

/// Returns the 401 to a request without these credentials.
fn lacks_credentials(missing: MissingCredentials) -> Response {
    match missing {
        MissingCredentials::Token => unauthenticated(r#"Bearer realm="firstcome""#).into_response(),
        MissingCredentials::UserHeader => unauthenticated(r#"X-User-Id realm="firstcome""#)
            .into_response_with_detail("the header X-User-Id is missing, or no trusted gateway has set it"),
        MissingCredentials::UserHeaderOrToken => {
            unauthenticated(r#"X-User-Id realm="firstcome", Bearer realm="firstcome""#)
                .into_response_with_detail(
                    "the header X-User-Id is missing, or no trusted gateway has set it; administrators send \
                     their token in the header Authorization",
                )
        }
    }
}

fn conflict(code: &'static str, title: &'static str) -> Problem {
    Problem::new(StatusCode::CONFLICT, code, title)
}

fn unknown_coupon() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "UNKNOWN_COUPON",
        "The coupon does not exist",
    )
}

fn closed() -> Problem {
    conflict("CLOSED", "The coupon is closed")
}

/// Returns the problem of an issue request that failed, without the members that go with it.
pub(super) fn issue_problem(error: &service::Error) -> Problem {
    match error {
        service::Error::Refused(refusal) => refusal_problem(refusal),
        service::Error::Setback(setback) => without_decision(*setback),
        service::Error::RateLimited(wait) => rate_limited(*wait),
        service::Error::Internal { applied } => Problem::internal(*applied),
        // Issuing fails in no other way, so nothing is known about this one.
        _ => Problem::internal(None),
    }
}

fn refusal_problem(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::UnknownCoupon => unknown_coupon(),
        Refusal::AlreadyIssued(_) => {
            conflict("ALREADY_ISSUED", "The user has as many of this coupon as allowed")
        }
        Refusal::Closed => closed(),
        Refusal::Paused => conflict("PAUSED", "The coupon is paused"),
        Refusal::NotStarted { .. } => conflict("NOT_STARTED", "The coupon is not issued yet"),
        Refusal::Ended { .. } => conflict("ENDED", "The coupon is no longer issued"),
        Refusal::SoldOut { .. } => conflict("SOLD_OUT", "The coupon is sold out"),
    }
}

/// Returns the response to an issue request that was refused.
fn refused(refusal: Refusal, codes: &Codes) -> Response {
    let problem = refusal_problem(&refusal);
    match refusal {
        Refusal::UnknownCoupon | Refusal::Closed | Refusal::Paused => problem.into_response(),
        Refusal::AlreadyIssued(used) => {
            // Its state is that of now.
            let issuance = IssuanceBody::new(&used, codes, time::timestamp());
            problem.into_response_with(&Existing { issuance })
        }
        Refusal::NotStarted {
            starts_at,
            server_time,
        } => problem.into_response_with(&Start {
            starts_at: Text(starts_at),
            server_time: Text(server_time),
        }),
        Refusal::Ended { ends_at, server_time } => problem.into_response_with(&End {
            ends_at: Text(ends_at),
            server_time: Text(server_time),
        }),
        Refusal::SoldOut { total_quantity } => problem.into_response_with(&Quantity { total_quantity }),
    }
}

/// Returns the response to a change that was refused.
fn change_refused(refusal: ChangeRefusal) -> Response {
    match refusal {
        ChangeRefusal::UnknownCoupon => unknown_coupon().into_response(),
        ChangeRefusal::VersionMismatch { version } => Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "VERSION_MISMATCH",
            "The coupon has another version",
        )
        .into_response_with(&Version { version }),
        ChangeRefusal::Closed => closed().into_response(),
        ChangeRefusal::QuantityBelowIssued { issued, returned } => conflict(
            "QUANTITY_BELOW_ISSUED",
            "total_quantity is below the number of issuances that were not given back",
        )
        .into_response_with(&Counts { issued, returned }),
        ChangeRefusal::Invalid(fields) => {
            RequestError::Invalid(fields.into_iter().map(field_error).collect()).into_response()
        }
        ChangeRefusal::KeyReused => key_reused("was used for another change of this coupon"),
    }
}

/// Returns the code, the status and the title of the problem of a refused use.
pub(super) fn use_problem(refusal: &UseRefusal) -> (&'static str, StatusCode, &'static str) {
    let conflict = StatusCode::CONFLICT;
    match refusal {
        UseRefusal::UnknownIssuance => (
            "UNKNOWN_ISSUANCE",
            StatusCode::NOT_FOUND,
            "The issuance does not exist",
        ),
        UseRefusal::OrderMismatch(_) => (
            "ORDER_MISMATCH",
            StatusCode::UNPROCESSABLE_ENTITY,
            "The same was done before with other figures",
        ),
        UseRefusal::Revoked => ("REVOKED", conflict, "The issuance was revoked"),
        UseRefusal::Redeemed(_) => ("REDEEMED", conflict, "The issuance was redeemed"),
        UseRefusal::Reserved { .. } => ("RESERVED", conflict, "Another order holds the issuance"),
        UseRefusal::Expired { .. } => ("EXPIRED", conflict, "The issuance can no longer be used"),
        UseRefusal::BelowMinimum { .. } => ("BELOW_MINIMUM", conflict, "The order is too small"),
        UseRefusal::NotReserved => ("NOT_RESERVED", conflict, "The order does not hold the issuance"),
        UseRefusal::NotRedeemed => ("NOT_REDEEMED", conflict, "The order did not redeem the issuance"),
    }
}

/// Returns the response to a use that was refused.
fn use_refused(refusal: UseRefusal) -> Response {
    let (code, status, title) = use_problem(&refusal);
    let problem = Problem::new(status, code, title);
    match refusal {
        UseRefusal::OrderMismatch(latest) | UseRefusal::Redeemed(latest) => {
            let latest_use = UseBody::from(&*latest);
            problem.into_response_with(&ItsUse { latest_use })
        }
        UseRefusal::Reserved { hold_until } => problem.into_response_with(&Hold {
            hold_until: Text(hold_until),
        }),
        UseRefusal::Expired { usable_until } => problem.into_response_with(&EndOfUse {
            usable_until: Text(usable_until),
        }),
        UseRefusal::BelowMinimum { min_order_amount } => {
            problem.into_response_with(&Minimum { min_order_amount })
        }
        UseRefusal::UnknownIssuance
        | UseRefusal::Revoked
        | UseRefusal::NotReserved
        | UseRefusal::NotRedeemed => problem.into_response(),
    }
}

fn key_reused(message: &'static str) -> Response {
    RequestError::invalid("Idempotency-Key", message).into_response()
}

/// The error of one field of an offer.
pub(super) fn field_error(InvalidField { field, message }: InvalidField) -> FieldError {
    FieldError::new(field, message)
}

/// Returns the problem for a setback. It says when to retry, and whether something may have been changed.
fn without_decision(setback: Setback) -> Problem {
    match setback {
        // A request expires if it waits in a queue that is too long.
        Setback::Overloaded | Setback::Expired => Problem::overloaded(),
        Setback::Moved => Problem::unavailable("OWNER_MOVING", "The coupon is moving to another node"),
        Setback::StoreUnavailable => {
            Problem::unavailable("STORE_UNAVAILABLE", "The database does not respond")
        }
        Setback::Unknown => outcome_unknown(),
    }
}

fn outcome_unknown() -> Problem {
    Problem::unavailable(
        "OUTCOME_UNKNOWN",
        "The outcome is unknown; the same request again tells it",
    )
    .applied(None)
}

fn rate_limited(wait: Duration) -> Problem {
    let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
    let seconds = u64::try_from(seconds)
        .unwrap_or(u64::MAX)
        .saturating_add(rand::rng().random_range(RATE_JITTER_SECONDS));
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "RATE_LIMITED",
        "Too many requests at once",
    )
    .header(RETRY_AFTER, HeaderValue::from(seconds))
}

#[derive(Serialize)]
struct Existing<'a> {
    issuance: IssuanceBody<'a>,
}

#[derive(Serialize)]
struct Start {
    starts_at: Text<Timestamp>,
    server_time: Text<Timestamp>,
}

#[derive(Serialize)]
struct End {
    ends_at: Text<Timestamp>,
    server_time: Text<Timestamp>,
}

#[derive(Serialize)]
struct Quantity {
    total_quantity: u64,
}

#[derive(Serialize)]
struct Counts {
    issued: u64,
    returned: u64,
}

#[derive(Serialize)]
struct ItsUse<'a> {
    #[serde(rename = "use")]
    latest_use: UseBody<'a>,
}

#[derive(Serialize)]
struct Hold {
    hold_until: Text<Timestamp>,
}

#[derive(Serialize)]
struct EndOfUse {
    usable_until: Text<Timestamp>,
}

#[derive(Serialize)]
struct Minimum {
    min_order_amount: u64,
}

#[derive(Serialize)]
struct Version {
    version: u64,
}

#[cfg(test)]
mod tests;
