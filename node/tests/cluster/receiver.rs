//! A small receiver of OpenTelemetry's traces: OTLP over HTTP, with protocol buffers.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A span, and the node that sent it.
#[derive(Debug, Clone)]
pub struct Received {
    pub node: String,
    pub span: Span,
}

impl Received {
    /// Returns an attribute as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    /// Returns the names of its events, in order.
    pub fn events(&self) -> Vec<&str> {
        self.span.events.iter().map(|event| event.name.as_str()).collect()
    }

    /// True if this span is a part of the other.
    pub fn is_part_of(&self, other: &Self) -> bool {
        self.span.trace_id == other.span.trace_id && self.span.parent_span_id == other.span.span_id
    }

    /// True if this span links to the other.
    pub fn links_to(&self, other: &Self) -> bool {
        let mut links = self.span.links.iter();
        links.any(|link| link.trace_id == other.span.trace_id && link.span_id == other.span.span_id)
    }
}

/// A running receiver, which ends with this value.
pub struct Receiver {
    /// Its URL, without a path.
    pub url: String,
    spans: Arc<Mutex<Vec<Received>>>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans: Arc<Mutex<Vec<Received>>> = Arc::default();
        let received = Arc::clone(&spans);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let received = Arc::clone(&received);
                let service = service_fn(move |request| take(request, Arc::clone(&received)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, spans, serving }
    }

    /// Returns all spans so far.
    pub fn spans(&self) -> Vec<Received> {
        self.spans.lock().unwrap().clone()
    }

    /// Returns the spans of this trace so far.
    pub fn of_trace(&self, trace_id: &str) -> Vec<Received> {
        let id = u128::from_str_radix(trace_id, 16).unwrap().to_be_bytes();
        let mut spans = self.spans();
        spans.retain(|received| received.span.trace_id == id);
        spans
    }
}

async fn take(
    request: Request<Incoming>,
    received: Arc<Mutex<Vec<Received>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(
        (request.method(), request.uri().path()),
        (&Method::POST, "/v1/traces")
    );
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let export = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in export.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        assert_eq!(text(&attributes, "service.name").as_deref(), Some("firstcome"));
        let node = text(&attributes, "service.instance.id").unwrap();
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        let spans = spans.map(|span| Received {
            node: node.clone(),
            span,
        });
        received.lock().unwrap().extend(spans);
    }
    let response = Response::builder().header("content-type", "application/x-protobuf");
    Ok(response.body(Full::default()).unwrap())
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()? {
        AnyValue {
            value: Some(Value::StringValue(text)),
        } => Some(text.clone()),
        AnyValue {
            value: Some(Value::IntValue(number)),
        } => Some(number.to_string()),
        AnyValue {
            value: Some(Value::BoolValue(truth)),
        } => Some(truth.to_string()),
        _ => None,
    }
}
