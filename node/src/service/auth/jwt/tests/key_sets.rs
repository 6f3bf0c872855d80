//! Sets of keys (JWKS).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

/// Returns a JWK set of the public keys for these algorithms, each with its id.
fn jwks(ids: &[(Algorithm, Option<&str>)]) -> Value {
    let key = |(algorithm, id): &(Algorithm, Option<&str>)| {
        let mut jwk =
            json!(jsonwebtoken::jwk::Jwk::from_encoding_key(&private(*algorithm), *algorithm).unwrap());
        jwk["kid"] = json!(id);
        jwk
    };
    json!({"keys": ids.iter().map(key).collect::<Vec<_>>()})
}

fn set(set: &Value) -> Result<Keys, String> {
    Keys::set(set.to_string().as_bytes(), &rules()).map(|(keys, _)| keys)
}

fn accepts(keys: &Keys, algorithm: Algorithm, id: Option<&str>) -> bool {
    let header = Header {
        kid: id.map(str::to_owned),
        ..Header::new(algorithm)
    };
    verify(&signed(&header, &claims()), keys, &rules()).is_some()
}

#[test]
fn the_kid_chooses_the_key() {
    use Algorithm::{ES256, EdDSA, HS256, RS256};
    let keys = set(&jwks(&[
        (RS256, Some("a")),
        (ES256, Some("b")),
        (EdDSA, None),
        (HS256, Some("d")),
    ]))
    .unwrap();
    for (algorithm, id) in [(RS256, "a"), (ES256, "b"), (HS256, "d")] {
        assert!(
            accepts(&keys, algorithm, Some(id)) && !accepts(&keys, algorithm, Some("other")),
            "{algorithm:?}"
        );
        // No kid is needed, because only one key fits the algorithm.
        assert!(accepts(&keys, algorithm, None), "{algorithm:?}");
    }
    assert!(!accepts(&keys, RS256, Some("b")));
    // A key without a kid verifies tokens with any kid.
    assert!(accepts(&keys, EdDSA, Some("whatever")) && accepts(&keys, EdDSA, None));
}

#[test]
fn a_secret_that_is_published_verifies_nothing() {
    let published = |ids: &[(Algorithm, Option<&str>)]| {
        let set = jwks(ids).to_string();
        Keys::published(set.as_bytes(), &rules())
    };
    let (secret, public) = ((Algorithm::HS256, Some("a")), (Algorithm::EdDSA, Some("b")));
    let (keys, skipped) = published(&[secret, public]).unwrap();
    assert!(accepts(&keys, Algorithm::EdDSA, Some("b")) && !accepts(&keys, Algorithm::HS256, Some("a")));
    assert!(skipped[0].contains("is a secret"), "{skipped:?}");
    let error = published(&[secret]).unwrap_err();
    assert!(error.contains("is a secret"), "{error}");
}

#[test]
fn a_token_without_a_kid_is_refused_if_several_keys_fit() {
    let mut two = jwks(&[(Algorithm::EdDSA, Some("new")), (Algorithm::EdDSA, Some("old"))]);
    let other = EncodingKey::from_ed_pem(pem!("eddsa.other.private").as_bytes()).unwrap();
    two["keys"][1]["x"] =
        json!(jsonwebtoken::jwk::Jwk::from_encoding_key(&other, Algorithm::EdDSA).unwrap())["x"].clone();
    let keys = set(&two).unwrap();
    assert!(accepts(&keys, Algorithm::EdDSA, Some("new")) && !accepts(&keys, Algorithm::EdDSA, Some("old")));
    assert!(!accepts(&keys, Algorithm::EdDSA, None));
}

#[test]
fn unusable_keys_of_a_set_are_skipped() {
    let rsa = &jwks(&[(Algorithm::RS256, Some("a"))])["keys"][0];
    let ed = &jwks(&[(Algorithm::EdDSA, Some("a"))])["keys"][0];
    let ec = &jwks(&[(Algorithm::ES256, Some("a"))])["keys"][0];
    let modulus = URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap();
    let encoded = |first: u8, rest: &[u8]| json!(URL_SAFE_NO_PAD.encode([&[first], rest].concat()));
    let bits_2047 = encoded(0x7f, &modulus[1..]);
    let changed = |key: &Value, field: &str, value: Value| {
        let mut key = key.clone();
        key[field] = value;
        key
    };
    for other in [
        changed(rsa, "use", json!("enc")),
        changed(rsa, "key_ops", json!(["encrypt"])),
        changed(rsa, "alg", json!("HS256")),
        changed(rsa, "alg", json!("RS512")),
        changed(rsa, "alg", json!("RSA-OAEP")),
        changed(rsa, "n", json!("AQAB")),
        changed(rsa, "n", json!("!")),
        changed(rsa, "kty", json!("EC")),
        changed(ed, "x", json!("AQAB")),
        changed(ed, "x", json!("")),
        changed(ed, "crv", json!("Ed448")),
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}),
        changed(ec, "x", ec["y"].clone()),
        changed(rsa, "e", json!("")),
        changed(rsa, "n", bits_2047),
        json!({"kty": "EC", "crv": "P-521", "x": "AQAB", "y": "AQAB"}),
        json!({"kty": "new"}),
        json!("a"),
        json!(null),
    ] {
        let (keys, skipped) =
            Keys::set(json!({"keys": [other, ed]}).to_string().as_bytes(), &rules()).unwrap();
        assert_eq!((keys.iter().count(), skipped.len()), (1, 1), "{skipped:?}");
        assert!(set(&json!({"keys": [other]})).is_err());
    }
    let with_leading_zero = set(&json!({"keys": [changed(rsa, "n", encoded(0, &modulus))]})).unwrap();
    assert!(accepts(&with_leading_zero, Algorithm::RS256, Some("a")));
    for good in [
        changed(rsa, "use", json!("sig")),
        changed(rsa, "key_ops", json!(["verify"])),
        changed(rsa, "alg", json!("RS256")),
    ] {
        assert!(set(&json!({"keys": [good]})).is_ok());
    }
}

#[test]
fn an_ambiguous_set_of_keys_is_refused() {
    let ed = |id| jwks(&[(Algorithm::EdDSA, id)])["keys"][0].clone();
    assert!(set(&json!({"keys": [ed(Some("a")), ed(Some("b"))]})).is_ok());
    assert!(set(&json!({"keys": [ed(Some("a")), ed(None)]})).is_ok());
    for keys in [
        json!([ed(Some("a")), ed(Some("a"))]),
        json!([ed(None), ed(None)]),
        json!([]),
        json!({}),
        json!(null),
    ] {
        assert!(set(&json!({"keys": keys})).is_err(), "{keys}");
    }
    let many = |keys: usize| {
        let ids: Vec<String> = (0..keys).map(|key| format!("key-{key}")).collect();
        jwks(
            &ids.iter()
                .map(|id| (Algorithm::EdDSA, Some(id.as_str())))
                .collect::<Vec<_>>(),
        )
    };
    assert!(set(&many(100)).is_ok() && set(&many(101)).is_err());
    for text in ["", "{", "[]", "{}"] {
        assert!(Keys::set(text.as_bytes(), &rules()).is_err(), "{text}");
    }
}
