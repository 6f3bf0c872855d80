//! Tokens that were verified, so that a signature is checked once a token and not once a request.
//!
//! A cache belongs to the keys that verified what is in it, and goes with them.

use quick_cache::sync::Cache;

use super::Identity;
use super::bearer::Digest;

/// Most tokens that are remembered: as many people as come in one rush, at about 150 bytes each 15 MB. Beyond
/// it those not used lately are forgotten, and verified again.
const TOKENS_MAX: usize = 100_000;

/// Tokens known to be good, by digest: a copy of the memory gives none away.
pub(super) struct Verified(Cache<Digest, Known>);

#[derive(Clone)]
struct Known {
    identity: Identity,
    /// The last second in which the token counts.
    until: u64,
}

impl Verified {
    /// None yet.
    pub(super) fn new() -> Self {
        Self::holding(TOKENS_MAX)
    }

    fn holding(tokens_max: usize) -> Self {
        Self(Cache::new(tokens_max))
    }

    /// Who a token is, if it is known and still counts.
    pub(super) fn get(&self, digest: &Digest, now: u64) -> Option<Identity> {
        let known = self.0.get(digest)?;
        if now <= known.until {
            return Some(known.identity);
        }
        self.0.remove(digest);
        None
    }

    /// Remembers a token up to and with the second `until`.
    pub(super) fn insert(&self, digest: Digest, identity: Identity, until: u64) {
        self.0.insert(digest, Known { identity, until });
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Verified").field(&self.0.len()).finish()
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
    fn a_token_is_known_until_it_does_not_count_any_more() {
        let verified = Verified::new();
        verified.insert([1; 32], alice(), 100);
        assert_eq!(verified.get(&[1; 32], 100), Some(alice()));
        assert_eq!(verified.get(&[2; 32], 100), None);
        assert_eq!(verified.get(&[1; 32], 101), None);
        // And is gone, whatever the clock says later.
        assert_eq!((verified.get(&[1; 32], 100), verified.0.len()), (None, 0));
    }

    #[test]
    fn however_many_tokens_there_are_so_many_are_remembered() {
        let verified = Verified::holding(1000);
        for number in 0..20_000_u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_le_bytes());
            verified.insert(digest, alice(), u64::MAX);
        }
        // Each shard rounds its share up.
        assert!((500..=1100).contains(&verified.0.len()), "{}", verified.0.len());
    }
}
