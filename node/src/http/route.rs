//! The routes by name, and what is counted of each.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use actors::metrics::{HTTP_REQUESTS, HTTP_SECONDS};
use http::{Method, StatusCode};
use metrics::{Counter, Histogram};

/// Every path there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Coupons,
    Coupon,
    CouponPause,
    CouponResume,
    CouponClose,
    CouponIssuances,
    MyIssuances,
    Issuance,
    Cluster,
    ClusterCoupon,
    Livez,
    Readyz,
    Metrics,
    OpenApi,
    Docs,
    DocsFile,
    /// No path of ours.
    Unmatched,
}

/// How many there are.
const ROUTES: usize = Route::Unmatched as usize + 1;

/// Methods with a label of their own; all others share one, as clients may send any word.
static METHODS: [Method; 5] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PATCH,
    Method::DELETE,
];

/// Statuses are three digits.
const STATUSES: usize = 1000;

impl Route {
    /// All that are paths of ours.
    #[cfg(test)]
    pub(crate) const ALL: [Self; ROUTES - 1] = [
        Self::Coupons,
        Self::Coupon,
        Self::CouponPause,
        Self::CouponResume,
        Self::CouponClose,
        Self::CouponIssuances,
        Self::MyIssuances,
        Self::Issuance,
        Self::Cluster,
        Self::ClusterCoupon,
        Self::Livez,
        Self::Readyz,
        Self::Metrics,
        Self::OpenApi,
        Self::Docs,
        Self::DocsFile,
    ];

    /// The path as metrics and logs name it: with the places of ids, not with ids.
    pub(crate) const fn template(self) -> &'static str {
        match self {
            Self::Coupons => "/v1/coupons",
            Self::Coupon => "/v1/coupons/{id}",
            Self::CouponPause => "/v1/coupons/{id}/pause",
            Self::CouponResume => "/v1/coupons/{id}/resume",
            Self::CouponClose => "/v1/coupons/{id}/close",
            Self::CouponIssuances => "/v1/coupons/{id}/issuances",
            Self::MyIssuances => "/v1/me/issuances",
            Self::Issuance => "/v1/issuances/{id}",
            Self::Cluster => "/v1/cluster",
            Self::ClusterCoupon => "/v1/cluster/coupons/{id}",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
            Self::DocsFile => "/docs/{file}",
            Self::Unmatched => "unmatched",
        }
    }
}

/// The handles of one route and method. Looked up when first used, as most pairs never are.
struct Handles {
    seconds: Histogram,
    statuses: Vec<OnceLock<Counter>>,
}

/// By route, then method; one row more for all other methods.
static HANDLES: LazyLock<Vec<OnceLock<Handles>>> = LazyLock::new(|| {
    std::iter::repeat_with(OnceLock::new)
        .take(ROUTES * (METHODS.len() + 1))
        .collect()
});

/// Counts one request answered.
pub(crate) fn answered(route: Route, method: &Method, status: StatusCode, took: Duration) {
    let method_index = METHODS
        .iter()
        .position(|known| known == method)
        .unwrap_or(METHODS.len());
    let method = || METHODS.get(method_index).map_or("other", Method::as_str);
    let handles = HANDLES[route as usize * (METHODS.len() + 1) + method_index].get_or_init(|| Handles {
        seconds: metrics::histogram!(HTTP_SECONDS, "route" => route.template(), "method" => method()),
        statuses: std::iter::repeat_with(OnceLock::new).take(STATUSES).collect(),
    });
    handles.seconds.record(took);
    let requests = handles.statuses[usize::from(status.as_u16())].get_or_init(
        || metrics::counter!(HTTP_REQUESTS, "route" => route.template(), "method" => method(), "status" => status.as_str().to_owned()),
    );
    requests.increment(1);
}
