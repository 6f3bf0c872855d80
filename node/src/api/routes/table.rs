//! The table of routes. The hot route is first, because paths are compared in this order. Operations are in
//! the files beside this one.

use super::{Operation, Route, bulk, coupons, issuances, lists, operators, uses};
use crate::http::route_metrics::RouteMetrics;

/// All routes.
pub(in crate::api) static ROUTES: [Route; 30] = [
    route(
        "/v1/coupons/{id}/issuances",
        &[lists::OF_COUPON, issuances::ISSUE],
    ),
    route("/v1/coupons/{id}", &[coupons::READ, coupons::PATCH]),
    route("/v1/coupons", &[coupons::LIST, coupons::CREATE]),
    route("/v1/me/issuances", &[lists::MINE]),
    route("/v1/me", &[issuances::ME]),
    route("/v1/issuances", &[lists::OF_USER]),
    route("/v1/issuances/{id}", &[issuances::READ]),
    route("/v1/issuances/{id}/quote", &[uses::QUOTE]),
    route("/v1/issuances/{id}/reserve", &[uses::RESERVE]),
    route("/v1/issuances/{id}/redeem", &[uses::REDEEM]),
    route("/v1/issuances/{id}/release", &[uses::RELEASE]),
    route("/v1/issuances/{id}/refund", &[uses::REFUND]),
    route("/v1/issuances/{id}/revoke", &[uses::REVOKE]),
    route("/v1/issuances/{id}/uses", &[uses::LIST]),
    route("/v1/coupons/{id}/changes", &[coupons::CHANGES]),
    route("/v1/coupons/{id}/issuances/bulk", &[bulk::ISSUE]),
    route("/v1/coupons/{id}/issuances.csv", &[bulk::CSV]),
    route("/v1/coupons/{id}/issuances.ndjson", &[bulk::NDJSON]),
    route("/v1/coupons/{id}/statistics", &[lists::STATISTICS]),
    route("/v1/coupons/{id}/pause", &[coupons::PAUSE]),
    route("/v1/coupons/{id}/resume", &[coupons::RESUME]),
    route("/v1/coupons/{id}/close", &[coupons::CLOSE]),
    route("/v1/cluster", &[operators::CLUSTER]),
    route("/v1/cluster/coupons/{id}", &[operators::PLACE]),
    route("/livez", &[operators::LIVEZ]),
    route("/readyz", &[operators::READYZ]),
    route("/metrics", &[operators::METRICS]),
    route("/openapi.json", &[operators::OPENAPI]),
    route("/docs", &[operators::DOCS]),
    route("/docs/{file}", &[operators::DOCS_FILE]),
];

/// Returns the route with this template of a path.
const fn route(template: &'static str, operations: &'static [Operation]) -> Route {
    Route {
        metrics: RouteMetrics::new(template),
        operations,
    }
}
