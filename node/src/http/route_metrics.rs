//! The metrics of one route, by method and status.
//!
//! Counters exist from the start for each status that an operation is documented to respond with. Histograms
//! exist from the start only for the classes that are passed to [`RouteMetrics::register`], because each has
//! many series.

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

/// Classes of statuses, by their first digit; no status begins with 0.
const CLASSES: [&str; 6] = ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"];

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
    classes: [OnceLock<Histogram>; CLASSES.len()],
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

    /// Creates the series of these statuses, at 0, and the histograms of these classes.
    pub(crate) fn register(&self, method: &Method, statuses: &[u16], classes: &[usize]) {
        for status in statuses {
            self.counter(method, *status);
        }
        for class in classes {
            self.histogram(method, *class);
        }
    }

    /// Counts one response.
    pub(crate) fn record(&self, method: &Method, status: StatusCode, duration: Duration) {
        let status = status.as_u16();
        self.histogram(method, usize::from(status) / 100).record(duration);
        self.counter(method, status).increment(1);
    }

    fn histogram(&self, method: &Method, class: usize) -> &Histogram {
        // Statuses from 600 on are not standard, and this program does not use them.
        let class = class.min(CLASSES.len() - 1);
        self.handles(method).classes[class].get_or_init(|| {
            let (method, class) = (label(method), CLASSES[class]);
            metrics::histogram!(HTTP_SECONDS, "route" => self.label, "method" => method, "class" => class)
        })
    }

    fn counter(&self, method: &Method, status: u16) -> &Counter {
        self.handles(method).statuses[usize::from(status)].get_or_init(|| {
            let (method, status) = (label(method), status.to_string());
            metrics::counter!(HTTP_REQUESTS, "route" => self.label, "method" => method, "status" => status)
        })
    }

    fn handles(&self, method: &Method) -> &Handles {
        self.methods[row(method)].get_or_init(|| Handles {
            classes: [const { OnceLock::new() }; CLASSES.len()],
            statuses: std::iter::repeat_with(OnceLock::new).take(STATUSES).collect(),
        })
    }
}

fn row(method: &Method) -> usize {
    let row = METHODS.iter().position(|known| known == method);
    row.unwrap_or(METHODS.len())
}

/// Returns the method as metrics and traces have it: clients may send a word of kilobytes.
pub(super) fn label(method: &Method) -> &'static str {
    METHODS.get(row(method)).map_or("other", Method::as_str)
}
