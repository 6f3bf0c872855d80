//! Metrics of the node: HTTP, TLS, reads, limits, the log and the runtime, in one table. Those of the engine
//! are in [`actors::metrics`], those of coupons in [`actors::coupon::metrics`].

use actors::metric_table;
use actors::metrics::{MetricKind, OBJECTIVE_SECONDS, QUEUE_LENGTH, QUEUE_LENGTH_MAX};
use metrics::{Counter, Gauge};

metric_table! {
    BUILD_INFO = "coupon_build_info", MetricKind::Gauge, Count, "Always 1; version and commit are labels.";
    READY = "coupon_ready", MetricKind::Gauge, Count, "1 if the node is ready, as /readyz says, otherwise 0.";
    NOT_READY = "coupon_not_ready", MetricKind::Gauge, Count,
        "1 for each reason why the node is not ready, by reason; otherwise 0.";
    HTTP_REQUESTS = "coupon_http_requests_total", MetricKind::Counter, Count,
        "HTTP requests answered, by route, method and status.";
    HTTP_SECONDS = "coupon_http_request_duration_seconds", MetricKind::Histogram(OBJECTIVE_SECONDS), Seconds,
        "Time from the head of a request to its response, by route, method and class of the status (2xx).";
    HTTP_CONNECTIONS = "coupon_http_connections", MetricKind::Gauge, Count, "Open HTTP connections.";
    HTTP_CONNECTIONS_REFUSED = "coupon_http_connections_refused_total", MetricKind::Counter, Count,
        "HTTP connections refused because http.connections_max were open.";
    HTTP_CLIENT_CONNECTIONS_REFUSED = "coupon_http_client_connections_refused_total",
        MetricKind::Counter, Count,
        "HTTP connections refused because limits.client_connections_max were open from one address.";
    HTTP_UNSENT_BYTES = "coupon_http_unsent_bytes", MetricKind::Gauge, Bytes,
        "Bytes of large HTTP responses that clients have not read yet.";
    HTTP_CONNECTIONS_CUT = "coupon_http_connections_cut_total", MetricKind::Counter, Count,
        "HTTP connections closed by the server, by reason: a timeout, a bad request or handshake, \
        responses that are not read, a stop.";
    TLS_RELOADS = "coupon_tls_reloads_total", MetricKind::Counter, Count,
        "Changes of the TLS certificate files, by result: replaced or refused.";
    TLS_EXPIRY = "coupon_tls_certificate_expiry_timestamp_seconds", MetricKind::Gauge, Seconds,
        "Earliest expiry of a certificate in the chain, in seconds since the Unix epoch, by listener: http \
         or cluster. Absent without TLS.";
    READS = "coupon_reads_total", MetricKind::Counter, Count,
        "Reads of coupons and lists of coupons, by what was read and from where: a copy or the store.";
    EXPORTS = "coupon_exports_total", MetricKind::Counter, Count,
        "Exports of all issuances of a coupon that ended, by end: complete, broken (the database failed) or \
        left (the client closed the connection or was cut, or the node stopped).";
    RATE_LIMITED = "coupon_rate_limited_total", MetricKind::Counter, Count,
        "Issue requests refused because their user sent too many.";
    TOKENS_REFUSED = "coupon_tokens_refused_total", MetricKind::Counter, Count,
        "Requests answered 401 because their token is not valid, by reason.";
    KEY_RELOADS = "coupon_key_reloads_total", MetricKind::Counter, Count,
        "Changes of keys while the node runs, by source (keys_file, jwks_file, jwks_url) and result: replaced or refused.";
    KEYS_STALE = "coupon_keys_stale", MetricKind::Gauge, Count,
        "1 while the keys of a source cannot be read, and the former ones are in use, by source; otherwise 0.";
    LISTS_REFUSED = "coupon_lists_refused_total", MetricKind::Counter, Count,
        "Searches for lists and statistics refused, by reason: client (limits.client_lists) or full (too many in progress).";
    LOG_LINES_DROPPED = "coupon_log_lines_dropped_total", MetricKind::Counter, Count,
        "Lines of the log that were not written, because writing failed or was too slow.";
    TRACE_SPANS_SENT = "coupon_trace_spans_sent_total", MetricKind::Counter, Count,
        "Spans of traced requests that the receiver took.";
    TRACE_SPANS_DROPPED = "coupon_trace_spans_dropped_total", MetricKind::Counter, Count,
        "Spans of traced requests that were dropped, by reason: queue_full (trace.queue_max) or not_sent (the \
        receiver did not take them in time).";
    RUNTIME_WORKERS = "coupon_runtime_workers", MetricKind::Gauge, Count, "Worker threads of the runtime.";
    RUNTIME_TASKS = "coupon_runtime_live_tasks", MetricKind::Gauge, Count, "Live tasks of the runtime.";
    RUNTIME_QUEUE = "coupon_runtime_global_queue_depth", MetricKind::Gauge, Count,
        "Tasks waiting in the global queue of the runtime.";
    RUNTIME_BUSY = "coupon_runtime_busy_seconds_total", MetricKind::Counter, Seconds,
        "Busy time of all workers of the runtime.";
    RUNTIME_PARKS = "coupon_runtime_parks_total", MetricKind::Counter, Count,
        "Times that a worker of the runtime went to sleep.";
}

/// The label of HTTP connections among the bounded queues.
pub(crate) const CONNECTIONS_QUEUE: &str = "connections";

/// Reasons why connections are closed by the server.
const CUT_REASONS: [&str; 9] = [
    "handshake",
    "header_too_large",
    "malformed",
    "silent",
    "header",
    "idle",
    "write",
    "unread",
    "stopping",
];

/// Results of changes of the TLS certificate.
const TLS_RESULTS: [&str; 2] = ["replaced", "refused"];

/// Where keys are read from again while the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeySource {
    /// `auth.keys_file`
    KeysFile,
    /// `auth.jwt.jwks_file`
    JwksFile,
    /// `auth.jwt.jwks_url`
    JwksUrl,
}

impl KeySource {
    const ALL: [Self; 3] = [Self::KeysFile, Self::JwksFile, Self::JwksUrl];

    const fn name(self) -> &'static str {
        match self {
            Self::KeysFile => "keys_file",
            Self::JwksFile => "jwks_file",
            Self::JwksUrl => "jwks_url",
        }
    }
}

/// Results of changes of keys, which are those of certificates.
const KEY_RESULTS: [&str; 2] = TLS_RESULTS;

/// How an export ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportEnd {
    /// All issuances were read.
    Complete,
    /// The database failed.
    Broken,
    /// The client closed the connection or was cut, or the node stopped.
    Left,
}

impl ExportEnd {
    const ALL: [Self; 3] = [Self::Complete, Self::Broken, Self::Left];

    const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Broken => "broken",
            Self::Left => "left",
        }
    }
}

/// Reasons why spans are dropped.
const SPAN_DROP_REASONS: [&str; 2] = ["queue_full", "not_sent"];

/// Creates the series whose labels are known, at 0, as [`actors::metrics::register`] does. The table of
/// routes does the same for routes.
pub(crate) fn register() {
    for reason in CUT_REASONS {
        metrics::counter!(HTTP_CONNECTIONS_CUT, "reason" => reason).increment(0);
    }
    for result in TLS_RESULTS {
        metrics::counter!(TLS_RELOADS, "result" => result).increment(0);
    }
    for source in KeySource::ALL {
        for result in KEY_RESULTS {
            key_reloads(source, result).increment(0);
        }
        metrics::gauge!(KEYS_STALE, "source" => source.name()).increment(0.0);
    }
    for end in ExportEnd::ALL {
        metrics::counter!(EXPORTS, "end" => end.name()).increment(0);
    }
    for reason in SPAN_DROP_REASONS {
        metrics::counter!(TRACE_SPANS_DROPPED, "reason" => reason).increment(0);
    }
    metrics::counter!(TRACE_SPANS_SENT).increment(0);
    metrics::counter!(HTTP_CONNECTIONS_REFUSED).increment(0);
    metrics::counter!(HTTP_CLIENT_CONNECTIONS_REFUSED).increment(0);
    metrics::counter!(RATE_LIMITED).increment(0);
    metrics::gauge!(HTTP_CONNECTIONS).increment(0.0);
    metrics::gauge!(HTTP_UNSENT_BYTES).increment(0.0);
}

/// Counts a connection that the server closed.
pub(crate) fn connection_cut(reason: &'static str) {
    debug_assert!(CUT_REASONS.contains(&reason), "{reason} is not registered");
    metrics::counter!(HTTP_CONNECTIONS_CUT, "reason" => reason).increment(1);
}

/// Counts an export that ended.
pub(crate) fn export_ended(end: ExportEnd) {
    metrics::counter!(EXPORTS, "end" => end.name()).increment(1);
}

/// Counts a change of the TLS certificate.
pub(crate) fn tls_reloaded(result: &'static str) {
    debug_assert!(TLS_RESULTS.contains(&result), "{result} is not registered");
    metrics::counter!(TLS_RELOADS, "result" => result).increment(1);
}

/// What became of the keys of a source when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeysRead {
    /// They are the same, or the first ones.
    Unchanged,
    /// There are others.
    Replaced,
    /// They could not be read.
    Refused,
}

impl KeysRead {
    /// Returns what became of keys that have changed. The first ones are no change.
    pub(crate) const fn of(is_read: bool, is_first: bool) -> Self {
        match (is_read, is_first) {
            (false, _) => Self::Refused,
            (true, false) => Self::Replaced,
            (true, true) => Self::Unchanged,
        }
    }
}

/// Records that the keys of a source were read.
pub(crate) fn keys_read(source: KeySource, read: KeysRead) {
    match read {
        KeysRead::Unchanged => {}
        KeysRead::Replaced => key_reloads(source, "replaced").increment(1),
        KeysRead::Refused => key_reloads(source, "refused").increment(1),
    }
    let is_stale = read == KeysRead::Refused;
    metrics::gauge!(KEYS_STALE, "source" => source.name()).set(f64::from(u8::from(is_stale)));
}

fn key_reloads(source: KeySource, result: &'static str) -> Counter {
    metrics::counter!(KEY_RELOADS, "source" => source.name(), "result" => result)
}

/// Returns the gauge of the length of a bounded queue, and sets its bound.
pub(crate) fn queue(queue: &'static str, length_max: usize) -> Gauge {
    metrics::gauge!(QUEUE_LENGTH_MAX, "queue" => queue).set(length_max as f64);
    metrics::gauge!(QUEUE_LENGTH, "queue" => queue)
}
