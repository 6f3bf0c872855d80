//! `/v1/coupons`: creates, reads and changes coupons.

use actors::coupon::ids::CouponId;
use actors::coupon::offer::{CouponView, Phase, Status, TITLE_CHARS_MAX};
use actors::ids::RequestKey;
use actors::time;
use http::StatusCode;
use http::header::{ETAG, LOCATION};
use warp::reply::Response;

mod body;
mod if_match;

pub(super) use self::body::{CouponBody, CreateBody, EmptyBody, PatchBody};

use super::list::{self, cursor, limit};
use super::{Answer, changes, principal, request_key, set_header, set_replayed};
use crate::http::call::Call;
use crate::http::json;
use crate::http::problem::RequestError;
use crate::service::Service;
use crate::service::auth::Principal;
use crate::service::engine::{Change, ChangeRequest, CouponFilter, NewCoupon};

/// Parses the id in a path.
pub(super) fn coupon_id(text: &str) -> Result<CouponId, RequestError> {
    CouponId::parse(text).map_err(|error| RequestError::Malformed(error.to_string()))
}

/// `GET /v1/coupons`
pub(super) async fn list(service: &Service, call: &Call) -> Answer {
    principal(service, call)?;
    let (filter, before, limit) = call.query(|query| {
        let phase = query.get(
            "phase",
            "must be scheduled, live, sold_out, paused, ended or closed",
            Phase::parse,
        );
        let title = query.get("title", "must have 1 to 200 characters", title_part);
        let filter = CouponFilter { phase, title };
        (filter, cursor::<CouponId>(query), limit(query))
    })?;
    let list = service.coupons(call.head.client, filter, before).await?;
    let page = list.page(limit);
    Ok(list::response(&page, |view| CouponBody::new(view, list.now())))
}

/// `POST /v1/coupons`
pub(super) async fn create(service: &Service, call: &Call) -> Answer {
    let principal = principal(service, call)?;
    principal.require_admin()?;
    let (_, by) = principal.require_known()?;
    let key = request_key(&call.head)?.unwrap_or_else(RequestKey::random);
    let (offer, status) = call.json_checked::<CreateBody>()?;
    let record = changes::record(&principal, "create", Some(call))?;
    let new = NewCoupon {
        key,
        offer,
        status,
        created_at: time::timestamp(),
        record: Some(record),
    };
    let (view, replayed) = service.create_coupon(new, by).await?;
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
    let principal = principal(service, call)?;
    principal.require_admin()?;
    let id = coupon_id(call.parameter())?;
    let patch = call.json_checked::<PatchBody>()?;
    change(service, call, id, Change::Patch(Box::new(patch)), &principal).await
}

/// `POST /v1/coupons/{id}/pause`, `/resume` and `/close`
pub(super) async fn change_status(service: &Service, call: &Call, status: Change) -> Answer {
    let principal = principal(service, call)?;
    principal.require_admin()?;
    let id = coupon_id(call.parameter())?;
    call.json_or_default::<EmptyBody>()?;
    change(service, call, id, status, &principal).await
}

async fn change(
    service: &Service,
    call: &Call,
    id: CouponId,
    change: Change,
    principal: &Principal,
) -> Answer {
    let (_, by) = principal.require_known()?;
    let record = match &change {
        Change::Patch(_) => changes::record(principal, "patch", Some(call)),
        Change::Pause => changes::record(principal, "pause", None),
        Change::Resume => changes::record(principal, "resume", None),
        Change::Close => changes::record(principal, "close", None),
    };
    let request = ChangeRequest {
        change,
        if_versions: if_match::versions(&call.head)?,
        key: request_key(&call.head)?,
        record: Some(record?),
    };
    let changing = service.change_coupon(id, request, by, &call.head.span);
    let (view, replayed) = changing.await?;
    let mut response = coupon(StatusCode::OK, &view);
    set_replayed(&mut response, replayed);
    Ok(response)
}

/// Returns the response with a coupon.
fn coupon(status: StatusCode, view: &CouponView) -> Response {
    let mut response = json::response(status, &CouponBody::new(view, time::timestamp()));
    // Weak, because `issued` and `phase` change without the version.
    set_header(&mut response, ETAG, format_args!("W/\"{}\"", view.coupon.version));
    response
}

/// Parses a text that titles are searched for.
fn title_part(text: &str) -> Option<String> {
    let fits = (1..=TITLE_CHARS_MAX).contains(&text.chars().count()) && !text.contains('\0');
    fits.then(|| text.to_owned())
}

/// Parses the status of a new coupon.
fn initial_status(text: &str) -> Option<Status> {
    Status::parse(text).filter(|status| *status != Status::Closed)
}
