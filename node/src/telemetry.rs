//! The recorder of metrics, with those of the process and the runtime.

pub(crate) mod certificates;
mod coupons;
mod process;
pub(crate) mod spans;

use std::sync::OnceLock;
use std::time::Duration;

use crate::log;
use crate::metrics as node;
use actors::coupon::metrics as coupon;
use actors::metrics::{self as engine, Metric, MetricKind};
pub(crate) use coupons::CouponFigures;
use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::runtime::Handle;

/// The commit this program was built from.
pub const COMMIT: &str = env!("FIRSTCOME_COMMIT");

/// Interval at which the exporter compacts its histograms, which grow until then.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Renders the metrics of this process.
pub(crate) struct Metrics {
    recorder: PrometheusHandle,
    workers: Gauge,
    tasks: Gauge,
    queue: Gauge,
    parks: Counter,
    lines_dropped: Counter,
    log_queue: Gauge,
}

/// Returns the metrics of this process. Recording begins with the first call.
pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(Metrics::install)
}

/// Compacts histograms, for as long as the future is polled.
pub(crate) async fn upkeep() {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        metrics().recorder.run_upkeep();
    }
}

/// Returns the tables of the metrics that the recorder has: the node's, the engine's and those of coupons.
fn tables() -> impl Iterator<Item = &'static [Metric]> {
    [node::METRICS, engine::METRICS, coupon::METRICS].into_iter()
}

impl Metrics {
    fn install() -> Self {
        let buckets = tables().flatten().filter_map(|metric| match metric.kind {
            MetricKind::Histogram(bounds) => Some((metric.name, bounds)),
            MetricKind::Counter | MetricKind::Gauge => None,
        });
        let builder = buckets.fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
                .expect("the table's bounds are not empty")
        });
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::error!("another metrics recorder is installed; /metrics will be empty");
        }
        tables().for_each(engine::describe);
        engine::register();
        coupon::register();
        node::register();
        metrics::gauge!(node::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "commit" => COMMIT)
            .set(1.0);
        Self {
            recorder: handle,
            workers: metrics::gauge!(node::RUNTIME_WORKERS),
            tasks: metrics::gauge!(node::RUNTIME_TASKS),
            queue: metrics::gauge!(node::RUNTIME_QUEUE),
            parks: metrics::counter!(node::RUNTIME_PARKS),
            lines_dropped: metrics::counter!(node::LOG_LINES_DROPPED),
            log_queue: node::queue("log", log::WAITING_BYTES_MAX),
        }
    }

    /// Returns all metrics, including those of these coupons, in the text format of Prometheus.
    pub(crate) fn render(&self, coupons: &[CouponFigures]) -> String {
        let busy = self.collect_runtime();
        self.lines_dropped.absolute(log::dropped_lines());
        self.log_queue.set(log::waiting_bytes() as f64);
        let mut text = self.recorder.render();
        process::write_all(&mut text);
        coupons::write_all(&mut text, coupons);
        // The recorder cannot have this counter, because its counters are whole numbers.
        for metric in node::METRICS
            .iter()
            .filter(|metric| metric.name == node::RUNTIME_BUSY)
        {
            process::write(&mut text, metric.name, "counter", metric.help, busy.as_secs_f64());
        }
        text
    }

    /// Sets the metrics of the runtime, and returns the busy time of all its workers.
    fn collect_runtime(&self) -> Duration {
        let runtime = Handle::current().metrics();
        let workers = runtime.num_workers();
        self.workers.set(workers as f64);
        self.tasks.set(runtime.num_alive_tasks() as f64);
        self.queue.set(runtime.global_queue_depth() as f64);
        self.parks
            .absolute((0..workers).map(|worker| runtime.worker_park_count(worker)).sum());
        (0..workers)
            .map(|worker| runtime.worker_total_busy_duration(worker))
            .sum()
    }
}
