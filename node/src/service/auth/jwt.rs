//! Signed tokens (RFC 7519): whether one counts, and who it is.
//!
//! A token that does not count is told nothing about why. Its header is believed in nothing but which of our
//! keys to try, and that key says by itself what it may be used for.

use std::path::PathBuf;

use actors::ids::UserId;
use arc_swap::ArcSwap;
use jsonwebtoken::decode_header;
use serde::Deserialize;
use serde_json::Value;

use super::bearer::Digest;
use super::jwks;
use super::keys::{Keys, Rules};
use super::verified_tokens::Verified;
use super::{Identity, Role};
use crate::config::{InvalidConfig, Jwt};

/// Knows whose a token is.
#[derive(Debug)]
pub(crate) struct Verifier {
    rules: Rules,
    current: ArcSwap<Current>,
    file: Option<PathBuf>,
}

/// The keys, and what they verified: replaced together, so that what old keys said is forgotten with them.
#[derive(Debug)]
struct Current {
    keys: Keys,
    verified: Verified,
}

impl Current {
    fn new(keys: Keys) -> Self {
        Self {
            keys,
            verified: Verified::new(),
        }
    }
}

/// What we read of a token's claims; `nbf`, `iss` and `aud` are looked at by the library.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    /// Seconds, of which there may be a fraction.
    exp: f64,
    #[serde(default)]
    role: Value,
}

impl Verifier {
    /// Reads the keys.
    pub(super) fn new(config: &Jwt) -> Result<Self, InvalidConfig> {
        let rules = Rules::new(config);
        let keys = jwks::keys(config, &rules)?;
        Ok(Self {
            rules,
            current: ArcSwap::from_pointee(Current::new(keys)),
            file: config.jwks_file.clone(),
        })
    }

    /// Who the token is, if it counts now (seconds since 1970). One that was verified before is only looked
    /// up.
    pub(super) fn identify(&self, token: &str, digest: &Digest, now: u64) -> Option<Identity> {
        let current = self.current.load();
        if let Some(identity) = current.verified.get(digest, now) {
            return Some(identity);
        }
        let (identity, until) = verify(token, &current.keys, &self.rules)?;
        current.verified.insert(*digest, identity.clone(), until);
        Some(identity)
    }

    /// Reads the file again when it changes, for as long as it is polled; without one there is nothing to do.
    pub(super) async fn follow_file(&self) {
        if let Some(path) = &self.file {
            jwks::follow(path, &self.rules, |keys| {
                self.current.store(Current::new(keys).into())
            })
            .await;
        }
    }
}

/// Who the token is, and the last second in which it counts. At most one signature is checked.
pub(super) fn verify(token: &str, keys: &Keys, rules: &Rules) -> Option<(Identity, u64)> {
    let header = decode_header(token).ok()?;
    // Whoever marks something as critical wants it refused by those who do not know it (RFC 7515, 4.1.11),
    // and we know nothing.
    if header.crit.is_some() {
        return None;
    }
    let key = keys.choose(header.kid.as_deref(), header.alg)?;
    let claims = key.decode::<Claims>(token)?;
    let user = UserId::parse(&claims.sub).ok()?;
    let role = match claims.role.as_str() {
        Some("admin") => Role::Admin,
        Some("service") => Role::Service,
        _ => Role::User,
    };
    // The library has seen that it is a number of seconds.
    let until = (claims.exp.round() as u64).saturating_add(rules.leeway_seconds());
    Some((Identity { user, role }, until))
}

#[cfg(test)]
mod tests;
