//! What browsers must be told before they show our answers to a page of another origin (the CORS protocol of
//! the Fetch standard).
//!
//! It stands where answers leave, so that refusals carry it as well, and also what is said of a handler that
//! panicked: a page must be able to read a 409 and a 500. What is said before a request is understood (400,
//! 408, 431, and 503 at the door) has no origin to name.

use std::collections::HashSet;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ORIGIN,
    VARY,
};
use http::{HeaderValue, Method, StatusCode};
use warp::reply::Response;

use super::call::Head;
use crate::config::Origin;

/// What requests may carry besides what every page may send.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, traceparent, tracestate, x-request-id, x-user-id",
);

/// What pages may read of answers besides what every page may read.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "etag, idempotent-replayed, location, retry-after, traceresponse, www-authenticate, x-request-id",
);

/// How long a browser need not ask again, in seconds: ten minutes, so that an origin that was taken out is
/// soon forgotten.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Origins whose pages may read our answers.
#[derive(Debug)]
pub(crate) struct Cors(HashSet<HeaderValue>);

impl Cors {
    /// None, where there are no such origins: then answers stay as they are.
    pub(crate) fn new(origins: &[Origin]) -> Option<Self> {
        // Origins are ASCII, which is what a header value must be.
        let origins: HashSet<HeaderValue> = origins
            .iter()
            .filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok())
            .collect();
        (!origins.is_empty()).then_some(Self(origins))
    }

    /// Completes an answer that is about to leave.
    ///
    /// A question whether a request may be sent (a preflight) has been answered by its route like any method
    /// that it does not take: 405, with those that it takes. That is all there is to tell, so the routes need
    /// not know of such questions.
    pub(crate) fn complete(&self, head: &Head, mut response: Response) -> Response {
        let origin = head.headers.get(ORIGIN).filter(|origin| self.0.contains(*origin));
        if let Some(origin) = origin {
            if let Some(methods) = asked_before(head, &response) {
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
        // Whatever keeps answers must not give one origin's to another, or one without an origin to any.
        response
            .headers_mut()
            .append(VARY, HeaderValue::from_static("origin"));
        response
    }
}

/// The methods of the route, if it was asked whether a request may be sent.
fn asked_before(head: &Head, response: &Response) -> Option<HeaderValue> {
    let asked = head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let refused = asked && response.status() == StatusCode::METHOD_NOT_ALLOWED;
    refused.then(|| response.headers().get(ALLOW).cloned()).flatten()
}
