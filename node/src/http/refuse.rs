//! What is said outside of any route: refusals at the door of the socket, and the words that replace hyper's
//! own bare ones.
//!
//! Every response of ours is a problem with a request id, also where no request was understood.

use std::io;
use std::time::{Duration, SystemTime};

use actors::owning::message::Setback;
use futures_util::FutureExt;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::problem::Problem;
use super::request;

/// Connections being refused at the same time. Each lasts a round trip, or [`REFUSAL_LIMIT`]; while all are
/// taken nobody is accepted, and the system's queue holds who comes.
pub(super) const REFUSALS_MAX: usize = 256;

/// How long refusing somebody may take in all: long enough for a handshake and a round trip on a bad line.
pub(super) const REFUSAL_LIMIT: Duration = Duration::from_secs(2);

/// How long to listen to whoever was told to go away, as closing while bytes still come in would take our
/// words back.
const LINGER_LIMIT: Duration = Duration::from_secs(1);

/// How much to throw away meanwhile.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// The problem behind a status that hyper answers by itself, if it is one.
pub(super) fn in_place_of(status: StatusCode) -> Option<Problem> {
    match status {
        StatusCode::BAD_REQUEST => Some(Problem::Malformed("not a request of HTTP/1.1".to_owned())),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
            Some(Problem::HeaderTooLarge)
        }
        _ => None,
    }
}

/// There are as many connections as there may be.
pub(super) fn full() -> Problem {
    Problem::SetBack(Setback::Overloaded)
}

/// A problem as the last response of a connection, with a request id of its own, byte by byte.
pub(super) fn last_response(problem: Problem) -> Vec<u8> {
    let (mut head, body) = problem.into_response().into_parts();
    // Bodies of problems are whole from the beginning, so there is nothing to wait for.
    let body = body
        .collect()
        .now_or_never()
        .and_then(Result::ok)
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    head.headers.insert(request::X_REQUEST_ID, request::new_id());
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

/// Says it, and hangs up so that it is heard. The caller sets a limit.
pub(super) async fn dismiss<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    problem: Problem,
) -> io::Result<()> {
    stream.write_all(&last_response(problem)).await?;
    stream.shutdown().await?;
    linger(stream).await;
    Ok(())
}

/// Reads on for a moment after the last word, until the client hangs up as well.
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
    // Whoever is still sending then has had the time to listen.
    let _ = tokio::time::timeout(LINGER_LIMIT, discard).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_response_is_a_problem_with_all_that_responses_have() {
        let text = String::from_utf8(last_response(full())).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for header in [
            "x-request-id: ",
            "retry-after: ",
            "connection: close",
            "content-type: application/problem+json",
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
