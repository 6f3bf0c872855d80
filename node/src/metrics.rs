//! Metrics of the node: HTTP, TLS, reads, limits, the log and the runtime, in one table. Those of the engine
//! are in [`actors::metrics`].

use actors::metric_table;
use actors::metrics::{MetricKind, SECONDS};

metric_table! {
    BUILD_INFO = "coupon_build_info", MetricKind::Gauge, Count, "Always 1; version and commit are labels.";
    HTTP_REQUESTS = "coupon_http_requests_total", MetricKind::Counter, Count,
        "HTTP requests answered, by route, method and status.";
    HTTP_SECONDS = "coupon_http_request_duration_seconds", MetricKind::Histogram(SECONDS), Seconds,
        "Time from the head of a request to its response, by route and method.";
    HTTP_CONNECTIONS = "coupon_http_connections", MetricKind::Gauge, Count, "Open HTTP connections.";
    HTTP_CONNECTIONS_REFUSED = "coupon_http_connections_refused_total", MetricKind::Counter, Count,
        "HTTP connections refused because http.connections_max were open.";
    HTTP_CONNECTIONS_CUT = "coupon_http_connections_cut_total", MetricKind::Counter, Count,
        "HTTP connections closed by the server, by reason: a timeout, a bad request or handshake, a stop.";
    TLS_RELOADS = "coupon_tls_reloads_total", MetricKind::Counter, Count,
        "Changes of the TLS certificate files, by result: replaced or refused.";
    READS = "coupon_reads_total", MetricKind::Counter, Count,
        "Reads of coupons and lists of coupons, by what was read and from where: a copy or the store.";
    RATE_LIMITED = "coupon_rate_limited_total", MetricKind::Counter, Count,
        "Issue requests refused because their user sent too many.";
    TOKENS_REFUSED = "coupon_tokens_refused_total", MetricKind::Counter, Count,
        "Requests answered 401 because their token is not valid, by reason.";
    LISTS_REFUSED = "coupon_lists_refused_total", MetricKind::Counter, Count,
        "Lists of coupons refused, by reason: client (limits.client_lists) or full (too many in progress).";
    LOG_LINES_DROPPED = "coupon_log_lines_dropped_total", MetricKind::Counter, Count,
        "Lines of the log that were not written: the log failed, or is slower than what is logged.";
    RUNTIME_WORKERS = "coupon_runtime_workers", MetricKind::Gauge, Count, "Worker threads of the runtime.";
    RUNTIME_TASKS = "coupon_runtime_live_tasks", MetricKind::Gauge, Count, "Live tasks of the runtime.";
    RUNTIME_QUEUE = "coupon_runtime_global_queue_depth", MetricKind::Gauge, Count,
        "Tasks waiting in the global queue of the runtime.";
    RUNTIME_BUSY = "coupon_runtime_busy_seconds_total", MetricKind::Counter, Seconds,
        "Busy time of all workers of the runtime.";
    RUNTIME_PARKS = "coupon_runtime_parks_total", MetricKind::Counter, Count,
        "Times that a worker of the runtime went to sleep.";
}
