//! The listener: an accept loop for the open internet. Every wait for a client has a timeout, and everything
//! that the loop holds has a bound. warp's own server has no timeouts and no bounds.
//!
//! A client that closes its sending side after a request still gets the response, because the request may
//! have been executed. Responses are sent at once: with hyper's `pipeline_flush` a response would wait for
//! the rest of the next request, which may never come.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::critical::critical;
use http::{HeaderName, Method};
use hyper::server::conn::http1;
use ipnet::IpNet;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::body::BodyDeadline;
use super::clients::Clients;
use super::cors::Cors;
use super::head::Head;
use super::trace::Sampler;
use super::unsent::Unsent;
use super::{accept, open_files, pace, request, tls};
use crate::config::{AccessLog, Config, Origin};
use crate::metrics::{CONNECTIONS_QUEUE, queue};

/// Default maximum of open connections: about 16 KiB each, so 256 MiB. A client that sends and does not read
/// makes a connection hold up to 128 KiB.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Maximum number of connections that the system holds until they are accepted: enough for a burst that
/// arrives while the loop is busy. The system may have a lower limit (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Maximum size of a request's head: twice the head of a browser with all its cookies.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Maximum size of a connection's buffer in each direction. A buffer holds a head, or responses to pipelined
/// requests. It may exceed this by one portion of a body.
const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// Number of bytes that the system holds of a connection before it sends them. The system's default is a
/// share of its buffer, which grows to megabytes, and no bound of the node counts that memory. With a lower
/// value, the system also reports more often that a client reads.
const SYSTEM_UNSENT_BYTES_MAX: u32 = 64 * 1024;

/// Number of parts into which all connections are divided. By default one client address may have one part.
/// Other clients are served even if one client opens as many connections as it can.
const CLIENT_PARTS: usize = 2;

/// Returns true if a request with this method and path is of the most frequent kind. Nothing is logged about
/// such a request before its response, unless debug logging is on.
pub type IsHot = fn(&Method, &str) -> bool;

/// Options of a listener.
#[derive(Debug, Clone)]
pub struct Options {
    /// Maximum number of open connections.
    pub connections_max: usize,
    /// Maximum number of open connections of one client address; `None` is half of `connections_max`.
    pub client_connections_max: Option<usize>,
    /// Maximum number of bytes of large responses that are not sent.
    pub unsent_bytes_max: usize,
    /// Time for a client to send the head of a request.
    pub header_timeout: Duration,
    /// Time for a client to send the whole body.
    pub body_timeout: Duration,
    /// Time that a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// Time for a client to read the next 16 KiB of responses.
    pub write_timeout: Duration,
    /// Networks of proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Requests that are logged.
    pub access: AccessLog,
    /// Origins whose pages may read responses.
    pub cors_origins: Vec<Origin>,
    /// TLS, if it is configured.
    pub tls: Option<tls::Options>,
    /// Which requests are of the most frequent kind.
    pub is_hot: IsHot,
    /// Chooses the requests that are traced.
    pub sampler: Sampler,
}

impl Default for Options {
    fn default() -> Self {
        Config::default().listener()
    }
}

/// Stage of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Accepts connections and serves requests.
    Serving,
    /// Finishes requests, and accepts no more connections.
    Stopping,
    /// Closes connections without finishing their requests.
    Cut,
}

/// State that all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) http: http1::Builder,
    pub(super) limits: pace::Limits,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) body_deadline: Arc<BodyDeadline>,
    pub(super) responses: request::ResponseOptions,
    pub(super) clients: Arc<Clients>,
    pub(super) unsent: Arc<Unsent>,
    pub(super) tls: Option<Arc<tls::Tls>>,
    pub(super) sampler: Sampler,
}

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// TLS is configured, but cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Binds a socket whose queue can hold a burst.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A restarted node can bind at once, even if old connections of its predecessor linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listener that serves a socket.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stage: watch::Sender<Stage>,
}

impl Listener {
    /// Serves requests of this socket.
    pub fn serve<F>(socket: TcpListener, routes: F, options: Options) -> Result<Self, Error>
    where
        F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
        F::Future: Send,
    {
        let address = socket.local_addr()?;
        // Accepted connections inherit this.
        if let Err(error) = SockRef::from(&socket).set_tcp_notsent_lowat(SYSTEM_UNSENT_BYTES_MAX) {
            tracing::warn!(%error, "failed to set TCP_NOTSENT_LOWAT");
        }
        let connections_max = open_files::make_room(options.connections_max);
        // The connections themselves update the gauge of the length.
        let _length = queue(CONNECTIONS_QUEUE, connections_max);
        let (stage, receiver) = watch::channel(Stage::Serving);
        let mut http = http1::Builder::new();
        // The number of headers stays at hyper's default (100): setting it costs an allocation per request.
        http.half_close(true)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX);
        let limits = pace::Limits {
            header: options.header_timeout,
            idle: options.idle_timeout,
            write: options.write_timeout,
        };
        let client_connections_max = options
            .client_connections_max
            .unwrap_or((connections_max / CLIENT_PARTS).max(1));
        let shared = Shared {
            http,
            limits,
            clients: Clients::new(client_connections_max, options.trusted_proxies.clone()),
            unsent: Unsent::new(options.unsent_bytes_max),
            trusted_proxies: options.trusted_proxies,
            body_deadline: BodyDeadline::new(options.body_timeout, receiver.clone()),
            responses: request::ResponseOptions {
                access: options.access,
                cors: Cors::new(&options.cors_origins).map(Arc::new),
                is_hot: options.is_hot,
            },
            tls: options.tls.map(tls::Tls::start).transpose()?,
            sampler: options.sampler,
        };
        let accepting = accept::accept(socket, routes, connections_max, Arc::new(shared), receiver);
        tokio::spawn(critical("accepting connections", accepting));
        Ok(Self { address, stage })
    }

    /// The address of the socket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, closes idle connections and finishes requests. Returns false if some requests are
    /// still running after `limit`. Their connections are then cut.
    pub async fn stop(self, limit: Duration) -> bool {
        self.stage.send_replace(Stage::Stopping);
        // The accept loop and every connection hold a receiver until they end.
        let finished = tokio::time::timeout(limit, self.stage.closed()).await.is_ok();
        self.stage.send_replace(Stage::Cut);
        finished
    }
}

/// Returns a filter that extracts a header as text: `None` if the header is missing, occurs twice or is not
/// text. The accept loop keeps the headers beside the request, where the filters of warp do not find them.
pub fn header(name: HeaderName) -> impl Filter<Extract = (Option<String>,), Error = Rejection> + Clone {
    warp::ext::get::<Arc<Head>>()
        .map(move |head: Arc<Head>| head.text(&name).ok().flatten().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use std::net::Ipv4Addr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn serve<F>(routes: F) -> Listener
    where
        F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
        F::Future: Send,
    {
        let flags = vec![("http.cors_origins".to_owned(), "https://shop.example".to_owned())];
        let options = Sources { file: None, flags }.load().unwrap().listener();
        Listener::serve(
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(),
            routes,
            options,
        )
        .unwrap()
    }

    async fn send_request(stream: &mut TcpStream) {
        stream
            .write_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\nX-Request-Id: r-1\r\n\r\n",
            )
            .await
            .unwrap();
    }

    async fn read_to_end(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer.to_lowercase()
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_connection_stays_open() {
        let listener = serve(warp::any().map(|| -> Response { panic!("on purpose") })).await;
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        for _ in 0..2 {
            send_request(&mut stream).await;
            let mut answer = vec![0; 1024];
            let read = tokio::time::timeout(LIMIT, stream.read(&mut answer))
                .await
                .unwrap()
                .unwrap();
            let answer = String::from_utf8_lossy(&answer[..read]).to_lowercase();
            assert!(
                answer.starts_with("http/1.1 500 ")
                    && answer.contains("x-request-id: r-1")
                    && answer.contains("\"internal\""),
                "{answer}"
            );
            assert!(!answer.contains("on purpose"), "{answer}");
            // The page may read the answer.
            assert!(
                answer.contains("access-control-allow-origin: https://shop.example\r\n")
                    && answer.contains("vary: origin"),
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn the_rest_of_a_response_is_sent_before_the_refusal_of_the_next_request() {
        const BYTES: usize = 8_000_000;
        // The route does not read the body of the request, so hyper reads the next head while the response
        // is on its way.
        let listener = serve(warp::any().map(|| Response::new(vec![b'z'; BYTES].into()))).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(listener.address()).await.unwrap();
        let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nz\0garbage\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let answer = read_to_end(stream).await;
        let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        let (body, refusal) = rest.split_at(BYTES.min(rest.len()));
        assert!(body.bytes().all(|byte| byte == b'z'), "the body is whole");
        assert!(
            refusal.starts_with("http/1.1 400 ") && refusal.contains("\"malformed\""),
            "{refusal}"
        );
    }

    #[tokio::test]
    async fn stopping_closes_idle_connections_and_finishes_requests() {
        let (started, released) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let route = {
            let (started, released) = (Arc::clone(&started), Arc::clone(&released));
            warp::any().then(move || {
                let (started, released) = (Arc::clone(&started), Arc::clone(&released));
                async move {
                    started.notify_one();
                    released.notified().await;
                    Response::new("done".into())
                }
            })
        };
        let listener = serve(route).await;
        let address = listener.address();
        let idle = TcpStream::connect(address).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        send_request(&mut busy).await;
        tokio::time::timeout(LIMIT, started.notified()).await.unwrap();
        let stopped = tokio::spawn(listener.stop(LIMIT));
        assert_eq!(read_to_end(idle).await, "");
        assert!(TcpStream::connect(address).await.is_err());
        released.notify_one();
        let answer = read_to_end(busy).await;
        assert!(
            answer.starts_with("http/1.1 200 ")
                && answer.contains("connection: close")
                && answer.ends_with("done"),
            "{answer}"
        );
        assert!(stopped.await.unwrap());
    }

    #[tokio::test]
    async fn stopping_takes_no_longer_than_the_limit() {
        let started = Arc::new(Notify::new());
        let route = {
            let started = Arc::clone(&started);
            warp::any().then(move || {
                started.notify_one();
                std::future::pending::<Response>()
            })
        };
        let listener = serve(route).await;
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        send_request(&mut stream).await;
        tokio::time::timeout(LIMIT, started.notified()).await.unwrap();
        assert!(!listener.stop(Duration::from_millis(50)).await);
        assert_eq!(read_to_end(stream).await, "", "the connection is cut");
    }
}
