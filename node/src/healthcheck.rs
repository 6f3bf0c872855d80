//! Asks a node whether it is ready, for containers that have no shell and no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long the node may take: orchestrators' own limits are about as long, and this message is better than theirs.
const LIMIT: Duration = Duration::from_secs(3);

/// Why a node does not count as ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unhealthy {
    /// It cannot be reached, or hung up.
    #[error("{0}: {1}")]
    Unreachable(SocketAddr, std::io::Error),
    /// It did not answer in time.
    #[error("{0}: no answer within {LIMIT:?}")]
    Late(SocketAddr),
    /// It answered something else than 200.
    #[error("{0}: not ready: {1}")]
    NotReady(SocketAddr, String),
}

/// Passes if the node that listens here answers `GET /readyz` with 200.
pub(crate) async fn ask(listen: SocketAddr) -> Result<(), Unhealthy> {
    let address = reachable(listen);
    let status = tokio::time::timeout(LIMIT, status_line(address)).await;
    let status = status.map_err(|_| Unhealthy::Late(address))?.map_err(|error| Unhealthy::Unreachable(address, error))?;
    if status.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(Unhealthy::NotReady(address, status)) }
}

/// An address that reaches whoever listens at this one: who listens everywhere is also on loopback.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}

/// The first line of the answer.
async fn status_line(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}
