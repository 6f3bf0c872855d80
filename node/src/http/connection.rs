//! Serves one connection, from the handshake to its end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{poll_fn, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;

use crate::metrics::{CONNECTIONS_QUEUE, HTTP_CONNECTIONS, connection_cut as cut};
use actors::metrics::QUEUE_LENGTH;
use futures_util::future::Either;
use http::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1::Connection;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use metrics::Gauge;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep_until};
use warp::Filter;
use warp::reply::Response;

use super::clients::Place;
use super::listener::{Shared, Stage};
use super::pace::{Pace, Timeout};
use super::problem::RequestError;
use super::progress::Progress;
use super::response_body::ResponseBody;
use super::stream::{Stream, Transport};
use super::{framing, refuse, request, tls};

/// What the requests of one connection share.
#[derive(Debug)]
pub(super) struct Served {
    /// What all connections share.
    pub(super) shared: Arc<Shared>,
    /// The connection's place among those of its client.
    pub(super) place: Place,
}

/// How a connection ended.
enum End {
    /// The client or hyper closed the connection.
    Closed(hyper::Result<()>),
    /// The client was too slow.
    TimedOut(Timeout),
    /// The node stops, and does not wait any longer.
    Cut,
}

/// Serves one connection until it ends.
pub(super) async fn serve<F>(
    stream: TcpStream,
    peer: IpAddr,
    routes: F,
    served: Served,
    mut stage: watch::Receiver<Stage>,
) where
    F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let _open = OpenConnection::new();
    let opened = tokio::select! {
        opened = open(stream, &served.shared) => opened,
        // No request has begun.
        _ = stage.changed() => return,
    };
    let transport = match opened {
        Ok(transport) => transport,
        Err(error) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            return cut("handshake");
        }
    };
    let served = Arc::new(served);
    let progress = Progress::new(Pace::new(served.shared.limits, Instant::now()));
    let service = RefCell::new(warp::service(routes));
    let respond = {
        let (served, progress) = (Arc::clone(&served), progress.clone());
        service_fn(move |request: Request<Incoming>| {
            progress.lock().pace.request_began();
            let refusal = framing::refusal(&request);
            let (head, request) = request::split(request, peer, &served.shared);
            let response = match refusal {
                None => Either::Left(tower_service::Service::call(&mut *service.borrow_mut(), request)),
                Some(error) => Either::Right(ready(Ok(error.into_response()))),
            };
            let (progress, served) = (progress.clone(), Arc::clone(&served));
            async move {
                let (response, guard) = request::respond(&head, &served, response).await;
                let mut state = progress.lock();
                state.pace.responded(head.has_left_unread());
                state.outgoing.service_gave();
                drop(state);
                Ok::<_, Infallible>(response.map(|body| ResponseBody::new(body, progress, guard)))
            }
        })
    };
    let mut connection = served
        .shared
        .http
        .serve_connection(TokioIo::new(Stream::new(transport, progress.clone())), respond);
    let end = watch(&mut connection, &progress, &mut stage).await;
    let transport = connection.into_parts().io.into_inner().into_transport();
    finish(end, peer, &progress, transport).await;
}

/// Prepares a connection for HTTP: makes the TLS handshake if TLS is configured.
pub(super) async fn open(stream: TcpStream, shared: &Shared) -> Result<Transport, tls::HandshakeError> {
    // Responses are small and written at once; waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    match &shared.tls {
        None => Ok(Transport::Plain(stream)),
        Some(tls) => Ok(Transport::Tls(Box::new(tls.handshake(stream).await?))),
    }
}

/// Drives the connection until it is closed, times out, or is cut because the node stops.
async fn watch<S, B>(
    connection: &mut Connection<TokioIo<Stream>, S>,
    progress: &Progress,
    stage: &mut watch::Receiver<Stage>,
) -> End
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let first = progress
        .lock()
        .pace
        .deadline()
        .map_or_else(Instant::now, |(at, _)| at);
    let mut clock = std::pin::pin!(sleep_until(first.into()));
    loop {
        tokio::select! {
            biased;
            closed = &mut *connection => return End::Closed(closed),
            changed = stage.changed() => match (changed, *stage.borrow_and_update()) {
                // The listener was dropped without being stopped: the stage will not change again.
                (Err(_), _) | (Ok(()), Stage::Cut) => return End::Cut,
                (Ok(()), Stage::Stopping) => {
                    progress.lock().pace.stop(Instant::now());
                    Pin::new(&mut *connection).graceful_shutdown();
                }
                (Ok(()), Stage::Serving) => {}
            },
            timeout = poll_fn(|cx| poll_timeout(progress, clock.as_mut(), cx)) => return End::TimedOut(timeout),
        }
    }
}

/// Becomes ready when the connection has timed out. Sets the timer only if the timer would fire too late or
/// has fired too early, so most requests set no timer.
fn poll_timeout(progress: &Progress, mut clock: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Timeout> {
    loop {
        let Some((at, timeout)) = progress.lock().pace.deadline() else {
            // The client waits for a response, or for more of a response. When that changes, this function is
            // polled again.
            return Poll::Pending;
        };
        if clock.deadline() > at.into() {
            clock.as_mut().reset(at.into());
        }
        if clock.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if Instant::now() >= at {
            return Poll::Ready(timeout);
        }
        clock.as_mut().reset(at.into());
    }
}

/// Sends a last response if there is one, and counts the connection if it was cut.
async fn finish(end: End, peer: IpAddr, progress: &Progress, mut transport: Transport) {
    match end {
        End::Closed(Ok(())) if progress.lock().pace.has_left_unread() => refuse::linger(&mut transport).await,
        End::Closed(Ok(())) => {}
        End::Closed(Err(error)) => {
            tracing::debug!(%peer, %error, "connection failed");
            if error.is_user() {
                // A body broke off. Without a reset, a client of HTTP/1.0 would take it for the whole body.
                reset(&transport);
            }
            if error.is_parse() {
                cut(if error.is_parse_too_large() {
                    "header_too_large"
                } else {
                    "malformed"
                });
                // hyper has responded and closed its side.
                refuse::linger(&mut transport).await;
            }
        }
        End::TimedOut(timeout) => {
            tracing::debug!(%peer, ?timeout, "connection timed out");
            cut(reason(timeout));
            match timeout {
                // The client would not read this response either, or this response would interrupt another
                // response.
                Timeout::Write => reset(&transport),
                Timeout::Header if progress.lock().pace.is_stalled() => reset(&transport),
                Timeout::Header => {
                    let response = RequestError::TimedOut.into_response();
                    let dismissed = refuse::dismiss(&mut transport, response);
                    // The client may be gone.
                    let _ = tokio::time::timeout(refuse::REFUSAL_TIMEOUT, dismissed).await;
                }
                Timeout::Silent | Timeout::Idle => {}
            }
        }
        End::Cut => cut("stopping"),
    }
}

/// Makes the system discard the bytes that were not sent.
fn reset(transport: &Transport) {
    // If this fails, the system discards the bytes later.
    let _ = transport.socket().set_zero_linger();
}

/// Returns the label of the reason in metrics.
const fn reason(timeout: Timeout) -> &'static str {
    match timeout {
        Timeout::Silent => "silent",
        Timeout::Header => "header",
        Timeout::Idle => "idle",
        Timeout::Write => "write",
    }
}

/// Counts one open connection until it is dropped.
struct OpenConnection;

static CONNECTIONS: LazyLock<[Gauge; 2]> = LazyLock::new(|| {
    [
        metrics::gauge!(HTTP_CONNECTIONS),
        metrics::gauge!(QUEUE_LENGTH, "queue" => CONNECTIONS_QUEUE),
    ]
});

impl OpenConnection {
    fn new() -> Self {
        CONNECTIONS.iter().for_each(|gauge| gauge.increment(1.0));
        Self
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        CONNECTIONS.iter().for_each(|gauge| gauge.decrement(1.0));
    }
}
