//! Requirements for users' tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::keys::section;
use super::value::HIDDEN;
use super::{AuthMode, InvalidConfig, JwksUrl, RoleName, value};

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
        /// The URL of a JWK set: `https`, or `http` on loopback. It is fetched at the start, every five
        /// minutes, and for a token with an unknown `kid` or a wrong signature, at most every ten seconds.
        jwks_url: Option<String> = None, "string", check = check_jwks_url;
        /// The required issuer of tokens (`iss`).
        issuer: Option<String> = None, "string", unset = "any";
        /// The required audience of tokens (`aud`).
        audience: Option<String> = None, "string", unset = "any";
        /// The claim with the user's id. A dot leads into an object, as for `role_claim`.
        user_claim: String = "sub".to_owned(), "string", check = |claim| check_claim(claim);
        /// The claim with the role, or with a list of roles, like `realm_access.roles`.
        role_claim: String = "role".to_owned(), "string", check = |claim| check_claim(claim);
        /// Tolerated difference of clocks: a token is valid for that long before its `nbf` and after its
        /// `exp`.
        #[serde(with = "humantime_serde")]
        leeway: Duration = Duration::from_secs(60), "duration", check = check_leeway;
        /// Names of roles in tokens, each with the role that it means, like `shop-admins = "admin"`. Other
        /// names are ignored then. In the environment: `shop-admins=admin,tills=service`.
        #[serde(deserialize_with = "value::roles")]
        roles: Option<BTreeMap<String, RoleName>> = None, "table of roles",
            unset = "the names of the roles";
    }
}

fn check_leeway(leeway: &Duration) -> Result<(), String> {
    if *leeway > LEEWAY_MAX {
        Err("must be at most ten minutes".to_owned())
    } else {
        Ok(())
    }
}

fn check_claim(claim: &str) -> Result<(), String> {
    if claim.is_empty() || claim.split('.').any(str::is_empty) {
        Err("must be the name of a claim, with dots only between names".to_owned())
    } else {
        Ok(())
    }
}

fn check_jwks_url(url: &Option<String>) -> Result<(), String> {
    url.as_ref().map_or(Ok(()), |url| JwksUrl::parse(url).map(drop))
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
        if mode == AuthMode::Header {
            // Tokens would not be verified, although the configuration suggests that they are.
            return if self.is_set() {
                fail("auth.jwt is set, but auth.mode is header, which ignores tokens; set auth.mode to jwt")
            } else {
                Ok(())
            };
        }
        let (has_key, has_set) = (
            self.key.is_some(),
            self.jwks_file.is_some() || self.jwks_url.is_some(),
        );
        match (has_key, has_set, self.algorithm) {
            (false, false, _) => fail(
                "auth.jwt.key, auth.jwt.key_file, auth.jwt.jwks_file or auth.jwt.jwks_url must be set when \
                 auth.mode is jwt",
            ),
            (true, true, _) => fail(
                "auth.jwt.key (or auth.jwt.key_file) and auth.jwt.jwks_file (or auth.jwt.jwks_url) are both set; \
                 remove one of them",
            ),
            (true, false, None) => {
                fail("auth.jwt.algorithm must be the algorithm of the key: HS256, RS256, ES256 or EdDSA")
            }
            (false, true, Some(_)) => {
                fail("auth.jwt.algorithm is for a single key; in a JWK set each key has its own")
            }
            _ if self.jwks_file.is_some() && self.jwks_url.is_some() => {
                fail("auth.jwt.jwks_file and auth.jwt.jwks_url are both set; remove one of them")
            }
            _ if self.key.as_ref().is_some_and(|key| key.expose_secret() == HIDDEN) => {
                fail("auth.jwt.key must not be [hidden]")
            }
            _ => Ok(()),
        }
    }

    /// True if the configuration says which tokens are accepted.
    fn is_set(&self) -> bool {
        let default = Self::default();
        self.key.is_some()
            || self.jwks_file.is_some()
            || self.jwks_url.is_some()
            || self.algorithm.is_some()
            || self.issuer.is_some()
            || self.audience.is_some()
            || self.user_claim != default.user_claim
            || self.role_claim != default.role_claim
            || self.roles.is_some()
    }
}

#[cfg(test)]
mod tests;
