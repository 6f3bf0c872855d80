use std::collections::HashMap;
use std::io::Write;

use config::Environment;
use secrecy::ExposeSecret;

use super::HostPort;
use crate::config::{Config, Sources};

const SERVER: (&str, &str) = ("STORE__URL", "mysql://user:password@db/firstcome");
const LISTEN: (&str, &str) = ("CLUSTER__LISTEN", "10.0.0.1:7400");
const COOKIE: (&str, &str) = ("CLUSTER__COOKIE", "0123456789abcdef");

const TOKEN: (&str, &str) = ("AUTH__ADMIN_TOKEN", "token-of-the-administrators");

/// Loads the configuration with this environment and an admin token.
fn load(pairs: &[(&str, &str)]) -> Result<Config, String> {
    load_without_token(&[pairs, &[TOKEN]].concat())
}

fn load_without_token(pairs: &[(&str, &str)]) -> Result<Config, String> {
    let pairs: HashMap<String, String> = pairs
        .iter()
        .map(|(key, value)| (format!("FIRSTCOME__{key}"), (*value).to_owned()))
        .collect();
    let environment = Environment::with_prefix("FIRSTCOME").source(Some(pairs));
    Sources::default()
        .load_over(environment)
        .map_err(|error| error.to_string())
}

#[test]
fn a_cluster_needs_a_server_a_cookie_and_an_address() {
    let config = load(&[SERVER, LISTEN, COOKIE]).unwrap();
    assert_eq!(
        config.cluster.advertised(config.cluster.listen.unwrap()),
        "10.0.0.1:7400"
    );
    let all = [
        SERVER,
        COOKIE,
        ("CLUSTER__LISTEN", "0.0.0.0:7400"),
        ("CLUSTER__ADVERTISE", "node-1.internal:7400"),
        (
            "CLUSTER__PEERS",
            "node-2.internal:7400, 10.0.0.3:7400,[fd00::4]:7400",
        ),
        ("CLUSTER__TLS__CERTIFICATE_FILE", "node.crt"),
        ("CLUSTER__TLS__KEY_FILE", "node.key"),
        ("CLUSTER__TLS__CA_FILE", "ca.crt"),
    ];
    let config = load(&all).unwrap();
    assert_eq!(
        config.cluster.advertised(config.cluster.listen.unwrap()),
        "node-1.internal:7400"
    );
    let peers: Vec<&str> = config.cluster.peers.iter().map(HostPort::as_str).collect();
    assert_eq!(peers, ["node-2.internal:7400", "10.0.0.3:7400", "[fd00::4]:7400"]);
}

/// Asserts that each of these configurations is refused with the text beside it.
fn assert_refused<const N: usize>(cases: [(Vec<(&str, &str)>, &str); N]) {
    for (pairs, text) in cases {
        let error = load(&pairs).unwrap_err();
        assert!(error.contains(text), "{pairs:?}: {error}");
    }
}

#[test]
fn nodes_of_a_cluster_need_one_admin_token() {
    let error = load_without_token(&[SERVER, LISTEN, COOKIE]).unwrap_err();
    assert!(
        error.contains("auth.admin_token or auth.admin_token_file must be set"),
        "{error}"
    );
    assert!(load_without_token(&[SERVER]).is_ok());
}

#[test]
fn an_invalid_cluster_configuration_is_reported_with_its_key() {
    assert_refused([
        (vec![LISTEN, COOKIE], "store.url must be mysql://"),
        (
            vec![LISTEN, COOKIE, ("STORE__URL", "sqlite://x.db")],
            "store.url must be mysql://",
        ),
        (vec![SERVER, LISTEN], "cluster.cookie"),
        (
            vec![SERVER, LISTEN, ("CLUSTER__COOKIE", "0123456789abcde")],
            "cluster.cookie must be 16",
        ),
        (
            vec![SERVER, LISTEN, ("CLUSTER__COOKIE", "0123456789 abcdef")],
            "cluster.cookie must be 16",
        ),
        (
            vec![SERVER, LISTEN, COOKIE, ("CLUSTER__COOKIE_FILE", "/nowhere")],
            "cluster.cookie and cluster.cookie_file are both set",
        ),
        (
            vec![SERVER, LISTEN, ("CLUSTER__COOKIE_FILE", "/nowhere")],
            "cluster.cookie_file: /nowhere",
        ),
        (
            vec![SERVER, COOKIE, ("CLUSTER__LISTEN", "0.0.0.0:7400")],
            "cluster.advertise must be the address",
        ),
        (
            vec![SERVER, COOKIE, ("CLUSTER__LISTEN", "[::]:7400")],
            "cluster.advertise must be the address",
        ),
        (
            vec![SERVER, COOKIE, LISTEN, ("CLUSTER__TLS__CA_FILE", "ca.crt")],
            "cluster.tls.certificate_file",
        ),
        (
            vec![SERVER, COOKIE, LISTEN, ("CLUSTER__NAME", "a shop")],
            "cluster.name",
        ),
        (
            vec![SERVER, COOKIE, LISTEN, ("CLUSTER__LEASE", "31s")],
            "cluster.lease must be at most 30s",
        ),
        (
            vec![SERVER, COOKIE, LISTEN, ("CLUSTER__LEASE", "8s")],
            "http.change_deadline (10s) must be longer than cluster.lease (8s) plus 2s",
        ),
        (
            vec![SERVER, COOKIE, LISTEN, ("HTTP__CHANGE_DEADLINE", "5s")],
            "http.change_deadline (5s) must be longer than cluster.lease (3s) plus 2s",
        ),
    ]);
}

#[test]
fn an_invalid_cluster_address_is_reported_with_its_key() {
    assert_refused([
        (
            vec![SERVER, COOKIE, LISTEN, ("CLUSTER__ADVERTISE", "0.0.0.0:7400")],
            "cluster.advertise: \"0.0.0.0:7400\" is not an address to connect to",
        ),
        (
            vec![SERVER, COOKIE, LISTEN, ("CLUSTER__ADVERTISE", "[::]:7400")],
            "cluster.advertise: \"[::]:7400\" is not an address to connect to",
        ),
        (
            vec![SERVER, COOKIE, LISTEN, ("CLUSTER__ADVERTISE", "10.0.0.1:0")],
            "cluster.advertise: \"10.0.0.1:0\" is not an address to connect to",
        ),
        (
            vec![SERVER, COOKIE, LISTEN, ("CLUSTER__ADVERTISE", "10.0.0.1")],
            "cluster.advertise: \"10.0.0.1\" is not",
        ),
        (
            vec![
                SERVER,
                COOKIE,
                LISTEN,
                ("CLUSTER__PEERS", "10.0.0.2:7400,node 3:7400"),
            ],
            "cluster.peers: \"node 3:7400\" is not",
        ),
    ]);
}

#[test]
fn keys_of_a_cluster_are_refused_without_cluster_listen() {
    assert_refused([
        (vec![SERVER, COOKIE], "without cluster.listen"),
        (
            vec![SERVER, ("CLUSTER__PEERS", "10.0.0.2:7400")],
            "without cluster.listen",
        ),
        (
            vec![SERVER, ("CLUSTER__ADVERTISE", "10.0.0.1:7400")],
            "without cluster.listen",
        ),
        (
            vec![SERVER, ("CLUSTER__TLS__CA_FILE", "ca.crt")],
            "without cluster.listen",
        ),
    ]);
}

#[test]
fn the_cookie_is_hidden_and_may_come_from_a_file() {
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"from-a-file-0123456789\n").unwrap();
    let path = secret.path().to_str().unwrap();
    for cookie in [
        ("CLUSTER__COOKIE", "from-a-file-0123456789"),
        ("CLUSTER__COOKIE_FILE", path),
    ] {
        let config = load(&[SERVER, LISTEN, cookie]).unwrap();
        assert_eq!(
            config.cluster.cookie.as_ref().unwrap().expose_secret(),
            "from-a-file-0123456789"
        );
        let printed = config.to_toml().unwrap();
        assert!(
            !printed.contains("6789") && !format!("{config:?}").contains("6789"),
            "{printed}"
        );
    }
    // The text that is printed in place of a cookie is not accepted as a cookie.
    let error = load(&[SERVER, LISTEN, ("CLUSTER__COOKIE", "[hidden]")]).unwrap_err();
    assert!(error.contains("cluster.cookie"), "{error}");
}

#[test]
fn an_address_that_others_cannot_reach_is_refused() {
    for text in [
        "node-1:7400",
        "node-1.internal:7400",
        "10.0.0.1:1",
        "[fd00::1]:65535",
        "127.0.0.1:7400",
    ] {
        assert_eq!(HostPort::parse(text).unwrap().as_str(), text);
    }
    for text in [
        "",
        "7400",
        ":7400",
        "node-1:",
        "node-1:x",
        "node-1:65536",
        "fd00::1:7400",
        "a b:1",
        "node/1:1",
        "224.0.0.1:1",
        "0:1",
    ] {
        assert!(HostPort::parse(text).is_err(), "{text}");
    }
}
