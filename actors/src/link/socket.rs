//! The sockets under links. The accept loop and the dialler are this program's own, so that every handshake
//! has a time limit and every connection can be cut.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::link::greetings::{Greeting, Greetings, Reception};
use crate::link::handshake::{Handshake, Step};
use crate::link::tls::Tls;
use crate::log_limit::LogLimit;
use crate::metrics::peer_handles;

/// Time limit for connecting, including TLS. An accepted connection has the same time for TLS and the first
/// frame of its handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Pause of the accept loop when the operating system has no socket left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Pause of the accept loop after a connection without a free place, so that a flood of connections takes
/// little processor time. Meanwhile connections wait in the operating system's queue.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);
/// Size of the read buffer. The library itself reads 8 KiB at a time, and each length with a separate read.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The number that identifies a connection from its beginning to its session's end.
static TICKETS: AtomicU64 = AtomicU64::new(1);

/// A connection that is about to be a session.
pub(super) struct Socket {
    /// The number that will identify its session.
    pub(super) ticket: u64,
    /// Cuts the connection.
    pub(super) cut: CancellationToken,
    /// The address of the other end, for logs.
    pub(super) peer: SocketAddr,
    /// The place of an accepted connection among those that are not yet links.
    pub(super) greeting: Option<Greeting>,
    /// The connection itself.
    pub(super) stream: Box<dyn ClusterBidiStream>,
}

/// Hands every connection that begins correctly to `opened`, until the task is aborted.
pub(super) async fn accept(
    listener: Arc<TcpListener>,
    tls: Option<Tls>,
    greetings: Greetings,
    opened: impl Fn(Socket) + Clone + Send + 'static,
) {
    static PAUSES: LogLimit = limit(|suppressed| {
        tracing::warn!(
            suppressed,
            "accepting connections from peers was paused again and again"
        );
    });
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if PAUSES.admits() {
                    tracing::warn!(%error, "accepting connections from peers is paused");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (greeting, is_crowded) = match greetings.admit(peer.ip()) {
            Reception::Admitted(greeting) => (Some(greeting), false),
            Reception::InPlaceOfAnother(greeting) => (Some(greeting), true),
            Reception::Refused => (None, true),
        };
        if let Some(greeting) = greeting {
            tokio::spawn(greet(stream, peer, tls.clone(), greeting, opened.clone()));
        }
        if is_crowded {
            crowded(peer);
            tokio::time::sleep(CROWDED_PAUSE).await;
        }
    }
}

/// Returns a limit for log lines that strangers can cause. `report` logs how many were left out.
pub(super) const fn limit(report: fn(u64)) -> LogLimit {
    LogLimit::new(5, Duration::from_secs(10), report)
}

fn crowded(peer: SocketAddr) {
    static LIMIT: LogLimit = limit(|suppressed| {
        tracing::warn!(suppressed, "further connections gave way, or were refused");
    });
    peer_handles().refuse("crowded");
    if LIMIT.admits() {
        tracing::warn!(%peer, "too many connections at the cluster port are not links yet: one gives way, or the new one is refused");
    }
}

pub(super) fn refused(peer: SocketAddr, error: &dyn std::fmt::Display) {
    static LIMIT: LogLimit = limit(|suppressed| {
        tracing::warn!(suppressed, "further connections from peers failed");
    });
    peer_handles().refuse("handshake");
    if LIMIT.admits() {
        tracing::warn!(%peer, %error, "connection from a peer failed");
    }
}

/// Hands an accepted connection on once its handshake has begun.
async fn greet(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    greeting: Greeting,
    opened: impl FnOnce(Socket),
) {
    let cut = greeting.cut();
    let welcomed = tokio::select! {
        welcomed = timeout(CONNECT_LIMIT, welcome(stream, peer, tls, cut.clone())) => welcomed,
        // It gave way to another connection.
        () = cut.cancelled() => return,
    };
    match welcomed {
        Ok(Ok(Some(halves))) => {
            greeting.has_begun();
            opened(Socket::new(halves, peer, cut, Some(greeting)));
        }
        // A peer that only probes connects and closes.
        Ok(Ok(None)) => {}
        Ok(Err(error)) => refused(peer, &error),
        Err(_) => refused(peer, &"the handshake timed out"),
    }
}

type Halves = (BoxRead, BoxWrite);

/// Does the TLS handshake, if TLS is configured, and reads the first frame. Returns `None` if the other end
/// closed without sending a frame.
async fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    cut: CancellationToken,
) -> io::Result<Option<Halves>> {
    stream.set_nodelay(true)?;
    if stream.peek(&mut [0]).await? == 0 {
        return Ok(None);
    }
    let (reader, writer) = match tls {
        None => halves(stream),
        Some(tls) => halves(tls.acceptor.accept(stream).await?),
    };
    let mut reader = Handshake::new(reader, Step::Name, peer, cut);
    let has_begun = reader.begin().await?;
    Ok(has_begun.then(|| (Box::new(reader) as BoxRead, writer)))
}

/// Connects to `host:port`.
pub(super) async fn dial(address: &str, tls: Option<Tls>) -> io::Result<Socket> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?;
        let (reader, writer) = match tls {
            None => halves(stream),
            Some(tls) => halves(tls.connector.connect(host(address)?, stream).await?),
        };
        let cut = CancellationToken::new();
        let reader: BoxRead = Box::new(Handshake::new(reader, Step::Status, peer, cut.clone()));
        Ok(Socket::new((reader, writer), peer, cut, None))
    };
    timeout(CONNECT_LIMIT, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Returns true if the operating system at this address refuses a connection. A time-out, a failed handshake
/// or another error is not a refusal.
pub(super) async fn is_refused(address: &str) -> bool {
    let is_refusal = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let refused = |result: &io::Result<TcpStream>| result.as_ref().is_err_and(is_refusal);
    // All addresses of a name must refuse. Connecting to a name returns only the last error, so each address
    // is tried.
    let probing = async {
        let Ok(addresses) = tokio::net::lookup_host(address).await else {
            return false;
        };
        let mut any = false;
        for address in addresses {
            if !refused(&TcpStream::connect(address).await) {
                return false;
            }
            any = true;
        }
        any
    };
    timeout(CONNECT_LIMIT, probing).await.unwrap_or(false)
}

/// Returns the host part of `host:port`, as certificates name it.
fn host(address: &str) -> io::Result<ServerName<'static>> {
    let invalid = |_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the address has no host that a certificate could name",
        )
    };
    let host = address
        .rsplit_once(':')
        .map_or(address, |(host, _)| host)
        .trim_matches(['[', ']']);
    ServerName::try_from(host.to_owned()).map_err(invalid)
}

fn halves(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Halves {
    let (reader, writer) = tokio::io::split(stream);
    (
        Box::new(BufReader::with_capacity(READ_BUFFER_BYTES, reader)),
        Box::new(writer),
    )
}

impl Socket {
    fn new(
        (reader, writer): Halves,
        peer: SocketAddr,
        cut: CancellationToken,
        greeting: Option<Greeting>,
    ) -> Self {
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        let cuttable = || Box::pin(cut.clone().cancelled_owned());
        let reader = Box::new(Cuttable {
            inner: reader,
            cut: cuttable(),
        });
        let writer = Box::new(Cuttable {
            inner: writer,
            cut: cuttable(),
        });
        Self {
            ticket,
            cut,
            peer,
            greeting,
            stream: Box::new(Labelled {
                ticket,
                reader,
                writer,
            }),
        }
    }
}

/// The connection as the library takes it, with its number in place of an address.
struct Labelled {
    ticket: u64,
    reader: BoxRead,
    writer: BoxWrite,
}

impl ClusterBidiStream for Labelled {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        (self.reader, self.writer)
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.ticket.to_string())
    }
}

/// One half of a connection, which ends when the connection is cut. Without it, a stopped session would leave
/// a task behind that waits for the peer to read.
struct Cuttable<T> {
    inner: T,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T> Cuttable<T> {
    fn is_cut(&mut self, context: &mut Context<'_>) -> bool {
        self.cut.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Cuttable<BoxRead> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cuttable<BoxWrite> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut(context) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
