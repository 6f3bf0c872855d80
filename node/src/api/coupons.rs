//! Coupons: made, shown and changed.

use std::sync::Arc;
use std::time::Duration;

use actors::coupon::offer::{Coupon, CouponView, Phase, Status};
use actors::ids::{CouponId, RequestKey, Sequence};
use actors::owning::message::{Change, ChangeOutcome, Refusal, Setback};
use actors::store::{Created, NewCoupon};
use actors::time;
use http::header::{ETAG, IF_MATCH, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use warp::reply::Response;

use super::issuances::IDEMPOTENT_REPLAYED;
use super::{Answer, App, NotDone, taking_a_place};
use crate::http::call::{Call, Head};
use crate::http::json;
use crate::http::problem::Problem;
use crate::http::query::{self, Query};

mod body;

pub(crate) use body::{CouponBody, CreateBody, NothingBody, PatchBody};

/// Reads the id in a path.
pub(crate) fn coupon_id(text: &str) -> Result<CouponId, Problem> {
    CouponId::parse(text).map_err(|error| Problem::Malformed(error.to_string()))
}

/// `/v1/coupons`
pub(crate) async fn all(app: &App, call: &Call) -> Answer {
    match call.head.method {
        Method::GET | Method::HEAD => list(app, call).await,
        Method::POST => create(app, call).await,
        _ => Err(Problem::MethodNotAllowed("GET, HEAD, POST")),
    }
}

/// `/v1/coupons/{id}`
pub(crate) async fn one(app: &App, id: &str, call: &Call) -> Answer {
    match call.head.method {
        Method::GET | Method::HEAD => read(app, id, call).await,
        Method::PATCH => patch(app, id, call).await,
        _ => Err(Problem::MethodNotAllowed("GET, HEAD, PATCH")),
    }
}

/// `/v1/coupons/{id}/pause`, `/resume` and `/close`
pub(crate) async fn change_status(app: &App, id: &str, call: &Call, change: Change) -> Answer {
    if call.head.method != Method::POST {
        return Err(Problem::MethodNotAllowed("POST"));
    }
    app.recogniser.recognise(&call.head)?.admin()?;
    let coupon = coupon_id(id)?;
    call.json_or_nothing::<NothingBody>()?;
    make_change(app, coupon, call, change).await
}

async fn list(app: &App, call: &Call) -> Answer {
    app.recogniser.recognise(&call.head)?;
    let query = Query::of(&call.head);
    let limit = query.limit()?;
    let phase = query.get(
        "phase",
        "must be scheduled, live, sold_out, paused, ended or closed",
        Phase::parse,
    )?;
    let before = query.cursor::<CouponId>()?;
    let listed = app.copies.list(app, phase, before, limit).await?;
    Ok(json::response(StatusCode::OK, &listed.page(limit)))
}

async fn create(app: &App, call: &Call) -> Answer {
    app.recogniser.recognise(&call.head)?.admin()?;
    let key = call.head.request_key()?.unwrap_or_else(RequestKey::random);
    let (offer, status) = call.json::<CreateBody>()?.into_offer()?;
    let new = NewCoupon {
        key,
        offer,
        status,
        created_at: time::timestamp(),
    };
    let store = Arc::clone(app.engine()?.store());
    let making = taking_a_place(
        app.store_calls.clone(),
        async move { store.create_coupon(&new).await },
    );
    let made = within(app.change_deadline, making).await;
    let (view, replayed) = match made.ok_or(Setback::Unknown)?.map_err(|error| failed(&error))? {
        Created::New(coupon) => (
            CouponView {
                coupon,
                issued: Sequence::NONE,
            },
            false,
        ),
        Created::Before(view) => (view, true),
        Created::KeyReused => return Err(Problem::invalid("Idempotency-Key", "was used for another coupon")),
    };
    app.copies.forget_lists();
    let mut response = shown(StatusCode::CREATED, &view.coupon, view.issued);
    super::set_header(
        &mut response,
        LOCATION,
        format_args!("/v1/coupons/{}", view.coupon.id),
    );
    if replayed {
        response
            .headers_mut()
            .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Logs why, and says what it means to the client.
fn failed(error: &NotDone) -> Problem {
    match error {
        NotDone::NoPlace => Problem::SetBack(Setback::Overloaded),
        NotDone::Failed(error) => {
            tracing::warn!(%error, "a coupon was not made");
            Problem::making(error)
        }
    }
}

/// What comes of it if it comes in time.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

async fn read(app: &App, id: &str, call: &Call) -> Answer {
    app.recogniser.recognise(&call.head)?;
    let coupon = coupon_id(id)?;
    match app.copies.coupon(app, coupon).await? {
        Some(view) => Ok(shown(StatusCode::OK, &view.coupon, view.issued)),
        None => Err(Refusal::UnknownCoupon.into()),
    }
}

async fn patch(app: &App, id: &str, call: &Call) -> Answer {
    app.recogniser.recognise(&call.head)?.admin()?;
    let coupon = coupon_id(id)?;
    let patch = call.json::<PatchBody>()?.into_patch()?;
    make_change(app, coupon, call, Change::Patch(Box::new(patch))).await
}

async fn make_change(app: &App, coupon: CouponId, call: &Call, change: Change) -> Answer {
    let if_version = expected_version(&call.head)?;
    let answer = app
        .engine()?
        .change(coupon, change, if_version, app.change_deadline)
        .await;
    // Whatever came of it, nobody sees what was before it once it is answered.
    app.copies.forget(coupon);
    match answer? {
        ChangeOutcome::Done(done) => Ok(shown(StatusCode::OK, &done.coupon, done.issued)),
        ChangeOutcome::Refused(refusal) => Err(refusal.into()),
    }
}

/// The answer with a coupon in it.
fn shown(status: StatusCode, coupon: &Coupon, issued: Sequence) -> Response {
    let mut response = json::response(status, &CouponBody::new(coupon, issued, time::timestamp()));
    super::set_header(&mut response, ETAG, format_args!("\"{}\"", coupon.version));
    response
}

/// The version that `If-Match` demands.
///
/// A tag that none of ours can equal (weak, or no number) demands a version that no coupon has. Of several
/// tags we could demand only one, so more than one is refused rather than misread.
fn expected_version(head: &Head) -> Result<Option<u64>, Problem> {
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
        Some(tag) => Ok(Some(
            query::whole_number(tag).filter(|_| !weak).unwrap_or(NO_VERSION),
        )),
        None => Err(Problem::Malformed(
            "If-Match must be one version in quotes, like \"3\"".to_owned(),
        )),
    }
}

/// Versions count from 1.
const NO_VERSION: u64 = 0;

/// The status a new coupon begins with.
fn initial_status(text: &str) -> Option<Status> {
    Status::parse(text).filter(|status| *status != Status::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use std::net::Ipv4Addr;

    fn expected(value: &str) -> Result<Option<u64>, Problem> {
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
            assert!(matches!(expected(value), Err(Problem::Malformed(_))), "{value}");
        }
    }
}
