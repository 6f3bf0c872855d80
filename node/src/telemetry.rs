//! What the node says about itself: logs, and metrics of the process and the runtime. What is counted where
//! it happens is in [`actors::metrics`].

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use actors::metrics::{self as table, Kind};
use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tokio::runtime::Handle;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// The commit this program was built from.
pub const COMMIT: &str = env!("FIRSTCOME_COMMIT");

/// How often the exporter tidies up its histograms, which grow until then.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Logs to the standard error from now on, so that the standard output stays free for people. Only the first
/// call counts.
pub fn log(log: &Log) {
    // The configuration has checked the directives.
    let filter = EnvFilter::builder().parse_lossy(&log.level);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Whoever set a subscriber before (a test) keeps it.
    let _ = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Renders the metrics of this process.
pub(crate) struct Metrics {
    recorder: PrometheusHandle,
    process: Collector,
    workers: Gauge,
    tasks: Gauge,
    queue: Gauge,
    busy: Counter,
    parks: Counter,
}

/// The metrics of this process, recorded from the first call on.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::install)
}

/// Tidies up from time to time, for as long as it is polled.
pub(crate) async fn upkeep() {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        metrics().recorder.run_upkeep();
    }
}

impl Metrics {
    fn install() -> Self {
        let buckets = table::METRICS.iter().filter_map(|metric| match metric.kind {
            Kind::Histogram(bounds) => Some((metric.name, bounds)),
            Kind::Counter | Kind::Gauge => None,
        });
        let builder = buckets.fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
                .expect("the table's bounds are not empty")
        });
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::error!("another recorder is installed; /metrics will be empty");
        }
        table::describe();
        let process = Collector::default();
        process.describe();
        metrics::gauge!(table::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "commit" => COMMIT)
            .set(1.0);
        Self {
            recorder: handle,
            process,
            workers: metrics::gauge!(table::RUNTIME_WORKERS),
            tasks: metrics::gauge!(table::RUNTIME_TASKS),
            queue: metrics::gauge!(table::RUNTIME_QUEUE),
            busy: metrics::counter!(table::RUNTIME_BUSY),
            parks: metrics::counter!(table::RUNTIME_PARKS),
        }
    }

    /// Everything, in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        self.process.collect();
        self.collect_runtime();
        self.recorder.render()
    }

    fn collect_runtime(&self) {
        let runtime = Handle::current().metrics();
        let workers = runtime.num_workers();
        self.workers.set(workers as f64);
        self.tasks.set(runtime.num_alive_tasks() as f64);
        self.queue.set(runtime.global_queue_depth() as f64);
        let busy: Duration = (0..workers)
            .map(|worker| runtime.worker_total_busy_duration(worker))
            .sum();
        self.busy.absolute(busy.as_secs());
        self.parks
            .absolute((0..workers).map(|worker| runtime.worker_park_count(worker)).sum());
    }
}
