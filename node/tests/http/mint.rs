//! `firstcome token`.

use jsonwebtoken::Algorithm;

use crate::process::run;
use crate::support::{TestNode, send};
use crate::tokens::{SECRET, jwks, key_file};

/// Runs `firstcome token`, and sends a request with the token to a node with the same configuration.
async fn mint_and_use(keys: &[(&str, &str)], arguments: &[&str], path: &str) -> (String, u16) {
    let data = tempfile::tempdir().unwrap();
    let settings: Vec<String> = keys
        .iter()
        .flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")])
        .collect();
    let all: Vec<&str> = ["token"]
        .into_iter()
        .chain(arguments.iter().copied())
        .chain(settings.iter().map(String::as_str))
        .collect();
    let (ok, stdout, stderr) = run(&data, &all);
    assert!(ok && stderr.is_empty(), "{stderr}");
    let token = stdout.strip_suffix('\n').unwrap().to_owned();
    assert!(!token.contains(char::is_whitespace), "{stdout}");
    let node = TestNode::start_with(keys).await;
    let status = send(node.request(reqwest::Method::GET, path).bearer_auth(&token))
        .await
        .status;
    (token, status)
}

#[tokio::test]
async fn a_node_accepts_a_token_minted_with_its_configuration() {
    let secret = [
        ("auth.mode", "jwt"),
        ("auth.jwt.algorithm", "HS256"),
        ("auth.jwt.key", SECRET),
    ];
    let strict: Vec<_> = secret
        .into_iter()
        .chain([
            ("auth.jwt.issuer", "https://id.example"),
            ("auth.jwt.audience", "coupons"),
        ])
        .collect();
    let (mine, list) = ("/v1/me/issuances", "/v1/cluster");
    assert_eq!(mint_and_use(&secret, &["--user", "alice"], mine).await.1, 200);
    assert_eq!(
        mint_and_use(&strict, &["--user", "alice", "--expires-in", "2m"], mine)
            .await
            .1,
        200
    );
    assert_eq!(
        mint_and_use(&secret, &["--user", "alice", "--role", "service"], list)
            .await
            .1,
        403
    );
    assert_eq!(
        mint_and_use(&secret, &["--user", "root", "--role", "admin"], list)
            .await
            .1,
        200
    );
    let with_claims: Vec<_> = secret
        .into_iter()
        .chain([
            ("auth.jwt.user_claim", "ext.user"),
            ("auth.jwt.role_claim", "ext.roles"),
            ("auth.jwt.roles", "auditors=viewer"),
        ])
        .collect();
    assert_eq!(
        mint_and_use(&with_claims, &["--user", "root", "--role", "viewer"], list)
            .await
            .1,
        200
    );
}

#[tokio::test]
async fn a_node_accepts_a_token_signed_with_a_private_key() {
    let mine = "/v1/me/issuances";
    let (public, private) = (key_file("es256.public"), key_file("es256.private"));
    let private = private.to_str().unwrap();
    let one = [
        ("auth.mode", "jwt"),
        ("auth.jwt.algorithm", "ES256"),
        ("auth.jwt.key_file", public.to_str().unwrap()),
    ];
    assert_eq!(
        mint_and_use(&one, &["--user", "alice", "--private-key-file", private], mine)
            .await
            .1,
        200
    );
    // With several keys, the token names the key that fits.
    let directory = tempfile::tempdir().unwrap();
    let set = directory.path().join("jwks.json");
    let (first, second) = (
        crate::tokens::private("eddsa.private"),
        crate::tokens::private("eddsa.other.private"),
    );
    std::fs::write(
        &set,
        jwks(&[(Algorithm::EdDSA, "a", &first), (Algorithm::EdDSA, "b", &second)]),
    )
    .unwrap();
    let several = [
        ("auth.mode", "jwt"),
        ("auth.jwt.jwks_file", set.to_str().unwrap()),
    ];
    let other = key_file("eddsa.other.private");
    let (token, status) = mint_and_use(
        &several,
        &["--user", "alice", "--private-key-file", other.to_str().unwrap()],
        mine,
    )
    .await;
    assert_eq!(
        (status, jsonwebtoken::decode_header(token).unwrap().kid.as_deref()),
        (200, Some("b"))
    );
}

#[test]
fn a_token_that_cannot_be_minted_is_reported() {
    let data = tempfile::tempdir().unwrap();
    let (public, stranger) = (key_file("eddsa.public"), key_file("eddsa.other.private"));
    let (file, stranger) = (
        format!("auth.jwt.key_file={}", public.display()),
        stranger.to_str().unwrap(),
    );
    let keys = [
        "--set",
        "auth.mode=jwt",
        "--set",
        "auth.jwt.algorithm=EdDSA",
        "--set",
        &file,
    ];
    for (arguments, message) in [
        (vec!["--user", "alice"], "auth.mode is header"),
        (
            [&["--user", "alice"][..], &keys].concat(),
            "only public keys are configured",
        ),
        (
            [&["--user", "alice", "--private-key-file", stranger][..], &keys].concat(),
            "public half",
        ),
        (
            [
                &["--user", "alice", "--private-key-file", public.to_str().unwrap()][..],
                &keys,
            ]
            .concat(),
            "not a private key",
        ),
        (
            [&["--user", "alice", "--private-key-file", "/nowhere"][..], &keys].concat(),
            "/nowhere",
        ),
        (vec!["--user", "al ice"], "--user"),
        (vec!["--user", "alice", "--role", "root"], "--role"),
        (vec!["--user", "alice", "--expires-in", "0s"], "--expires-in"),
        (vec!["--user", "alice", "--expires-in", "soon"], "--expires-in"),
        (vec![], "--user"),
    ] {
        let (ok, stdout, stderr) = run(&data, &[&["token"][..], &arguments].concat());
        assert!(
            !ok && stdout.is_empty() && stderr.contains(message),
            "{arguments:?}: {stdout}{stderr}"
        );
    }
}
