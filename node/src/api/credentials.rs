//! Reads the credentials of a request, and marks responses that depend on them.

use http::header::{AUTHORIZATION, CACHE_CONTROL, VARY};
use http::{HeaderName, HeaderValue};
use warp::reply::Response;

use super::error::Error;
use crate::http::head::Head;
use crate::http::problem::RequestError;
use crate::service;
use crate::service::auth::{Authenticator, Principal};

/// Names the user. A gateway sets this header after it has authenticated the user.
pub(super) const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// Authenticates the principal of a request. Contradictory or unreadable credentials are an error; unknown
/// credentials give an unknown principal.
pub(super) fn principal(authenticator: &Authenticator, head: &Head) -> Result<Principal, Error> {
    let bearer = bearer_token(head)?;
    authenticator.authenticate(head.peer, bearer, || Ok(head.text(&X_USER_ID)?))
}

/// Counts and logs why a token was refused, if this error is such a refusal.
pub(super) fn report_refused_token(head: &Head, error: &Error) {
    if let Error::Service(service::Error::InvalidToken(refusal)) = error {
        refusal.report(head.client);
    }
}

/// Marks a response that depends on the principal: no cache may store it. All users share one URL, so `Vary`
/// tells a cache that stores it nevertheless which headers the response depends on.
pub(super) fn mark_private(authenticator: &Authenticator, response: &mut Response) {
    let varies_by = if authenticator.names_users_by_header() {
        "x-user-id, authorization"
    } else {
        "authorization"
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.append(VARY, HeaderValue::from_static(varies_by));
}

/// Returns the token of `Authorization: Bearer`. Other schemes are ignored, because a proxy may use them.
fn bearer_token(head: &Head) -> Result<Option<&str>, RequestError> {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), second) = (values.next(), values.next()) else {
        return Ok(None);
    };
    if second.is_some() {
        return Err(RequestError::Malformed(
            "Authorization must occur only once".to_owned(),
        ));
    }
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Ok(token.map(|(_, token)| token.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::auth::{KeyRing, MissingCredentials, TokenRefusal, UserSource};
    use http::{HeaderMap, Method};
    use secrecy::SecretString;

    fn head(peer: &str, headers: &[(HeaderName, &str)]) -> Head {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        Head::new(Method::GET, String::new(), map, peer.parse().unwrap())
    }

    fn authenticate(
        trusted: &[&str],
        peer: &str,
        headers: &[(HeaderName, &str)],
    ) -> Result<Principal, Error> {
        let auth = crate::config::Auth {
            trusted_proxies: trusted.iter().map(|network| network.parse().unwrap()).collect(),
            ..Default::default()
        };
        let token = SecretString::from("token-of-admins");
        let keys = KeyRing::new(&token, None).unwrap();
        let authenticator = Authenticator::new(keys, UserSource::new(&auth).unwrap());
        principal(&authenticator, &head(peer, headers))
    }

    #[test]
    fn only_trusted_peers_name_users() {
        let alice = [(X_USER_ID, "alice")];
        for peer in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::7"] {
            assert!(
                authenticate(&["10.0.0.0/8", "fd00::/8"], peer, &alice)
                    .unwrap()
                    .require_user()
                    .is_ok(),
                "{peer}"
            );
        }
        for peer in [
            "11.0.0.1",
            "127.0.0.1",
            "::1",
            "::ffff:11.0.0.1",
            "fe80::1",
            "::10.1.2.3",
        ] {
            let principal = authenticate(&["10.0.0.0/8", "fd00::/8"], peer, &alice).unwrap();
            assert!(
                matches!(
                    principal.require_user(),
                    Err(service::Error::Unauthenticated(MissingCredentials::UserHeader))
                ),
                "{peer}"
            );
        }
    }

    #[test]
    fn an_administrator_must_send_the_whole_token() {
        let admin = |value| {
            authenticate(&[], "127.0.0.1", &[(AUTHORIZATION, value)])
                .unwrap()
                .require_admin()
        };
        assert!(admin("Bearer token-of-admins").is_ok() && admin("bearer token-of-admins").is_ok());
        for value in [
            "Bearer token-of-admin",
            "Bearer token-of-adminss",
            "Bearer",
            "Bearer ",
            "Bearer x token-of-admins",
        ] {
            assert!(
                matches!(
                    admin(value),
                    Err(service::Error::InvalidToken(TokenRefusal::NotAdmin)
                        | service::Error::Unauthenticated(MissingCredentials::Token))
                ),
                "{value}"
            );
        }
        for value in ["Basic token-of-admins", "token-of-admins"] {
            assert!(
                matches!(
                    admin(value),
                    Err(service::Error::Unauthenticated(MissingCredentials::Token))
                ),
                "{value}"
            );
        }
    }

    #[test]
    fn credentials_that_occur_twice_are_malformed() {
        for headers in [
            [(X_USER_ID, "alice"), (X_USER_ID, "mallory")],
            [(X_USER_ID, "alice"), (X_USER_ID, "alice")],
            [
                (AUTHORIZATION, "Bearer token-of-admins"),
                (AUTHORIZATION, "Bearer other"),
            ],
            [
                (AUTHORIZATION, "Basic x"),
                (AUTHORIZATION, "Bearer token-of-admins"),
            ],
        ] {
            assert!(
                matches!(
                    authenticate(&[], "127.0.0.1", &headers),
                    Err(Error::Request(RequestError::Malformed(_)))
                ),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn an_administrator_may_not_issue_for_another_user() {
        let both = [(X_USER_ID, "alice"), (AUTHORIZATION, "Bearer token-of-admins")];
        let principal = authenticate(&[], "127.0.0.1", &both).unwrap();
        assert!(principal.require_user().is_ok() && principal.require_admin().is_ok());
        assert!(matches!(
            principal.require_service(),
            Err(service::Error::Forbidden(_))
        ));
    }
}
