//! CORS (Fetch standard): the headers that let pages of other origins read responses.
//!
//! The headers are added after the handler, so that refusals and the response to a panic have them as well: a
//! page must be able to read a 409 and a 500. Responses that are made before a request is parsed (400, 408,
//! 431, and the 503 to a refused connection) do not have these headers, because the origin is not known.

use std::collections::HashSet;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ORIGIN,
    VARY,
};
use http::{HeaderValue, Method, StatusCode};
use warp::reply::Response;

use super::head::Head;
use crate::config::Origin;

/// Request headers that these pages may send, besides the headers that every page may send.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, traceparent, tracestate, x-request-id, \
     x-user-id",
);

/// Response headers that these pages may read, besides the headers that every page may read.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "etag, idempotent-replayed, location, retry-after, traceresponse, www-authenticate, x-request-id",
);

/// Seconds for which browsers cache a preflight: ten minutes, so that a removed origin is soon refused.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Origins whose pages may read responses.
#[derive(Debug)]
pub(crate) struct Cors(HashSet<HeaderValue>);

impl Cors {
    /// Returns `None` if there are no origins. Responses then stay as they are.
    pub(crate) fn new(origins: &[Origin]) -> Option<Self> {
        // Origins are ASCII, which is valid in a header.
        let origins: HashSet<HeaderValue> = origins
            .iter()
            .filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok())
            .collect();
        (!origins.is_empty()).then_some(Self(origins))
    }

    /// Adds the headers to a response.
    ///
    /// Routes do not handle preflights. They respond to a preflight with 405 and the methods that they
    /// accept, as to any method that they do not accept. This function needs only these methods to answer the
    /// preflight.
    pub(crate) fn complete(&self, head: &Head, mut response: Response) -> Response {
        let origin = head.headers.get(ORIGIN).filter(|origin| self.0.contains(*origin));
        if let Some(origin) = origin {
            if let Some(methods) = preflight_methods(head, &response) {
                response = Response::default();
                *response.status_mut() = StatusCode::NO_CONTENT;
                let headers = response.headers_mut();
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
                headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            } else {
                response
                    .headers_mut()
                    .insert(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
            }
            response
                .headers_mut()
                .insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        // Caches must not use the response to one origin for another origin, or for a request without an
        // origin.
        response
            .headers_mut()
            .append(VARY, HeaderValue::from_static("origin"));
        response
    }
}

/// Returns the methods of the route, if the request is a preflight.
fn preflight_methods(head: &Head, response: &Response) -> Option<HeaderValue> {
    let is_preflight =
        head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let refused = is_preflight && response.status() == StatusCode::METHOD_NOT_ALLOWED;
    refused.then(|| response.headers().get(ALLOW).cloned()).flatten()
}
