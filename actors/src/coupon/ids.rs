//! Identities of coupons and issuances.

use std::fmt;

use crate::ids::{ID_MAX, InvalidId, ShardId, parse_number};

/// A coupon, between 1 and [`ID_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CouponId(u64);

impl CouponId {
    /// Returns the id with this number, if it is within 1..=[`ID_MAX`].
    pub fn new(number: u64) -> Option<Self> {
        (1..=ID_MAX).contains(&number).then_some(Self(number))
    }

    /// Reads decimal digits without sign, leading zeros or spaces.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let error = InvalidId {
            what: "a coupon id",
            rule: "a whole number from 1 to 2^53 - 1",
        };
        parse_number(text).and_then(Self::new).ok_or(error)
    }

    /// Returns the bare number, for storage and for the wire.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns the shard of this coupon.
    pub fn shard(self) -> ShardId {
        ShardId::of_id(self.0)
    }
}

impl fmt::Display for CouponId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Defines a number of rows of a coupon: 1, 2, 3 … without a gap.
macro_rules! dense_number {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The number before the first one.
            pub const NONE: Self = Self(0);

            /// Returns the value with this number.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// Returns the next number.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// Returns the previous number; [`Self::NONE`] for [`Self::NONE`] itself.
            #[must_use]
            pub const fn previous(self) -> Self {
                Self(self.0.saturating_sub(1))
            }

            /// Returns the bare number, which is also the number of rows up to this one.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
pub(super) use dense_number;

dense_number! {
    /// The place of an issuance in its coupon.
    Sequence
}

/// Public name of one issuance, `42-17`: the coupon and the sequence in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IssuanceId {
    /// The coupon that was issued.
    pub coupon: CouponId,
    /// The place of the issuance in the coupon.
    pub sequence: Sequence,
}

impl IssuanceId {
    /// Reads `<coupon>-<sequence>`.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let error = InvalidId {
            what: "an issuance id",
            rule: "a coupon id, a dash and a sequence, like 42-17",
        };
        let (coupon, sequence) = text.split_once('-').ok_or_else(|| error.clone())?;
        let coupon = CouponId::parse(coupon).map_err(|_| error.clone())?;
        let sequence = parse_number(sequence)
            .filter(|number| (1..=ID_MAX).contains(number))
            .ok_or(error)?;
        Ok(Self {
            coupon,
            sequence: Sequence(sequence),
        })
    }
}

impl fmt::Display for IssuanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.coupon, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coupon_ids_have_one_spelling() {
        assert_eq!(CouponId::parse("42").unwrap().get(), 42);
        assert_eq!(CouponId::parse("9007199254740991").unwrap().get(), ID_MAX);
        for text in [
            "",
            "0",
            "042",
            "+42",
            "-1",
            " 42",
            "4 2",
            "9007199254740992",
            "99999999999999999999",
            "abc",
            "４２",
        ] {
            assert!(CouponId::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn issuance_ids_are_a_coupon_and_a_sequence() {
        let id = IssuanceId::parse("42-17").unwrap();
        assert_eq!((id.coupon.get(), id.sequence.get()), (42, 17));
        assert_eq!(id.to_string(), "42-17");
        for text in ["42", "42-", "-17", "42-0", "42-017", "42-17-1", "x-1"] {
            assert!(IssuanceId::parse(text).is_err(), "{text:?}");
        }
    }

    /// These numbers pin [`crate::ids::SHARD_HASH`]: a change of them would move every coupon of every
    /// cluster.
    #[test]
    fn the_shard_hash_is_pinned() {
        let shard = |number| CouponId::new(number).unwrap().shard().get();
        let pinned: Vec<u16> = [1, 2, 3, 42, 1_000_000, ID_MAX].into_iter().map(shard).collect();
        assert_eq!(pinned, PINNED);
    }

    const PINNED: [u16; 6] = [46, 67, 125, 200, 96, 27];
}
