//! One connection, from the handshake to its end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;

use actors::metrics::{HTTP_CONNECTIONS, HTTP_CONNECTIONS_CUT};
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

use super::listener::{Shared, Stage};
use super::pace::{Late, Pace};
use super::problem::Problem;
use super::stream::{SharedPace, Stream, Transport};
use super::{refuse, request, tls};

/// How a connection came to its end.
enum End {
    /// By itself.
    Closed(hyper::Result<()>),
    /// We waited long enough.
    Late(Late),
    /// The node has stopped.
    Cut,
}

/// Serves one connection until it ends.
pub(super) async fn serve<F>(
    stream: TcpStream,
    peer: IpAddr,
    routes: F,
    shared: Arc<Shared>,
    mut stage: watch::Receiver<Stage>,
) where
    F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let _counted = Counted::new();
    let opened = tokio::select! {
        opened = open(stream, &shared) => opened,
        // Nobody has asked for anything yet.
        _ = stage.changed() => return,
    };
    let transport = match opened {
        Ok(transport) => transport,
        Err(error) => {
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            return cut("handshake");
        }
    };
    let pace = SharedPace::new(Pace::new(shared.limits, Instant::now()));
    let service = RefCell::new(warp::service(routes));
    let respond = {
        let (shared, pace) = (Arc::clone(&shared), pace.clone());
        service_fn(move |request: Request<Incoming>| {
            pace.lock().asked();
            let (head, request) = request::behead(request, peer, &shared.trusted_proxies, &shared.patience);
            let answer = tower_service::Service::call(&mut *service.borrow_mut(), request);
            let (pace, leaving) = (pace.clone(), shared.leaving.clone());
            async move {
                let response = request::respond(&head, leaving, answer).await;
                pace.lock().answered(head.has_left_unread(), Instant::now());
                Ok::<_, Infallible>(response)
            }
        })
    };
    let mut connection = shared
        .http
        .serve_connection(TokioIo::new(Stream::new(transport, pace.clone())), respond);
    let end = watch(&mut connection, &pace, &mut stage).await;
    finish(
        end,
        peer,
        &pace,
        connection.into_parts().io.into_inner().into_transport(),
    )
    .await;
}

/// The connection as bytes of HTTP.
pub(super) async fn open(stream: TcpStream, shared: &Shared) -> Result<Transport, tls::HandshakeError> {
    // Answers are small and written whole; waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    match &shared.tls {
        None => Ok(Transport::Plain(stream)),
        Some(tls) => Ok(Transport::Tls(Box::new(tls.handshake(stream).await?))),
    }
}

/// Drives the connection to its end, and looks at the clock and at the node's stage meanwhile.
async fn watch<S, B>(
    connection: &mut Connection<TokioIo<Stream>, S>,
    pace: &SharedPace,
    stage: &mut watch::Receiver<Stage>,
) -> End
where
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let first = pace.lock().deadline().map_or_else(Instant::now, |(at, _)| at);
    let mut clock = std::pin::pin!(sleep_until(first.into()));
    loop {
        tokio::select! {
            biased;
            closed = &mut *connection => return End::Closed(closed),
            changed = stage.changed() => match (changed, *stage.borrow_and_update()) {
                // The listener was dropped, not stopped: nobody will ever tell more.
                (Err(_), _) | (Ok(()), Stage::Cut) => return End::Cut,
                (Ok(()), Stage::Stopping) => {
                    pace.lock().stop(Instant::now());
                    Pin::new(&mut *connection).graceful_shutdown();
                }
                (Ok(()), Stage::Serving) => {}
            },
            late = std::future::poll_fn(|cx| overdue(pace, clock.as_mut(), cx)) => return End::Late(late),
        }
    }
}

/// Ready when patience ends. The clock is set anew only when it must ring earlier, or rang too early: most
/// requests set none.
fn overdue(pace: &SharedPace, mut clock: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Late> {
    loop {
        let Some((at, late)) = pace.lock().deadline() else {
            // The client waits for us, so this is polled again when there is something to wait for.
            return Poll::Pending;
        };
        if clock.deadline() > at.into() {
            clock.as_mut().reset(at.into());
        }
        if clock.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if Instant::now() >= at {
            return Poll::Ready(late);
        }
        clock.as_mut().reset(at.into());
    }
}

/// Says the last word where there is one, and counts.
async fn finish(end: End, peer: IpAddr, pace: &SharedPace, mut transport: Transport) {
    match end {
        End::Closed(Ok(())) if pace.lock().has_left_unread() => refuse::linger(&mut transport).await,
        End::Closed(Ok(())) => {}
        End::Closed(Err(error)) => {
            tracing::debug!(%peer, %error, "a connection broke");
            if error.is_parse() {
                cut(if error.is_parse_too_large() {
                    "header_too_large"
                } else {
                    "malformed"
                });
                // hyper has answered, and hung up its side.
                refuse::linger(&mut transport).await;
            }
        }
        End::Late(late) => {
            tracing::debug!(%peer, ?late, "a connection is closed");
            cut(reason(late));
            match late {
                // Words would not be taken either, or come between an answer and its end.
                Late::Write => reset(&transport),
                Late::Header if pace.lock().is_stalled() => reset(&transport),
                Late::Header => {
                    let dismissed = refuse::dismiss(&mut transport, Problem::RequestTimeout);
                    // A client that is gone does not hear why.
                    let _ = tokio::time::timeout(refuse::REFUSAL_LIMIT, dismissed).await;
                }
                Late::Silent | Late::Idle => {}
            }
        }
        End::Cut => cut("stopping"),
    }
}

/// Lets the system forget what was not sent, too: else it would go on offering it.
fn reset(transport: &Transport) {
    // Without it the system gives up later.
    let _ = transport.socket().set_zero_linger();
}

/// The reason's name in metrics.
const fn reason(late: Late) -> &'static str {
    match late {
        Late::Silent => "silent",
        Late::Header => "header",
        Late::Idle => "idle",
        Late::Write => "write",
    }
}

fn cut(reason: &'static str) {
    metrics::counter!(HTTP_CONNECTIONS_CUT, "reason" => reason).increment(1);
}

/// One open connection, in the gauge.
struct Counted;

static CONNECTIONS: LazyLock<Gauge> = LazyLock::new(|| metrics::gauge!(HTTP_CONNECTIONS));

impl Counted {
    fn new() -> Self {
        CONNECTIONS.increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        CONNECTIONS.decrement(1.0);
    }
}
