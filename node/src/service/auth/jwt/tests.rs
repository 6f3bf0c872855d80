use super::super::Role;
use super::super::keys::Keys;
use super::*;
use crate::config::JwtAlgorithm;
use actors::ids::UserId;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::json;

const SECRET: &str = "a secret of more than thirty-two bytes";

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/", $name, ".pem"))
    };
}

const PUBLIC: [(JwtAlgorithm, Algorithm, &str); 3] = [
    (JwtAlgorithm::RS256, Algorithm::RS256, pem!("rs256.public")),
    (JwtAlgorithm::ES256, Algorithm::ES256, pem!("es256.public")),
    (JwtAlgorithm::EdDSA, Algorithm::EdDSA, pem!("eddsa.public")),
];

mod key_sets;

fn private(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(pem!("rs256.private").as_bytes()).unwrap(),
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem!("es256.private").as_bytes()).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem!("eddsa.private").as_bytes()).unwrap(),
        _ => EncodingKey::from_secret(SECRET.as_bytes()),
    }
}

fn rules() -> Rules {
    Rules::new(&Jwt::default())
}

fn hmac() -> Keys {
    Keys::one(JwtAlgorithm::HS256, SECRET, &rules()).unwrap()
}

fn now() -> u64 {
    super::super::unix_seconds()
}

/// Returns the identity of a token that is valid now, and the last second in which it is valid.
fn verify(token: &str, keys: &Keys, rules: &Rules) -> Option<(Identity, u64)> {
    super::verify(token, keys, rules, now()).ok()
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": now() + 3600})
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

fn signed(header: &Header, claims: &Value) -> String {
    encode(header, claims, &private(header.alg)).unwrap()
}

fn hs256(claims: &Value) -> String {
    signed(&Header::new(Algorithm::HS256), claims)
}

fn identity_of(claims: &Value, rules: &Rules) -> Option<Identity> {
    let keys = Keys::one(JwtAlgorithm::HS256, SECRET, rules).unwrap();
    verify(&hs256(claims), &keys, rules).map(|(identity, _)| identity)
}

#[test]
fn each_algorithm_verifies_with_its_own_key_only() {
    let all = PUBLIC
        .iter()
        .map(|(name, algorithm, key)| (*algorithm, Keys::one(*name, key, &rules()).unwrap()));
    let all: Vec<(Algorithm, Keys)> = all.chain([(Algorithm::HS256, hmac())]).collect();
    for (signs, _) in &all {
        let token = signed(&Header::new(*signs), &claims());
        for (verifies, keys) in &all {
            assert_eq!(
                verify(&token, keys, &rules()).is_some(),
                signs == verifies,
                "{signs:?} by {verifies:?}"
            );
        }
    }
}

#[test]
fn a_key_verifies_only_one_of_the_algorithms_of_its_kind() {
    // Each token is validly signed by the same key, but with an algorithm that the key is not for.
    let rsa = Keys::one(PUBLIC[0].0, PUBLIC[0].2, &rules()).unwrap();
    let rsa_key = private(Algorithm::RS256);
    let (secret, secret_key) = (hmac(), private(Algorithm::HS256));
    for (algorithm, signs, keys) in [
        (Algorithm::HS384, &secret_key, &secret),
        (Algorithm::HS512, &secret_key, &secret),
        (Algorithm::RS384, &rsa_key, &rsa),
        (Algorithm::RS512, &rsa_key, &rsa),
        (Algorithm::PS256, &rsa_key, &rsa),
    ] {
        let token = encode(&Header::new(algorithm), &claims(), signs).unwrap();
        assert_eq!(verify(&token, keys, &rules()), None, "{algorithm:?}");
    }
}

#[test]
fn a_public_key_is_not_accepted_as_a_secret() {
    // An attacker signs with the public key as if it were a secret.
    for (name, _, key) in PUBLIC {
        let keys = Keys::one(name, key, &rules()).unwrap();
        for secret in [key.as_bytes(), key.trim_end().as_bytes()] {
            let token = encode(
                &Header::new(Algorithm::HS256),
                &claims(),
                &EncodingKey::from_secret(secret),
            )
            .unwrap();
            assert_eq!(verify(&token, &keys, &rules()), None, "{name:?}");
        }
    }
}

#[test]
fn a_token_must_be_unchanged_and_signed_by_the_key() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let token = hs256(&claims());
    assert!(verify(&token, &hmac(), &rules()).is_some());
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let none = |alg: &str| BASE64.encode(format!("{{\"alg\":\"{alg}\",\"typ\":\"JWT\"}}"));
    let mallory = BASE64.encode(with("sub", json!("mallory")).to_string());
    for wrong in [
        format!("{}.{payload}.", none("none")),
        format!("{}.{payload}.{signature}", none("none")),
        format!("{}.{payload}.", none("None")),
        format!("{}.{payload}.", none("HS256")),
        format!("{}.{payload}.{signature}", none("HS512")),
        format!("{header}.{mallory}.{signature}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!("{header}.{payload}.{signature}="),
        format!("{header}.{payload}.{}", &signature[1..]),
        format!(".{payload}.{signature}"),
        encode(
            &Header::new(Algorithm::HS256),
            &claims(),
            &EncodingKey::from_secret(b"another secret of more than thirty-two bytes"),
        )
        .unwrap(),
        encode(
            &Header::new(Algorithm::HS512),
            &claims(),
            &private(Algorithm::HS256),
        )
        .unwrap(),
    ] {
        assert_eq!(verify(&wrong, &hmac(), &rules()), None, "{wrong}");
    }
}

#[test]
fn keys_in_the_header_of_a_token_are_ignored() {
    let jwk = serde_json::from_value(json!({"kty": "oct", "k": "c2VjcmV0"})).unwrap();
    let header = Header {
        jwk: Some(jwk),
        jku: Some("https://mallory.example".to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let token = encode(&header, &claims(), &EncodingKey::from_secret(b"secret")).unwrap();
    assert_eq!(verify(&token, &hmac(), &rules()), None);
    let critical = Header {
        crit: Some(vec!["b64".to_owned()]),
        ..Header::new(Algorithm::HS256)
    };
    assert_eq!(verify(&signed(&critical, &claims()), &hmac(), &rules()), None);
}

#[test]
fn a_token_is_valid_from_nbf_to_exp_plus_leeway() {
    let rules = Rules::new(&Jwt {
        leeway: std::time::Duration::from_secs(60),
        ..Jwt::default()
    });
    let is_valid = |claims: &Value| identity_of(claims, &rules).is_some();
    assert!(is_valid(&with("exp", json!(now() - 50))) && !is_valid(&with("exp", json!(now() - 70))));
    assert!(is_valid(&with("nbf", json!(now() + 50))) && !is_valid(&with("nbf", json!(now() + 70))));
    assert!(is_valid(&with("exp", json!(now() as f64 + 0.5))));
    for exp in [
        Value::Null,
        json!("tomorrow"),
        json!((now() + 3600).to_string()),
        json!(-1),
        json!([now() + 3600]),
        json!(1e30),
    ] {
        assert!(!is_valid(&with("exp", exp.clone())), "{exp}");
    }
    assert!(!is_valid(&with("nbf", json!("now"))));
    assert!(!is_valid(&json!({"sub": "alice"})));
    let exp = now() + 3600;
    assert_eq!(
        verify(&hs256(&with("exp", json!(exp))), &hmac(), &rules)
            .unwrap()
            .1,
        exp + 59
    );
}

#[test]
fn a_token_is_refused_in_the_second_of_its_expiry() {
    for leeway in [0, 60] {
        let rules = Rules::new(&Jwt {
            leeway: std::time::Duration::from_secs(leeway),
            ..Jwt::default()
        });
        let exp = now() + 3600;
        let keys = Keys::one(JwtAlgorithm::HS256, SECRET, &rules).unwrap();
        let at = |now: u64| super::verify(&hs256(&with("exp", json!(exp))), &keys, &rules, now);
        assert_eq!(at(exp + leeway - 1).unwrap().1, exp + leeway - 1);
        assert_eq!(at(exp + leeway), Err(TokenRefusal::Expired));
    }
}

#[test]
fn each_refusal_has_its_reason() {
    let config = Jwt {
        issuer: Some("https://id.example".to_owned()),
        audience: Some("coupons".to_owned()),
        ..Jwt::default()
    };
    let rules = Rules::new(&config);
    let keys = Keys::one(JwtAlgorithm::HS256, SECRET, &rules).unwrap();
    let reason = |token: &str| super::verify(token, &keys, &rules, now()).unwrap_err();
    let fitting = json!({"sub": "alice", "exp": now() + 3600, "iss": "https://id.example", "aud": "coupons"});
    for (claim, values, expected) in [
        (
            "exp",
            vec![Value::Null, json!("tomorrow"), json!(-1)],
            TokenRefusal::Expiry,
        ),
        ("exp", vec![json!(0), json!(now() - 3600)], TokenRefusal::Expired),
        (
            "nbf",
            vec![json!(now() + 3600), json!("now")],
            TokenRefusal::NotYetValid,
        ),
        (
            "iss",
            vec![Value::Null, json!(5), json!("https://mallory.example")],
            TokenRefusal::Issuer,
        ),
        (
            "aud",
            vec![Value::Null, json!([]), json!(["shop"])],
            TokenRefusal::Audience,
        ),
        (
            "sub",
            vec![Value::Null, json!(5), json!(""), json!("al ice")],
            TokenRefusal::Subject,
        ),
    ] {
        for value in values {
            let mut claims = fitting.clone();
            claims[claim] = value;
            assert_eq!(reason(&hs256(&claims)), expected, "{claims}");
        }
    }
    let token = hs256(&fitting);
    assert!(super::verify(&token, &keys, &rules, now()).is_ok());
    assert_eq!(reason("nonsense"), TokenRefusal::Malformed);
    let (head, _) = token.rsplit_once('.').unwrap();
    assert_eq!(
        reason(&format!("{head}.{}", "A".repeat(43))),
        TokenRefusal::Signature
    );
    let of_another_kind = signed(&Header::new(Algorithm::ES256), &fitting);
    assert_eq!(reason(&of_another_kind), TokenRefusal::UnknownKey);
    let critical = Header {
        crit: Some(vec!["b64".to_owned()]),
        ..Header::new(Algorithm::HS256)
    };
    assert_eq!(reason(&signed(&critical, &fitting)), TokenRefusal::Critical);
}

#[test]
fn a_configured_issuer_or_audience_is_required() {
    let config = Jwt {
        issuer: Some("https://id.example".to_owned()),
        audience: Some("coupons".to_owned()),
        ..Jwt::default()
    };
    let strict = Rules::new(&config);
    let of = |iss: Value, aud: Value| json!({"sub": "alice", "exp": now() + 3600, "iss": iss, "aud": aud});
    assert!(identity_of(&of(json!("https://id.example"), json!("coupons")), &strict).is_some());
    assert!(
        identity_of(
            &of(json!("https://id.example"), json!(["shop", "coupons"])),
            &strict
        )
        .is_some()
    );
    for claims in [
        of(json!("https://mallory.example"), json!("coupons")),
        of(Value::Null, json!("coupons")),
        of(json!("https://id.example"), json!("shop")),
        of(json!("https://id.example"), json!([])),
        of(json!("https://id.example"), Value::Null),
        of(json!(5), json!("coupons")),
        claims(),
    ] {
        assert_eq!(identity_of(&claims, &strict), None, "{claims}");
    }
    // Without configuration, any issuer and any audience are allowed.
    assert!(identity_of(&of(json!("anybody"), json!("anything")), &rules()).is_some());
}

#[test]
fn the_subject_is_a_user_and_only_known_roles_count() {
    for (role, known) in [
        (json!("admin"), Role::Admin),
        (json!("service"), Role::Service),
        (json!("Admin"), Role::User),
        (json!(["admin"]), Role::Admin),
        (json!({"admin": true}), Role::User),
        (json!(true), Role::User),
        (Value::Null, Role::User),
    ] {
        assert_eq!(
            identity_of(&with("role", role.clone()), &rules()).unwrap().role,
            known,
            "{role}"
        );
    }
    assert_eq!(
        identity_of(&claims(), &rules()).unwrap(),
        Identity {
            user: UserId::parse("alice").unwrap(),
            role: Role::User
        }
    );
    for sub in [
        json!(""),
        json!("al ice"),
        json!("u".repeat(129)),
        json!(5),
        Value::Null,
    ] {
        assert_eq!(identity_of(&with("sub", sub.clone()), &rules()), None, "{sub}");
    }
}

#[test]
fn weak_keys_private_keys_and_keys_of_another_kind_are_refused() {
    for (algorithm, key) in [
        (JwtAlgorithm::HS256, "short"),
        (JwtAlgorithm::HS256, "thirty-one bytes are too little"),
        (JwtAlgorithm::RS256, pem!("rs256.short.public")),
        (JwtAlgorithm::RS256, pem!("rs256.private")),
        (JwtAlgorithm::RS256, pem!("es256.public")),
        (JwtAlgorithm::ES256, pem!("es256.private")),
        (JwtAlgorithm::ES256, pem!("eddsa.public")),
        (JwtAlgorithm::EdDSA, pem!("eddsa.private")),
        (JwtAlgorithm::EdDSA, pem!("rs256.public")),
        (JwtAlgorithm::EdDSA, SECRET),
        (JwtAlgorithm::RS256, ""),
    ] {
        let error = Keys::one(algorithm, key, &rules()).unwrap_err();
        assert!(error.starts_with("is "), "{algorithm:?}: {error}");
    }
}

proptest! {
    #[test]
    fn hostile_tokens_are_refused_without_a_panic(token in ".{0,200}") {
        prop_assert_eq!(verify(&token, &hmac(), &rules()), None);
    }

    #[test]
    fn hostile_headers_and_claims_are_refused_without_a_panic(
        header in prop_oneof![Just(r#"{"alg":"HS256"}"#.to_owned()), Just(r#"{"alg":"EdDSA","kid":5}"#.to_owned()), r#"[{}\[\]":,a-z0-9]{0,60}"#],
        payload in prop_oneof!["[\\x00-\\x7f]{0,60}", Just("[".repeat(4000)), Just(r#"{"a":"#.repeat(1000))],
        signature in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
        let token = format!("{}.{}.{}", BASE64.encode(header), BASE64.encode(payload), BASE64.encode(signature));
        for (name, _, key) in PUBLIC {
            prop_assert_eq!(verify(&token, &Keys::one(name, key, &rules()).unwrap(), &rules()), None);
        }
        prop_assert_eq!(verify(&token, &hmac(), &rules()), None);
    }

    /// The token is signed, so that its claims are read.
    #[test]
    fn strange_claims_in_a_validly_signed_token_cause_no_panic(
        exp in prop_oneof![any::<f64>().prop_map(|exp| json!(exp)), any::<u64>().prop_map(|exp| json!(exp)), any::<String>().prop_map(|exp| json!(exp))],
        sub in ".{0,80}",
        role in ".{0,20}",
    ) {
        let claims = json!({"sub": sub, "exp": exp, "role": role});
        if let Some((identity, until)) = verify(&hs256(&claims), &hmac(), &rules()) {
            prop_assert_eq!(identity.user.as_str(), sub);
            prop_assert!(until >= now());
        }
    }

    #[test]
    fn a_token_is_refused_if_any_character_is_changed(position in 0..1000_usize, letter in "[A-Za-z0-9_.-]") {
        let token = hs256(&claims());
        let position = position % token.len();
        let changed = format!("{}{letter}{}", &token[..position], &token[position + 1..]);
        prop_assume!(changed != token);
        // This includes the last character, because its unused bits must be zero.
        prop_assert_eq!(verify(&changed, &hmac(), &rules()), None);
    }
}

#[test]
fn a_verified_token_is_cached_until_its_keys_are_replaced() {
    let config = |secret: &str| Jwt {
        algorithm: Some(JwtAlgorithm::HS256),
        key: Some(secret.into()),
        ..Jwt::default()
    };
    let verifier = Verifier::new(&config(SECRET)).unwrap();
    let (token, digest) = (hs256(&claims()), [7; 32]);
    assert!(verifier.identify(&token, &digest, now()).is_ok());
    // The token is known by its digest, so its text is not read.
    assert!(verifier.identify("not looked at", &digest, now()).is_ok());
    assert!(verifier.identify("looked at", &[8; 32], now()).is_err());
    verifier.current.store(
        KeySet::new(
            Keys::one(
                JwtAlgorithm::HS256,
                "another secret of more than thirty-two bytes",
                &rules(),
            )
            .unwrap(),
        )
        .into(),
    );
    assert!(verifier.identify(&token, &digest, now()).is_err());
}
