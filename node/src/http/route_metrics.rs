//! The metrics of one route, by method and status.

use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use metrics::{Counter, Histogram};

use crate::metrics::{HTTP_REQUESTS, HTTP_SECONDS};

/// Methods with a label of their own. All other methods share one label, because clients may send any word.
static METHODS: [Method; 5] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PATCH,
    Method::DELETE,
];

/// Number of rows: one per method, and one for all other methods.
const ROWS: usize = METHODS.len() + 1;

/// Statuses have three digits.
const STATUSES: usize = 1000;

/// Counts requests that no route matched.
pub(crate) static UNMATCHED: RouteMetrics = RouteMetrics::new("unmatched");

/// Metric handles of one route, with its label.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    label: &'static str,
    methods: [OnceLock<Handles>; ROWS],
}

/// Metric handles of one route and method, created at the first use: most pairs are never used.
#[derive(Debug)]
struct Handles {
    seconds: Histogram,
    statuses: Vec<OnceLock<Counter>>,
}

impl RouteMetrics {
    /// Makes the metrics of a route. The label is the route's template, without ids.
    pub(crate) const fn new(label: &'static str) -> Self {
        Self {
            label,
            methods: [const { OnceLock::new() }; ROWS],
        }
    }

    /// Returns the route's name in metrics and logs.
    pub(crate) const fn label(&self) -> &'static str {
        self.label
    }

    /// Counts one response.
    pub(crate) fn record(&self, method: &Method, status: StatusCode, duration: Duration) {
        let row = METHODS
            .iter()
            .position(|known| known == method)
            .unwrap_or(METHODS.len());
        let method = || METHODS.get(row).map_or("other", Method::as_str);
        let handles = self.methods[row].get_or_init(|| Handles {
            seconds: metrics::histogram!(HTTP_SECONDS, "route" => self.label, "method" => method()),
            statuses: std::iter::repeat_with(OnceLock::new).take(STATUSES).collect(),
        });
        handles.seconds.record(duration);
        let requests = handles.statuses[usize::from(status.as_u16())].get_or_init(|| {
            let status = status.as_str().to_owned();
            metrics::counter!(HTTP_REQUESTS, "route" => self.label, "method" => method(), "status" => status)
        });
        requests.increment(1);
    }
}
