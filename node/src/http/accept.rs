//! The accept loop: who gets a place, who is refused, and who waits in the system's queue.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::metrics::HTTP_CONNECTIONS_REFUSED;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use warp::Filter;
use warp::reply::Response;

use super::connection::{open, serve};
use super::listener::{Shared, Stage};
use super::refuse;

/// How long to wait when the system has no more sockets to give; others may close meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Places that connections take until they end.
struct Places {
    served: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

/// A place.
enum Place {
    Served(OwnedSemaphorePermit),
    Refused(OwnedSemaphorePermit),
}

impl Places {
    /// A place to be served in if there is one, else one to be refused in; while there is neither, this waits
    /// for whichever comes first.
    ///
    /// Cancel safety: nothing is taken by a call that was dropped.
    async fn take(&self) -> Place {
        if let Ok(permit) = Arc::clone(&self.served).try_acquire_owned() {
            return Place::Served(permit);
        }
        let served = Arc::clone(&self.served).acquire_owned();
        let refused = Arc::clone(&self.refused).acquire_owned();
        let permit = tokio::select! {
            biased;
            Ok(permit) = served => Some(Place::Served(permit)),
            Ok(permit) = refused => Some(Place::Refused(permit)),
            else => None,
        };
        match permit {
            Some(place) => place,
            // The semaphores are never closed.
            None => std::future::pending().await,
        }
    }
}

/// Accepts until told to stop. Whoever was accepted holds a receiver of the stage until the end.
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
    let places = Places {
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
                let place = tokio::select! {
                    place = places.take() => place,
                    _ = stage.changed() => return,
                };
                admit(stream, peer.ip(), place, &routes, &shared, &stage);
            }
            // Whoever hung up before it was their turn holds up nobody else.
            Err(error) if is_theirs(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted")
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether this is about one connection, and not about the system or the socket.
fn is_theirs(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// Serves or refuses whoever has a place.
fn admit<F>(
    stream: TcpStream,
    peer: IpAddr,
    place: Place,
    routes: &F,
    shared: &Arc<Shared>,
    stage: &watch::Receiver<Stage>,
) where
    F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    F::Future: Send,
{
    let (shared, stage) = (Arc::clone(shared), stage.clone());
    match place {
        Place::Served(permit) => {
            let serving = serve(stream, peer, routes.clone(), shared, stage);
            tokio::spawn(async move {
                serving.await;
                drop(permit);
            });
        }
        Place::Refused(permit) => {
            metrics::counter!(HTTP_CONNECTIONS_REFUSED).increment(1);
            tokio::spawn(async move {
                let refusing = async {
                    let mut transport = open(stream, &shared).await.ok()?;
                    refuse::dismiss(&mut transport, refuse::full()).await.ok()
                };
                if tokio::time::timeout(refuse::REFUSAL_LIMIT, refusing)
                    .await
                    .ok()
                    .flatten()
                    .is_none()
                {
                    tracing::debug!(%peer, "a client did not stay to hear that there are too many");
                }
                drop((permit, stage));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_all_makes_all_wait() {
        // ECONNABORTED and ECONNRESET; then EMFILE, ENFILE, ENOBUFS and ENOMEM.
        let is_theirs = |number| is_theirs(&io::Error::from_raw_os_error(number));
        assert!([103, 104].into_iter().all(is_theirs) && ![24, 23, 105, 12].into_iter().any(is_theirs));
    }
}
