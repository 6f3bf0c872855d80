//! What operators and their machines ask: alive, ready, metrics.

use actors::engine::NotReady;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use warp::reply::Response;

use super::{Answer, App, only_reads};
use crate::http::call::Call;
use crate::http::json as body;
use crate::telemetry;

/// `/livez`: whoever answers lives.
pub(crate) fn livez(call: &Call) -> Answer {
    only_reads(call)?;
    Ok(body::response(StatusCode::OK, &json!({"live": true})))
}

/// `/readyz`: whether a balancer should send people here.
pub(crate) fn readyz(app: &App, call: &Call) -> Answer {
    only_reads(call)?;
    let reasons = app.not_ready();
    if reasons.is_empty() {
        return Ok(body::response(StatusCode::OK, &json!({"ready": true})));
    }
    let reasons: Vec<&str> = reasons.into_iter().map(reason).collect();
    Ok(body::response(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({"ready": false, "reasons": reasons}),
    ))
}

/// The reason's name in the API.
const fn reason(not_ready: NotReady) -> &'static str {
    match not_ready {
        NotReady::Starting => "starting",
        NotReady::Draining => "draining",
        NotReady::NoLease => "no_lease",
        NotReady::NoGroup => "no_group",
        NotReady::NoStore => "no_store",
    }
}

/// `/metrics`
pub(crate) fn metrics(call: &Call) -> Answer {
    only_reads(call)?;
    let mut response = Response::new(telemetry::metrics().render().into());
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    Ok(response)
}
