//! Bearer tokens, and the admin token.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

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

fn digest(text: &str) -> Digest {
    Sha256::digest(text).into()
}

/// The admin token. Only the digest of the token is stored. Comparing digests takes the same time for any
/// input, so the time reveals neither bytes nor length.
#[derive(Debug)]
pub(super) struct AdminToken(Digest);

impl AdminToken {
    /// Computes the digest.
    pub(super) fn new(token: &SecretString) -> Self {
        Self(digest(token.expose_secret()))
    }

    /// True if this is the admin token.
    pub(super) fn is(&self, token: &BearerToken<'_>) -> bool {
        match token {
            BearerToken::TooLong => false,
            BearerToken::Token { digest, .. } => self.0.ct_eq(digest).into(),
        }
    }
}
