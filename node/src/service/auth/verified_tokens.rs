//! Caches verified tokens, so that a signature is checked once per token and not once per request.
//!
//! Each set of keys has its own cache. When the keys are replaced, their cache is dropped.

use quick_cache::sync::Cache;

use super::Identity;
use super::token::Digest;

/// Maximum number of tokens in the cache: one for each user of a rush. At about 150 bytes each, they take 15
/// MB. Beyond this number the least recently used tokens are evicted, and are verified again at their next
/// use.
const TOKENS_MAX: usize = 100_000;

/// Verified tokens by digest, so that the memory does not contain the tokens.
pub(super) struct VerifiedTokens(Cache<Digest, Entry>);

#[derive(Clone)]
struct Entry {
    identity: Identity,
    /// The last second in which the token is valid.
    until: u64,
}

impl VerifiedTokens {
    /// Makes an empty cache.
    pub(super) fn new() -> Self {
        Self::with_capacity(TOKENS_MAX)
    }

    fn with_capacity(tokens_max: usize) -> Self {
        Self(Cache::new(tokens_max))
    }

    /// Returns the identity of a token that is in the cache and still valid.
    pub(super) fn get(&self, digest: &Digest, now: u64) -> Option<Identity> {
        let entry = self.0.get(digest)?;
        if now <= entry.until {
            return Some(entry.identity);
        }
        self.0.remove(digest);
        None
    }

    /// Adds a token that is valid through the second given by `until`.
    pub(super) fn insert(&self, digest: Digest, identity: Identity, until: u64) {
        self.0.insert(digest, Entry { identity, until });
    }
}

impl std::fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("VerifiedTokens").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actors::ids::UserId;

    use super::super::Role;

    fn alice() -> Identity {
        Identity {
            user: UserId::parse("alice").unwrap(),
            role: Role::User,
        }
    }

    #[test]
    fn a_token_is_cached_until_it_expires() {
        let verified = VerifiedTokens::new();
        verified.insert([1; 32], alice(), 100);
        assert_eq!(verified.get(&[1; 32], 100), Some(alice()));
        assert_eq!(verified.get(&[2; 32], 100), None);
        assert_eq!(verified.get(&[1; 32], 101), None);
        // The token was removed, so a clock that goes back does not revive it.
        assert_eq!((verified.get(&[1; 32], 100), verified.0.len()), (None, 0));
    }

    #[test]
    fn the_number_of_cached_tokens_is_bounded() {
        let verified = VerifiedTokens::with_capacity(1000);
        for number in 0..20_000_u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            verified.insert(digest, alice(), u64::MAX);
        }
        // Each part of the cache rounds its share up.
        assert!((500..=1100).contains(&verified.0.len()), "{}", verified.0.len());
    }
}
