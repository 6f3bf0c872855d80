//! The accept loop: connections, request ids, and what is measured around every request.
//!
//! Ours rather than warp's, which has no `TCP_NODELAY`, no peer address, and no end to a graceful stop.

use std::any::Any;
use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use actors::metrics::HTTP_CONNECTIONS;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use metrics::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower_service::Service;
use tracing::Instrument;
use warp::Filter;
use warp::reply::Response;

use super::call::Head;
use super::problem::Problem;
use super::route;

/// How long to wait when the system has no more sockets to give; others may close meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a socket is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { header_timeout: Duration::from_secs(10) }
    }
}

/// A socket that is being served.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stopping: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Serves what comes in at this socket.
    pub fn serve<F>(socket: TcpListener, routes: F, options: &Options) -> io::Result<Self>
    where
        F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
        F::Future: Send,
    {
        let address = socket.local_addr()?;
        let stopping = Arc::new(Notify::new());
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(options.header_timeout);
        let task = tokio::spawn(accept(socket, routes, http, Arc::clone(&stopping)));
        Ok(Self { address, stopping, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nobody any more, closes idle connections, and finishes the requests that are in progress. False if they were
    /// not finished within `limit`.
    pub async fn stop(self, limit: Duration) -> bool {
        self.stopping.notify_one();
        tokio::time::timeout(limit, self.task).await.is_ok()
    }
}

/// Accepts until told to stop, then waits for the connections to end.
async fn accept<F>(socket: TcpListener, routes: F, http: http1::Builder, stopping: Arc<Notify>)
where
    F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stopping.notified() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(serve(stream, peer.ip(), routes.clone(), http.clone(), connections.watcher()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(socket);
    connections.shutdown().await;
}

/// Serves one connection until it ends.
async fn serve<F>(stream: TcpStream, peer: IpAddr, routes: F, http: http1::Builder, watcher: Watcher)
where
    F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let _counted = Counted::new();
    // Answers are small and written whole; waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    let service = RefCell::new(warp::service(routes));
    let respond = service_fn(move |request: Request<Incoming>| {
        let (head, request) = behead(request, peer);
        let answer = service.borrow_mut().call(request);
        respond(head, answer)
    });
    let connection = http.serve_connection(TokioIo::new(stream), respond);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Takes off what handlers want to share; the routes below see it as an extension.
fn behead(mut request: Request<Incoming>, peer: IpAddr) -> (Arc<Head>, Request<Incoming>) {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let headers = std::mem::take(request.headers_mut());
    let head = Arc::new(Head::new(request.method().clone(), query, headers, peer));
    request.extensions_mut().insert(Arc::clone(&head));
    (head, request)
}

/// Waits for the answer and completes it.
async fn respond(head: Arc<Head>, answer: impl Future<Output = Result<Response, Infallible>>) -> Result<Response, Infallible> {
    let started = Instant::now();
    let id = request_id(&head.headers);
    let span = tracing::error_span!("request", id = id.to_str().unwrap_or_default(), method = %head.method);
    let mut response = match AssertUnwindSafe(answer).catch_unwind().instrument(span.clone()).await {
        Ok(Ok(response)) => response,
        Err(panic) => {
            span.in_scope(|| tracing::error!(panic = panic_message(&*panic), "a handler panicked"));
            Problem::Internal { applied: None }.into_response()
        }
    };
    response.headers_mut().insert(X_REQUEST_ID, id);
    let took = started.elapsed();
    route::answered(head.route(), &head.method, response.status(), took);
    span.in_scope(|| tracing::debug!(route = head.route().template(), status = response.status().as_u16(), ?took, "answered"));
    Ok(response)
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id of a client's that is repeated.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The client's id for the request if it is a sane one, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |id: &&HeaderValue| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    let new = || HeaderValue::try_from(format!("{:032x}", rand::random::<u128>()));
    // Hexadecimal digits are always a header value.
    headers.get(X_REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| new().unwrap_or_else(|_| HeaderValue::from_static("0")))
}

/// What a panic said, if it said it in words.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMIT: Duration = Duration::from_secs(10);

    async fn serve<F>(routes: F) -> Listener
    where
        F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
        F::Future: Send,
    {
        Listener::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(), routes, &Options::default()).unwrap()
    }

    async fn ask(stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: r-1\r\n\r\n").await.unwrap();
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer.to_lowercase()
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_costs_nobody_the_connection() {
        let listener = serve(warp::any().map(|| -> Response { panic!("on purpose") })).await;
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        for _ in 0..2 {
            ask(&mut stream).await;
            let mut answer = vec![0; 1024];
            let read = tokio::time::timeout(LIMIT, stream.read(&mut answer)).await.unwrap().unwrap();
            let answer = String::from_utf8_lossy(&answer[..read]).to_lowercase();
            assert!(
                answer.starts_with("http/1.1 500 ") && answer.contains("x-request-id: r-1") && answer.contains("\"internal\""),
                "{answer}"
            );
            assert!(!answer.contains("on purpose"), "{answer}");
        }
    }

    #[tokio::test]
    async fn stopping_closes_idle_connections_and_finishes_requests() {
        let (asked, released) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let route = {
            let (asked, released) = (Arc::clone(&asked), Arc::clone(&released));
            warp::any().then(move || {
                let (asked, released) = (Arc::clone(&asked), Arc::clone(&released));
                async move {
                    asked.notify_one();
                    released.notified().await;
                    Response::new("done".into())
                }
            })
        };
        let listener = serve(route).await;
        let address = listener.address();
        let idle = TcpStream::connect(address).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        ask(&mut busy).await;
        tokio::time::timeout(LIMIT, asked.notified()).await.unwrap();
        let stopped = tokio::spawn(listener.stop(LIMIT));
        assert_eq!(rest(idle).await, "");
        assert!(TcpStream::connect(address).await.is_err());
        released.notify_one();
        let answer = rest(busy).await;
        assert!(answer.starts_with("http/1.1 200 ") && answer.contains("connection: close") && answer.ends_with("done"), "{answer}");
        assert!(stopped.await.unwrap());
    }

    #[tokio::test]
    async fn stopping_waits_no_longer_than_the_limit() {
        let asked = Arc::new(Notify::new());
        let route = {
            let asked = Arc::clone(&asked);
            warp::any().then(move || {
                asked.notify_one();
                std::future::pending::<Response>()
            })
        };
        let listener = serve(route).await;
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        ask(&mut stream).await;
        tokio::time::timeout(LIMIT, asked.notified()).await.unwrap();
        assert!(!listener.stop(Duration::from_millis(50)).await);
    }
}
