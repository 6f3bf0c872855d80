//! Issuing, and looking at what was issued.

use std::sync::Arc;

use actors::coupon::offer::Issuance;
use actors::ids::{IssuanceId, RequestKey, Sequence, UserId};
use actors::owning::message::{IssueOutcome, Refusal};
use actors::store::UserCursor;
use actors::time::Timestamp;
use http::header::{HeaderName, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::coupons::coupon_id;
use super::{Answer, App};
use crate::http::call::Call;
use crate::http::json::{self, Text};
use crate::http::problem::Problem;
use crate::http::query::{self, Query, whole_number};

/// An issuance in the API.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IssuanceBody<'a> {
    #[schema(value_type = String, pattern = "^[1-9][0-9]{0,15}-[1-9][0-9]{0,15}$")]
    id: Text<IssuanceId>,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_usize)]
    coupon_id: u64,
    #[schema(pattern = "^[A-Za-z0-9._:@-]{1,64}$")]
    user_id: &'a str,
    #[schema(minimum = 1)]
    sequence: u64,
    #[schema(pattern = "^issued$")]
    status: &'static str,
    #[schema(value_type = String, format = DateTime)]
    issued_at: Text<Timestamp>,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Text<Timestamp>>,
}

impl<'a> From<&'a Issuance> for IssuanceBody<'a> {
    fn from(issuance: &'a Issuance) -> Self {
        Self {
            id: Text(issuance.id),
            coupon_id: issuance.id.coupon.get(),
            user_id: issuance.user.as_str(),
            sequence: issuance.id.sequence.get(),
            status: "issued",
            issued_at: Text(issuance.issued_at),
            expires_at: issuance.expires_at.map(Text),
        }
    }
}

/// What a request for an issuance may carry.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssueBody {
    /// Whom to issue for, if not for whoever asks; read when it is known that it may be there.
    #[serde(default, deserialize_with = "json::present")]
    user_id: Option<Value>,
}

/// `/v1/coupons/{id}/issuances`
pub(crate) async fn of_coupon(app: &App, id: &str, call: &Call) -> Answer {
    match call.head.method {
        Method::POST => issue(app, id, call).await,
        // Boxed, so that requests to issue need no room for it.
        Method::GET | Method::HEAD => Box::pin(list_of_coupon(app, id, call)).await,
        _ => Err(Problem::MethodNotAllowed("GET, HEAD, POST")),
    }
}

/// Gives the coupon to the user who asks.
async fn issue(app: &App, id: &str, call: &Call) -> Answer {
    let caller = app.recogniser.recognise(&call.head)?;
    let user = caller.user()?;
    let coupon = coupon_id(id)?;
    let key = call.head.request_key()?;
    let user = match call.json_or_nothing::<IssueBody>()?.user_id {
        None => user.clone(),
        Some(named) => {
            caller.service()?;
            user_named(&named)?
        }
    };
    if let Some(limit) = &app.user_limit {
        limit.admit(&user)?;
    }
    let key = key.unwrap_or_else(RequestKey::random);
    match app.engine()?.issue(coupon, user, key, app.deadline).await? {
        IssueOutcome::Issued(issuance) => {
            app.copies.raise(issuance.id);
            issued(&issuance, false)
        }
        IssueOutcome::Replayed(issuance) => issued(&issuance, true),
        IssueOutcome::Refused(refusal) => Err(refusal.into()),
    }
}

/// The user that a service names.
fn user_named(value: &Value) -> Result<UserId, Problem> {
    let text = value
        .as_str()
        .ok_or_else(|| Problem::invalid("user_id", "must be a text"))?;
    UserId::parse(text).map_err(|error| Problem::invalid("user_id", error.to_string()))
}

/// The answer to whoever has the coupon, now or since an earlier request with the same key.
fn issued(issuance: &Issuance, replayed: bool) -> Answer {
    let mut response = json::response(StatusCode::CREATED, &IssuanceBody::from(issuance));
    super::set_header(
        &mut response,
        LOCATION,
        format_args!("/v1/issuances/{}", issuance.id),
    );
    if replayed {
        response
            .headers_mut()
            .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Says that the request was done before.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

async fn list_of_coupon(app: &App, id: &str, call: &Call) -> Answer {
    app.recogniser.recognise(&call.head)?.admin()?;
    let coupon = coupon_id(id)?;
    let query = Query::of(&call.head);
    let limit = query.limit()?;
    let user = query.get("user_id", "must be a user id", |text| UserId::parse(text).ok())?;
    let after = query
        .get("after_sequence", "must be a whole number", whole_number)?
        .map(Sequence::new);
    let after = query.cursor::<Sequence>()?.or(after).unwrap_or(Sequence::NONE);
    let store = Arc::clone(app.engine()?.store());
    let reading = async move {
        let rows = store
            .issuances_of_coupon(coupon, user.as_ref(), after, limit + 1)
            .await?;
        let is_known = !rows.is_empty() || store.coupon(coupon).await?.is_some();
        Ok(is_known.then_some(rows))
    };
    let rows = app.read(reading).await?.ok_or(Refusal::UnknownCoupon)?;
    let page = query::page(&rows, limit, |row: &Issuance| row.id.sequence, IssuanceBody::from);
    Ok(json::response(StatusCode::OK, &page))
}

/// `/v1/me/issuances`
pub(crate) async fn mine(app: &App, call: &Call) -> Answer {
    super::only_reads(call)?;
    let caller = app.recogniser.recognise(&call.head)?;
    let user = caller.user()?.clone();
    let query = Query::of(&call.head);
    let limit = query.limit()?;
    let after = query.cursor::<UserCursor>()?;
    let store = Arc::clone(app.engine()?.store());
    let rows = app
        .read(async move { store.issuances_of_user(&user, after, limit + 1).await })
        .await?;
    let cursor = |row: &Issuance| UserCursor {
        issued_at: row.issued_at,
        id: row.id,
    };
    Ok(json::response(
        StatusCode::OK,
        &query::page(&rows, limit, cursor, IssuanceBody::from),
    ))
}

/// `/v1/issuances/{id}`: for its user and administrators; to others it is as if there were none.
pub(crate) async fn one(app: &App, id: &str, call: &Call) -> Answer {
    super::only_reads(call)?;
    let caller = app.recogniser.recognise(&call.head)?;
    caller.anybody()?;
    let id = IssuanceId::parse(id).map_err(|error| Problem::Malformed(error.to_string()))?;
    let store = Arc::clone(app.engine()?.store());
    match app.read(async move { store.issuance(id).await }).await? {
        Some(issuance) if caller.sees(&issuance.user) => {
            Ok(json::response(StatusCode::OK, &IssuanceBody::from(&issuance)))
        }
        _ => Err(Problem::UnknownIssuance),
    }
}
