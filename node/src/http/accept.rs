//! The accept loop. It serves connections up to a limit, and refuses further connections, a bounded number at
//! the same time. All others wait in the system's queue. A client beyond its own limit is refused as well,
//! and no other client waits for that refusal.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::{HTTP_CLIENT_CONNECTIONS_REFUSED, HTTP_CONNECTIONS_REFUSED};
use actors::log_limit::LogLimit;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use warp::Filter;
use warp::reply::Response;

use super::clients::Place;
use super::connection::{Served, open, serve};
use super::listener::{Shared, Stage};
use super::problem::Problem;
use super::refuse;

/// Pause after the system had no free socket; other sockets may close meanwhile.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Limits the log of failures, because clients can cause them by opening many connections.
static FAILURES: LogLimit = LogLimit::new(5, Duration::from_secs(10), |suppressed| {
    tracing::warn!(suppressed, "failed to accept further connections");
});

/// Permits of connections. Each connection holds its permit until it ends.
struct Permits {
    served: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

/// The permit of one connection.
enum Permit {
    Served(OwnedSemaphorePermit),
    Refused(OwnedSemaphorePermit),
}

impl Permits {
    /// Returns a permit to serve a connection. If all of these are taken, returns a permit to refuse a
    /// connection. If those are taken as well, waits for a permit of either kind.
    ///
    /// Cancel safety: a dropped call takes no permit.
    async fn acquire(&self) -> Permit {
        if let Ok(permit) = Arc::clone(&self.served).try_acquire_owned() {
            return Permit::Served(permit);
        }
        let served = Arc::clone(&self.served).acquire_owned();
        let refused = Arc::clone(&self.refused).acquire_owned();
        let permit = tokio::select! {
            biased;
            Ok(permit) = served => Some(Permit::Served(permit)),
            Ok(permit) = refused => Some(Permit::Refused(permit)),
            else => None,
        };
        match permit {
            Some(permit) => permit,
            // The semaphores are never closed.
            None => std::future::pending().await,
        }
    }
}

/// Accepts connections until the stage changes. Each connection holds a receiver of the stage until it ends.
pub(super) async fn accept<F>(
    socket: TcpListener,
    routes: F,
    connections_max: usize,
    shared: Arc<Shared>,
    mut stage: watch::Receiver<Stage>,
) where
    F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let permits = Permits {
        served: Arc::new(Semaphore::new(connections_max)),
        refused: Arc::new(Semaphore::new(refuse::REFUSALS_MAX)),
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stage.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = shared.clients.take(peer.ip()) else {
                    metrics::counter!(HTTP_CLIENT_CONNECTIONS_REFUSED).increment(1);
                    // The connection is closed at once if too many are being refused.
                    if let Ok(permit) = Arc::clone(&permits.refused).try_acquire_owned() {
                        refuse(stream, peer.ip(), permit, Arc::clone(&shared), stage.clone());
                    }
                    continue;
                };
                let permit = tokio::select! {
                    permit = permits.acquire() => permit,
                    _ = stage.changed() => return,
                };
                admit((stream, peer.ip(), place), permit, &routes, &shared, &stage);
            }
            Err(error) if is_about_one_connection(&error) => {
                tracing::debug!(%error, "connection ended before it was accepted");
            }
            Err(error) => {
                if FAILURES.admits() {
                    tracing::warn!(%error, "failed to accept a connection");
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// True if the error is about one connection, not about the system or the socket.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Serves or refuses a connection, by its permit.
fn admit<F>(
    (stream, peer, place): (TcpStream, IpAddr, Place),
    permit: Permit,
    routes: &F,
    shared: &Arc<Shared>,
    stage: &watch::Receiver<Stage>,
) where
    F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let (shared, stage) = (Arc::clone(shared), stage.clone());
    match permit {
        Permit::Served(permit) => {
            let serving = serve(stream, peer, routes.clone(), Served { shared, place }, stage);
            tokio::spawn(async move {
                serving.await;
                drop(permit);
            });
        }
        Permit::Refused(permit) => {
            metrics::counter!(HTTP_CONNECTIONS_REFUSED).increment(1);
            refuse(stream, peer, permit, shared, stage);
        }
    }
}

/// Tells a client that it is not served. Holds permit and stage until the connection is closed.
fn refuse(
    stream: TcpStream,
    peer: IpAddr,
    permit: OwnedSemaphorePermit,
    shared: Arc<Shared>,
    stage: watch::Receiver<Stage>,
) {
    tokio::spawn(async move {
        let refusing = async {
            let mut transport = open(stream, &shared).await.ok()?;
            refuse::dismiss(&mut transport, Problem::overloaded().into_response())
                .await
                .ok()
        };
        if tokio::time::timeout(refuse::REFUSAL_TIMEOUT, refusing)
            .await
            .ok()
            .flatten()
            .is_none()
        {
            tracing::debug!(%peer, "client closed a connection before it was refused");
        }
        drop((permit, stage));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_the_system_pause_the_loop() {
        // ECONNABORTED and ECONNRESET; then EMFILE, ENFILE, ENOBUFS and ENOMEM.
        let is_about_one = |number| is_about_one_connection(&io::Error::from_raw_os_error(number));
        assert!([103, 104].into_iter().all(is_about_one) && ![24, 23, 105, 12].into_iter().any(is_about_one));
    }
}
