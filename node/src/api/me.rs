//! `/v1/me`: what belongs to the user who asks.

use http::StatusCode;

use super::issuances::IssuanceBody;
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
    let query = Query::of(&call.head);
    let (limit, after) = (limit(&query)?, cursor(&query)?);
    let page = service.issuances_of_user(user, after, limit).await?;
    Ok(json::response(
        StatusCode::OK,
        &PageBody::new(&page, IssuanceBody::from),
    ))
}
