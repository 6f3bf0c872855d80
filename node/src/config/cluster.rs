//! Links, membership and leases of a cluster.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use actors::owning::door::LEASE_MAX;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Host;

use super::check::{at_most_an_hour, positive_and_at_most_an_hour};
use super::keys::section;
use super::value::{self, HIDDEN};
use super::{InvalidConfig, StoreUrl};

/// Minimum length of the cookie. An attacker who records a handshake can guess cookies offline, but cannot
/// guess 16 random characters.
const COOKIE_BYTES_MIN: usize = 16;
/// Maximum length of the cookie: a longer cookie adds no security.
const COOKIE_BYTES_MAX: usize = 512;
/// Maximum length of the name, as for ids of nodes.
const NAME_BYTES_MAX: usize = 64;
/// Maximum length of an address: a domain name and a port. The row of a node has room for it.
const ADDRESS_BYTES_MAX: usize = 255;

section! {
    /// `cluster.…`
    pub struct Cluster in "cluster." {
        /// The name of the cluster, so that two clusters with the same cookie do not link.
        name: String = "firstcome".to_owned(), "1 to 64 characters", check = |name| check_name(name);
        /// Address to listen on for links of other nodes; port 0 takes a free one.
        #[serde(deserialize_with = "value::optional_address")]
        listen: Option<SocketAddr> = None, "address", unset = "a single node";
        /// The address at which other nodes reach this one.
        advertise: Option<HostPort> = None, "host and port", unset = "`cluster.listen`";
        /// Addresses of other nodes. They are used only at the start, to check that those nodes can be
        /// reached. The members of the cluster are in the database.
        #[serde(deserialize_with = "value::addresses")]
        peers: Vec<HostPort> = Vec::new(), "list of hosts and ports";
        /// Secret that all nodes of the cluster share.
        #[serde(serialize_with = "value::hidden")]
        cookie: Option<SecretString> = None, "secret, 16 to 512 characters", check = check_cookie;
        /// A file with the cookie.
        cookie_file: Option<PathBuf> = None, "path";
        /// Time for which a node may decide after its last successful beat.
        #[serde(with = "humantime_serde")]
        lease: Duration = Duration::from_secs(3), "duration", check = at_most_an_hour;
        /// Time between beats.
        #[serde(with = "humantime_serde")]
        beat: Duration = Duration::from_millis(300), "duration", check = positive_and_at_most_an_hour;
    }
    sections {
        /// TLS between nodes, which is used if its files are set.
        tls: ClusterTls;
    }
}

section! {
    /// `cluster.tls.…`: both sides of a link send a certificate.
    pub struct ClusterTls in "cluster.tls." {
        /// The certificate of this node and its chain, in PEM. It names the host of `cluster.advertise`.
        certificate_file: Option<PathBuf> = None, "path";
        /// The key of the certificate, in PEM.
        key_file: Option<PathBuf> = None, "path";
        /// The authority that signed the certificates of all nodes, in PEM.
        ca_file: Option<PathBuf> = None, "path";
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(format!(
            "must be 1 to {NAME_BYTES_MAX} visible ASCII characters without spaces"
        ))
    }
}

fn check_cookie(cookie: &Option<SecretString>) -> Result<(), String> {
    let is_valid = |cookie: &SecretString| {
        let cookie = cookie.expose_secret();
        (COOKIE_BYTES_MIN..=COOKIE_BYTES_MAX).contains(&cookie.len())
            && cookie.bytes().all(|byte| byte.is_ascii_graphic())
            && cookie != HIDDEN
    };
    if cookie.as_ref().is_none_or(is_valid) {
        Ok(())
    } else {
        Err(format!(
            "must be {COOKIE_BYTES_MIN} to {COOKIE_BYTES_MAX} visible ASCII characters without spaces, \
             and not {HIDDEN}"
        ))
    }
}

impl Cluster {
    /// Returns the address at which other nodes reach this one. `bound` is the address at which this node
    /// listens for links.
    pub fn advertised(&self, bound: SocketAddr) -> String {
        self.advertise
            .as_ref()
            .map_or_else(|| bound.to_string(), ToString::to_string)
    }

    /// Checks the values together.
    pub(super) fn check(&self, store: &StoreUrl) -> Result<(), InvalidConfig> {
        let fail = |message: &str| Err(InvalidConfig(message.to_owned()));
        // If two beats are lost or late, the third is still in time.
        if self.lease < self.beat * 3 {
            return fail("cluster.lease must be at least three times cluster.beat");
        }
        let Some(listen) = self.listen else {
            return self.check_single_node();
        };
        if self.lease > LEASE_MAX {
            return fail(&format!(
                "cluster.lease must be at most {LEASE_MAX:?} if cluster.listen is set: other nodes \
                 wait that long"
            ));
        }
        if matches!(store, StoreUrl::Sqlite(_)) {
            return fail(
                "cluster.listen is set, but SQLite serves a single node: store.url must be mysql://… \
                 of a server that all nodes reach",
            );
        }
        if self.cookie.is_none() {
            return fail(
                "cluster.cookie or cluster.cookie_file must be set if cluster.listen is: \
                 a secret that all nodes share",
            );
        }
        if self.advertise.is_none() && listen.ip().is_unspecified() {
            return fail(&format!(
                "cluster.advertise must be the address at which other nodes reach this one, \
                 because cluster.listen is {listen}, which means all addresses"
            ));
        }
        let tls = self.tls_files();
        if tls.contains(&true) && tls.contains(&false) {
            return fail(
                "cluster.tls.certificate_file, cluster.tls.key_file and cluster.tls.ca_file \
                 must all be set, or none",
            );
        }
        Ok(())
    }

    /// Fails if a key is set that needs `cluster.listen`.
    fn check_single_node(&self) -> Result<(), InvalidConfig> {
        let keys = [
            ("advertise", self.advertise.is_some()),
            ("peers", !self.peers.is_empty()),
            ("cookie", self.cookie.is_some()),
            ("tls", self.tls_files().contains(&true)),
        ];
        match keys.iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => Err(InvalidConfig(format!(
                "cluster.{key} has no effect without cluster.listen, because the node is then the only one"
            ))),
            None => Ok(()),
        }
    }

    /// Returns for each file of TLS whether it is set.
    fn tls_files(&self) -> [bool; 3] {
        let ClusterTls {
            certificate_file,
            key_file,
            ca_file,
        } = &self.tls;
        [certificate_file, key_file, ca_file].map(Option::is_some)
    }
}

/// The address of a node: `node-1.internal:7400`, `10.0.0.1:7400`, `[fd00::1]:7400`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort(String);

impl HostPort {
    /// Parses an address to connect to. Unspecified and multicast addresses and port 0 are refused.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a host and port like node-1.internal:7400");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = Host::parse(host).map_err(|_| wrong())?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let ip = match host {
            Host::Ipv4(ip) => Some(IpAddr::from(ip)),
            Host::Ipv6(ip) => Some(IpAddr::from(ip)),
            Host::Domain(_) => None,
        };
        if port == 0 || ip.is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return Err(format!("{text:?} is not an address to connect to"));
        }
        if text.len() > ADDRESS_BYTES_MAX {
            Err(wrong())
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// Returns the address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
