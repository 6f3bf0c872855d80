//! What a node of several has beside one that is alone: a socket for links, and peers that should be within
//! reach.

use std::sync::Arc;
use std::time::Duration;

use actors::engine::ClusterOptions;
use actors::link::{HEARTBEAT, TlsFiles};
use actors::owning::door::DOOR_TTL;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::StartError;
use crate::config::{Config, HostPort};
use crate::http::listener;

/// For how long peers are tried: as long as nodes that are started together take to bind their sockets,
/// several times over.
const TRY_FOR: Duration = Duration::from_secs(10);
/// How long one attempt may take. A network that drops packets answers nothing.
const TRY_LIMIT: Duration = Duration::from_secs(2);
/// Time between two attempts.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Binds the socket for links, and says how others reach it; nothing of a node that is alone.
pub(super) fn bind(config: &Config) -> Result<Option<ClusterOptions>, StartError> {
    let cluster = &config.cluster;
    let (Some(listen), Some(cookie)) = (cluster.listen, &cluster.cookie) else {
        return Ok(None);
    };
    let failed = |error| StartError::LinkListen(listen, error);
    let listener = listener::bind(listen).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let advertise = cluster.advertised(bound);
    let files = (
        cluster.tls.ca_file.clone(),
        cluster.tls.certificate_file.clone(),
        cluster.tls.key_file.clone(),
    );
    let tls = match files {
        (Some(authority), Some(certificate), Some(key)) => Some(TlsFiles {
            authority,
            certificate,
            key,
        }),
        _ => None,
    };
    tracing::info!(address = %bound, advertise, tls = tls.is_some(), "listening for links");
    if tls.is_none() && !bound.ip().is_loopback() {
        tracing::warn!(
            "links are not encrypted (cluster.tls): who listens on their network can read and change what nodes say"
        );
    }
    if config.http.change_deadline <= cluster.lease + DOOR_TTL {
        tracing::warn!(
            "http.change_deadline is no longer than cluster.lease and {DOOR_TTL:?}: after a node was lost, a change that widens a coupon is told OUTCOME_UNKNOWN"
        );
    }
    let (name, cookie) = (cluster.name.clone(), cookie.expose_secret().to_owned());
    Ok(Some(ClusterOptions {
        name,
        listener: Arc::new(listener),
        advertise,
        cookie,
        tls,
        heartbeat: HEARTBEAT,
    }))
}

/// Tries whether these peers can be reached, and warns of those that cannot: a firewall, or a name that leads
/// nowhere, is seen here first.
///
/// Cancel safe: nothing depends on it.
pub(super) async fn try_peers(peers: &[HostPort]) {
    let tried = peers.iter().map(async |peer| {
        let begun = Instant::now();
        loop {
            let attempt = tokio::time::timeout(TRY_LIMIT, TcpStream::connect(peer.as_str())).await;
            let why = match attempt {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {TRY_LIMIT:?}"),
            };
            if begun.elapsed() >= TRY_FOR {
                tracing::warn!(%peer, why, "a node named in cluster.peers cannot be reached");
                return;
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    });
    futures_util::future::join_all(tried).await;
}
