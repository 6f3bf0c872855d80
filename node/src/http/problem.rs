//! Error responses: `application/problem+json` (RFC 9457), and the errors of HTTP itself.
//!
//! Errors of coupons are mapped in the API. Nothing internal gets into a response: the log gets what a store
//! or a library reported, and the client gets a code and a status.

use std::borrow::Cow;

use http::header::{ACCEPT_ENCODING, ALLOW, HeaderName, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use rand::Rng;
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::json::{self, JsonText};

/// Range of `Retry-After` in a 503, in seconds: hand-offs and fail-overs take about a lease. The time is
/// random, so that clients that were refused together do not return together.
const RETRY_AFTER_SECONDS: std::ops::RangeInclusive<u16> = 1..=4;

/// One error response. `code` is the stable name that clients program against.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    applied: Option<bool>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem of a request that changed nothing. Code and title are written as they are, so they must be
    /// plain ASCII without quotes.
    pub(crate) fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        debug_assert!([code, title].iter().all(|text| {
            text.bytes()
                .all(|byte| (b' '..=b'~').contains(&byte) && !b"\"\\".contains(&byte))
        }));
        Self {
            status,
            code,
            title,
            applied: Some(false),
            header: None,
        }
    }

    /// A 503 that says when to retry.
    pub(crate) fn unavailable(code: &'static str, title: &'static str) -> Self {
        let seconds = rand::rng().random_range(RETRY_AFTER_SECONDS);
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, title).header(RETRY_AFTER, seconds.into())
    }

    /// A 503 because a queue or the number of connections is at its limit.
    pub(crate) fn overloaded() -> Self {
        Self::unavailable("OVERLOADED", "The server is overloaded")
    }

    /// A fault of the server. `applied` is `None` if something may have been changed.
    pub(crate) fn internal(applied: Option<bool>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "Internal server error",
        )
        .applied(applied)
    }

    /// Sets whether anything was changed; `None` means that this is not known.
    pub(crate) fn applied(self, applied: Option<bool>) -> Self {
        Self { applied, ..self }
    }

    /// Returns the status, the code, and whether anything was changed.
    pub(crate) fn parts(&self) -> (StatusCode, &'static str, Option<bool>) {
        (self.status, self.code, self.applied)
    }

    /// Adds a header to the response.
    pub(crate) fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self {
            header: Some((name, value)),
            ..self
        }
    }

    /// The response.
    pub(crate) fn into_response(self) -> Response {
        let mut text = self.common_members();
        text.push(b'}');
        self.response(Ok(text))
    }

    /// Returns the response with further members: the fields of `members`, which must be a struct with at
    /// least one field.
    pub(crate) fn into_response_with(self, members: &impl Serialize) -> Response {
        let mut text = self.common_members();
        let brace = text.len();
        let written = serde_json::to_writer(&mut text, members).map(|()| {
            debug_assert!(text[brace..].starts_with(b"{\"") && text.ends_with(b"}"));
            // The members continue the object that has begun.
            text[brace] = b',';
            text
        });
        self.response(written)
    }

    /// Returns the response with a `detail`.
    pub(crate) fn into_response_with_detail(self, detail: impl Into<Cow<'static, str>>) -> Response {
        #[derive(Serialize)]
        struct Detail {
            detail: Cow<'static, str>,
        }
        self.into_response_with(&Detail {
            detail: detail.into(),
        })
    }

    /// Returns the members that all problems have, without the closing brace.
    ///
    /// These members need no escaping, so they are copied. A serializer would examine every character, which
    /// costs 3,500 instructions (0.5 µs) more. That matters because a refusal is the most frequent response.
    fn common_members(&self) -> JsonText {
        let applied = self
            .applied
            .map_or("null", |applied| if applied { "true" } else { "false" });
        let mut text = json::new_text();
        for part in [
            r#"{"type":"urn:firstcome:problem:"#,
            self.code,
            r#"","title":""#,
            self.title,
            r#"","status":"#,
            self.status.as_str(),
            r#","code":""#,
            self.code,
            r#"","applied":"#,
            applied,
        ] {
            text.extend_from_slice(part.as_bytes());
        }
        text
    }

    fn response(self, text: serde_json::Result<JsonText>) -> Response {
        let mut response = json::response_of_text("application/problem+json", self.status, text);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A field of a request with a value that is not allowed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// The path of the field, like `discount.value`.
    pub(crate) field: String,
    /// What the value must be.
    pub(crate) message: String,
}

impl FieldError {
    /// Makes the error of a field: the path of the field, and what the value must be.
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// What can be wrong with the form of a request.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The request cannot be read: it is not JSON or not an object, or an id or a header is not valid.
    Malformed(String),
    /// The path does not exist.
    NotFound,
    /// The path does not accept the method. Holds the methods that it accepts.
    MethodNotAllowed(String),
    /// The body exceeds this number of bytes.
    BodyTooLarge(usize),
    /// The head exceeds its limit.
    HeaderTooLarge,
    /// The request was not sent completely in time.
    TimedOut,
    /// The media type of the body is not JSON.
    UnsupportedMediaType,
    /// The body is compressed.
    UnsupportedContentCoding,
    /// The body is sent in a transfer coding other than `chunked`.
    UnsupportedTransferCoding,
    /// Fields or parameters have values that are not allowed.
    Invalid(Vec<FieldError>),
}

impl RequestError {
    /// Makes the error of one field with a value that is not allowed.
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }

    /// The response.
    pub(crate) fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Errors {
            errors: Vec<FieldError>,
        }
        use StatusCode as S;
        match self {
            Self::Malformed(detail) => {
                Problem::new(S::BAD_REQUEST, "MALFORMED", "The request cannot be read")
                    .into_response_with_detail(detail)
            }
            Self::NotFound => {
                Problem::new(S::NOT_FOUND, "NOT_FOUND", "The path does not exist").into_response()
            }
            Self::MethodNotAllowed(allowed) => method_not_allowed(&allowed),
            Self::BodyTooLarge(bytes_max) => {
                Problem::new(S::PAYLOAD_TOO_LARGE, "TOO_LARGE", "The body is too large")
                    .into_response_with_detail(format!("at most {bytes_max} bytes"))
            }
            Self::HeaderTooLarge => Problem::new(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "HEADER_TOO_LARGE",
                "The headers are too large",
            )
            .into_response(),
            Self::TimedOut => Problem::new(
                S::REQUEST_TIMEOUT,
                "REQUEST_TIMEOUT",
                "The request was not sent in time",
            )
            .into_response(),
            Self::UnsupportedMediaType => Problem::new(
                S::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "The body must be JSON",
            )
            .into_response_with_detail("Content-Type must be application/json"),
            // RFC 9110, section 15.5.16: the header names the codings that would be accepted.
            Self::UnsupportedContentCoding => Problem::new(
                S::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "The body must not be encoded",
            )
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .into_response_with_detail("Content-Encoding must be absent or identity"),
            Self::UnsupportedTransferCoding => Problem::new(
                S::NOT_IMPLEMENTED,
                "NOT_IMPLEMENTED",
                "The transfer coding is not supported",
            )
            .into_response_with_detail("Transfer-Encoding must be absent or chunked"),
            Self::Invalid(errors) => {
                Problem::new(S::UNPROCESSABLE_ENTITY, "INVALID", "Some fields are not valid")
                    .into_response_with(&Errors { errors })
            }
        }
    }
}

fn method_not_allowed(allowed: &str) -> Response {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "METHOD_NOT_ALLOWED",
        "The path does not accept this method",
    );
    match HeaderValue::from_str(allowed) {
        Ok(allowed) => problem.header(ALLOW, allowed).into_response(),
        // Names of methods are ASCII.
        Err(_) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    async fn body(response: Response) -> (u16, Value) {
        assert_eq!(
            response.headers()[http::header::CONTENT_TYPE],
            "application/problem+json"
        );
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn an_error_of_a_request_has_exactly_the_expected_members() {
        for (error, status, code, members) in [
            (
                RequestError::Malformed("a \"quoted\" \\ word\n".into()),
                400,
                "MALFORMED",
                json!({"detail": "a \"quoted\" \\ word\n"}),
            ),
            (RequestError::NotFound, 404, "NOT_FOUND", json!({})),
            (
                RequestError::MethodNotAllowed("GET".into()),
                405,
                "METHOD_NOT_ALLOWED",
                json!({}),
            ),
            (
                RequestError::BodyTooLarge(16_384),
                413,
                "TOO_LARGE",
                json!({"detail": "at most 16384 bytes"}),
            ),
            (RequestError::HeaderTooLarge, 431, "HEADER_TOO_LARGE", json!({})),
            (RequestError::TimedOut, 408, "REQUEST_TIMEOUT", json!({})),
            (
                RequestError::UnsupportedMediaType,
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                json!({"detail": "Content-Type must be application/json"}),
            ),
            (
                RequestError::UnsupportedContentCoding,
                415,
                "UNSUPPORTED_MEDIA_TYPE",
                json!({"detail": "Content-Encoding must be absent or identity"}),
            ),
            (
                RequestError::UnsupportedTransferCoding,
                501,
                "NOT_IMPLEMENTED",
                json!({"detail": "Transfer-Encoding must be absent or chunked"}),
            ),
            (
                RequestError::invalid("title", "is required"),
                422,
                "INVALID",
                json!({"errors": [{"field": "title", "message": "is required"}]}),
            ),
        ] {
            assert_problem(body(error.into_response()).await, status, code, &members);
        }
    }

    fn assert_problem((status, mut body): (u16, Value), expected: u16, code: &str, members: &Value) {
        assert_eq!(status, expected, "{code}");
        let title = body.as_object_mut().unwrap().remove("title").unwrap();
        assert!(!title.as_str().unwrap().is_empty(), "{code}");
        let urn = format!("urn:firstcome:problem:{code}");
        let mut whole = json!({"type": urn, "status": status, "code": code, "applied": false});
        whole
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        assert_eq!(body, whole);
    }

    #[tokio::test]
    async fn an_internal_error_says_whether_anything_may_have_changed() {
        for applied in [Some(false), None] {
            let (status, body) = body(Problem::internal(applied).into_response()).await;
            assert_eq!((status, &body["applied"]), (500, &json!(applied)));
        }
    }
}
