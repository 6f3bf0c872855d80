//! The head of a request, shared by its handler and its connection.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use http::header::HeaderName;
use http::{HeaderMap, Method};

use super::body::BodyDeadline;
use super::problem::RequestError;
use super::route_metrics::{RouteMetrics, UNMATCHED};
use actors::trace::Span;

/// A request without its body.
#[derive(Debug)]
pub(crate) struct Head {
    /// The method.
    pub(crate) method: Method,
    /// The query, as it was sent.
    pub(crate) query: String,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The address at the other end of the connection.
    pub(crate) peer: IpAddr,
    /// The client's address: the peer's, or behind trusted proxies the one that `X-Forwarded-For` names.
    pub(crate) client: IpAddr,
    /// The limit for reading the body; `None` is no limit.
    pub(crate) body_deadline: Option<Arc<BodyDeadline>>,
    /// True if this is a request of the most frequent kind.
    pub(crate) is_hot: bool,
    /// The span of the request, if it is traced.
    pub(crate) span: Span,
    route: OnceLock<&'static RouteMetrics>,
    body_left_unread: AtomicBool,
}

impl Head {
    /// Makes the head of a request from this peer.
    pub(crate) fn new(method: Method, query: String, headers: HeaderMap, peer: IpAddr) -> Self {
        Self {
            method,
            query,
            headers,
            peer,
            client: peer,
            body_deadline: None,
            is_hot: false,
            span: Span::default(),
            route: OnceLock::new(),
            body_left_unread: AtomicBool::new(false),
        }
    }

    /// Completes once the node stops.
    pub(super) fn node_stops(&self) -> impl Future<Output = ()> + Send + 'static {
        let deadline = self.body_deadline.clone();
        async move {
            match deadline {
                Some(deadline) => deadline.listener_stops().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Records the route that handles the request.
    pub(crate) fn set_route(&self, route: &'static RouteMetrics) {
        // A request is matched once.
        let _ = self.route.set(route);
    }

    /// The route that handles the request.
    pub(crate) fn route(&self) -> &'static RouteMetrics {
        self.route.get().copied().unwrap_or(&UNMATCHED)
    }

    /// Records whether a part of the body was left unread.
    pub(crate) fn set_body_left_unread(&self, left_unread: bool) {
        self.body_left_unread.store(left_unread, Ordering::Relaxed);
    }

    /// True if more of the request may arrive: its body was not read to the end, or no route matched.
    pub(crate) fn has_left_unread(&self) -> bool {
        self.body_left_unread.load(Ordering::Relaxed) || self.route.get().is_none()
    }

    /// Returns a header as text. The header may occur only once. It must be ASCII, like all headers that the
    /// API reads.
    pub(crate) fn text(&self, name: &HeaderName) -> Result<Option<&str>, RequestError> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => value
                .to_str()
                .map(Some)
                .map_err(|_| RequestError::Malformed(format!("{name} must be ASCII"))),
            (Some(_), Some(_)) => Err(RequestError::Malformed(format!("{name} must occur only once"))),
        }
    }
}
