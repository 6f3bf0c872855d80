//! Bearer tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Maximum length of a token that is examined. Tokens of identity providers with many groups reach 4 KiB.
/// Longer tokens are refused before they cost anything.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Identifies a token without storing it or comparing it byte by byte.
pub(super) type Digest = [u8; 32];

/// A token that a request carries.
#[derive(Debug)]
pub(super) enum BearerToken<'a> {
    /// Longer than any token that is accepted.
    TooLong,
    /// A token to examine.
    Token {
        /// As it was sent.
        text: &'a str,
        /// SHA-256 of the text.
        digest: Digest,
    },
}

impl<'a> BearerToken<'a> {
    /// The token with its digest.
    pub(super) fn new(text: &'a str) -> Self {
        if text.len() > TOKEN_BYTES_MAX {
            Self::TooLong
        } else {
            Self::Token {
                text,
                digest: digest(text),
            }
        }
    }
}

/// Returns the digest of a token.
pub(super) fn digest(text: &str) -> Digest {
    Sha256::digest(text).into()
}

/// Makes a secret that cannot be guessed, of characters that a header and a URL may have.
pub(crate) fn random_secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}
