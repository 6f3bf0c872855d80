//! Verifies signed tokens (RFC 7519).
//!
//! The `kid` and `alg` in the header of a token only choose a key, and each key verifies one algorithm.

use std::path::PathBuf;

use arc_swap::ArcSwap;
use bytes::Bytes;
use jsonwebtoken::decode_header;
use serde_json::Value;

use super::claims::Claims;
use super::fetch::Source;
use super::keys::{Keys, Rules};
use super::refused_tokens::TokenRefusal;
use super::remote_keys::RemoteKeys;
use super::token::Digest;
use super::verified_tokens::VerifiedTokens;
use super::{Identity, jwks};
use crate::config::{InvalidConfig, JwksUrl, Jwt};

/// Verifies tokens.
#[derive(Debug)]
pub(crate) struct Verifier {
    rules: Rules,
    current: ArcSwap<KeySet>,
    origin: KeyOrigin,
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

/// Where keys come from.
#[derive(Debug)]
enum KeyOrigin {
    /// The configuration, once.
    Configuration,
    /// A file that is read again when it changes.
    File(PathBuf),
    /// A URL.
    Url(RemoteKeys),
}

impl Verifier {
    /// Reads the keys.
    pub(super) fn new(config: &Jwt) -> Result<Self, InvalidConfig> {
        let rules = Rules::new(config);
        let keys = jwks::keys(config, &rules)?;
        Ok(Self {
            rules,
            current: ArcSwap::from_pointee(KeySet::new(keys)),
            origin: KeyOrigin::new(config)?,
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

    /// Reads keys again when they change, for as long as the future is polled. Returns at once if they never
    /// do.
    pub(super) async fn reload_keys(&self) {
        let replace = |keys| self.current.store(KeySet::new(keys).into());
        match &self.origin {
            KeyOrigin::Configuration => {}
            KeyOrigin::File(path) => jwks::reload(path, &self.rules, replace).await,
            KeyOrigin::Url(remote) => {
                let take = |text: &Bytes| {
                    let (keys, skipped) = Keys::published(text, &self.rules)?;
                    jwks::warn_of("auth.jwt.jwks_url", &skipped);
                    replace(keys);
                    Ok(())
                };
                remote.run(take).await;
            }
        }
    }

    /// Returns a number that grows whenever keys were fetched.
    pub(super) fn generation(&self) -> u64 {
        match &self.origin {
            KeyOrigin::Url(remote) => remote.generation(),
            KeyOrigin::Configuration | KeyOrigin::File(_) => 0,
        }
    }

    /// Waits for keys that are newer than a generation. Returns false if there is no reason to look again.
    pub(super) async fn renew_keys(&self, generation: u64) -> bool {
        match &self.origin {
            KeyOrigin::Url(remote) => remote.renew(generation).await,
            KeyOrigin::Configuration | KeyOrigin::File(_) => false,
        }
    }
}

impl KeyOrigin {
    fn new(config: &Jwt) -> Result<Self, InvalidConfig> {
        if let Some(path) = &config.jwks_file {
            return Ok(Self::File(path.clone()));
        }
        let Some(url) = &config.jwks_url else {
            return Ok(Self::Configuration);
        };
        let wrong = |reason: String| InvalidConfig(format!("auth.jwt.jwks_url {reason}"));
        let url = JwksUrl::parse(url).map_err(wrong)?;
        let source = Source::new(url).map_err(|reason| wrong(format!("cannot be used: {reason}")))?;
        Ok(Self::Url(RemoteKeys::new(source)))
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
    if keys.is_empty() {
        return Err(TokenRefusal::NoKeys);
    }
    let key = keys.choose(header.kid.as_deref(), header.alg);
    let claims: Claims = key.ok_or(TokenRefusal::UnknownKey)?.decode(token)?;
    // `exp` may have a fraction.
    let expiry = claims.get("exp").and_then(Value::as_f64);
    let expiry = expiry.ok_or(TokenRefusal::Expiry)?.round() as u64;
    let expiry = expiry.saturating_add(rules.leeway_seconds());
    // The library accepts a token in the second `exp`, in which it must be refused (RFC 7519, 4.1.4).
    if now >= expiry {
        return Err(TokenRefusal::Expired);
    }
    let user = rules.claims().user(&claims).ok_or(TokenRefusal::Subject)?;
    let role = rules.claims().role(&claims);
    Ok((Identity { user, role }, expiry - 1))
}

#[cfg(test)]
mod tests;
