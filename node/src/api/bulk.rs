//! `/v1/coupons/{id}/issuances/bulk`: issues a coupon to many users.

use actors::ids::{RequestKey, UserId};
use actors::time::{self, Timestamp};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::coupons::coupon_id;
use super::error::issue_problem;
use super::issuances::{IssuanceBody, user_id};
use super::openapi::user_ids;
use super::{Answer, principal, request_key};
use crate::http::call::Call;
use crate::http::json::{self, Checked};
use crate::http::problem::FieldError;
use crate::http::response_body::HeldUntilSent;
use crate::service::bulk::{BulkResult, USERS_MAX};
use crate::service::codes::Codes;
use crate::service::engine::Refusal;
use crate::service::{Error, Service};

/// Maximum number of wrong ids that a response names. It counts the others.
const WRONG_IDS_MAX: usize = 20;

/// Maximum size of the body: as many users as a call may have, each with an id of the longest kind.
pub(super) const BULK_BODY_BYTES_MAX: usize = 256 * 1024;

/// The users to whom a coupon is issued.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = BulkIssueRequest)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkBody {
    // Parsed by the check, which names every wrong one.
    #[schema(schema_with = user_ids)]
    user_ids: Vec<Value>,
}

impl Checked for BulkBody {
    type Value = Vec<UserId>;

    fn check(self, errors: &mut Vec<FieldError>) -> Vec<UserId> {
        if !(1..=USERS_MAX).contains(&self.user_ids.len()) {
            let message = format!("must have 1 to {USERS_MAX} user ids");
            errors.push(FieldError::new("user_ids", message));
            return Vec::new();
        }
        let (mut users, mut wrong) = (Vec::with_capacity(self.user_ids.len()), 0);
        for (place, value) in self.user_ids.iter().enumerate() {
            match user_id(value) {
                Ok(user) => users.push(user),
                Err(message) => {
                    wrong += 1;
                    if wrong <= WRONG_IDS_MAX {
                        errors.push(FieldError::new(format!("user_ids[{place}]"), message));
                    }
                }
            }
        }
        if wrong > WRONG_IDS_MAX {
            let message = format!("has {} more wrong user ids", wrong - WRONG_IDS_MAX);
            errors.push(FieldError::new("user_ids", message));
        }
        users
    }
}

/// The results of a bulk request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BulkIssueResponse)]
pub(super) struct BulkResponseBody<'a> {
    #[schema(min_items = 1, max_items = 1_000)]
    results: Vec<BulkResultBody<'a>>,
}

/// The result of one user's request: `issuance`, or `code` and `applied`, with `existing` for
/// `ALREADY_ISSUED`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BulkResult)]
pub(super) struct BulkResultBody<'a> {
    #[schema(pattern = "^[!-~]{1,128}$")]
    user_id: &'a str,
    /// The status that a single request would have been answered with.
    #[schema(minimum = 201, maximum = 503)]
    status: u16,
    /// Present if the status is 201.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = IssuanceBody)]
    issuance: Option<IssuanceBody<'a>>,
    /// Present if an earlier request with the same key made the issuance.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    /// The code of the problem, if the status is not 201.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<&'static str>,
    /// Present with `code`: false if nothing was issued, null if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    applied: Option<Option<bool>>,
    /// The user's latest issuance, if the code is `ALREADY_ISSUED`. It has a name of its own, because a
    /// result has `issuance` only if it is 201.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = IssuanceBody)]
    existing: Option<IssuanceBody<'a>>,
}

impl<'a> BulkResultBody<'a> {
    fn new(result: &'a BulkResult, codes: &Codes, now: Timestamp) -> Self {
        let user_id = result.user.as_str();
        match &result.issued {
            Ok(issued) => Self {
                user_id,
                status: StatusCode::CREATED.as_u16(),
                issuance: Some(IssuanceBody::new(&issued.used, codes, now)),
                replayed: issued.replayed,
                code: None,
                applied: None,
                existing: None,
            },
            Err(error) => {
                let (status, code, applied) = issue_problem(error).parts();
                let existing = match error {
                    Error::Refused(Refusal::AlreadyIssued(used)) => Some(used),
                    _ => None,
                };
                Self {
                    user_id,
                    status: status.as_u16(),
                    issuance: None,
                    replayed: false,
                    code: Some(code),
                    applied: Some(applied),
                    existing: existing.map(|used| IssuanceBody::new(used, codes, now)),
                }
            }
        }
    }
}

/// `POST /v1/coupons/{id}/issuances/bulk`
pub(super) async fn issue(service: &Service, call: &Call) -> Answer {
    principal(service, call)?.require_use()?;
    let coupon = coupon_id(call.parameter())?;
    let key = request_key(&call.head)?.unwrap_or_else(RequestKey::random);
    let users = call.json_checked::<BulkBody>()?;
    let issued = service.issue_to_all(coupon, users, &key, &call.head.span).await?;
    let now = time::timestamp();
    let results = issued
        .results
        .iter()
        .map(|result| BulkResultBody::new(result, service.codes(), now));
    let body = BulkResponseBody {
        results: results.collect(),
    };
    let mut response = json::response(StatusCode::OK, &body);
    response.extensions_mut().insert(HeldUntilSent::new(issued.place));
    Ok(response)
}
