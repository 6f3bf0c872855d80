//! The body of a response on its way to hyper.
//!
//! hyper copies what it gets into the buffer of the connection, and that buffer never shrinks. So hyper gets
//! a body in portions, each when there is room.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::progress::Progress;
use super::unsent::{PORTION_BYTES, Reservation};

/// Marks a response whose body exists once for all clients, like a file in the program. Such a response takes
/// no memory of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedBody;

/// Attached to a response: what it holds until its body is sent, such as a place among a bounded number of
/// requests.
#[derive(Clone)]
pub(crate) struct HeldUntilSent {
    _held: Arc<dyn Any + Send + Sync>,
}

impl HeldUntilSent {
    /// Holds a value until the body is sent.
    pub(crate) fn new(held: impl Any + Send + Sync) -> Self {
        Self {
            _held: Arc::new(held),
        }
    }
}

impl fmt::Debug for HeldUntilSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldUntilSent")
    }
}

/// What a response holds until its body is sent; dropping the guard frees it.
#[derive(Debug, Default)]
pub(super) struct SendGuard {
    /// The memory of the body, if it is counted.
    pub(super) _reservation: Option<Reservation>,
    /// What the handler attached to the response.
    pub(super) _held: Option<HeldUntilSent>,
}

/// A body in portions. It tells its connection when it gives a portion, and when it ends.
#[derive(Debug)]
pub(super) struct ResponseBody<B> {
    body: B,
    /// What is left of a part of the body.
    rest: Bytes,
    progress: Progress,
    _guard: SendGuard,
}

impl<B> ResponseBody<B> {
    /// The body of a response of this connection.
    pub(super) fn new(body: B, progress: Progress, guard: SendGuard) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            progress,
            _guard: guard,
        }
    }

    /// Takes the next portion of the rest.
    fn portion(&mut self) -> Bytes {
        self.rest.split_to(self.rest.len().min(PORTION_BYTES))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = if self.rest.is_empty() {
            ready!(Pin::new(&mut self.body).poll_frame(cx))
        } else {
            Some(Ok(Frame::data(self.portion())))
        };
        // This is also recorded at the end, when hyper may add the last bytes of the encoding.
        self.progress.lock().outgoing.service_gave();
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(data) if data.len() > PORTION_BYTES => {
                    self.rest = data;
                    Frame::data(self.portion())
                }
                Ok(data) => Frame::data(data),
                Err(frame) => frame,
            })),
            end => end,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut with_rest = SizeHint::new();
        with_rest.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            with_rest.set_upper(upper.saturating_add(rest));
        }
        with_rest
    }
}

impl<B> Drop for ResponseBody<B> {
    fn drop(&mut self) {
        self.progress.lock().pace.body_ended();
    }
}
