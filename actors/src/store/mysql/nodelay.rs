//! `TCP_NODELAY` for connections to the database.
//!
//! sqlx 0.9.0 leaves Nagle's algorithm on and gives no access to its sockets
//! (<https://github.com/transact-rs/sqlx/issues/4335>, fixed there and not published yet). Over TLS, a batch
//! of more than 16 KiB is written in two parts, and the second part waits until the server acknowledges the
//! first. That takes 40 ms, while a commit takes 4 ms. So this file finds the sockets by the port of their
//! peer. These may include sockets that do not belong to the store. The next release of sqlx makes this file
//! unnecessary.

use std::os::fd::RawFd;

use nix::sys::socket::{SockaddrStorage, getpeername, setsockopt, sockopt};

/// The directory in which a process finds the numbers of its open files.
const OPEN_FILES: &str = "/dev/fd";

/// Sets `TCP_NODELAY` on every TCP connection of this process to a port, and returns how many connections
/// there are. If the list of open files cannot be read, or a socket refuses the option, connections still
/// work, only slower.
pub(super) async fn set_nodelay(port: u16) -> usize {
    // With thousands of client connections, reading the list takes milliseconds.
    tokio::task::spawn_blocking(move || {
        sockets()
            .filter(|socket| peer_port(*socket) == Some(port) && without_delay(*socket))
            .count()
    })
    .await
    .unwrap_or(0)
}

fn sockets() -> impl Iterator<Item = RawFd> {
    let files = std::fs::read_dir(OPEN_FILES).into_iter().flatten().flatten();
    files.filter_map(|file| file.file_name().to_str()?.parse().ok())
}

/// Returns the port of the peer if this is a TCP connection; `None` also if the descriptor was closed
/// meanwhile.
fn peer_port(socket: RawFd) -> Option<u16> {
    let peer: SockaddrStorage = getpeername(socket).ok()?;
    let v4 = peer.as_sockaddr_in().map(|peer| peer.port());
    v4.or_else(|| peer.as_sockaddr_in6().map(|peer| peer.port()))
}

fn without_delay(socket: RawFd) -> bool {
    setsockopt(socket, sockopt::TcpNoDelay, &true).is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn only_connections_to_the_port_get_nodelay() {
        let (ours, another) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("[::1]:0").await.unwrap(),
        );
        let stream = TcpStream::connect(ours.local_addr().unwrap()).await.unwrap();
        let other = TcpStream::connect(another.local_addr().unwrap()).await.unwrap();
        assert_eq!(set_nodelay(ours.local_addr().unwrap().port()).await, 1);
        assert!(stream.nodelay().unwrap() && !other.nodelay().unwrap());
        assert_eq!(set_nodelay(another.local_addr().unwrap().port()).await, 1);
        assert!(other.nodelay().unwrap());
    }
}
