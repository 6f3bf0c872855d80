//! Users by `X-User-Id`, which a gateway in front has checked.

use std::net::IpAddr;

use actors::ids::UserId;
use http::HeaderName;
use ipnet::IpNet;

use crate::http::call::Head;
use crate::http::problem::Problem;

pub(crate) const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// Whose `X-User-Id` is believed.
#[derive(Debug)]
pub(crate) struct Proxies(Vec<IpNet>);

impl Proxies {
    /// These networks'. Without any all are believed: such a node listens on loopback only, as the
    /// configuration sees to.
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The user that a believed peer names.
    pub(super) fn user(&self, head: &Head) -> Result<Option<UserId>, Problem> {
        let user = if self.believes(head.peer) {
            head.text(&X_USER_ID)?
        } else {
            None
        };
        let user = user.map(UserId::parse).transpose();
        user.map_err(|error| Problem::Malformed(format!("X-User-Id: {error}")))
    }

    fn believes(&self, peer: IpAddr) -> bool {
        // A socket that listens on both families shows IPv4 peers as IPv6.
        let peer = peer.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&peer))
    }
}
