//! A connection's bytes, with or without TLS: tells [`Pace`] what comes and goes, and puts our words in place
//! of hyper's.

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

/// What carries the bytes.
#[derive(Debug)]
pub(super) enum Transport {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// The socket below.
    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// Calls a method of whichever it is.
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

/// A connection's pace, shared by all that happens on it. It is one task, so nobody ever waits for the lock.
#[derive(Debug, Clone)]
pub(super) struct SharedPace(Arc<Mutex<Pace>>);

impl SharedPace {
    /// Shares it.
    pub(super) fn new(pace: Pace) -> Self {
        Self(Arc::new(Mutex::new(pace)))
    }

    /// The pace.
    pub(super) fn lock(&self) -> MutexGuard<'_, Pace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What hyper reads from and writes to.
#[derive(Debug)]
pub(super) struct Stream {
    transport: Transport,
    pace: SharedPace,
    /// Our own words that are still to be written.
    words: Vec<u8>,
    written: usize,
}

impl Stream {
    /// Over this transport.
    pub(super) fn new(transport: Transport, pace: SharedPace) -> Self {
        Self {
            transport,
            pace,
            words: Vec::new(),
            written: 0,
        }
    }

    /// The transport, without what is still to be written.
    pub(super) fn into_transport(self) -> Transport {
        self.transport
    }

    /// Writes to the transport, and notes whether the client takes it.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.transport).poll_write(cx, bytes);
        match &wrote {
            Poll::Pending => self.pace.lock().stalled(Instant::now),
            Poll::Ready(Ok(bytes)) => self.pace.lock().wrote(*bytes, Instant::now),
            Poll::Ready(Err(_)) => {}
        }
        wrote
    }

    /// Writes what is left of our own words.
    fn speak(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.words.len() {
            let words = std::mem::take(&mut self.words);
            let wrote = self.write(cx, &words[self.written..]);
            self.words = words;
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
        ready!(self.speak(cx))?;
        match hypers_own(bytes) {
            None => self.write(cx, bytes),
            // Answers to earlier requests go first.
            Some((at @ 1.., _)) => self.write(cx, &bytes[..at]),
            Some((0, words)) => {
                (self.words, self.written) = (words, 0);
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.speak(cx))?;
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
        ready!(self.speak(cx))?;
        let shut = Pin::new(&mut self.transport).poll_shutdown(cx);
        if shut.is_pending() {
            self.pace.lock().stalled(Instant::now);
        }
        shut
    }
}

/// Where in these bytes a response begins that hyper made itself, and what to say in its place.
///
/// hyper offers no hook for them. They are the last that it writes, have no body, and no request id, which
/// all of ours have; and no body of ours ends as a head does, so most writes are told by their last bytes.
fn hypers_own(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
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
    Some((at, refuse::last_response(refuse::in_place_of(status)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hyper_says_itself_is_replaced() {
        for ours in [
            "HTTP/1.1 400 Bad Request\r\nx-request-id: r\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\nX-Request-Id: r\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx-request-id: r\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "{}",
            "",
        ] {
            assert!(hypers_own(ours.as_bytes()).is_none(), "{ours}");
        }
        let own = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert!(
            matches!(hypers_own(own.as_bytes()), Some((0, words)) if String::from_utf8_lossy(&words).contains("MALFORMED"))
        );
        let both = format!("HTTP/1.1 200 OK\r\nx-request-id: r\r\ncontent-length: 2\r\n\r\n{{}}{own}");
        assert!(matches!(hypers_own(both.as_bytes()), Some((at, _)) if &both[at..] == own));
    }
}
