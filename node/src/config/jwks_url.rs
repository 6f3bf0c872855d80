//! The URL of a JWK set.

use url::{Host, Url};

/// A URL whose keys may be trusted: `https`, or `http` on loopback, where the answer crosses no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUrl {
    url: Url,
    host: Host<String>,
    port: u16,
}

impl JwksUrl {
    /// Parses the URL. An error is written to follow the name of the key.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
        let (Some(host), Some(port)) = (
            url.host().map(|host| host.to_owned()),
            url.port_or_known_default(),
        ) else {
            return Err("must have a host".to_owned());
        };
        let is_loopback = match &host {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        match url.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            "http" => {
                return Err("must be https, because anyone on the way could replace the keys".to_owned());
            }
            _ => return Err("must be an https URL".to_owned()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not have a user or a password".to_owned());
        }
        Ok(Self { url, host, port })
    }

    /// True if the connection is encrypted.
    pub(crate) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Returns the host, as a name or an address.
    pub(crate) fn host(&self) -> String {
        match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        }
    }

    /// Returns the port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the host and, unless it is that of the scheme, the port, for the header `Host`.
    pub(crate) fn authority(&self) -> &str {
        self.url.authority()
    }

    /// Returns the path with the query.
    pub(crate) fn target(&self) -> &str {
        &self.url[url::Position::BeforePath..url::Position::AfterQuery]
    }
}

impl std::fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_fetched_by_https_or_on_loopback_only() {
        for text in [
            "https://id.example/keys",
            "https://id.example:8443/realms/a/certs?x=1",
            "http://127.0.0.1:8080/keys",
            "http://localhost/keys",
            "http://[::1]:1/keys",
        ] {
            assert!(JwksUrl::parse(text).is_ok(), "{text}");
        }
        for text in [
            "http://id.example/keys",
            "http://10.0.0.1/keys",
            "http://localhost.example/keys",
            "file:///etc/keys",
            "https://user:secret@id.example/keys",
            "id.example/keys",
            "",
        ] {
            assert!(JwksUrl::parse(text).is_err(), "{text}");
        }
        let url = JwksUrl::parse("https://id.example:8443/a?b=c#d").unwrap();
        assert_eq!(
            (url.host().as_str(), url.port(), url.authority(), url.target()),
            ("id.example", 8443, "id.example:8443", "/a?b=c")
        );
    }
}
