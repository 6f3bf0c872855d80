//! The bytes of a connection, with or without TLS: feeds [`Pace`], and replaces hyper's own responses.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::pace::Pace;
use super::refuse;

/// A connection below HTTP.
#[derive(Debug)]
pub(super) enum Transport {
    /// Without encryption.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Returns the socket below.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// Calls a method of either transport.
macro_rules! either {
    ($transport:expr, $method:ident, $($argument:expr),*) => {
        match $transport {
            Transport::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_read, cx, buffer)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), poll_write, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_shutdown, cx)
    }
}

/// The pace of a connection. Only the connection's own task uses it, so the lock is always free.
#[derive(Debug, Clone)]
pub(super) struct SharedPace(Arc<Mutex<Pace>>);

impl SharedPace {
    /// Makes a pace that can be shared.
    pub(super) fn new(pace: Pace) -> Self {
        Self(Arc::new(Mutex::new(pace)))
    }

    /// Locks the pace.
    pub(super) fn lock(&self) -> MutexGuard<'_, Pace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream that hyper reads and writes.
#[derive(Debug)]
pub(super) struct Stream {
    transport: Transport,
    pace: SharedPace,
    /// A response that replaces a response of hyper, while the replacement is being written.
    replacement: Vec<u8>,
    written: usize,
}

impl Stream {
    /// A stream over this transport.
    pub(super) fn new(transport: Transport, pace: SharedPace) -> Self {
        Self {
            transport,
            pace,
            replacement: Vec::new(),
            written: 0,
        }
    }

    /// Returns the transport. Bytes that have not been written yet are dropped.
    pub(super) fn into_transport(self) -> Transport {
        self.transport
    }

    /// Writes to the transport, and records whether the client reads.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.transport).poll_write(cx, bytes);
        match &wrote {
            Poll::Pending => self.pace.lock().stalled(Instant::now),
            Poll::Ready(Ok(bytes)) => self.pace.lock().wrote(*bytes, Instant::now),
            Poll::Ready(Err(_)) => {}
        }
        wrote
    }

    /// Writes the rest of a replacement.
    fn write_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.replacement.len() {
            let bytes = std::mem::take(&mut self.replacement);
            let wrote = self.write(cx, &bytes[self.written..]);
            self.replacement = bytes;
            match ready!(wrote)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                wrote => self.written += wrote,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.transport).poll_read(cx, buffer);
        if read.is_ready() && buffer.filled().len() > before {
            self.pace.lock().received(Instant::now);
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.write_replacement(cx))?;
        match replace(bytes) {
            None => self.write(cx, bytes),
            // Responses to earlier requests go first.
            Some((at @ 1.., _)) => self.write(cx, &bytes[..at]),
            Some((0, replacement)) => {
                (self.replacement, self.written) = (replacement, 0);
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_replacement(cx))?;
        let flushed = Pin::new(&mut self.transport).poll_flush(cx);
        let mut pace = self.pace.lock();
        match &flushed {
            Poll::Pending => pace.stalled(Instant::now),
            Poll::Ready(_) => pace.flushed(),
        }
        drop(pace);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_replacement(cx))?;
        let shut = Pin::new(&mut self.transport).poll_shutdown(cx);
        if shut.is_pending() {
            self.pace.lock().stalled(Instant::now);
        }
        shut
    }
}

/// Finds a response that hyper made itself. Returns where the response begins, and what to send instead.
///
/// hyper has no hook for these responses. Such a response is the last one on its connection. It has no body,
/// and no request id, which all other responses have. Bodies of other responses never end like a head, so the
/// last bytes of most writes already show that there is no such response.
fn replace(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    const HEAD_END: &[u8] = b"\r\n\r\n";
    const START: &[u8] = b"HTTP/1.";
    const ID: &[u8] = b"x-request-id: ";
    let text = bytes.strip_suffix(HEAD_END)?;
    let at = text.windows(START.len()).rposition(|window| window == START)?;
    let head = &text[at..];
    if head
        .windows(ID.len())
        .any(|window| window.eq_ignore_ascii_case(ID))
    {
        return None;
    }
    let status = StatusCode::from_bytes(head.get(START.len() + 2..START.len() + 5)?).ok()?;
    Some((
        at,
        refuse::last_response(refuse::request_error(status)?.into_response()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_responses_that_hyper_made_itself_are_replaced() {
        for ours in [
            "HTTP/1.1 400 Bad Request\r\nx-request-id: r\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\nX-Request-Id: r\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx-request-id: r\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "{}",
            "",
        ] {
            assert!(replace(ours.as_bytes()).is_none(), "{ours}");
        }
        let own = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert!(replace(own.as_bytes()).is_some_and(|(at, replacement)| {
            at == 0 && String::from_utf8_lossy(&replacement).contains("MALFORMED")
        }));
        let both = format!("HTTP/1.1 200 OK\r\nx-request-id: r\r\ncontent-length: 2\r\n\r\n{{}}{own}");
        assert!(matches!(replace(both.as_bytes()), Some((at, _)) if &both[at..] == own));
    }
}
