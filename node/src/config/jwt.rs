//! Requirements for users' tokens.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::keys::section;
use super::value::HIDDEN;
use super::{AuthMode, InvalidConfig, value};

/// Maximum leeway: clocks that differ by more must be corrected.
const LEEWAY_MAX: Duration = Duration::from_secs(600);

section! {
    /// `auth.jwt.…`
    pub struct Jwt in "auth.jwt." {
        /// The algorithm of the single key.
        algorithm: Option<JwtAlgorithm> = None, "`HS256`, `RS256`, `ES256` or `EdDSA`";
        /// The single key: a secret for `HS256`, else a public key in PEM.
        #[serde(serialize_with = "value::hidden")]
        key: Option<SecretString> = None, "secret, or PEM";
        /// A file with the single key, read at the start.
        key_file: Option<PathBuf> = None, "path";
        /// A file with several keys (a JWK set), reloaded when it changes.
        jwks_file: Option<PathBuf> = None, "path";
        /// The required issuer of tokens (`iss`).
        issuer: Option<String> = None, "string", unset = "any";
        /// The required audience of tokens (`aud`).
        audience: Option<String> = None, "string", unset = "any";
        /// Tolerated difference of clocks: a token is valid for that long before its `nbf` and after its
        /// `exp`.
        #[serde(with = "humantime_serde")]
        leeway: Duration = Duration::from_secs(60), "duration", check = check_leeway;
    }
}

fn check_leeway(leeway: &Duration) -> Result<(), String> {
    if *leeway > LEEWAY_MAX {
        Err("must be at most ten minutes".to_owned())
    } else {
        Ok(())
    }
}

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256: the secret that verifies tokens also signs them.
    HS256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Jwt {
    /// Checks the values together. Keys are checked when they are read.
    pub(super) fn check(&self, mode: AuthMode) -> Result<(), InvalidConfig> {
        let fail = |message: &str| Err(InvalidConfig(message.to_owned()));
        let has_key = self.key.is_some();
        if mode == AuthMode::Header {
            // Tokens would not be verified, although the configuration suggests that they are.
            let set = has_key
                || self.jwks_file.is_some()
                || self.algorithm.is_some()
                || self.issuer.is_some()
                || self.audience.is_some();
            return if set {
                fail("auth.jwt is set, but auth.mode is header, which ignores tokens; set auth.mode to jwt")
            } else {
                Ok(())
            };
        }
        match (has_key, &self.jwks_file, self.algorithm) {
            (false, None, _) => fail(
                "auth.jwt.key, auth.jwt.key_file or auth.jwt.jwks_file must be set when auth.mode is jwt",
            ),
            (true, Some(_), _) => fail(
                "auth.jwt.key (or auth.jwt.key_file) and auth.jwt.jwks_file are both set; remove one of them",
            ),
            (true, None, None) => {
                fail("auth.jwt.algorithm must be the algorithm of the key: HS256, RS256, ES256 or EdDSA")
            }
            (false, Some(_), Some(_)) => {
                fail("auth.jwt.algorithm is for a single key; in auth.jwt.jwks_file each key has its own")
            }
            _ if self.key.as_ref().is_some_and(|key| key.expose_secret() == HIDDEN) => {
                fail("auth.jwt.key must not be [hidden]")
            }
            _ => Ok(()),
        }
    }
}
