//! The identities in requests and answers, with the checks that the HTTP contract prescribes.
//!
//! The checks are implemented a second time and not taken from the service, so that a mistake in the
//! service's own checks is found.

use std::fmt;

use smol_str::SmolStr;

/// Maximum length of a user id, in bytes.
const USER_BYTES_MAX: usize = 128;
/// Maximum length of a request key, in bytes.
const KEY_BYTES_MAX: usize = 255;
/// Maximum length of an order id, in bytes.
const ORDER_BYTES_MAX: usize = 64;

/// The largest id that every JSON client reads exactly: 2^53 - 1.
const ID_MAX: u64 = (1 << 53) - 1;

/// A text that is not a valid identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct InvalidId {
    text: String,
    what: &'static str,
}

/// The id of a coupon, between 1 and 2^53 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CouponId(u64);

impl CouponId {
    /// Returns the id with this number; `None` if the number is out of range.
    pub fn new(number: u64) -> Option<Self> {
        (1..=ID_MAX).contains(&number).then_some(Self(number))
    }

    /// Reads decimal digits without sign, leading zeros or spaces.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let id = number(text).and_then(Self::new);
        id.ok_or_else(|| invalid(text, "a coupon id, a whole number from 1 to 2^53 - 1"))
    }

    /// Returns the number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CouponId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an issuance in its coupon, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(u64);

impl Sequence {
    /// Returns the sequence with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The public name of an issuance, `42-17`: the coupon, and the sequence in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IssuanceId {
    /// The coupon.
    pub coupon: CouponId,
    /// The place in the coupon.
    pub sequence: Sequence,
}

impl IssuanceId {
    /// Reads a coupon id, a dash and a sequence.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let id = text.split_once('-').and_then(|(coupon, sequence)| {
            Some(Self {
                coupon: CouponId::parse(coupon).ok()?,
                sequence: Sequence(number(sequence).filter(|number| (1..=ID_MAX).contains(number))?),
            })
        });
        id.ok_or_else(|| invalid(text, "an issuance id like 42-17"))
    }
}

impl fmt::Display for IssuanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.coupon, self.sequence)
    }
}

/// The id of a user. Case matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(SmolStr);

impl UserId {
    /// Checks that the text is 1 to 128 visible ASCII characters.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match is_visible(text, USER_BYTES_MAX) {
            true => Ok(Self(SmolStr::new(text))),
            false => Err(invalid(text, "a user id, 1 to 128 visible ASCII characters")),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(SmolStr);

impl RequestKey {
    /// Checks that the text is 1 to 255 visible ASCII characters.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match is_visible(text, KEY_BYTES_MAX) {
            true => Ok(Self(SmolStr::new(text))),
            false => Err(invalid(text, "a request key, 1 to 255 visible ASCII characters")),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an order for which an issuance is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(SmolStr);

impl OrderId {
    /// Checks that the text is 1 to 64 visible ASCII characters.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match is_visible(text, ORDER_BYTES_MAX) {
            true => Ok(Self(SmolStr::new(text))),
            false => Err(invalid(text, "an order id, 1 to 64 visible ASCII characters")),
        }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn invalid(text: &str, what: &'static str) -> InvalidId {
    InvalidId {
        text: text.to_owned(),
        what,
    }
}

fn is_visible(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Reads decimal digits without sign, leading zeros or spaces, so that each number has one spelling.
fn number(text: &str) -> Option<u64> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if is_canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(CouponId::parse("9007199254740991").unwrap().get(), ID_MAX);
        for text in [
            "",
            "0",
            "042",
            "+42",
            " 42",
            "9007199254740992",
            "abc",
            "\u{ff14}\u{ff12}",
        ] {
            assert!(CouponId::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(IssuanceId::parse("42-17").unwrap().to_string(), "42-17");
        for text in ["42", "42-", "-17", "42-0", "42-017", "42-17-1", "x-1"] {
            assert!(IssuanceId::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn texts_are_bounded_and_of_allowed_characters() {
        assert!(UserId::parse(&"u".repeat(128)).is_ok() && UserId::parse("auth0|5+'\"\\").is_ok());
        assert!(RequestKey::parse(&"k".repeat(255)).is_ok() && RequestKey::parse("k\"2").is_ok());
        for text in ["", "alice ", "al ice", "\u{e5}lice", "a\nb", &"u".repeat(129)] {
            assert!(UserId::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "a b", "\u{e5}", &"k".repeat(256)] {
            assert!(RequestKey::parse(text).is_err(), "{text:?}");
        }
        assert!(OrderId::parse(&"o".repeat(64)).is_ok() && OrderId::parse(&"o".repeat(65)).is_err());
    }
}
