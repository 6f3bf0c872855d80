//! Responses outside of any route: refused connections, timeouts, and replacements of hyper's own responses.
//!
//! Each of these responses is a problem with a request id, even if no request could be parsed.

use std::io;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use http::StatusCode;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::problem::RequestError;
use super::request;
use warp::reply::Response;

/// Maximum number of connections that are refused at the same time. A refusal takes a round trip, and at most
/// [`REFUSAL_TIMEOUT`]. While this many are being refused, further connections wait in the system's queue.
pub(super) const REFUSALS_MAX: usize = 256;

/// Timeout of a refusal: enough for a handshake and a round trip on a bad line.
pub(super) const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for which reading continues after the last response. Closing while bytes still arrive would reset the
/// connection, and the client might lose the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of bytes that are read and discarded after the last response.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// Returns the error for which hyper itself responds with this status.
pub(super) fn request_error(status: StatusCode) -> Option<RequestError> {
    match status {
        StatusCode::BAD_REQUEST => Some(RequestError::Malformed("not an HTTP/1.1 request".to_owned())),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
            Some(RequestError::HeaderTooLarge)
        }
        _ => None,
    }
}

/// Serializes the last response of a connection, with a new request id.
pub(super) fn last_response(response: Response) -> Vec<u8> {
    let (mut head, body) = response.into_parts();
    // Bodies of problems are complete, so there is nothing to wait for.
    let body = body
        .collect()
        .now_or_never()
        .and_then(Result::ok)
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    head.headers.insert(request::X_REQUEST_ID, request::new_id());
    head.headers.insert(X_CONTENT_TYPE_OPTIONS, request::NOSNIFF);
    let status = head.status;
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default()
    )
    .into_bytes();
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    bytes.extend_from_slice(
        format!(
            "content-length: {}\r\nconnection: close\r\ndate: {date}\r\n\r\n",
            body.len()
        )
        .as_bytes(),
    );
    bytes.extend_from_slice(&body);
    bytes
}

/// Sends a last response, and closes the connection such that the client can read the response. The caller
/// sets a timeout.
pub(super) async fn dismiss<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    response: Response,
) -> io::Result<()> {
    stream.write_all(&last_response(response)).await?;
    stream.shutdown().await?;
    linger(stream).await;
    Ok(())
}

/// Reads and discards bytes after the last response, until the client closes its side as well. Gives up after
/// [`LINGER_TIMEOUT`].
pub(super) async fn linger<S: AsyncRead + Unpin>(stream: &mut S) {
    let discard = async {
        let mut bytes = [0; 4096];
        let mut total = 0;
        while total < LINGER_BYTES_MAX {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => break,
                Ok(read) => total += read,
            }
        }
    };
    // If the client is still sending after that time, it was able to read the response.
    let _ = tokio::time::timeout(LINGER_TIMEOUT, discard).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::problem::Problem;

    #[test]
    fn a_last_response_is_a_problem_with_complete_headers() {
        let text = String::from_utf8(last_response(Problem::overloaded().into_response())).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for header in [
            "x-request-id: ",
            "retry-after: ",
            "connection: close",
            "content-type: application/problem+json",
            "x-content-type-options: nosniff",
            "date: ",
        ] {
            assert!(head.contains(&format!("\r\n{header}")), "{header} of {head}");
        }
        assert!(
            head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())),
            "{head}"
        );
        assert!(
            body.contains("\"OVERLOADED\"") && body.contains("\"applied\":false"),
            "{body}"
        );
    }
}
