use super::*;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::trusted_proxies::X_USER_ID;

fn head(peer: &str, headers: &[(HeaderName, &str)]) -> Head {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    Head::new(Method::GET, String::new(), map, peer.parse().unwrap())
}

fn recognise(trusted: &[&str], peer: &str, headers: &[(HeaderName, &str)]) -> Result<Caller, Problem> {
    let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
    Recogniser::new(
        &SecretString::from("token-of-admins"),
        Users::Named(Proxies::new(trusted)),
    )
    .recognise(&head(peer, headers))
}

#[test]
fn only_trusted_peers_name_users() {
    let alice = [(X_USER_ID, "alice")];
    for peer in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::7"] {
        assert!(
            recognise(&["10.0.0.0/8", "fd00::/8"], peer, &alice)
                .unwrap()
                .user()
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
        let caller = recognise(&["10.0.0.0/8", "fd00::/8"], peer, &alice).unwrap();
        assert!(matches!(caller.user(), Err(Problem::Unauthenticated)), "{peer}");
    }
}

#[test]
fn administrators_show_the_whole_token() {
    let admin = |value| {
        recognise(&[], "127.0.0.1", &[(AUTHORIZATION, value)])
            .unwrap()
            .admin()
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
                Err(Problem::InvalidToken | Problem::Unauthenticated)
            ),
            "{value}"
        );
    }
    for value in ["Basic token-of-admins", "token-of-admins"] {
        assert!(matches!(admin(value), Err(Problem::Unauthenticated)), "{value}");
    }
}

#[test]
fn what_is_said_twice_is_malformed() {
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
            matches!(recognise(&[], "127.0.0.1", &headers), Err(Problem::Malformed(_))),
            "{headers:?}"
        );
    }
}

#[test]
fn nobody_may_name_another_user_by_being_an_administrator() {
    let both = [(X_USER_ID, "alice"), (AUTHORIZATION, "Bearer token-of-admins")];
    let caller = recognise(&[], "127.0.0.1", &both).unwrap();
    assert!(caller.user().is_ok() && caller.admin().is_ok());
    assert!(matches!(caller.service(), Err(Problem::Forbidden(_))));
}
