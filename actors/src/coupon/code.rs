//! Codes of issuances, which people read, type and say aloud in place of an id.
//!
//! A code is the issuance's coupon and sequence and a signature of both, the first 64 bits of an HMAC under a
//! secret, in the letters and digits of [Crockford's base 32](https://www.crockford.com/base32.html). So
//! nothing is stored or indexed for it, a code cannot be found without the secret in less than some 2^63
//! attempts, and a wrong one is recognised without the database.
//!
//! A code has 20 characters if coupon and sequence have at most 32 bits together, like the first 4,194,303
//! issuances of coupon 1,000. For each 20 further bits it has 4 more characters, so every pair of numbers
//! below 2^53 has exactly one code. Its bits, from the first:
//!
//! | bits | what |
//! |---|---|
//! | 5; 6 in a longer code | how many bits the coupon has, less one |
//! | that many | the coupon without its highest bit, which is one |
//! | the rest of 36, 56, 76, 96 or 116 | the sequence |
//! | 64 | the signature |

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use smol_str::SmolStr;

use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::ids::ID_MAX;

/// Number of characters of most codes.
pub const CODE_CHARS: usize = 20;
/// Number of characters of the longest codes.
pub const CODE_CHARS_MAX: usize = 36;

/// Number of letters and digits of a text that is taken for a code. A text that lacks some, or has too many
/// or other characters, is a wrong code; a much shorter text is not meant as a code.
const TYPED_CHARS: std::ops::RangeInclusive<usize> = 10..=CODE_CHARS_MAX + 4;

/// Age from which a secret is used for new codes: all nodes know it by then.
pub const SECRET_USED_AFTER: Duration = Duration::from_secs(60);

/// Maximum number of secrets. A wrong code is compared with the signature under each of them, which takes a
/// third of a microsecond.
pub const SECRETS_MAX: u32 = 100;

const SECRET_BYTES: usize = 32;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Bits of a character.
const CHAR_BITS: usize = 5;
/// Number of characters at the end of a code: the last bit of coupon and sequence, and the signature.
const TAIL_CHARS: usize = 13;

/// The code of an issuance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Code(SmolStr);

impl Code {
    /// Returns the code's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that a client sent as a code, which may be wrong.
#[derive(Debug, Clone)]
pub struct TypedCode(Option<(Packed, u64)>);

impl TypedCode {
    /// Reads a text without regard to case and dashes, with `O` as 0, and `I` and `L` as 1. Any other
    /// character makes a code wrong. `None` if the text is not meant as a code.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > 2 * *TYPED_CHARS.end() {
            return None;
        }
        let (mut digits, mut count, mut is_wrong) = ([0; CODE_CHARS_MAX], 0, false);
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            if !byte.is_ascii_alphanumeric() {
                is_wrong = true;
                continue;
            }
            match (digit(byte), digits.get_mut(count)) {
                (Some(digit), Some(place)) => *place = digit,
                _ => is_wrong = true,
            }
            count += 1;
        }
        let parts = digits.get(..count).filter(|_| !is_wrong).and_then(Packed::read);
        TYPED_CHARS.contains(&count).then_some(Self(parts))
    }
}

/// A secret under which codes are signed, as the database has it.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeSecret {
    /// Its number: 1, 2, 3 … in the order in which they were made.
    pub number: u32,
    /// Its age by the database's clock. For the first secret, and on SQLite, it counts from the beginning of
    /// the statement that stored it; for a further secret on a server, from a moment after it was stored.
    pub age: Duration,
    key: [u8; SECRET_BYTES],
}

impl CodeSecret {
    /// Returns a random text for a new secret.
    pub fn random_text() -> String {
        let key: [u8; SECRET_BYTES] = rand::random();
        key.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the secret with this text. `None` if it is not the text of a secret.
    pub fn new(number: u32, age: Duration, text: &str) -> Option<Self> {
        let mut key = [0; SECRET_BYTES];
        if text.len() != 2 * SECRET_BYTES || !text.is_ascii() {
            return None;
        }
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self { number, age, key })
    }

    fn signer(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.key).expect("an HMAC takes keys of any length")
    }
}

/// Hides the secret.
impl fmt::Debug for CodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, age, key: _ } = self;
        let mut shown = f.debug_struct("CodeSecret");
        shown
            .field("number", number)
            .field("age", age)
            .finish_non_exhaustive()
    }
}

/// All secrets: the codes that were signed under any of them are valid, and new ones are signed under one.
#[derive(Clone)]
pub struct CodeSecrets {
    signers: Vec<Hmac<Sha256>>,
    newest: u32,
    /// Index of the signer of new codes, and the number of its secret.
    current: (usize, u32),
}

impl CodeSecrets {
    /// Makes the secrets of a node from all that are stored, in order of their numbers. `None` if there is
    /// none.
    ///
    /// New codes are signed under the newest secret that has the age [`SECRET_USED_AFTER`], or else under the
    /// first one.
    pub fn new(secrets: &[CodeSecret]) -> Option<Self> {
        let is_used = |secret: &CodeSecret| secret.age >= SECRET_USED_AFTER;
        let current = secrets.iter().rposition(is_used).unwrap_or(0);
        let signers = secrets.iter().map(CodeSecret::signer);
        Some(Self {
            signers: signers.collect(),
            newest: secrets.last()?.number,
            current: (current, secrets.get(current)?.number),
        })
    }

    /// Returns a random secret that the database does not have.
    pub fn unknown() -> Self {
        let secret = CodeSecret {
            number: 0,
            age: Duration::ZERO,
            key: rand::random(),
        };
        Self {
            signers: vec![secret.signer()],
            newest: secret.number,
            current: (0, secret.number),
        }
    }

    /// Returns the number of the newest secret.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// Returns the number of the secret of new codes.
    pub fn current(&self) -> u32 {
        self.current.1
    }

    /// Returns the code of an issuance.
    pub fn code(&self, id: IssuanceId) -> Code {
        // The index is in bounds.
        let signature = signature(&self.signers[self.current.0], id);
        Packed::of(id).write(signature)
    }

    /// Returns the issuance that has this code, whether or not it exists. `None` if the code is wrong. The
    /// time that this takes tells nothing about signatures.
    pub fn find(&self, typed: &TypedCode) -> Option<IssuanceId> {
        let (packed, signature) = typed.0?;
        let id = packed.issuance()?;
        let is_signed = |signer: &Hmac<Sha256>| {
            let signed = signing(signer, id).verify_truncated_left(&signature.to_be_bytes());
            signed.is_ok()
        };
        self.signers.iter().rev().any(is_signed).then_some(id)
    }
}

impl fmt::Debug for CodeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CodeSecrets");
        shown
            .field("count", &self.signers.len())
            .field("current", &self.current.1)
            .finish_non_exhaustive()
    }
}

fn signing(signer: &Hmac<Sha256>, id: IssuanceId) -> Hmac<Sha256> {
    signer
        .clone()
        .chain_update(id.coupon.get().to_be_bytes())
        .chain_update(id.sequence.get().to_be_bytes())
}

fn signature(signer: &Hmac<Sha256>, id: IssuanceId) -> u64 {
    let whole = signing(signer, id).finalize().into_bytes();
    let first = whole.first_chunk().expect("an HMAC with SHA-256 has 32 bytes");
    u64::from_be_bytes(*first)
}

/// The bits of a code before its signature: coupon and sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed {
    bits: u128,
    chars: usize,
}

impl Packed {
    fn of(IssuanceId { coupon, sequence }: IssuanceId) -> Self {
        let (coupon, sequence) = (coupon.get(), sequence.get());
        let (width, needed) = (bits_of(coupon), bits_of(coupon) + bits_of(sequence));
        let mut chars = CODE_CHARS;
        while Self::room(chars) < needed && chars < CODE_CHARS_MAX {
            chars += 4;
        }
        // Bits that are left for the sequence.
        let rest = Self::room(chars) - width;
        let without_highest = coupon ^ (1 << (width - 1));
        let head = (width as u128 - 1) << (width - 1) | u128::from(without_highest);
        let bits = head << rest | u128::from(sequence);
        Self { bits, chars }
    }

    /// Returns how many bits coupon and sequence may have together in a code with this many characters. The
    /// width of the coupon takes one bit less than its field, because the coupon's highest bit is not
    /// written.
    const fn room(chars: usize) -> usize {
        let width_bits = if chars == CODE_CHARS { 5 } else { 6 };
        CHAR_BITS * chars - 64 - width_bits + 1
    }

    /// Returns the issuance, if these are the bits of one.
    fn issuance(self) -> Option<IssuanceId> {
        let room = Self::room(self.chars);
        // The width of the coupon is at the top, above `room - 1` bits.
        let width = usize::try_from(self.bits >> (room - 1)).ok()? + 1;
        let rest = room.checked_sub(width)?;
        let highest = 1_u128 << (width - 1);
        let coupon = self.bits >> rest & (highest - 1) | highest;
        let sequence = self.bits & ((1 << rest) - 1);
        let id = IssuanceId {
            coupon: CouponId::new(u64::try_from(coupon).ok()?)?,
            sequence: u64::try_from(sequence)
                .ok()
                .filter(|number| (1..=ID_MAX).contains(number))
                .map(Sequence::new)?,
        };
        // A code that is longer than needed is wrong.
        (Self::of(id) == self).then_some(id)
    }

    fn write(self, signature: u64) -> Code {
        let mut text = [0; CODE_CHARS_MAX];
        let text = &mut text[..self.chars];
        let (head, tail) = text.split_at_mut(self.chars - TAIL_CHARS);
        write_digits(self.bits >> 1, head);
        write_digits((self.bits & 1) << 64 | u128::from(signature), tail);
        let text = std::str::from_utf8(text).expect("the alphabet is ASCII");
        Code(SmolStr::new(text))
    }

    /// Reads the digits of a whole code: its bits, and the signature. `None` if no code has so many.
    fn read(digits: &[u8]) -> Option<(Self, u64)> {
        let chars = digits.len();
        if !(CODE_CHARS..=CODE_CHARS_MAX).contains(&chars) || !chars.is_multiple_of(4) {
            return None;
        }
        let (head, tail) = digits.split_at(chars - TAIL_CHARS);
        let (head, tail) = (read_digits(head), read_digits(tail));
        let bits = head << 1 | tail >> 64;
        // The lowest 64 bits.
        Some((Self { bits, chars }, tail as u64))
    }
}

fn bits_of(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()) as usize
}

fn write_digits(mut bits: u128, into: &mut [u8]) {
    for place in into.iter_mut().rev() {
        *place = ALPHABET[(bits & 31) as usize];
        bits >>= CHAR_BITS;
    }
}

fn read_digits(digits: &[u8]) -> u128 {
    let push = |bits: u128, digit: &u8| bits << CHAR_BITS | u128::from(*digit);
    digits.iter().fold(0, push)
}

/// Returns the value of a letter or digit, if it has one.
fn digit(byte: u8) -> Option<u8> {
    let byte = match byte.to_ascii_uppercase() {
        b'O' => b'0',
        b'I' | b'L' => b'1',
        other => other,
    };
    let place = ALPHABET.iter().position(|letter| *letter == byte)?;
    u8::try_from(place).ok()
}

#[cfg(test)]
mod tests;
