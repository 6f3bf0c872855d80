//! Values that are more than a text or a number.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;

/// Where coupons are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// The embedded database, in this file.
    Sqlite(PathBuf),
    /// A MySQL or MariaDB server: the URL as it was given, with its password.
    MySql(String),
}

impl StoreUrl {
    /// Reads `sqlite://<path>`, where the path may be relative, or `mysql://user:password@host:port/database`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() && !path.contains('?') => Ok(Self::Sqlite(PathBuf::from(path))),
            // What else is wrong with it is said by the driver, when it is opened.
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

/// The URL with [`HIDDEN`] in place of its password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return HIDDEN.to_owned() };
    // A password may hold an @; a host does not.
    match rest.rsplit_once('@').map(|(credentials, server)| (credentials.split_once(':'), server)) {
        Some((Some((user, _)), server)) => format!("{scheme}://{user}:{HIDDEN}@{server}"),
        _ => url.to_owned(),
    }
}

/// What is shown in place of a secret.
pub(super) const HIDDEN: &str = "[hidden]";

/// Writes that there is a secret, not which.
#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
pub(super) fn hidden<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => serializer.serialize_some(HIDDEN),
        None => serializer.serialize_none(),
    }
}

/// Reads networks from a list, or from one text with commas, as the environment has it.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    struct Networks;

    impl<'de> Visitor<'de> for Networks {
        type Value = Vec<IpNet>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("networks like 10.0.0.0/8, in a list or with commas between them")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(network).collect()
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut networks = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                networks.push(network(&text)?);
            }
            Ok(networks)
        }
    }

    deserializer.deserialize_any(Networks)
}

/// One network; an address alone is a network of one.
fn network<E: Error>(text: &str) -> Result<IpNet, E> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| E::custom(format_args!("{text:?} is not a network like 10.0.0.0/8")))
}
