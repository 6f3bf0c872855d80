//! Values that are parsed: URLs, lists, secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;

use super::{HostPort, Origin, RoleName};

/// The URL of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file of the embedded database.
    Sqlite(PathBuf),
    /// The URL of a MySQL or MariaDB server, with its password.
    MySql(String),
}

impl StoreUrl {
    /// Parses `sqlite://<path>`, where the path may be relative, or
    /// `mysql://user:password@host:port/database`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() && !path.contains('?') => {
                Ok(Self::Sqlite(PathBuf::from(path)))
            }
            // The driver checks the rest when it connects.
            Some(("mysql" | "mariadb", server)) if server.contains('/') => Ok(Self::MySql(text.to_owned())),
            _ => Err("must be sqlite://<path> or mysql://user:password@host:port/database".to_owned()),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::MySql(url) => f.write_str(&without_password(url)),
        }
    }
}

/// Returns the URL with [`HIDDEN`] in place of its password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return HIDDEN.to_owned();
    };
    // A password may contain an @; a host cannot.
    match rest
        .rsplit_once('@')
        .map(|(credentials, server)| (credentials.split_once(':'), server))
    {
        Some((Some((user, _)), server)) => format!("{scheme}://{user}:{HIDDEN}@{server}"),
        _ => url.to_owned(),
    }
}

/// Printed in place of a secret.
pub(super) const HIDDEN: &str = "[hidden]";

/// Writes [`HIDDEN`] for a secret.
#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
pub(super) fn hidden<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => serializer.serialize_some(HIDDEN),
        None => serializer.serialize_none(),
    }
}

/// Parses an address to listen on. A name, like that in `localhost:8080`, is resolved.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    socket_address(&text).map_err(Error::custom)
}

/// Parses an address to listen on, of a key that may be unset.
pub(super) fn optional_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| socket_address(&text).map_err(Error::custom))
        .transpose()
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let parts = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let port = parts.and_then(|(_, port)| port.parse::<u16>().ok());
    let Some(((host, _), port)) = parts.zip(port) else {
        return Err(format!(
            "must be an address and a port like 127.0.0.1:8080 or localhost:8080, not {text:?}"
        ));
    };
    let resolved = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("{host:?} cannot be resolved: {error}"))?;
    // A name with addresses of both families means the IPv4 address, as in the default and in most
    // configurations of balancers.
    let mut resolved: Vec<SocketAddr> = resolved.collect();
    resolved.sort_by_key(SocketAddr::is_ipv6);
    let none = || format!("{host:?} has no address");
    resolved.first().copied().ok_or_else(none)
}

/// Parses networks from a list, or from a string with commas between them.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    deserializer.deserialize_any(Several {
        what: "networks like 10.0.0.0/8",
        one: network,
    })
}

/// Parses origins from a list, or from a string with commas between them.
pub(super) fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Origin>, D::Error> {
    deserializer.deserialize_any(Several {
        what: "origins like https://shop.example",
        one: Origin::parse,
    })
}

/// Parses addresses from a list, or from a string with commas between them.
pub(super) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HostPort>, D::Error> {
    deserializer.deserialize_any(Several {
        what: "addresses like node-1.internal:7400",
        one: HostPort::parse,
    })
}

/// Parses several values, each from a string.
struct Several<T> {
    what: &'static str,
    one: fn(&str) -> Result<T, String>,
}

impl<'de, T> Visitor<'de> for Several<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, in a list or with commas between them", self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| (self.one)(part).map_err(E::custom))
            .collect()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            values.push((self.one)(&text).map_err(A::Error::custom)?);
        }
        Ok(values)
    }
}

/// Parses a table of names, each with a role, or a string like `a=admin,b=viewer`, as the environment has it.
pub(super) fn roles<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, RoleName>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Roles {
        Text(String),
        Table(BTreeMap<String, String>),
    }
    let pairs: Vec<(String, String)> = match Roles::deserialize(deserializer)? {
        Roles::Table(table) => table.into_iter().collect(),
        Roles::Text(text) => text
            .split(',')
            .filter(|pair| !pair.trim().is_empty())
            // Without a role it is refused below.
            .map(|pair| pair.rsplit_once('=').unwrap_or((pair, "")))
            .map(|(name, role)| (name.trim().to_owned(), role.trim().to_owned()))
            .collect(),
    };
    let role = |(name, role): (String, String)| {
        let parsed = RoleName::parse(&role)
            .ok_or_else(|| Error::custom(format!("{role:?} is not admin, operator, service or viewer")));
        parsed.map(|role| (name, role))
    };
    pairs.into_iter().map(role).collect::<Result<_, _>>().map(Some)
}

/// Parses a network; a single address is a network as well.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("{text:?} is not a network like 10.0.0.0/8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_have_a_name_and_need_a_port() {
        let address = |text| socket_address(text).map(|address| address.to_string());
        assert_eq!(address("0.0.0.0:80").unwrap(), "0.0.0.0:80");
        assert_eq!(address("[::1]:80").unwrap(), "[::1]:80");
        assert_eq!(address("localhost:8080").unwrap(), "127.0.0.1:8080");
        for text in [
            "8080",
            ":8080",
            "localhost",
            "localhost:http",
            "127.0.0.1:65536",
            "",
        ] {
            let error = address(text).unwrap_err();
            assert!(error.contains("like 127.0.0.1:8080"), "{text}: {error}");
        }
        let error = address("nowhere.invalid:80").unwrap_err();
        assert!(
            error.contains("\"nowhere.invalid\" cannot be resolved"),
            "{error}"
        );
    }
}
