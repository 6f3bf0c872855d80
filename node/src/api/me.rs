//! `/v1/me`: what belongs to the user who asks.

use http::StatusCode;

use super::issuances::{IssuanceBody, of_coupon};
use super::list::{PageBody, cursor, limit};
use super::{Answer, principal};
use crate::http::call::Call;
use crate::http::json;
use crate::http::query::Query;
use crate::service::Service;

/// `GET /v1/me/issuances`
pub(super) async fn issuances(service: &Service, call: &Call) -> Answer {
    let principal = principal(service, call)?;
    let user = principal.require_user()?.clone();
    let (coupon, after, limit) = Query::read(&call.head, |query| {
        (of_coupon(query), cursor(query), limit(query))
    })?;
    let page = service.issuances_of_user(user, coupon, after, limit).await?;
    Ok(json::response(
        StatusCode::OK,
        &PageBody::new(&page, IssuanceBody::from),
    ))
}
