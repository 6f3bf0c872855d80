//! The listener: an accept loop that can stand on the open internet. Everything it waits for has a limit,
//! everything it holds a bound.
//!
//! Ours rather than warp's, which has none of that. `accept` gives places, as many as `files` has room for;
//! `connection` serves one client, `pace` is its patience, `stream` its bytes, `tls` encrypts them; `request`
//! is around every request, with `client` and `trace`; `refuse` speaks where no route does.
//!
//! Decided: a client that has sent its request and closes its side is answered all the same, as what it asked
//! for may have been done. Answers go out as soon as they are made: with hyper's `pipeline_flush` one would
//! wait for the rest of a next request that may never come.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use warp::Filter;
use warp::reply::Response;

use super::call::Patience;
use super::cors::Cors;
use super::{accept, open_files, pace, request, tls};
use crate::config::{AccessLog, Config, Origin};

/// Most connections, unless it is said otherwise: about 16 KiB each, so 256 MiB.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Connections that the system holds until they are accepted: a burst within one turn of a busy loop. It may
/// allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Largest head of a request: browsers with all their cookies stay below half of it.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Most that a connection buffers each way: a head, or the answers to what is pipelined.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// How a socket is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// Most connections at the same time.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// How long a client may take to send the body, in all.
    pub body_timeout: Duration,
    /// How long a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// How long a client may take to read the next 16 KiB of answers.
    pub write_timeout: Duration,
    /// Networks of proxies that are believed whom they forward for.
    pub trusted_proxies: Vec<IpNet>,
    /// Which requests are logged.
    pub access: AccessLog,
    /// Origins whose pages may read the answers.
    pub cors_origins: Vec<Origin>,
    /// With TLS, or without.
    pub tls: Option<tls::Options>,
}

impl Default for Options {
    fn default() -> Self {
        Config::default().listener()
    }
}

/// What a listener is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Serve.
    Serving,
    /// Finish requests, and take no more.
    Stopping,
    /// End connections as they are.
    Cut,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) http: http1::Builder,
    pub(super) limits: pace::Limits,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) patience: Arc<Patience>,
    pub(super) leaving: request::Leaving,
    pub(super) tls: Option<Arc<tls::Tls>>,
}

/// Why a socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket is broken.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// TLS was wanted, and cannot be had.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Binds a socket that can hold a burst.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A restart need not wait for connections of its predecessor.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket that is being served.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stage: watch::Sender<Stage>,
}

impl Listener {
    /// Serves what comes in at this socket.
    pub fn serve<F>(socket: TcpListener, routes: F, options: Options) -> Result<Self, Error>
    where
        F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
        F::Future: Send,
    {
        let address = socket.local_addr()?;
        let connections_max = open_files::make_room(options.connections_max);
        let (stage, receiver) = watch::channel(Stage::Serving);
        let mut http = http1::Builder::new();
        // As many headers as hyper takes by itself (100): to name a number costs an allocation a request.
        http.half_close(true)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX);
        let limits = pace::Limits {
            header: options.header_timeout,
            idle: options.idle_timeout,
            write: options.write_timeout,
        };
        let shared = Shared {
            http,
            limits,
            trusted_proxies: options.trusted_proxies,
            patience: Arc::new(Patience::new(options.body_timeout, receiver.clone())),
            leaving: request::Leaving {
                access: options.access,
                cors: Cors::new(&options.cors_origins).map(Arc::new),
            },
            tls: options.tls.map(tls::Tls::start).transpose()?,
        };
        tokio::spawn(accept::accept(
            socket,
            routes,
            connections_max,
            Arc::new(shared),
            receiver,
        ));
        Ok(Self { address, stage })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nobody any more, closes idle connections, and finishes the requests that are in progress.
    /// False if they were not finished within `limit`; their connections are cut then.
    pub async fn stop(self, limit: Duration) -> bool {
        self.stage.send_replace(Stage::Stopping);
        // The accept loop and every connection hold a receiver until they end.
        let finished = tokio::time::timeout(limit, self.stage.closed()).await.is_ok();
        self.stage.send_replace(Stage::Cut);
        finished
    }
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

    async fn ask(stream: &mut TcpStream) {
        stream
            .write_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: https://shop.example\r\nX-Request-Id: r-1\r\n\r\n",
            )
            .await
            .unwrap();
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer.to_lowercase()
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_costs_nobody_the_connection() {
        let listener = serve(warp::any().map(|| -> Response { panic!("on purpose") })).await;
        let mut stream = TcpStream::connect(listener.address()).await.unwrap();
        for _ in 0..2 {
            ask(&mut stream).await;
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
            // The page that asked may know it, too.
            assert!(
                answer.contains("access-control-allow-origin: https://shop.example\r\n")
                    && answer.contains("vary: origin"),
                "{answer}"
            );
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
        assert!(
            answer.starts_with("http/1.1 200 ")
                && answer.contains("connection: close")
                && answer.ends_with("done"),
            "{answer}"
        );
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
        assert_eq!(rest(stream).await, "", "it is cut");
    }
}
