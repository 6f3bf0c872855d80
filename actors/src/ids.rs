//! Identities, each with a type of its own, so that no signature has a bare integer.
//!
//! Every textual identity is checked when it is made (`parse`), so every value is well formed: visible ASCII,
//! bounded in length, and safe to compare byte for byte in any database. User ids and request keys may
//! contain quotes and backslashes, which must be escaped in SQL and JSON.

use std::fmt;

use rand::RngCore;
use smol_str::SmolStr;

/// Maximum length of a user id, in bytes. OpenID Connect allows subjects of up to 255 bytes, and in practice
/// they have fewer than 100.
pub const USER_ID_BYTES_MAX: usize = 128;

/// Maximum length of a request key, in bytes. It is the longest length that one byte holds.
pub const REQUEST_KEY_BYTES_MAX: usize = 255;

/// Maximum length of an order's id, in bytes.
pub const ORDER_ID_BYTES_MAX: usize = 64;

/// Maximum length of an author, in bytes: a user id after `user:`.
pub const AUTHOR_BYTES_MAX: usize = USER_ID_BYTES_MAX + 5;

/// Maximum length of a node id, in bytes.
pub const NODE_ID_BYTES_MAX: usize = 64;

/// The largest id that every JSON client reads exactly: 2^53 − 1.
pub const ID_MAX: u64 = (1 << 53) - 1;

/// Number of shards with which a cluster is created. It never changes.
pub const SHARDS: u16 = 256;

/// Name of the hash that maps an id to its shard; it is stored with the cluster, so that a node with
/// another hash refuses to start.
pub const SHARD_HASH: &str = "xxh3-64";

/// Maximum number of peers of a node: as many as its row can name as linked. The mesh is full, so this bounds
/// a cluster to 65 nodes.
pub const PEERS_MAX: usize = 64;

/// Why a text is not a valid identity: the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}")]
pub struct InvalidId {
    pub(crate) what: &'static str,
    pub(crate) rule: &'static str,
}

/// The unit of placement, below [`SHARDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u16);

impl ShardId {
    /// Returns the shard with this number, if the cluster has it.
    pub fn new(number: u16) -> Option<Self> {
        (number < SHARDS).then_some(Self(number))
    }

    /// Returns the shard of an id with this number: [`SHARD_HASH`] over eight little-endian bytes, modulo
    /// [`SHARDS`].
    pub fn of_id(number: u64) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes());
        Self((hash % u64::from(SHARDS)) as u16)
    }

    /// Returns the bare number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// Returns all shards, in order.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..SHARDS).map(Self)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a shard's ownership, which rises by one at every claim and hand-off. 0 means never claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Returns the epoch with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the next epoch.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns the bare number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of one run of a node: random, new at every start and at every re-join, and never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// Returns a new incarnation, within 1..=[`ID_MAX`]: 53 random bits, which no cluster will see twice.
    pub fn random() -> Self {
        Self((rand::rng().next_u64() & ID_MAX).max(1))
    }

    /// Returns the incarnation with this number, as read from storage.
    pub fn new(number: u64) -> Option<Self> {
        (1..=ID_MAX).contains(&number).then_some(Self(number))
    }

    /// Returns the bare number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

/// The *fencing token* of a shard's writes: the epoch in which the shard is owned, and the incarnation that
/// owns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The shard's epoch.
    pub epoch: Epoch,
    /// The incarnation that owns the shard in that epoch.
    pub owner: Incarnation,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $bytes_max:expr, $what:literal, $rule:literal, $allowed:expr) => {
        $(#[$doc])*
        ///
        /// Cheap to clone: up to 23 bytes are copied, and longer texts are shared.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            #[doc = concat!("Checks that the text is ", $rule, ".")]
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                if Self::is_form_of(text) {
                    Ok(Self(SmolStr::new(text)))
                } else {
                    Err(InvalidId { what: $what, rule: $rule })
                }
            }

            #[doc = concat!("Returns true if the text is ", $rule, ".")]
            pub fn is_form_of(text: &str) -> bool {
                let allowed: fn(u8) -> bool = $allowed;
                (1..=$bytes_max).contains(&text.len()) && text.bytes().all(allowed)
            }

            /// Returns the text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A user. The shop or its identity provider makes the id, and may use any visible character, as in
    /// `auth0|507f1f77` or `bob+x@example.com`. Case matters.
    UserId,
    USER_ID_BYTES_MAX,
    "a user id",
    "1 to 128 visible ASCII characters",
    |byte| byte.is_ascii_graphic()
);

text_id!(
    /// Identity of one request: the client's `Idempotency-Key`, or a key that the first node made.
    RequestKey,
    REQUEST_KEY_BYTES_MAX,
    "a request key",
    "1 to 255 visible ASCII characters",
    |byte| byte.is_ascii_graphic()
);

text_id!(
    /// An order of a shop, for which an issuance is used. Case matters.
    OrderId,
    ORDER_ID_BYTES_MAX,
    "an order id",
    "1 to 64 visible ASCII characters",
    |byte| byte.is_ascii_graphic()
);

text_id!(
    /// A member of the cluster, by the name that its operator gave or the name that its data directory keeps.
    NodeId,
    NODE_ID_BYTES_MAX,
    "a node id",
    "1 to 64 of A-Z a-z 0-9 . _ -",
    |byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
);

impl RequestKey {
    /// Returns a new key of 126 random bits. Clients never see it and cannot guess it, so no client sends it
    /// as its own key.
    pub fn random() -> Self {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut bytes = [0_u8; 21];
        rand::rng().fill_bytes(&mut bytes);
        let text = bytes.map(|byte| ALPHABET[usize::from(byte & 63)]);
        Self(SmolStr::new(String::from_utf8_lossy(&text)))
    }
}

/// The kind of an author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuthorKind {
    /// A user, maybe with a role.
    User,
    /// A named key.
    Key,
}

impl AuthorKind {
    /// Returns the word that stands for the kind in an author's text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Key => "key",
        }
    }
}

/// Who asked for something that is stored: a user or a named key. Its text is the word for the kind, a colon,
/// and the name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Author {
    kind: AuthorKind,
    text: SmolStr,
}

impl Author {
    /// Returns the author with this name. `None` if the name is not 1 to [`USER_ID_BYTES_MAX`] visible ASCII
    /// characters.
    pub fn new(kind: AuthorKind, name: &str) -> Option<Self> {
        let is_name =
            (1..=USER_ID_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
        let text = smol_str::format_smolstr!("{}:{name}", kind.as_str());
        is_name.then_some(Self { kind, text })
    }

    /// Reads the text. `None` if it is not that of an author.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let mut kinds = [AuthorKind::User, AuthorKind::Key].into_iter();
        Self::new(kinds.find(|known| known.as_str() == kind)?, name)
    }

    /// Returns what the author is.
    pub fn kind(&self) -> AuthorKind {
        self.kind
    }

    /// Returns the author's name.
    pub fn name(&self) -> &str {
        &self.text[self.kind.as_str().len() + 1..]
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl NodeId {
    /// Returns a new name for a node without a configured name.
    pub fn random() -> Self {
        Self(smol_str::format_smolstr!("node-{:08x}", rand::rng().next_u32()))
    }
}

/// Reads decimal digits without sign, leading zeros or spaces, so that each number has only one spelling.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let canonical =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if canonical { text.parse().ok() } else { None }
}

/// Another live node, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its name.
    pub node: NodeId,
    /// Its present incarnation.
    pub incarnation: Incarnation,
    /// The address at which its links are reached.
    pub address: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_bounded_and_keep_their_case() {
        assert_ne!(UserId::parse("Alice").unwrap(), UserId::parse("alice").unwrap());
        let visible: String = ('!'..='~').collect();
        for text in [
            "a",
            "auth0|507f1f77bcf86cd799439011",
            "a'b\\\"",
            &visible,
            &"u".repeat(128),
        ] {
            assert_eq!(UserId::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "",
            " alice",
            "alice ",
            "al ice",
            "ålice",
            "a\nb",
            "a\u{7f}",
            &"u".repeat(129),
        ] {
            assert!(UserId::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn request_keys_and_node_ids_have_their_own_bounds() {
        assert!(RequestKey::parse(&"k".repeat(255)).is_ok() && RequestKey::parse(&"k".repeat(256)).is_err());
        assert!(RequestKey::parse("order 1").is_err());
        assert!(NodeId::parse(&"n".repeat(64)).is_ok() && NodeId::parse(&"n".repeat(65)).is_err());
        assert!(NodeId::parse("a|b").is_err());
    }

    #[test]
    fn an_author_is_read_from_its_text() {
        for (kind, name) in [
            (AuthorKind::User, "auth0|alice"),
            (AuthorKind::User, "key:a:b"),
            (AuthorKind::Key, &"x".repeat(USER_ID_BYTES_MAX)),
        ] {
            let author = Author::new(kind, name).unwrap();
            assert_eq!((author.kind(), author.name()), (kind, name));
            assert!(author.as_str().len() <= AUTHOR_BYTES_MAX);
            assert_eq!(Author::parse(author.as_str()), Some(author));
        }
        for text in [
            "",
            "key",
            "key:",
            "key:a b",
            "root:a",
            "user:\u{e9}",
            "keyx",
            ":a",
        ] {
            assert_eq!(Author::parse(text), None, "{text:?}");
        }
        assert_eq!(Author::new(AuthorKind::Key, &"x".repeat(129)), None);
    }

    #[test]
    fn random_request_keys_are_valid_and_differ() {
        let (one, other) = (RequestKey::random(), RequestKey::random());
        assert_ne!(one, other);
        assert_eq!(RequestKey::parse(one.as_str()).unwrap(), one);
    }
}
