//! One request as handlers see it: its head, shared with the listener, and its body, read within bounds.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::ids::RequestKey;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{FutureExt, Stream, StreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName};
use http::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use warp::{Filter, Rejection};

use super::json;
use super::listener::Stage;
use super::pace::STOPPING_PATIENCE;
use super::problem::Problem;
use super::route::Route;

/// Largest body there is reason for: a coupon with the longest title is a tenth of it.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;

/// How much of a body that is too large is read and thrown away. A client that is still sending when the
/// connection closes sees a reset, not our answer; beyond this that is its own fault.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Head {
    /// Its method.
    pub(crate) method: Method,
    /// Its query, as it was sent.
    pub(crate) query: String,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Who sent it: the other end of the connection.
    pub(crate) peer: IpAddr,
    /// Whom it comes from: the peer, or whom the proxies that we trust forward for.
    pub(crate) client: IpAddr,
    /// How long to wait for the body; without it, for ever.
    pub(crate) patience: Option<Arc<Patience>>,
    /// It looks like one to issue a coupon: the request of which there are many.
    pub(crate) is_issue: bool,
    /// The route that took it, for the listener's metrics.
    route: OnceLock<Route>,
    /// Some of the body was not waited for, and may still be coming in.
    left_unread: AtomicBool,
}

impl Head {
    /// The head of a request from this peer.
    pub(crate) fn new(method: Method, query: String, headers: HeaderMap, peer: IpAddr) -> Self {
        Self {
            method,
            query,
            headers,
            peer,
            client: peer,
            patience: None,
            is_issue: false,
            route: OnceLock::new(),
            left_unread: AtomicBool::new(false),
        }
    }

    /// Notes which route took the request.
    pub(crate) fn matched(&self, route: Route) {
        // A request is matched once; were it twice, the first route would be the one that answered.
        let _ = self.route.set(route);
    }

    /// Which route took the request.
    pub(crate) fn route(&self) -> Route {
        self.route.get().copied().unwrap_or(Route::Unmatched)
    }

    /// Whether more of the request may come in than was read, because its body was given up or no route of
    /// ours looked at it.
    pub(crate) fn has_left_unread(&self) -> bool {
        self.left_unread.load(Ordering::Relaxed) || self.route() == Route::Unmatched
    }

    /// A header that may be there once, as text. Twice is a contradiction, and nothing we take is anything
    /// but ASCII.
    pub(crate) fn text(&self, name: &HeaderName) -> Result<Option<&str>, Problem> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value
                .to_str()
                .map(Some)
                .map_err(|_| Problem::Malformed(format!("{name} must be ASCII"))),
            (Some(_), Some(_)) => Err(Problem::Malformed(format!("{name} must be there once"))),
        }
    }

    /// The client's `Idempotency-Key`.
    pub(crate) fn request_key(&self) -> Result<Option<RequestKey>, Problem> {
        let key = self.text(&IDEMPOTENCY_KEY)?.map(RequestKey::parse).transpose();
        key.map_err(|_| {
            Problem::Malformed("Idempotency-Key must be 1 to 64 visible ASCII characters".to_owned())
        })
    }
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request, read.
#[derive(Debug)]
pub(crate) struct Call {
    /// Its head.
    pub(crate) head: Arc<Head>,
    body: Result<Bytes, Unread>,
}

/// Why a body is not here.
#[derive(Debug, Clone, Copy)]
enum Unread {
    TooLarge,
    Broken,
    Late,
}

impl Call {
    /// Reads the body of a request that cannot do without one.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body = self.body()?;
        self.check_media_type()?;
        json::parse(body)
    }

    /// Reads the body of a request that needs no data: nothing counts as an empty object.
    pub(crate) fn json_or_nothing<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body()?.is_empty() {
            Ok(T::default())
        } else {
            self.json()
        }
    }

    fn body(&self) -> Result<&Bytes, Problem> {
        match &self.body {
            Ok(body) => Ok(body),
            Err(Unread::TooLarge) => Err(Problem::TooLarge),
            Err(Unread::Late) => Err(Problem::RequestTimeout),
            Err(Unread::Broken) => Err(Problem::Malformed("the body ended before its end".to_owned())),
        }
    }

    /// JSON, or a merge patch in JSON; a body that does not say what it is gets the benefit of the doubt.
    fn check_media_type(&self) -> Result<(), Problem> {
        let Some(value) = self.head.headers.get(CONTENT_TYPE) else {
            return Ok(());
        };
        let essence = value
            .to_str()
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        let known = ["application/json", "application/merge-patch+json"];
        if known.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
            Ok(())
        } else {
            Err(Problem::UnsupportedMediaType)
        }
    }
}

/// Takes any request whose path has been matched.
pub(crate) fn call() -> impl Filter<Extract = (Call,), Error = Rejection> + Copy {
    warp::ext::get::<Arc<Head>>()
        .and(warp::body::stream())
        .then(|head: Arc<Head>, stream| async move {
            let body = read_in_time(&head, stream).await;
            // Whatever is answered then: also that whoever asks may not.
            head.left_unread.store(
                matches!(body, Err(Unread::TooLarge | Unread::Late)),
                Ordering::Relaxed,
            );
            Call { head, body }
        })
}

/// How long clients may take for a body: in all and not by byte, and less once the node stops.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    stage: watch::Receiver<Stage>,
}

impl Patience {
    /// So long while the listener serves.
    pub(super) fn new(limit: Duration, stage: watch::Receiver<Stage>) -> Self {
        Self { limit, stage }
    }

    /// What comes of it if it comes in time.
    async fn wait_for<T>(&self, reading: impl Future<Output = T>) -> Option<T> {
        let mut stage = self.stage.clone();
        let stopping = async {
            // An error means that the listener is gone.
            let _ = stage.wait_for(|stage| *stage != Stage::Serving).await;
            tokio::time::sleep(STOPPING_PATIENCE).await;
        };
        tokio::select! {
            read = tokio::time::timeout(self.limit, reading) => read.ok(),
            () = stopping => None,
        }
    }
}

/// Reads a body for as long as there is patience.
async fn read_in_time<B: Buf>(
    head: &Head,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Bytes, Unread> {
    let mut reading = std::pin::pin!(read(head, stream));
    // Most bodies are here with their heads, and need no clock.
    match (reading.as_mut().now_or_never(), &head.patience) {
        (Some(body), _) => body,
        (None, Some(patience)) => patience.wait_for(reading).await.unwrap_or(Err(Unread::Late)),
        (None, None) => reading.await,
    }
}

/// Reads a body of up to [`BODY_BYTES_MAX`], however it is framed.
async fn read<B: Buf>(
    head: &Head,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Bytes, Unread> {
    let declared = head
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let declared_too_large = declared.is_some_and(|length| length > BODY_BYTES_MAX);
    // A client that asks first, or means to send more than we would throw away, is answered before it sends.
    if declared_too_large && (head.headers.contains_key(EXPECT) || declared > Some(DISCARDED_BYTES_MAX)) {
        return Err(Unread::TooLarge);
    }
    let mut stream = std::pin::pin!(stream);
    let mut body = BytesMut::new();
    let mut total: usize = 0;
    while let Some(part) = stream.next().await {
        let mut part = part.map_err(|_| Unread::Broken)?;
        total = total.saturating_add(part.remaining());
        if total > DISCARDED_BYTES_MAX {
            break;
        }
        if total <= BODY_BYTES_MAX {
            body.extend_from_slice(&part.copy_to_bytes(part.remaining()));
        }
    }
    if total > BODY_BYTES_MAX {
        Err(Unread::TooLarge)
    } else {
        Ok(body.freeze())
    }
}
