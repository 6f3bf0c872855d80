//! The bytes of a connection, with or without TLS: records its progress, bounds what hyper holds of it, and
//! replaces hyper's own responses.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::outgoing::Offer;
use super::progress::Progress;
use super::refuse;
use crate::metrics::connection_cut;

/// Maximum number of bytes in hyper's buffer. hyper's own bound for bodies is smaller than this. hyper has no
/// bound for responses without a body, which add up if a client reads none of them.
const BUFFERED_BYTES_MAX: usize = 128 * 1024;

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

/// The stream that hyper reads and writes.
#[derive(Debug)]
pub(super) struct Stream {
    transport: Transport,
    progress: Progress,
    /// A response that replaces a response of hyper, while the replacement is being written.
    replacement: Vec<u8>,
    written: usize,
}

impl Stream {
    /// A stream over this transport.
    pub(super) fn new(transport: Transport, progress: Progress) -> Self {
        Self {
            transport,
            progress,
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
            Poll::Pending => self.progress.lock().pace.stalled(Instant::now),
            Poll::Ready(Ok(bytes)) => self.progress.lock().pace.wrote(*bytes, Instant::now),
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
            self.progress.lock().pace.received(Instant::now);
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.write_replacement(cx))?;
        let offer = self.progress.lock().outgoing.offered(bytes);
        match offer {
            Offer::Send(_) if bytes.len() > BUFFERED_BYTES_MAX => {
                connection_cut("unread");
                Poll::Ready(Err(io::Error::other("the client does not read its responses")))
            }
            Offer::Send(length) => {
                let wrote = ready!(self.write(cx, &bytes[..length]))?;
                self.progress.lock().outgoing.wrote(wrote);
                Poll::Ready(Ok(wrote))
            }
            Offer::Own => {
                (self.replacement, self.written) = (replacement(bytes), 0);
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_replacement(cx))?;
        let flushed = Pin::new(&mut self.transport).poll_flush(cx);
        let pace = &mut self.progress.lock().pace;
        match &flushed {
            Poll::Pending => pace.stalled(Instant::now),
            // hyper flushes when its buffer is empty.
            Poll::Ready(_) => pace.flushed(Instant::now),
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_replacement(cx))?;
        let shut = Pin::new(&mut self.transport).poll_shutdown(cx);
        if shut.is_pending() {
            self.progress.lock().pace.stalled(Instant::now);
        }
        shut
    }
}

/// Returns what is sent in place of a response that hyper made itself, which is the last one on its
/// connection.
fn replacement(own: &[u8]) -> Vec<u8> {
    const VERSION: usize = "HTTP/1.1 ".len();
    let status = own
        .get(VERSION..VERSION + 3)
        .and_then(|digits| StatusCode::from_bytes(digits).ok());
    match status.and_then(refuse::request_error) {
        Some(error) => refuse::last_response(error.into_response()),
        // A status that no present version of hyper responds with.
        None => own.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::http::pace::{Limits, Pace};

    #[tokio::test]
    async fn a_connection_ends_once_its_buffer_exceeds_the_bound() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (client, (socket, _)) = (client.unwrap(), accepted.unwrap());
        let limit = Duration::from_secs(10);
        let limits = Limits {
            header: limit,
            idle: limit,
            write: limit,
        };
        let progress = Progress::new(Pace::new(limits, Instant::now()));
        let mut stream = Stream::new(Transport::Plain(socket), progress.clone());
        for (bytes, is_written) in [(BUFFERED_BYTES_MAX, true), (BUFFERED_BYTES_MAX + 1, false)] {
            progress.lock().outgoing.service_gave();
            let written = AsyncWriteExt::write(&mut stream, &vec![0; bytes]).await;
            assert_eq!(written.is_ok(), is_written, "{bytes}: {written:?}");
        }
        drop(client);
    }

    #[test]
    fn a_response_of_hyper_is_replaced_by_a_problem_of_its_status() {
        for (status, code) in [
            ("400 Bad Request", "MALFORMED"),
            ("414 URI Too Long", "HEADER_TOO_LARGE"),
            ("431 Request Header Fields Too Large", "HEADER_TOO_LARGE"),
        ] {
            let own = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            let replaced = String::from_utf8(replacement(own.as_bytes())).unwrap();
            assert!(replaced.contains(&format!("\"code\":\"{code}\"")), "{replaced}");
        }
        let other = b"HTTP/1.1 418 I'm a teapot\r\n\r\n";
        assert_eq!(replacement(other), other);
    }
}
