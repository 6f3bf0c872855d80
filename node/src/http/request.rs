//! What surrounds every request: its id, its client, its span, what is counted of it, and the access log.

use std::any::Any;
use std::cell::LazyCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use ipnet::IpNet;
use tracing::field::{self, Empty};
use tracing::{Instrument, Level, Span};
use warp::reply::Response;

use super::call::{Head, Patience};
use super::client_address::client;
use super::cors::Cors;
use super::problem::Problem;
use super::route;
use super::trace::{TRACERESPONSE, Trace};
use crate::config::AccessLog;

/// Carries the request's id.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id of a client's that is repeated.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// What is done to every answer on its way out.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    /// Which are logged.
    pub(super) access: AccessLog,
    /// Whose pages may read them.
    pub(super) cors: Option<Arc<Cors>>,
}

/// Takes off what handlers want to share; the routes below see it as an extension.
pub(super) fn behead(
    mut request: Request<Incoming>,
    peer: IpAddr,
    trusted: &[IpNet],
    patience: &Arc<Patience>,
) -> (Arc<Head>, Request<Incoming>) {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let headers = std::mem::take(request.headers_mut());
    let is_issue = request.method() == Method::POST && request.uri().path().ends_with("/issuances");
    let mut head = Head::new(request.method().clone(), query, headers, peer);
    head.client = client(peer, &head.headers, trusted);
    head.is_issue = is_issue;
    head.patience = Some(Arc::clone(patience));
    let head = Arc::new(head);
    request.extensions_mut().insert(Arc::clone(&head));
    (head, request)
}

/// Waits for the answer and completes it.
pub(super) async fn respond(
    head: &Head,
    leaving: Leaving,
    answer: impl Future<Output = Result<Response, Infallible>>,
) -> Response {
    let started = Instant::now();
    let id = id(&head.headers);
    let trace = Trace::of(&head.headers);
    // A span costs as much as all else that is done for a sold-out coupon. An issue request says nothing on
    // its way unless somebody debugs, so it has one only for what is said of it in the end.
    let early = if head.is_issue && !tracing::enabled!(Level::DEBUG) {
        Span::none()
    } else {
        span(head, &id, trace)
    };
    let answered = AssertUnwindSafe(answer)
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
    let (mut response, span) = match answered {
        Ok(Ok(response)) => (response, LazyCell::new(span)),
        Err(panic) => {
            let span = LazyCell::new(span);
            span.in_scope(|| tracing::error!(panic = panic_message(&*panic), "a handler panicked"));
            (Problem::Internal { applied: None }.into_response(), span)
        }
    };
    if let Some(cors) = &leaving.cors {
        response = cors.complete(head, response);
    }
    let took = started.elapsed();
    route::answered(head.route(), &head.method, response.status(), took);
    log(head, response.status(), took, leaving.access, span);
    if let Some(value) = trace.and_then(|trace| trace.response()) {
        response.headers_mut().insert(TRACERESPONSE, value);
    }
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}

/// What everything that is logged of a request stands in.
fn span(head: &Head, id: &HeaderValue, trace: Option<Trace<'_>>) -> Span {
    let id = id.to_str().unwrap_or_default();
    let span =
        tracing::error_span!("request", id, client = %head.client, method = %head.method, trace_id = Empty);
    if let Some(trace) = trace {
        span.record("trace_id", trace.trace_id);
    }
    span
}

/// One line for the access log where it is wanted, else one for whoever debugs. The span has id, client,
/// method and trace.
fn log(
    head: &Head,
    status: StatusCode,
    took: Duration,
    access: AccessLog,
    span: LazyCell<Span, impl FnOnce() -> Span>,
) {
    let is_wanted = match access {
        AccessLog::Off => false,
        AccessLog::Errors => status.is_server_error(),
        AccessLog::All => true,
        AccessLog::Sample(one_in) => rand::random_range(0..one_in.get()) == 0,
    };
    let (route, status, took) = (head.route().template(), status.as_u16(), field::debug(took));
    if is_wanted {
        span.in_scope(|| tracing::info!(target: "access", route, status, took, "answered"));
    } else if tracing::enabled!(Level::DEBUG) {
        span.in_scope(|| tracing::debug!(route, status, took, "answered"));
    }
}

/// The client's id for the request if it is a sane one, else a new one.
fn id(headers: &HeaderMap) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers
        .get(X_REQUEST_ID)
        .filter(sane)
        .cloned()
        .unwrap_or_else(new_id)
}

/// An id for a request without one.
pub(super) fn new_id() -> HeaderValue {
    let mut digits = [0; 32];
    // They are twice as many as the bytes, and always a header value.
    let _ = hex::encode_to_slice(rand::random::<[u8; 16]>(), &mut digits);
    HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// What a panic said, if it said it in words.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
