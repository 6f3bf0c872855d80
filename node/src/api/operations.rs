//! `/livez`, `/readyz` and `/metrics`, for orchestrators, balancers and monitoring.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::json;
use warp::reply::Response;

use crate::http::json as body;
use crate::http::unsent::ForOperators;
use crate::metrics::{NOT_READY, READY};
use crate::service::Service;
use crate::service::engine::NotReady;
use crate::telemetry;

/// `GET /livez`: the process works.
pub(super) fn livez() -> Response {
    body::response(StatusCode::OK, &json!({"live": true}))
}

/// `GET /readyz`: 200 if a balancer may send requests to this node, otherwise 503 with the reasons.
pub(super) fn readyz(service: &Service) -> Response {
    let reasons = service.not_ready();
    if reasons.is_empty() {
        return body::response(StatusCode::OK, &json!({"ready": true}));
    }
    let reasons: Vec<&str> = reasons.into_iter().map(reason).collect();
    body::response(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({"ready": false, "reasons": reasons}),
    )
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

/// Shows in the metrics whether the node is ready, and why not.
fn show_readiness(reasons: &[NotReady]) {
    metrics::gauge!(READY).set(if reasons.is_empty() { 1.0 } else { 0.0 });
    for not_ready in NotReady::ALL {
        let applies = reasons.contains(&not_ready);
        metrics::gauge!(NOT_READY, "reason" => reason(not_ready)).set(if applies { 1.0 } else { 0.0 });
    }
}

/// `GET /metrics`: all metrics, in the text format of Prometheus.
pub(super) fn metrics(service: &Service) -> Response {
    show_readiness(&service.not_ready());
    let text = telemetry::metrics().render(&service.collect());
    let mut response = Response::new(text.into());
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response.extensions_mut().insert(ForOperators);
    response
}
