//! Proxies whose user header is trusted.

use std::net::IpAddr;

use ipnet::IpNet;

/// Networks of the gateways that authenticate users and set `X-User-Id`.
#[derive(Debug)]
pub(crate) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Trusts these networks. Without networks, all peers are trusted. The configuration allows that only if
    /// the node listens on loopback.
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// True if the user header of this peer is trusted.
    pub(super) fn trust(&self, peer: IpAddr) -> bool {
        // A dual-stack socket shows IPv4 peers as IPv6.
        let peer = peer.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&peer))
    }
}
