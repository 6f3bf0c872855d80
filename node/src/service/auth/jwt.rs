//! Verifies signed tokens (RFC 7519).
//!
//! The `kid` and `alg` in the header of a token only choose a key, and each key verifies one algorithm.

use std::path::PathBuf;

use actors::ids::UserId;
use arc_swap::ArcSwap;
use jsonwebtoken::decode_header;
use serde::Deserialize;
use serde_json::Value;

use super::jwks;
use super::keys::{Keys, Rules};
use super::refused_tokens::TokenRefusal;
use super::token::Digest;
use super::verified_tokens::VerifiedTokens;
use super::{Identity, Role};
use crate::config::{InvalidConfig, Jwt};

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct Verifier {
    rules: Rules,
    current: ArcSwap<KeySet>,
    file: Option<PathBuf>,
}

/// The keys and the tokens that they verified. Both are replaced together, so that no token outlives its key.
#[derive(Debug)]
struct KeySet {
    keys: Keys,
    verified: VerifiedTokens,
}

impl KeySet {
    fn new(keys: Keys) -> Self {
        Self {
            keys,
            verified: VerifiedTokens::new(),
        }
    }
}

/// The claims that this module reads. They may have any type, because the library checks `exp` and `sub`, as
/// well as `nbf`, `iss` and `aud`, and says which of them is wrong.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    sub: Value,
    exp: Value,
    role: Value,
}

impl Verifier {
    /// Reads the keys.
    pub(super) fn new(config: &Jwt) -> Result<Self, InvalidConfig> {
        let rules = Rules::new(config);
        let keys = jwks::keys(config, &rules)?;
        Ok(Self {
            rules,
            current: ArcSwap::from_pointee(KeySet::new(keys)),
            file: config.jwks_file.clone(),
        })
    }

    /// Returns the identity of a token that is valid at `now` (seconds since 1970). A token that was verified
    /// before is only looked up.
    pub(super) fn identify(&self, token: &str, digest: &Digest, now: u64) -> Result<Identity, TokenRefusal> {
        let current = self.current.load();
        if let Some(identity) = current.verified.get(digest, now) {
            return Ok(identity);
        }
        let (identity, until) = verify(token, &current.keys, &self.rules, now)?;
        current.verified.insert(*digest, identity.clone(), until);
        Ok(identity)
    }

    /// Reloads the file when it changes, for as long as the future is polled. Returns at once if there is no
    /// file.
    pub(super) async fn reload_keys(&self) {
        if let Some(path) = &self.file {
            jwks::reload(path, &self.rules, |keys| {
                self.current.store(KeySet::new(keys).into());
            })
            .await;
        }
    }
}

/// Returns the identity of a token, and the last second in which it is valid. Checks at most one signature.
pub(super) fn verify(
    token: &str,
    keys: &Keys,
    rules: &Rules,
    now: u64,
) -> Result<(Identity, u64), TokenRefusal> {
    let header = decode_header(token).map_err(|_| TokenRefusal::Malformed)?;
    // A token with critical extensions must be refused unless all of them are known (RFC 7515, 4.1.11). This
    // node knows no extensions.
    if header.crit.is_some() {
        return Err(TokenRefusal::Critical);
    }
    let key = keys.choose(header.kid.as_deref(), header.alg);
    let claims = key.ok_or(TokenRefusal::UnknownKey)?.decode::<Claims>(token)?;
    // `exp` may have a fraction.
    let expiry = claims.exp.as_f64().ok_or(TokenRefusal::Expiry)?.round() as u64;
    let expiry = expiry.saturating_add(rules.leeway_seconds());
    // The library accepts a token in the second `exp`, in which it must be refused (RFC 7519, 4.1.4).
    if now >= expiry {
        return Err(TokenRefusal::Expired);
    }
    let user = claims.sub.as_str().and_then(|sub| UserId::parse(sub).ok());
    let user = user.ok_or(TokenRefusal::Subject)?;
    let role = match claims.role.as_str() {
        Some("admin") => Role::Admin,
        Some("operator") => Role::Operator,
        Some("service") => Role::Service,
        Some("viewer") => Role::Viewer,
        _ => Role::User,
    };
    Ok((Identity { user, role }, expiry - 1))
}

#[cfg(test)]
mod tests;
