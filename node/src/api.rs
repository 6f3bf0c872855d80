//! The HTTP API: one file per resource, one table of routes, one mapping of errors.
//!
//! A handler authenticates the principal, parses the request, calls the service and writes the response.

mod bulk;
mod changes;
mod cluster;
mod coupons;
mod credentials;
mod docs;
mod error;
mod exports;
mod issuances;
mod list;
mod me;
mod openapi;
mod operations;
mod redirect;
mod routes;
mod statistics;
mod uses;

use std::fmt;
use std::io::Write;

use actors::ids::RequestKey;
use http::HeaderValue;
use http::header::HeaderName;
use smallvec::SmallVec;
use warp::reply::Response;

pub(crate) use self::routes::{TRACED_PATHS, is_hot, register_metrics, routes};

use self::error::Error;
use crate::http::call::Call;
use crate::http::head::Head;
use crate::http::problem::RequestError;
use crate::service::Service;
use crate::service::auth::Principal;

/// The result of a handler.
type Answer = Result<Response, Error>;

/// Identifies a request, so that a retry is not executed twice.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks the response to a retry.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Authenticates the principal of a request.
fn principal(service: &Service, call: &Call) -> Result<Principal, Error> {
    credentials::principal(service.authenticator(), &call.head)
}

/// Parses `Idempotency-Key`.
fn request_key(head: &Head) -> Result<Option<RequestKey>, RequestError> {
    let key = head.text(&IDEMPOTENCY_KEY)?.map(RequestKey::parse).transpose();
    key.map_err(|_| {
        RequestError::Malformed("Idempotency-Key must be 1 to 255 visible ASCII characters".to_owned())
    })
}

/// Sets a header to a short ASCII text.
fn set_header(response: &mut Response, name: HeaderName, value: fmt::Arguments<'_>) {
    // The longest value is the path of an issuance, with two numbers.
    let mut text = SmallVec::<[u8; 64]>::new();
    // Ids and versions are ASCII, which is valid in a header.
    if let (Ok(()), Ok(value)) = (text.write_fmt(value), HeaderValue::from_bytes(&text)) {
        response.headers_mut().insert(name, value);
    }
}

/// Marks a response as a replay if it repeats the result of an earlier request with the same key.
fn set_replayed(response: &mut Response, replayed: bool) {
    if replayed {
        response
            .headers_mut()
            .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
}
