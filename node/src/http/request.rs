//! What is common to all requests: request id, client address, span, metrics, CORS and access log.

use std::any::Any;
use std::cell::LazyCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::{Body, Incoming};
use tracing::field::Empty;
use tracing::{Instrument, Level, Span};
use warp::reply::Response;

use super::client_address::client_address;
use super::connection::Served;
use super::cors::Cors;
use super::head::Head;
use super::listener::{IsHot, Shared};
use super::problem::Problem;
use super::response_body::{HeldUntilSent, SendGuard, SharedBody};
use super::route_metrics::label;
use super::streamed::StreamedBody;
use super::trace::{self, TRACERESPONSE, Trace};
use super::unsent::{ForOperators, PORTION_BYTES, Reservation};
use crate::config::AccessLog;
use crate::log::Quoted;

/// Header with the request id.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Value of `X-Content-Type-Options` in every response: browsers must not guess a type, so that they never
/// run a text from a client as a page or a script.
pub(super) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Maximum length of a request id that is accepted from a client.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Options of all responses.
#[derive(Debug)]
pub(super) struct ResponseOptions {
    /// Requests that are logged.
    pub(super) access: AccessLog,
    /// Origins whose pages may read responses.
    pub(super) cors: Option<Arc<Cors>>,
    /// Tells by method and path which requests are hot.
    pub(super) is_hot: IsHot,
}

/// Splits the head off, and adds it to the request as an extension for the handler.
pub(super) fn split(
    mut request: Request<Incoming>,
    peer: IpAddr,
    shared: &Shared,
) -> (Arc<Head>, Request<Incoming>) {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let headers = std::mem::take(request.headers_mut());
    let is_hot = (shared.responses.is_hot)(request.method(), request.uri().path());
    let traced = shared.sampler.begin(&headers, request.uri().path());
    let mut head = Head::new(request.method().clone(), query, headers, peer);
    head.client = client_address(peer, &head.headers, &shared.trusted_proxies);
    head.is_hot = is_hot;
    head.span = traced;
    head.body_deadline = Some(Arc::clone(&shared.body_deadline));
    let head = Arc::new(head);
    request.extensions_mut().insert(Arc::clone(&head));
    (head, request)
}

/// Waits for the response, adds its general headers, and records it. Also returns what is held until
/// the body is sent.
pub(super) async fn respond(
    head: &Head,
    served: &Served,
    response: impl Future<Output = Result<Response, Infallible>>,
) -> (Response, SendGuard) {
    let options = &served.shared.responses;
    let started = Instant::now();
    let id = id(&head.headers);
    let trace = Trace::of(&head.headers);
    // A span costs as much as all other work for a sold-out coupon. Without debug logging, nothing is logged
    // about a hot request before its response. So its span is created only when there is something to log.
    let early = if head.is_hot && !tracing::enabled!(Level::DEBUG) {
        Span::none()
    } else {
        span(head, &id, trace)
    };
    let result = AssertUnwindSafe(response)
        .catch_unwind()
        .instrument(early.clone())
        .await;
    let span = || {
        if early.is_none() {
            span(head, &id, trace)
        } else {
            early
        }
    };
    let (mut response, span) = match result {
        Ok(Ok(response)) => (response, LazyCell::new(span)),
        Err(panic) => {
            let span = LazyCell::new(span);
            span.in_scope(|| tracing::error!(panic = panic_message(&*panic), "handler panicked"));
            (Problem::internal(None).into_response(), span)
        }
    };
    let held = response.extensions_mut().remove::<HeldUntilSent>();
    let (mut response, reservation) = reserve(head, served, response);
    if let Some(cors) = &options.cors {
        response = cors.complete(head, response);
    }
    let took = started.elapsed();
    head.route().record(&head.method, response.status(), took);
    end_span(head, &id, response.status());
    log(head, response.status(), took, options.access, span);
    if let Some(value) = trace::response(&head.span, trace) {
        response.headers_mut().insert(TRACERESPONSE, value);
    }
    response.headers_mut().insert(X_REQUEST_ID, id);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    let guard = SendGuard {
        _reservation: reservation,
        _held: held,
    };
    (response, guard)
}

/// Reserves memory for the body of a response. If no memory is left, a read is refused. The response to a
/// change is sent in any case, because the change was made; such responses are short, or their number is
/// bounded until they are sent.
fn reserve(head: &Head, served: &Served, response: Response) -> (Response, Option<Reservation>) {
    // The size of a stream is not known, but only one part of it is in memory at a time.
    let streamed = response.extensions().get::<StreamedBody>();
    let bytes = match streamed {
        Some(streamed) => Some(streamed.bytes_max),
        None => response
            .body()
            .size_hint()
            .exact()
            .and_then(|bytes| usize::try_from(bytes).ok()),
    };
    let Some(bytes) = bytes.filter(|bytes| *bytes > PORTION_BYTES) else {
        return (response, None);
    };
    if response.extensions().get::<SharedBody>().is_some() {
        return (response, None);
    }
    let (unsent, of_address) = (&served.shared.unsent, served.place.unsent());
    if !head.method.is_safe() {
        return (response, Some(unsent.count(bytes, of_address)));
    }
    let taken = match response.extensions().get::<ForOperators>() {
        Some(ForOperators) => unsent.take_for_operator(bytes, of_address),
        None => unsent.take(bytes, of_address),
    };
    match taken {
        Some(reservation) => (response, Some(reservation)),
        None => (Problem::overloaded().into_response(), None),
    }
}

/// The span of everything that is logged about a request.
fn span(head: &Head, id: &HeaderValue, trace: Option<Trace<'_>>) -> Span {
    let id = id.to_str().unwrap_or_default();
    let method = Quoted(head.method.as_str());
    let span = tracing::error_span!("request", id, client = %head.client, %method, trace_id = Empty);
    match (head.span.context(), trace) {
        (Some(context), _) => span.record("trace_id", format!("{:032x}", context.trace_id())),
        (None, Some(trace)) => span.record("trace_id", trace.trace_id),
        (None, None) => &span,
    };
    span
}

/// Ends the traced span of a request.
fn end_span(head: &Head, id: &HeaderValue, status: StatusCode) {
    head.span.edit(|record| {
        let (method, route) = (label(&head.method), head.route().label());
        record.name = format!("{method} {route}").into();
        record.note("http.request.method", method);
        record.note("http.route", route);
        record.note("http.response.status_code", u64::from(status.as_u16()));
        record.note("firstcome.request_id", id.to_str().unwrap_or_default().to_owned());
        if status.is_server_error() {
            record.fail(status.canonical_reason().unwrap_or_default());
        }
    });
    head.span.end();
}

/// Writes a line to the access log if the request is to be logged there. Otherwise logs the line at debug
/// level. The line leaves out id, client, method and trace, because the span has them.
fn log(
    head: &Head,
    status: StatusCode,
    took: Duration,
    access: AccessLog,
    span: LazyCell<Span, impl FnOnce() -> Span>,
) {
    let is_enabled = match access {
        AccessLog::Off => false,
        AccessLog::Errors => status.is_server_error(),
        AccessLog::All => true,
        AccessLog::Sample(one_in) => rand::random_range(0..one_in.get()) == 0,
    };
    // A number in a fixed unit, so that programs can compare and sum it.
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let (route, status) = (head.route().label(), status.as_u16());
    if is_enabled {
        span.in_scope(|| tracing::info!(target: "access", route, status, took_us, "answered"));
    } else if tracing::enabled!(Level::DEBUG) {
        span.in_scope(|| tracing::debug!(route, status, took_us, "answered"));
    }
}

/// Returns the id that the client sent if it is valid, otherwise a new id.
fn id(headers: &HeaderMap) -> HeaderValue {
    let is_valid = |id: &&HeaderValue| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers
        .get(X_REQUEST_ID)
        .filter(is_valid)
        .cloned()
        .unwrap_or_else(new_id)
}

/// Returns a new request id.
pub(super) fn new_id() -> HeaderValue {
    let mut digits = [0; 32];
    // Each byte gives two digits, and digits are valid in a header.
    let _ = hex::encode_to_slice(rand::random::<[u8; 16]>(), &mut digits);
    HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// Returns the message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use actors::trace::{SpanKind, SpanReceiver, SpanRecord, Spans};

    use super::*;

    #[derive(Debug, Default)]
    struct Received(Mutex<Vec<SpanRecord>>);

    impl SpanReceiver for Received {
        fn receive(&self, span: SpanRecord) {
            self.0.lock().unwrap().push(span);
        }
    }

    #[test]
    fn a_span_does_not_keep_a_method_that_a_client_made_up() {
        let received = Arc::new(Received::default());
        let spans = Spans::to(Arc::clone(&received) as Arc<dyn SpanReceiver>);
        let methods = ["PATCH".to_owned(), "X".repeat(16_000)];
        for method in &methods {
            let method = method.parse().unwrap();
            let mut head = Head::new(method, String::new(), HeaderMap::new(), [127, 0, 0, 1].into());
            head.span = spans.root("request", SpanKind::Server);
            end_span(&head, &HeaderValue::from_static("id"), StatusCode::OK);
        }
        let records = received.0.lock().unwrap();
        let names: Vec<&str> = records.iter().map(|record| &*record.name).collect();
        assert_eq!(names, ["PATCH unmatched", "other unmatched"]);
        assert!(!format!("{records:?}").contains("XX"));
    }
}
