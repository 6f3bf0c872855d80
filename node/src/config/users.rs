//! What a user's token must be.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::value::HIDDEN;
use super::{AuthMode, InvalidConfig, value};

/// Most leeway there is reason for: clocks that are further apart want setting.
const LEEWAY_MAX: Duration = Duration::from_secs(600);

/// `auth.jwt.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jwt {
    /// The algorithm of the one key.
    pub algorithm: Option<JwtAlgorithm>,
    /// The one key: a secret for `HS256`, else a public key in PEM.
    #[serde(serialize_with = "value::hidden")]
    pub key: Option<SecretString>,
    /// A file that holds it, read at the start.
    pub key_file: Option<PathBuf>,
    /// A file with several keys (a JWK set), read again when it changes.
    pub jwks_file: Option<PathBuf>,
    /// Who must have issued a token (`iss`).
    pub issuer: Option<String>,
    /// For whom a token must be (`aud`).
    pub audience: Option<String>,
    /// How far clocks may be apart: a token counts so long before its `nbf` and after its `exp`.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256: whoever checks tokens can make them.
    HS256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Default for Jwt {
    /// A minute of leeway, as is usual.
    fn default() -> Self {
        Self {
            algorithm: None,
            key: None,
            key_file: None,
            jwks_file: None,
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(60),
        }
    }
}

impl Jwt {
    /// Whether what is set makes sense together; whether a key is one is seen when it is read.
    pub(super) fn check(&self, mode: AuthMode) -> Result<(), InvalidConfig> {
        let fail = |message: &str| Err(InvalidConfig(message.to_owned()));
        let has_key = self.key.is_some();
        if self.leeway > LEEWAY_MAX {
            return fail("auth.jwt.leeway must be at most ten minutes");
        }
        if mode == AuthMode::Header {
            // Whoever sets a key believes that tokens are checked.
            let set = has_key
                || self.jwks_file.is_some()
                || self.algorithm.is_some()
                || self.issuer.is_some()
                || self.audience.is_some();
            return if set {
                fail(
                    "auth.jwt is set, but auth.mode is header, which looks at no token; set auth.mode to jwt",
                )
            } else {
                Ok(())
            };
        }
        match (has_key, &self.jwks_file, self.algorithm) {
            (false, None, _) => fail(
                "auth.jwt.key, auth.jwt.key_file or auth.jwt.jwks_file must be set when auth.mode is jwt",
            ),
            (true, Some(_), _) => fail(
                "auth.jwt.key (or auth.jwt.key_file) and auth.jwt.jwks_file are both set; one of them must go",
            ),
            (true, None, None) => {
                fail("auth.jwt.algorithm must say what the key is for: HS256, RS256, ES256 or EdDSA")
            }
            (false, Some(_), Some(_)) => {
                fail("auth.jwt.algorithm is for one key; in auth.jwt.jwks_file each key has its own")
            }
            _ if self.key.as_ref().is_some_and(|key| key.expose_secret() == HIDDEN) => {
                fail("auth.jwt.key must not be [hidden]")
            }
            _ => Ok(()),
        }
    }
}
