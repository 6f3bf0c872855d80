//! Who is asking.

use std::net::IpAddr;

use actors::ids::UserId;
use http::HeaderName;
use http::header::AUTHORIZATION;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::call::Head;
use super::problem::Problem;

const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// Knows callers by what they send.
#[derive(Debug)]
pub(crate) struct Recogniser {
    admin_token: SecretString,
    trusted_proxies: Vec<IpNet>,
}

/// What is known of a caller.
#[derive(Debug)]
pub(crate) struct Caller {
    user: Option<UserId>,
    admin: bool,
}

impl Recogniser {
    /// Takes the administrators' token, and the networks whose `X-User-Id` is believed. Without any all are: such a node listens
    /// on loopback only, as the configuration sees to.
    pub(crate) fn new(admin_token: SecretString, trusted_proxies: Vec<IpNet>) -> Self {
        Self { admin_token, trusted_proxies }
    }

    /// Looks at the credentials. A user id that is none is an error; credentials that we do not know are nobody's.
    pub(crate) fn recognise(&self, head: &Head) -> Result<Caller, Problem> {
        let user = if self.trusts(head.peer) { head.text(&X_USER_ID)? } else { None };
        let user = user.map(UserId::parse).transpose();
        let user = user.map_err(|error| Problem::Malformed(format!("X-User-Id: {error}")))?;
        Ok(Caller { user, admin: self.is_admin(head) })
    }

    fn trusts(&self, peer: IpAddr) -> bool {
        // A socket that listens on both families shows IPv4 peers as IPv6.
        let peer = peer.to_canonical();
        self.trusted_proxies.is_empty() || self.trusted_proxies.iter().any(|network| network.contains(&peer))
    }

    fn is_admin(&self, head: &Head) -> bool {
        let Some(value) = head.headers.get(AUTHORIZATION) else { return false };
        let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else { return false };
        let equal = token.trim().as_bytes().ct_eq(self.admin_token.expose_secret().as_bytes());
        scheme.eq_ignore_ascii_case("bearer") && bool::from(equal)
    }
}

impl Caller {
    /// The user, for what only users do.
    pub(crate) fn user(&self) -> Result<&UserId, Problem> {
        match &self.user {
            Some(user) => Ok(user),
            None if self.admin => Err(Problem::Forbidden("only users have coupons; an administrator is none")),
            None => Err(Problem::Unauthenticated),
        }
    }

    /// Passes for administrators.
    pub(crate) fn admin(&self) -> Result<(), Problem> {
        match &self.user {
            _ if self.admin => Ok(()),
            Some(_) => Err(Problem::Forbidden("only administrators may")),
            None => Err(Problem::Unauthenticated),
        }
    }

    /// Passes for whoever is recognised.
    pub(crate) fn anybody(&self) -> Result<(), Problem> {
        if self.admin || self.user.is_some() { Ok(()) } else { Err(Problem::Unauthenticated) }
    }

    /// Whether something of this user's may be shown.
    pub(crate) fn sees(&self, user: &UserId) -> bool {
        self.admin || self.user.as_ref() == Some(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, Method};

    fn recognise(trusted: &[&str], peer: &str, headers: &[(HeaderName, &str)]) -> Result<Caller, Problem> {
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        let head = Head::new(Method::GET, String::new(), map, peer.parse().unwrap());
        Recogniser::new(SecretString::from("token-of-admins"), trusted).recognise(&head)
    }

    #[test]
    fn only_trusted_peers_name_users() {
        let alice = [(X_USER_ID, "alice")];
        assert!(recognise(&["10.0.0.0/8"], "10.1.2.3", &alice).unwrap().user().is_ok());
        assert!(recognise(&["10.0.0.0/8"], "::ffff:10.1.2.3", &alice).unwrap().user().is_ok());
        for peer in ["11.0.0.1", "127.0.0.1", "::1"] {
            let caller = recognise(&["10.0.0.0/8"], peer, &alice).unwrap();
            assert!(matches!(caller.user(), Err(Problem::Unauthenticated)), "{peer}");
        }
    }

    #[test]
    fn administrators_show_the_whole_token() {
        let admin = |value| recognise(&[], "127.0.0.1", &[(AUTHORIZATION, value)]).unwrap().admin().is_ok();
        assert!(admin("Bearer token-of-admins") && admin("bearer token-of-admins"));
        for value in ["Bearer token-of-admin", "Bearer token-of-adminss", "Basic token-of-admins", "token-of-admins", "Bearer", "Bearer "] {
            assert!(!admin(value), "{value}");
        }
    }

    #[test]
    fn a_user_named_twice_is_malformed() {
        let twice = [(X_USER_ID, "alice"), (X_USER_ID, "mallory")];
        assert!(matches!(recognise(&[], "127.0.0.1", &twice), Err(Problem::Malformed(_))));
    }
}
