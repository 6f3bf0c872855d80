//! Responses whose bodies are made while they are sent, one part at a time.
//!
//! The next part is made when the buffer of the connection has room for it, so a client that reads slowly
//! gets its parts slowly, and `pace` cuts it if it reads too slowly. A body that cannot be completed breaks
//! off: the connection is reset before the last chunk, so that no client takes it for the whole body. That
//! holds for clients and proxies of HTTP/1.0 too, whose bodies end with the connection.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use warp::Reply;
use warp::reply::Response;

use super::head::Head;

/// A body that breaks off.
#[derive(Debug, thiserror::Error)]
#[error("the body could not be completed")]
pub(crate) struct BrokenOff;

/// Marks a response whose body is made while it is sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamedBody {
    /// Maximum number of bytes of the body that are in memory at a time.
    pub(super) bytes_max: usize,
}

/// Returns a response with these parts, each of at most `bytes_max`. It breaks off once the node stops.
pub(crate) fn response(
    head: &Head,
    media_type: &'static str,
    bytes_max: usize,
    parts: impl Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static,
) -> Response {
    let parts = Parts(Mutex::new(Sources {
        parts: Box::pin(parts),
        stop: Box::pin(head.node_stops()),
    }));
    let mut response = warp::reply::stream(parts).into_response();
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response.extensions_mut().insert(StreamedBody { bytes_max });
    response
}

/// The parts of a body. A body must be `Sync`, which its parts need not be. The lock is never taken.
struct Parts(Mutex<Sources>);

struct Sources {
    parts: BoxStream<'static, Result<Bytes, BrokenOff>>,
    stop: BoxFuture<'static, ()>,
}

impl Stream for Parts {
    type Item = Result<Bytes, BrokenOff>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Ok(sources) = self.0.get_mut() else {
            return Poll::Ready(Some(Err(BrokenOff)));
        };
        // Nothing is polled again after an error.
        if sources.stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        sources.parts.as_mut().poll_next(cx)
    }
}
