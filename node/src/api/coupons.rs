//! `/v1/coupons`: creates, reads and changes coupons.

use actors::coupon::offer::{CouponView, Phase, Status};
use actors::ids::{CouponId, RequestKey};
use actors::time;
use http::StatusCode;
use http::header::{ETAG, IF_MATCH, LOCATION};
use warp::reply::Response;

mod body;

pub(super) use self::body::{CouponBody, CreateBody, EmptyBody, PatchBody};

use super::list::{PageBody, cursor, limit};
use super::{Answer, principal, request_key, set_header, set_replayed};
use crate::http::call::Call;
use crate::http::head::Head;
use crate::http::json;
use crate::http::problem::RequestError;
use crate::http::query::Query;
use crate::service::Service;
use crate::service::engine::{Change, NewCoupon};
use crate::service::list::whole_number;

/// A version that no coupon has: versions count from 1.
const NO_VERSION: u64 = 0;

/// Parses the id in a path.
pub(super) fn coupon_id(text: &str) -> Result<CouponId, RequestError> {
    CouponId::parse(text).map_err(|error| RequestError::Malformed(error.to_string()))
}

/// `GET /v1/coupons`
pub(super) async fn list(service: &Service, call: &Call) -> Answer {
    principal(service, call)?;
    let query = Query::of(&call.head);
    let limit = limit(&query)?;
    let phase = query.get(
        "phase",
        "must be scheduled, live, sold_out, paused, ended or closed",
        Phase::parse,
    )?;
    let before = cursor::<CouponId>(&query)?;
    let list = service.coupons(phase, before, limit).await?;
    let page = PageBody::new(&list.page(limit), |view| CouponBody::new(view, list.now()));
    Ok(json::response(StatusCode::OK, &page))
}

/// `POST /v1/coupons`
pub(super) async fn create(service: &Service, call: &Call) -> Answer {
    principal(service, call)?.require_admin()?;
    let key = request_key(&call.head)?.unwrap_or_else(RequestKey::random);
    let (offer, status) = call.json_checked::<CreateBody>()?;
    let new = NewCoupon {
        key,
        offer,
        status,
        created_at: time::timestamp(),
    };
    let (view, replayed) = service.create_coupon(new).await?;
    let mut response = coupon(StatusCode::CREATED, &view);
    let id = view.coupon.id;
    set_header(&mut response, LOCATION, format_args!("/v1/coupons/{id}"));
    set_replayed(&mut response, replayed);
    Ok(response)
}

/// `GET /v1/coupons/{id}`
pub(super) async fn read(service: &Service, call: &Call) -> Answer {
    principal(service, call)?;
    let id = coupon_id(call.parameter())?;
    Ok(coupon(StatusCode::OK, &service.coupon(id).await?))
}

/// `PATCH /v1/coupons/{id}`
pub(super) async fn patch(service: &Service, call: &Call) -> Answer {
    principal(service, call)?.require_admin()?;
    let id = coupon_id(call.parameter())?;
    let patch = call.json_checked::<PatchBody>()?;
    change(service, call, id, Change::Patch(Box::new(patch))).await
}

/// `POST /v1/coupons/{id}/pause`, `/resume` and `/close`
pub(super) async fn change_status(service: &Service, call: &Call, status: Change) -> Answer {
    principal(service, call)?.require_admin()?;
    let id = coupon_id(call.parameter())?;
    call.json_or_default::<EmptyBody>()?;
    change(service, call, id, status).await
}

async fn change(service: &Service, call: &Call, id: CouponId, change: Change) -> Answer {
    let if_version = expected_version(&call.head)?;
    let view = service.change_coupon(id, change, if_version).await?;
    Ok(coupon(StatusCode::OK, &view))
}

/// Returns the response with a coupon.
fn coupon(status: StatusCode, view: &CouponView) -> Response {
    let mut response = json::response(status, &CouponBody::new(view, time::timestamp()));
    set_header(&mut response, ETAG, format_args!("\"{}\"", view.coupon.version));
    response
}

/// Returns the version that `If-Match` demands; `None` if any version will do.
///
/// A tag that no coupon can have (weak, or not a number) demands [`NO_VERSION`]. A list of tags is refused,
/// because only one version can be demanded.
fn expected_version(head: &Head) -> Result<Option<u64>, RequestError> {
    let Some(text) = head.text(&IF_MATCH)?.map(str::trim) else {
        return Ok(None);
    };
    if text == "*" {
        return Ok(None);
    }
    let (weak, quoted) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
    let tag = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|tag| !tag.contains('"'));
    match tag {
        Some(tag) => Ok(Some(whole_number(tag).filter(|_| !weak).unwrap_or(NO_VERSION))),
        None => Err(RequestError::Malformed(
            "If-Match must be one version in quotes, like \"3\"".to_owned(),
        )),
    }
}

/// Parses the status of a new coupon.
fn initial_status(text: &str) -> Option<Status> {
    Status::parse(text).filter(|status| *status != Status::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, Method};
    use std::net::Ipv4Addr;

    fn expected(value: &str) -> Result<Option<u64>, RequestError> {
        let headers = HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_str(value).unwrap())]);
        expected_version(&Head::new(
            Method::PATCH,
            String::new(),
            headers,
            Ipv4Addr::LOCALHOST.into(),
        ))
    }

    #[test]
    fn if_match_demands_a_version() {
        assert_eq!(expected("\"3\"").unwrap(), Some(3));
        assert_eq!(expected("*").unwrap(), None);
        for value in ["W/\"3\"", "\"three\"", "\"\"", "\"-3\""] {
            assert_eq!(expected(value).unwrap(), Some(NO_VERSION), "{value}");
        }
        for value in ["3", "\"3", "\"3\", \"4\"", ""] {
            assert!(
                matches!(expected(value), Err(RequestError::Malformed(_))),
                "{value}"
            );
        }
    }
}
