//! Values that are parsed: URLs, lists, secrets.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;

use super::{HostPort, Origin};

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

/// Parses networks from a list, or from a string with commas between them, as in the environment.
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

/// Parses a network; a single address is a network as well.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("{text:?} is not a network like 10.0.0.0/8"))
}
