//! The token in `Authorization`, and the administrators' own.

use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::http::call::Head;
use crate::http::problem::Problem;

/// Longest token that is looked at. Those of identity providers that put groups and more into them reach 4
/// KiB; what is longer is refused before it costs anything.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// What a token is known by where it is not to be kept, or compared letter by letter.
pub(super) type Digest = [u8; 32];

/// A token that a caller shows.
#[derive(Debug)]
pub(super) enum Shown<'a> {
    /// Longer than any that we take.
    TooLong,
    /// One to look at.
    Token {
        /// As it was sent.
        text: &'a str,
        /// Of all of it.
        digest: Digest,
    },
}

/// The token of `Authorization: Bearer`, if there is one. Other schemes are no business of ours; two tokens
/// are a contradiction.
pub(super) fn shown(head: &Head) -> Result<Option<Shown<'_>>, Problem> {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), second) = (values.next(), values.next()) else {
        return Ok(None);
    };
    if second.is_some() {
        return Err(Problem::Malformed("Authorization must be there once".to_owned()));
    }
    let Some((scheme, text)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return Ok(None);
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let text = text.trim();
    if text.len() > TOKEN_BYTES_MAX {
        return Ok(Some(Shown::TooLong));
    }
    Ok(Some(Shown::Token {
        text,
        digest: digest(text),
    }))
}

fn digest(text: &str) -> Digest {
    Sha256::digest(text).into()
}

/// What administrators show. Only its digest is kept: comparing digests takes as long whatever is shown, so
/// neither letters nor the length are given away.
#[derive(Debug)]
pub(super) struct AdminToken(Digest);

impl AdminToken {
    pub(super) fn new(token: &SecretString) -> Self {
        Self(digest(token.expose_secret()))
    }

    /// Whether it was shown.
    pub(super) fn is(&self, shown: &Shown<'_>) -> bool {
        match shown {
            Shown::TooLong => false,
            Shown::Token { digest, .. } => self.0.ct_eq(digest).into(),
        }
    }
}
