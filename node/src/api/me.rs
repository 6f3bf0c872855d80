//! `/v1/me`: who asks, and what belongs to the user who asks.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::issuances::{list_options, of_coupon, page, requester};
use super::list::{cursor, limit};
use super::{Answer, principal};
use crate::http::call::Call;
use crate::http::json;
use crate::service::Service;

/// A principal as the API writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MeBody<'a> {
    /// `user`, or `key` for a named key; the admin token is the key `admin`.
    #[schema(pattern = "^(user|key)$")]
    kind: &'static str,
    #[schema(pattern = "^[!-~]{1,128}$")]
    name: &'a str,
    /// `user` is that of a user without further rights.
    #[schema(pattern = "^(user|admin|operator|service|viewer)$")]
    role: &'static str,
}

/// `GET /v1/me`
pub(super) fn read(service: &Service, call: &Call) -> Answer {
    let principal = principal(service, call)?;
    let (kind, name) = principal.require_known()?;
    let body = MeBody {
        kind: kind.as_str(),
        name,
        role: principal.role().name(),
    };
    Ok(json::response(StatusCode::OK, &body))
}

/// `GET /v1/me/issuances`
pub(super) async fn issuances(service: &Service, call: &Call) -> Answer {
    let principal = principal(service, call)?;
    let user = principal.require_user()?.clone();
    let (coupon, options, after, limit) = call.query(|query| {
        let options = list_options(query);
        (of_coupon(query), options, cursor(query), limit(query))
    })?;
    let requester = requester(&principal, call)?;
    let list = service.issuances_of_user(requester, (user, coupon), options, after, limit);
    Ok(page(&list.await?, service.codes()))
}
