//! Tokens for test nodes, and the keys that sign them.

use std::path::PathBuf;
use std::time::SystemTime;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

/// The secret of nodes with symmetric keys.
pub const SECRET: &str = "a secret of more than thirty-two bytes";

/// Returns the path of a test key.
pub fn key_file(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys")).join(format!("{name}.pem"))
}

/// Reads a private test key.
pub fn private(name: &str) -> EncodingKey {
    let pem = std::fs::read(key_file(name)).unwrap();
    let rsa = EncodingKey::from_rsa_pem(&pem);
    rsa.or_else(|_| EncodingKey::from_ec_pem(&pem))
        .or_else(|_| EncodingKey::from_ed_pem(&pem))
        .unwrap()
}

/// Returns the seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Returns the claims of a user's token, with additional claims.
pub fn claims(user: &str, more: Value) -> Value {
    let mut claims = json!({"sub": user, "exp": now() + 3600});
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    claims
}

/// Returns a token that is signed with [`SECRET`].
pub fn token(user: &str, more: Value) -> String {
    encode(
        &Header::new(Algorithm::HS256),
        &claims(user, more),
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap()
}

/// Returns a token that is signed with a private key.
pub fn signed(algorithm: Algorithm, kid: &str, key: &EncodingKey, user: &str) -> String {
    let header = Header {
        kid: Some(kid.to_owned()),
        ..Header::new(algorithm)
    };
    encode(&header, &claims(user, json!({})), key).unwrap()
}

/// Returns a JWK set of the public halves of these keys.
pub fn jwks(keys: &[(Algorithm, &str, &EncodingKey)]) -> String {
    let key = |(algorithm, kid, key): &(Algorithm, &str, &EncodingKey)| {
        let mut jwk = json!(Jwk::from_encoding_key(key, *algorithm).unwrap());
        jwk["kid"] = json!(kid);
        jwk
    };
    json!({"keys": keys.iter().map(key).collect::<Vec<_>>()}).to_string()
}
