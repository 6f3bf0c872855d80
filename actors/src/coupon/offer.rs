//! What administrators set about a coupon, what a request would meet, and what one issuance is.
//!
//! Plain values: nothing here decides who gets a coupon, nothing here knows how it is stored.

use crate::ids::{CouponId, IssuanceId, RequestKey, Sequence, UserId};
use crate::time::Timestamp;

/// Longest title, in Unicode scalar values.
pub const TITLE_CHARS_MAX: usize = 200;
/// Largest `total_quantity`.
pub const TOTAL_QUANTITY_MAX: u64 = 1_000_000_000;
/// Largest `per_user_limit`.
pub const PER_USER_LIMIT_MAX: u8 = 100;
/// Largest `use_within_days`: ten years.
pub const USE_WITHIN_DAYS_MAX: u16 = 3650;
/// Largest amount of money, in the currency's smallest unit.
pub const AMOUNT_MAX: u64 = crate::ids::ID_MAX;

/// What a coupon takes off an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discount {
    /// So many of the currency's smallest unit, at least 1.
    Amount(u64),
    /// So many percent, 1 to 100.
    Rate(u8),
}

/// What administrators set; [`Offer::check`] says whether it makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// 1 to [`TITLE_CHARS_MAX`] Unicode scalars.
    pub title: String,
    /// What it takes off, if that is said.
    pub discount: Option<Discount>,
    /// Smallest order it may be used on, in the currency's smallest unit.
    pub min_order_amount: Option<u64>,
    /// How many there are, 1 to [`TOTAL_QUANTITY_MAX`]; `None`: unlimited.
    pub total_quantity: Option<u64>,
    /// How many one user may have, 1 to [`PER_USER_LIMIT_MAX`]. Fixed when the coupon is made.
    pub per_user_limit: u8,
    /// The first moment at which it is issued.
    pub starts_at: Option<Timestamp>,
    /// The first moment at which it is not issued any more.
    pub ends_at: Option<Timestamp>,
    /// Days from issuing to expiry, 1 to [`USE_WITHIN_DAYS_MAX`].
    pub use_within_days: Option<u16>,
}

/// One thing that is wrong with an offer: the field, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    /// Name of the field, as in the API.
    pub field: &'static str,
    /// What it must be.
    pub message: &'static str,
}

/// Every field that can be wrong, and what is said of it.
const INVALID_FIELDS: [(&str, &str); 13] = [
    ("title", "must have 1 to 200 characters"),
    ("title", "must not contain U+0000"),
    ("discount.value", "must be from 1 to 2^53 - 1"),
    ("discount.value", "must be from 1 to 100 percent"),
    ("min_order_amount", "must be from 0 to 2^53 - 1"),
    (
        "total_quantity",
        "must be from 1 to 1000000000, or null for unlimited",
    ),
    ("per_user_limit", "must be from 1 to 100"),
    ("use_within_days", "must be from 1 to 3650"),
    ("ends_at", "must be after starts_at"),
    ("discount.kind", MISSING),
    ("discount.value", MISSING),
    ("starts_at", UNKNOWN_RULE),
    ("status", UNKNOWN_RULE),
];

/// What is said of half a discount.
const MISSING: &str = "is missing, and there was no discount before";
/// What is said where another node, of a newer release, knows a rule that this one does not.
const UNKNOWN_RULE: &str = "is not accepted";

impl InvalidField {
    /// The same as another node said it.
    pub fn named(field: &str, message: &str) -> Self {
        let known = INVALID_FIELDS
            .iter()
            .find(|(name, rule)| (*name, *rule) == (field, message))
            .copied();
        let same_field = || {
            INVALID_FIELDS
                .iter()
                .find(|(name, _)| *name == field)
                .map(|(name, _)| (*name, UNKNOWN_RULE))
        };
        let (field, message) = known.or_else(same_field).unwrap_or(("offer", UNKNOWN_RULE));
        Self { field, message }
    }
}

impl Offer {
    /// An offer without limits, but that a user may have one.
    pub fn titled(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            discount: None,
            min_order_amount: None,
            total_quantity: None,
            per_user_limit: 1,
            starts_at: None,
            ends_at: None,
            use_within_days: None,
        }
    }

    /// Everything that is wrong with this offer; empty if it can stand.
    pub fn check(&self) -> Vec<InvalidField> {
        let mut errors = Vec::new();
        let mut must = |holds: bool, field, message| {
            if !holds {
                errors.push(InvalidField { field, message });
            }
        };
        let title_chars = self.title.chars().count();
        must(
            (1..=TITLE_CHARS_MAX).contains(&title_chars),
            "title",
            "must have 1 to 200 characters",
        );
        must(!self.title.contains('\0'), "title", "must not contain U+0000");
        match self.discount {
            Some(Discount::Amount(value)) => {
                must(
                    (1..=AMOUNT_MAX).contains(&value),
                    "discount.value",
                    "must be from 1 to 2^53 - 1",
                );
            }
            Some(Discount::Rate(value)) => {
                must(
                    (1..=100).contains(&value),
                    "discount.value",
                    "must be from 1 to 100 percent",
                );
            }
            None => {}
        }
        must(
            self.min_order_amount.is_none_or(|amount| amount <= AMOUNT_MAX),
            "min_order_amount",
            "must be from 0 to 2^53 - 1",
        );
        let quantity_fits = self
            .total_quantity
            .is_none_or(|quantity| (1..=TOTAL_QUANTITY_MAX).contains(&quantity));
        must(
            quantity_fits,
            "total_quantity",
            "must be from 1 to 1000000000, or null for unlimited",
        );
        must(
            (1..=PER_USER_LIMIT_MAX).contains(&self.per_user_limit),
            "per_user_limit",
            "must be from 1 to 100",
        );
        let days_fit = self
            .use_within_days
            .is_none_or(|days| (1..=USE_WITHIN_DAYS_MAX).contains(&days));
        must(days_fit, "use_within_days", "must be from 1 to 3650");
        if let (Some(starts_at), Some(ends_at)) = (self.starts_at, self.ends_at) {
            must(starts_at < ends_at, "ends_at", "must be after starts_at");
        }
        errors
    }
}

/// What administrators said may happen with a coupon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Issued, within its window and quantity.
    Open,
    /// Not issued until resumed.
    Paused,
    /// Never issued again.
    Closed,
}

impl Status {
    /// The name in the API and in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Closed => "closed",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Paused, Self::Closed]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// What an issue request would meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Closed by an administrator.
    Closed,
    /// Paused by an administrator.
    Paused,
    /// Its window has not begun.
    Scheduled,
    /// Its window is over.
    Ended,
    /// All are given out.
    SoldOut,
    /// It is issued.
    Live,
}

impl Phase {
    /// All of them, in the order in which they take precedence.
    pub const ALL: [Self; 6] = [
        Self::Closed,
        Self::Paused,
        Self::Scheduled,
        Self::Ended,
        Self::SoldOut,
        Self::Live,
    ];

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Paused => "paused",
            Self::Scheduled => "scheduled",
            Self::Ended => "ended",
            Self::SoldOut => "sold_out",
            Self::Live => "live",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }
}

/// A coupon: the offer, and what has become of it by administrators' changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coupon {
    /// Which one.
    pub id: CouponId,
    /// What administrators set.
    pub offer: Offer,
    /// What they said may happen.
    pub status: Status,
    /// Counts administrators' changes, from 1.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When an administrator last changed it.
    pub updated_at: Timestamp,
}

impl Coupon {
    /// What a request would meet at `now` with `issued` given out. The order of the checks is the order of
    /// precedence of refusals.
    pub fn phase(&self, now: Timestamp, issued: Sequence) -> Phase {
        match self.status {
            Status::Closed => Phase::Closed,
            Status::Paused => Phase::Paused,
            Status::Open if self.offer.starts_at.is_some_and(|starts_at| now < starts_at) => Phase::Scheduled,
            Status::Open if self.offer.ends_at.is_some_and(|ends_at| now >= ends_at) => Phase::Ended,
            Status::Open if self.is_sold_out(issued) => Phase::SoldOut,
            Status::Open => Phase::Live,
        }
    }

    /// Whether nothing is left once `issued` are given out.
    pub fn is_sold_out(&self, issued: Sequence) -> bool {
        self.offer
            .total_quantity
            .is_some_and(|total| issued.get() >= total)
    }
}

/// A coupon and how far it has come, as read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponView {
    /// The coupon.
    pub coupon: Coupon,
    /// Its highest stored sequence.
    pub issued: Sequence,
}

/// One coupon given to one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// Which coupon, and its place in it.
    pub id: IssuanceId,
    /// Who has it.
    pub user: UserId,
    /// The user's first, second … of this coupon, from 1.
    pub nth: u8,
    /// The request it answered.
    pub key: RequestKey,
    /// When the owner decided it.
    pub issued_at: Timestamp,
    /// Until when it can be used: `issued_at` and the offer's days as they were then.
    pub expires_at: Option<Timestamp>,
}

/// Of which kind a discount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscountKind {
    /// [`Discount::Amount`]
    Amount,
    /// [`Discount::Rate`]
    Rate,
}

/// A change of a discount: what is not set stays as it was, if there was a discount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiscountPatch {
    /// New kind.
    pub kind: Option<DiscountKind>,
    /// New value.
    pub value: Option<u64>,
}

impl Discount {
    /// The discount of this kind and value; a value that no discount of the kind has becomes one that
    /// [`Offer::check`] refuses.
    pub fn new(kind: DiscountKind, value: u64) -> Self {
        match kind {
            DiscountKind::Amount => Self::Amount(value),
            DiscountKind::Rate => Self::Rate(u8::try_from(value).unwrap_or(u8::MAX)),
        }
    }

    /// Its kind and value.
    pub fn parts(self) -> (DiscountKind, u64) {
        match self {
            Self::Amount(value) => (DiscountKind::Amount, value),
            Self::Rate(value) => (DiscountKind::Rate, u64::from(value)),
        }
    }
}

impl DiscountPatch {
    fn apply(self, discount: Option<Discount>) -> Result<Discount, InvalidField> {
        let (kind, value) = discount.map(Discount::parts).unzip();
        let missing = |field| InvalidField {
            field,
            message: MISSING,
        };
        let kind = self.kind.or(kind).ok_or_else(|| missing("discount.kind"))?;
        Ok(Discount::new(
            kind,
            self.value.or(value).ok_or_else(|| missing("discount.value"))?,
        ))
    }
}

/// A change by an administrator: what is to be set, where `Some` (and within it `None` clears).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferPatch {
    /// New title.
    pub title: Option<String>,
    /// What is to be changed of the discount, or no discount.
    pub discount: Option<Option<DiscountPatch>>,
    /// New or no smallest order.
    pub min_order_amount: Option<Option<u64>>,
    /// New or no quantity.
    pub total_quantity: Option<Option<u64>>,
    /// New or no beginning.
    pub starts_at: Option<Option<Timestamp>>,
    /// New or no end.
    pub ends_at: Option<Option<Timestamp>>,
    /// New or no expiry.
    pub use_within_days: Option<Option<u16>>,
}

impl OfferPatch {
    /// The offer with this patch on it, not checked further; an error if the patch leaves half a discount.
    pub fn apply(&self, offer: &Offer) -> Result<Offer, InvalidField> {
        let discount = match self.discount {
            None => offer.discount,
            Some(None) => None,
            Some(Some(patch)) => Some(patch.apply(offer.discount)?),
        };
        Ok(Offer {
            title: self.title.clone().unwrap_or_else(|| offer.title.clone()),
            discount,
            min_order_amount: self.min_order_amount.unwrap_or(offer.min_order_amount),
            total_quantity: self.total_quantity.unwrap_or(offer.total_quantity),
            per_user_limit: offer.per_user_limit,
            starts_at: self.starts_at.unwrap_or(offer.starts_at),
            ends_at: self.ends_at.unwrap_or(offer.ends_at),
            use_within_days: self.use_within_days.unwrap_or(offer.use_within_days),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_node_finds_wrong_is_said_in_the_same_words() {
        let offer = |discount, starts_at: i64| Offer {
            title: "\0".repeat(TITLE_CHARS_MAX + 1),
            discount: Some(discount),
            min_order_amount: Some(AMOUNT_MAX + 1),
            total_quantity: Some(0),
            per_user_limit: 0,
            starts_at: Timestamp::from_micros(starts_at),
            ends_at: Timestamp::from_micros(0),
            use_within_days: Some(0),
        };
        let mut errors = [
            offer(Discount::Amount(0), 1).check(),
            offer(Discount::Rate(0), 1).check(),
        ]
        .concat();
        for patch in [
            DiscountPatch {
                kind: None,
                value: Some(1),
            },
            DiscountPatch {
                kind: Some(DiscountKind::Rate),
                value: None,
            },
        ] {
            errors.push(patch.apply(None).unwrap_err());
        }
        assert_eq!(errors.len(), 18);
        for error in errors {
            assert_eq!(InvalidField::named(error.field, error.message), error);
        }
        assert_eq!(
            InvalidField::named("title", "must rhyme"),
            InvalidField {
                field: "title",
                message: UNKNOWN_RULE
            }
        );
        assert_eq!(
            InvalidField::named("colour", "must be red"),
            InvalidField {
                field: "offer",
                message: UNKNOWN_RULE
            }
        );
    }
}
