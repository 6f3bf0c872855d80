//! Reads the body of a request within its limits of size and time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, Stream, StreamExt};
use http::header::{CONTENT_LENGTH, EXPECT};
use tokio::sync::watch;

use super::head::Head;
use super::listener::Stage;
use super::pace::STOPPING_TIMEOUT;

/// Maximum size of a body unless its route says otherwise: ten times the size of a coupon with the longest
/// title.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;

/// Maximum number of bytes that are read of a body that is too large. If the connection closes while a client
/// is still sending, the client gets a reset instead of the response. So bodies up to this size are read to
/// their end, and their clients get the response.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// Why a body was not read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum BodyError {
    /// The body exceeds this number of bytes.
    TooLarge(usize),
    /// The connection failed before the end of the body.
    Incomplete,
    /// The body did not arrive in time.
    TimedOut,
}

/// Time limit for a whole body. It is shorter once the node stops.
#[derive(Debug)]
pub(crate) struct BodyDeadline {
    timeout: Duration,
    stage: watch::Receiver<Stage>,
}

impl BodyDeadline {
    /// Makes a limit of `timeout`, which becomes shorter once the listener stops.
    pub(super) fn new(timeout: Duration, stage: watch::Receiver<Stage>) -> Arc<Self> {
        Arc::new(Self { timeout, stage })
    }

    /// Completes once the listener stops.
    pub(super) async fn listener_stops(&self) {
        // An error means that the listener is gone.
        let _ = self
            .stage
            .clone()
            .wait_for(|stage| *stage != Stage::Serving)
            .await;
    }

    /// Returns the result of `reading`, or `None` if reading takes too long.
    async fn limit<T>(&self, reading: impl Future<Output = T>) -> Option<T> {
        let stopping = async {
            self.listener_stops().await;
            tokio::time::sleep(STOPPING_TIMEOUT).await;
        };
        tokio::select! {
            read = tokio::time::timeout(self.timeout, reading) => read.ok(),
            () = stopping => None,
        }
    }
}

/// Reads the body within the `body_deadline` of the head.
pub(super) async fn read_in_time<B: Buf>(
    head: &Head,
    bytes_max: usize,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Bytes, BodyError> {
    let mut reading = std::pin::pin!(read(head, bytes_max, stream));
    // Most bodies arrive with their heads, and need no timer.
    match (reading.as_mut().now_or_never(), &head.body_deadline) {
        (Some(body), _) => body,
        (None, Some(deadline)) => deadline.limit(reading).await.unwrap_or(Err(BodyError::TimedOut)),
        (None, None) => reading.await,
    }
}

/// Reads a body of up to `bytes_max`, with a declared length or in chunks.
async fn read<B: Buf>(
    head: &Head,
    bytes_max: usize,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Bytes, BodyError> {
    let declared = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let declared_too_large = declared.is_some_and(|length| length > bytes_max);
    // A client that expects `100 Continue`, or declares more than would be discarded, is answered before it
    // sends the body.
    if declared_too_large && (head.headers.contains_key(EXPECT) || declared > Some(DISCARDED_BYTES_MAX)) {
        return Err(BodyError::TooLarge(bytes_max));
    }
    let mut stream = std::pin::pin!(stream);
    let mut body = BytesMut::new();
    let mut total: usize = 0;
    while let Some(part) = stream.next().await {
        let mut part = part.map_err(|_| BodyError::Incomplete)?;
        total = total.saturating_add(part.remaining());
        if total > DISCARDED_BYTES_MAX {
            break;
        }
        if total <= bytes_max {
            body.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        }
    }
    if total > bytes_max {
        Err(BodyError::TooLarge(bytes_max))
    } else {
        Ok(body.freeze())
    }
}
