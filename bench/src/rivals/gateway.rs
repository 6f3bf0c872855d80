//! The routes of the rivals, behind the accept loop of the node. Answers have the same codes and fields as
//! those of Firstcome; administrators are not authenticated, and coupons have no field but title and
//! quantity.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use node::listener;
use serde::{Deserialize, Serialize};
use testkit::ids::{CouponId, RequestKey, UserId};
use testkit::rows::{CouponRow, IssuanceRow};
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::database::Database;
use super::rival::{Failure, IssueRequest, Outcome, Rival};
use super::tables;

/// Errors that are printed; the others are only counted by clients.
const ERRORS_SHOWN_MAX: u32 = 20;

/// What the handlers share.
pub(super) struct Gateway {
    /// Where coupons are made.
    pub(super) coupons: Database,
    pub(super) rival: Arc<dyn Rival>,
    pub(super) errors: AtomicU32,
}

/// A request to make a coupon.
#[derive(Debug, Deserialize)]
struct CouponBody {
    title: String,
    total_quantity: Option<u64>,
}

#[derive(Debug, Serialize)]
struct IssuanceBody<'a> {
    id: String,
    coupon_id: u64,
    user_id: &'a str,
    sequence: u64,
    status: &'static str,
    issued_at: String,
    expires_at: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuance: Option<IssuanceBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_quantity: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<Option<bool>>,
}

/// Returns the routes.
pub(super) fn routes(
    gateway: &Arc<Gateway>,
) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let (issuing, making) = (Arc::clone(gateway), Arc::clone(gateway));
    let issue = warp::path!("v1" / "coupons" / String / "issuances")
        .and(warp::post())
        .and(listener::header(HeaderName::from_static("x-user-id")))
        .and(listener::header(HeaderName::from_static("idempotency-key")))
        .then(move |coupon: String, user: Option<String>, key: Option<String>| {
            let gateway = Arc::clone(&issuing);
            async move { gateway.issue(&coupon, user, key).await }
        });
    let make = warp::path!("v1" / "coupons")
        .and(warp::post())
        .and(warp::body::bytes())
        .then(move |body: Bytes| {
            let gateway = Arc::clone(&making);
            async move { gateway.make(&body).await }
        });
    issue
        .or(make)
        .unify()
        .recover(|_: Rejection| async { Ok::<_, Infallible>(not_found()) })
        .unify()
}

impl Gateway {
    async fn issue(&self, coupon: &str, user: Option<String>, key: Option<String>) -> Response {
        let Ok(coupon) = CouponId::parse(coupon) else {
            return refusal(StatusCode::BAD_REQUEST, "MALFORMED", "the coupon id is malformed");
        };
        let Some(Ok(user)) = user.map(|user| UserId::parse(&user)) else {
            return refusal(
                StatusCode::UNAUTHORIZED,
                "UNAUTHENTICATED",
                "X-User-Id names no user",
            );
        };
        let key = key.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
        let Ok(key) = RequestKey::parse(&key) else {
            return refusal(
                StatusCode::BAD_REQUEST,
                "MALFORMED",
                "Idempotency-Key is malformed",
            );
        };
        let request = IssueRequest { coupon, user, key };
        let (rival, asked) = (Arc::clone(&self.rival), request.clone());
        // A client that goes away must not end a transaction at any await.
        let decided = tokio::spawn(async move { rival.issue(&asked).await }).await;
        match decided {
            Ok(Ok(outcome)) => answer(&request, &outcome),
            Ok(Err(failure)) => self.failed(&failure),
            Err(error) => {
                self.show(&error);
                unknown()
            }
        }
    }

    async fn make(&self, body: &[u8]) -> Response {
        let Ok(body) = serde_json::from_slice::<CouponBody>(body) else {
            return refusal(StatusCode::BAD_REQUEST, "MALFORMED", "the body is no coupon");
        };
        match self.made(&body).await {
            Ok(coupon) => json(StatusCode::CREATED, &coupon),
            Err(failure) => self.failed(&failure),
        }
    }

    async fn made(&self, body: &CouponBody) -> Result<CouponRow, Failure> {
        let mut connection = self.coupons.take().await?;
        let coupon = tables::make_coupon(&mut connection, &body.title, body.total_quantity).await?;
        connection.keep();
        self.rival.prepare(coupon.id, body.total_quantity).await?;
        Ok(coupon)
    }

    fn failed(&self, failure: &Failure) -> Response {
        match failure {
            Failure::Overloaded(_) => {
                let mut response = problem(
                    StatusCode::SERVICE_UNAVAILABLE,
                    Problem {
                        code: "OVERLOADED",
                        title: "The request was not served in time",
                        applied: Some(Some(false)),
                        ..Problem::default()
                    },
                );
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            Failure::Database(_) | Failure::Redis(_) | Failure::Unreadable(_) => {
                self.show(failure);
                unknown()
            }
        }
    }

    /// Prints the first errors.
    fn show(&self, error: &dyn std::fmt::Display) {
        if self.errors.fetch_add(1, Ordering::Relaxed) < ERRORS_SHOWN_MAX {
            eprintln!("a request failed: {error}");
        }
    }
}

fn answer(request: &IssueRequest, outcome: &Outcome) -> Response {
    match outcome {
        Outcome::Issued(row) => issued(row, false),
        Outcome::Exists(existing) if existing.key == request.key.as_str() => issued(&existing.row, true),
        Outcome::Exists(existing) => problem(
            StatusCode::CONFLICT,
            Problem {
                code: "ALREADY_ISSUED",
                title: "The user has this coupon already",
                issuance: Some(body(&existing.row)),
                ..Problem::default()
            },
        ),
        Outcome::SoldOut { total_quantity } => problem(
            StatusCode::CONFLICT,
            Problem {
                code: "SOLD_OUT",
                title: "The coupon is sold out",
                total_quantity: Some(*total_quantity),
                ..Problem::default()
            },
        ),
        Outcome::UnknownCoupon => refusal(StatusCode::NOT_FOUND, "UNKNOWN_COUPON", "there is no such coupon"),
    }
}

fn issued(row: &IssuanceRow, replayed: bool) -> Response {
    let mut response = json(StatusCode::CREATED, &body(row));
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/v1/issuances/{}", row.id)) {
        headers.insert(LOCATION, location);
    }
    if replayed {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}

fn body(row: &IssuanceRow) -> IssuanceBody<'_> {
    IssuanceBody {
        id: row.id.to_string(),
        coupon_id: row.id.coupon.get(),
        user_id: row.user.as_str(),
        sequence: row.id.sequence.get(),
        status: "issued",
        issued_at: row.issued_at.to_string(),
        expires_at: row.expires_at.map(|time| time.to_string()),
    }
}

fn unknown() -> Response {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        Problem {
            code: "OUTCOME_UNKNOWN",
            title: "The outcome is unknown",
            applied: Some(None),
            ..Problem::default()
        },
    )
}

fn refusal(status: StatusCode, code: &'static str, title: &'static str) -> Response {
    problem(
        status,
        Problem {
            code,
            title,
            ..Problem::default()
        },
    )
}

fn problem(status: StatusCode, problem: Problem<'_>) -> Response {
    let problem = Problem {
        r#type: "about:blank",
        status: status.as_u16(),
        ..problem
    };
    let mut response = json(status, &problem);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Writing these bodies to a Vec does not fail.
    let mut response = Response::new(serde_json::to_vec(body).unwrap_or_default().into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn not_found() -> Response {
    refusal(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such route")
}
