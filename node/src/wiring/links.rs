//! What only a node of a cluster has: a socket for links, and a check that its peers can be reached.

use std::sync::Arc;
use std::time::Duration;

use actors::engine::ClusterOptions;
use actors::link::{HEARTBEAT, TlsFiles};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::StartError;
use crate::config::{Cluster, Config, HostPort};
use crate::http::listener;
use crate::telemetry::certificates::show_expiry_of_file;

/// Time after which an unreachable peer is reported. Nodes that start together bind their sockets in a
/// fraction of this time.
const CHECK_FOR: Duration = Duration::from_secs(10);
/// Timeout of one attempt, for networks that drop packets.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval between two attempts.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(500);

/// Binds the socket for links. Returns `None` for a single node.
pub(super) fn bind(config: &Config) -> Result<Option<ClusterOptions>, StartError> {
    let cluster = &config.cluster;
    let (Some(listen), Some(cookie)) = (cluster.listen, &cluster.cookie) else {
        return Ok(None);
    };
    let failed = |error| StartError::LinkListen(listen, error);
    let listener = listener::bind(listen).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let advertise = cluster.advertised(bound);
    let tls = tls_files(cluster);
    if let Some(files) = &tls {
        show_expiry_of_file("cluster", &files.certificate);
    }
    tracing::info!(address = %bound, advertise, tls = tls.is_some(), "listening for links");
    if tls.is_none() && !bound.ip().is_loopback() {
        tracing::warn!(
            "links between nodes are not encrypted; set cluster.tls unless their network is trusted"
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

/// Returns the files of TLS between nodes, if they are set.
pub(super) fn tls_files(cluster: &Cluster) -> Option<TlsFiles> {
    let tls = cluster.tls.clone();
    Some(TlsFiles {
        authority: tls.ca_file?,
        certificate: tls.certificate_file?,
        key: tls.key_file?,
    })
}

/// Connects once to each of these peers, and warns of those that cannot be reached. So a firewall or a wrong
/// name is noticed at the start.
///
/// Cancel safe: nothing depends on this check.
pub(super) async fn check_peers(peers: &[HostPort]) {
    let checks = peers.iter().map(async |peer| {
        let began = Instant::now();
        loop {
            let attempt = tokio::time::timeout(ATTEMPT_TIMEOUT, TcpStream::connect(peer.as_str())).await;
            let reason = match attempt {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no connection within {ATTEMPT_TIMEOUT:?}"),
            };
            if began.elapsed() >= CHECK_FOR {
                tracing::warn!(%peer, reason, "a peer of cluster.peers cannot be reached");
                return;
            }
            tokio::time::sleep(ATTEMPT_INTERVAL).await;
        }
    });
    futures_util::future::join_all(checks).await;
}
