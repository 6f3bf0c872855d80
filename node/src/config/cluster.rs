//! How a node is one of several, and how nodes know that the others live.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use actors::owning::door::LEASE_MAX;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Host;

use super::value::{self, HIDDEN};
use super::{InvalidConfig, StoreUrl};

/// Shortest cookie: whoever listens in on a handshake can try as many as he likes, and 16 characters of
/// chance are too many to try.
const COOKIE_BYTES_MIN: usize = 16;
/// Longest: more says nothing more.
const COOKIE_BYTES_MAX: usize = 512;
/// Longest name, as everything that nodes call themselves.
const NAME_BYTES_MAX: usize = 64;
/// Longest address: what a name of the domain name system and a port take. A node's row has room for it.
const ADDRESS_BYTES_MAX: usize = 255;

/// `cluster.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Its name: of use where two clusters share a cookie by mistake.
    pub name: String,
    /// Where to listen for links of other nodes; without it this node is the only one. Port 0 takes a free
    /// one.
    pub listen: Option<SocketAddr>,
    /// Where others reach that; by default the same.
    pub advertise: Option<HostPort>,
    /// Where other nodes are to be reached, to find out at the start whether they can be. Who is a member,
    /// the database says.
    #[serde(deserialize_with = "value::addresses")]
    pub peers: Vec<HostPort>,
    /// What all nodes of the cluster know, and nobody else.
    #[serde(serialize_with = "value::hidden")]
    pub cookie: Option<SecretString>,
    /// A file that holds it.
    pub cookie_file: Option<PathBuf>,
    /// How long a node may decide after its last successful beat.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// Time between beats.
    #[serde(with = "humantime_serde")]
    pub beat: Duration,
    /// TLS between nodes, if it has files.
    pub tls: ClusterTls,
}

/// `cluster.tls.…`: both sides of a link show a certificate.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterTls {
    /// This node's certificate and what leads up to its root, in PEM. It names the host in
    /// `cluster.advertise`.
    pub certificate_file: Option<PathBuf>,
    /// Its key, in PEM.
    pub key_file: Option<PathBuf>,
    /// The authority that signed the certificates of all nodes, in PEM.
    pub ca_file: Option<PathBuf>,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "firstcome".to_owned(),
            listen: None,
            advertise: None,
            peers: Vec::new(),
            cookie: None,
            cookie_file: None,
            lease: Duration::from_secs(3),
            beat: Duration::from_millis(300),
            tls: ClusterTls::default(),
        }
    }
}

impl Cluster {
    /// Where others reach this node's links, which listen here.
    pub fn advertised(&self, bound: SocketAddr) -> String {
        self.advertise
            .as_ref()
            .map_or_else(|| bound.to_string(), ToString::to_string)
    }

    /// Whether what is set makes sense together.
    pub(super) fn check(&self, store: &StoreUrl) -> Result<(), InvalidConfig> {
        let fail = |message: String| Err(InvalidConfig(message));
        // So that two beats may be lost, or late, and the third still comes in time.
        if self.lease < self.beat * 3 {
            return fail("cluster.lease must be at least three times cluster.beat".to_owned());
        }
        if !(1..=NAME_BYTES_MAX).contains(&self.name.len())
            || !self.name.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return fail(format!(
                "cluster.name must be 1 to {NAME_BYTES_MAX} visible ASCII characters without spaces"
            ));
        }
        let ClusterTls {
            certificate_file,
            key_file,
            ca_file,
        } = &self.tls;
        let tls = [certificate_file, key_file, ca_file].map(Option::is_some);
        let Some(listen) = self.listen else {
            let alone = [
                ("advertise", self.advertise.is_some()),
                ("peers", !self.peers.is_empty()),
                ("cookie", self.cookie.is_some()),
                ("tls", tls.contains(&true)),
            ];
            return match alone.iter().find(|(_, is_set)| *is_set) {
                Some((key, _)) => fail(format!(
                    "cluster.{key} is set, but without cluster.listen this node is the only one"
                )),
                None => Ok(()),
            };
        };
        if self.lease > LEASE_MAX {
            return fail(format!(
                "cluster.lease must be at most {LEASE_MAX:?} where cluster.listen is set: others wait for as long"
            ));
        }
        if matches!(store, StoreUrl::Sqlite(_)) {
            return fail(
                "cluster.listen is set, but SQLite serves one node alone: store.url must be mysql://… of a server that all nodes reach"
                    .to_owned(),
            );
        }
        match &self.cookie {
            None => {
                return fail(
                    "cluster.cookie or cluster.cookie_file must be set when cluster.listen is: a secret, the same for all nodes".to_owned(),
                );
            }
            Some(cookie) if !is_cookie(cookie) => {
                return fail(format!(
                    "cluster.cookie must be {COOKIE_BYTES_MIN} to {COOKIE_BYTES_MAX} visible ASCII characters without spaces, and not [hidden]"
                ));
            }
            Some(_) => {}
        }
        if self.advertise.is_none() && listen.ip().is_unspecified() {
            return fail(format!(
                "cluster.advertise must say where other nodes reach this one, as cluster.listen is {listen}: every address"
            ));
        }
        if tls.contains(&true) && tls.contains(&false) {
            return fail("cluster.tls.certificate_file, cluster.tls.key_file and cluster.tls.ca_file must all be set, or none".to_owned());
        }
        Ok(())
    }
}

fn is_cookie(cookie: &SecretString) -> bool {
    let cookie = cookie.expose_secret();
    (COOKIE_BYTES_MIN..=COOKIE_BYTES_MAX).contains(&cookie.len())
        && cookie.bytes().all(|byte| byte.is_ascii_graphic())
        && cookie != HIDDEN
}

/// Where a node is reached: `node-1.internal:7400`, `10.0.0.1:7400`, `[fd00::1]:7400`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort(String);

impl HostPort {
    /// Reads an address that others can reach: so neither every address, nor port 0.
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
            return Err(format!("{text:?} is nowhere that others could connect to"));
        }
        if text.len() > ADDRESS_BYTES_MAX {
            Err(wrong())
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// As it was written.
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
