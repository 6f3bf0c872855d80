//! Sends spans to a receiver of OpenTelemetry's traces, as OTLP over HTTP.
//!
//! Spans wait in a bounded queue for a task that sends them in batches. A span that finds the queue full, or
//! whose batch the receiver does not take in time, is dropped and counted. Nothing ever waits for a receiver,
//! except that a stop gives it a moment.

mod client;
mod record;

use std::sync::Arc;
use std::time::Duration;

use actors::ids::NodeId;
use actors::log_limit::LogLimit;
use actors::trace::{SpanReceiver, SpanRecord, Spans};
use metrics::{Counter, Gauge};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::client::Client;
use crate::config::{InvalidConfig, Trace};
use crate::metrics as node;

/// Maximum number of spans in a batch, as in OpenTelemetry.
const BATCH_SPANS_MAX: usize = 512;
/// Time after the first span in which others join its batch.
const GATHER: Duration = Duration::from_secs(1);
/// Time that a stop gives the receiver for the last spans.
const STOP_LIMIT: Duration = Duration::from_millis(250);

/// A receiver that is away fails at least once a second.
static FAILURES: LogLimit = LogLimit::new(1, Duration::from_secs(60), |suppressed| {
    tracing::warn!(suppressed, "further batches of spans were not sent");
});

/// The spans of a node on their way to the receiver, if there is one.
#[derive(Debug)]
pub(crate) struct SpanExport {
    spans: Spans,
    /// True once the node stops.
    stopping: watch::Sender<bool>,
    sending: Option<JoinHandle<()>>,
}

impl SpanExport {
    /// Starts sending, if the configuration names a receiver.
    pub(crate) fn start(trace: &Trace, id: &NodeId) -> Result<Self, InvalidConfig> {
        let (stopping, is_stopping) = watch::channel(false);
        let length = node::queue("spans", trace.queue_max);
        let Some(endpoint) = trace.receiver() else {
            length.set(0.0);
            let spans = Spans::default();
            return Ok(Self {
                spans,
                stopping,
                sending: None,
            });
        };
        tracing::info!(%endpoint, ratio = trace.ratio, "sending traces");
        let (sender, queue) = mpsc::channel(trace.queue_max);
        let sending = Sending {
            exporter: exporter(trace, endpoint.as_str(), id)?,
            timeout: trace.timeout,
            queue,
            length: length.clone(),
            is_stopping,
            sent: metrics::counter!(node::TRACE_SPANS_SENT),
            not_sent: metrics::counter!(node::TRACE_SPANS_DROPPED, "reason" => "not_sent"),
        };
        let receiver = Queue {
            sender,
            length,
            dropped: metrics::counter!(node::TRACE_SPANS_DROPPED, "reason" => "queue_full"),
        };
        Ok(Self {
            spans: Spans::to(Arc::new(receiver)),
            stopping,
            sending: Some(tokio::spawn(sending.run())),
        })
    }

    /// Returns where spans go.
    pub(crate) fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Sends what waits, while the receiver takes it within a moment. Spans that end later are lost.
    pub(crate) async fn stop(self) {
        self.stopping.send_replace(true);
        if let Some(mut sending) = self.sending {
            let _ = tokio::time::timeout(STOP_LIMIT, &mut sending).await;
            sending.abort();
        }
    }
}

fn exporter(trace: &Trace, endpoint: &str, id: &NodeId) -> Result<SpanExporter, InvalidConfig> {
    let built = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::default())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(trace.timeout)
        // The library would block its thread between two attempts.
        .with_retry_policy(RetryPolicy::disabled())
        .build();
    let mut exporter = built.map_err(|error| InvalidConfig(format!("trace.endpoint: {error}")))?;
    let resource = Resource::builder_empty()
        .with_service_name("firstcome")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", id.to_string()),
        ])
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

/// The sending end of the queue.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<SpanRecord>,
    length: Gauge,
    dropped: Counter,
}

impl SpanReceiver for Queue {
    fn receive(&self, span: SpanRecord) {
        match self.sender.try_send(span) {
            Ok(()) => self.length.increment(1.0),
            Err(_full) => self.dropped.increment(1),
        }
    }
}

/// The task that sends.
struct Sending {
    exporter: SpanExporter,
    timeout: Duration,
    queue: mpsc::Receiver<SpanRecord>,
    length: Gauge,
    is_stopping: watch::Receiver<bool>,
    sent: Counter,
    not_sent: Counter,
}

impl Sending {
    async fn run(mut self) {
        loop {
            let batch = self.next_batch().await;
            if batch.is_empty() {
                return;
            }
            self.length.decrement(batch.len() as f64);
            self.send(batch).await;
        }
    }

    /// Waits for spans, and for those that join the first. Returns no span once the node stops and none wait.
    async fn next_batch(&mut self) -> Vec<SpanRecord> {
        let mut batch = Vec::new();
        let stopping = self.is_stopping.wait_for(|is_stopping| *is_stopping);
        tokio::select! {
            biased;
            _ = self.queue.recv_many(&mut batch, BATCH_SPANS_MAX) => {}
            _ = stopping => return batch,
        }
        let gathered = tokio::time::sleep(GATHER);
        tokio::pin!(gathered);
        while batch.len() < BATCH_SPANS_MAX {
            let room = BATCH_SPANS_MAX - batch.len();
            tokio::select! {
                biased;
                count = self.queue.recv_many(&mut batch, room) => if count == 0 { break },
                () = &mut gathered => break,
                _ = self.is_stopping.wait_for(|is_stopping| *is_stopping) => break,
            }
        }
        batch
    }

    async fn send(&self, batch: Vec<SpanRecord>) {
        let count = batch.len() as u64;
        let spans = batch.into_iter().map(record::convert).collect();
        let why = match tokio::time::timeout(self.timeout, self.exporter.export(spans)).await {
            Ok(Ok(())) => return self.sent.increment(count),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no answer within {:?}", self.timeout),
        };
        self.not_sent.increment(count);
        if FAILURES.admits() {
            tracing::warn!(spans = count, why, "a batch of spans was not sent");
        }
    }
}
