//! Coupons, what administrators set about them, their phases, and issuances.
//!
//! These are plain values. They do not decide which user gets a coupon, and do not know how they are stored.

use crate::ids::{CouponId, IssuanceId, RequestKey, Sequence, UserId};
use crate::time::Timestamp;

/// Maximum length of a title, in Unicode scalar values.
pub const TITLE_CHARS_MAX: usize = 200;
/// Maximum `total_quantity`.
pub const TOTAL_QUANTITY_MAX: u64 = 1_000_000_000;
/// Maximum `per_user_limit`.
pub const PER_USER_LIMIT_MAX: u8 = 100;
/// Maximum `use_within_days`: ten years.
pub const USE_WITHIN_DAYS_MAX: u16 = 3650;
/// Maximum amount of money, in the currency's smallest unit.
pub const AMOUNT_MAX: u64 = crate::ids::ID_MAX;

/// What a coupon takes off an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discount {
    /// An amount in the currency's smallest unit, at least 1.
    Amount(u64),
    /// A percentage, 1 to 100.
    Rate(u8),
}

/// What administrators set. [`Offer::check`] tells what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The coupon's title, 1 to [`TITLE_CHARS_MAX`] Unicode scalar values.
    pub title: String,
    /// What the coupon takes off an order, if that is set.
    pub discount: Option<Discount>,
    /// Smallest order on which the coupon may be used, in the currency's smallest unit.
    pub min_order_amount: Option<u64>,
    /// How many coupons there are, 1 to [`TOTAL_QUANTITY_MAX`]; `None` if unlimited.
    pub total_quantity: Option<u64>,
    /// How many coupons one user may have, 1 to [`PER_USER_LIMIT_MAX`]. This never changes after the coupon
    /// is created.
    pub per_user_limit: u8,
    /// The beginning of the window, inclusive.
    pub starts_at: Option<Timestamp>,
    /// The end of the window, exclusive.
    pub ends_at: Option<Timestamp>,
    /// Days from issuing to expiry, 1 to [`USE_WITHIN_DAYS_MAX`].
    pub use_within_days: Option<u16>,
}

/// A field of an offer that has a wrong value, and what the value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    /// Name of the field, as in the API.
    pub field: &'static str,
    /// What the value must be.
    pub message: &'static str,
}

/// Every message about a field.
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

/// The message about a discount with only a kind or only a value.
const MISSING: &str = "is missing, and there was no discount before";
/// The message in place of a message that only a newer release knows.
const UNKNOWN_RULE: &str = "is not accepted";

impl InvalidField {
    /// Returns the field and message that another node sent, or the nearest ones that this release knows.
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
    /// Makes an offer with this title, without limits except that a user may have only one coupon.
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

    /// Returns everything that is wrong with this offer; empty if nothing is wrong.
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

/// The status that administrators set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The coupon is issued, within its window and quantity.
    Open,
    /// The coupon is not issued until an administrator resumes it.
    Paused,
    /// The coupon is never issued again.
    Closed,
}

impl Status {
    /// Returns the name in the API and in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Closed => "closed",
        }
    }

    /// Returns the value with this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Paused, Self::Closed]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

/// The state of a coupon at a given time, on which the answer to an issue request depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Closed by an administrator.
    Closed,
    /// Paused by an administrator.
    Paused,
    /// The coupon's window has not begun.
    Scheduled,
    /// The coupon's window is over.
    Ended,
    /// All coupons are issued.
    SoldOut,
    /// The coupon is issued.
    Live,
}

impl Phase {
    /// All phases, in order of precedence.
    pub const ALL: [Self; 6] = [
        Self::Closed,
        Self::Paused,
        Self::Scheduled,
        Self::Ended,
        Self::SoldOut,
        Self::Live,
    ];

    /// Returns the name in the API.
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

    /// Returns the value with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }
}

/// A coupon: its offer, its status, and a count of the changes by administrators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coupon {
    /// Its id.
    pub id: CouponId,
    /// What administrators set.
    pub offer: Offer,
    /// The status that they set.
    pub status: Status,
    /// Counts administrators' changes, from 1.
    pub version: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When an administrator last changed it.
    pub updated_at: Timestamp,
}

impl Coupon {
    /// Returns the phase at `now`, with `issued` as the highest sequence. The order of the checks is the
    /// order of precedence of refusals.
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

    /// Returns true if no coupon is left when `issued` is the highest sequence.
    pub fn is_sold_out(&self, issued: Sequence) -> bool {
        self.offer
            .total_quantity
            .is_some_and(|total| issued.get() >= total)
    }
}

/// A coupon and its highest sequence, as read from the store.
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
    /// The coupon, and the sequence.
    pub id: IssuanceId,
    /// The user that has the coupon.
    pub user: UserId,
    /// Counts the user's issuances of this coupon, from 1.
    pub nth: u8,
    /// The key of the issue request.
    pub key: RequestKey,
    /// When the owner decided it.
    pub issued_at: Timestamp,
    /// When it expires: `issued_at` plus the days in the offer at that time.
    pub expires_at: Option<Timestamp>,
}

/// The kind of a discount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscountKind {
    /// [`Discount::Amount`]
    Amount,
    /// [`Discount::Rate`]
    Rate,
}

/// A change of a discount. If there was a discount, parts that are not set stay as they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiscountPatch {
    /// The new kind.
    pub kind: Option<DiscountKind>,
    /// The new value.
    pub value: Option<u64>,
}

impl Discount {
    /// Makes the discount of this kind and value. A value that the kind cannot hold becomes a value that
    /// [`Offer::check`] refuses.
    pub fn new(kind: DiscountKind, value: u64) -> Self {
        match kind {
            DiscountKind::Amount => Self::Amount(value),
            DiscountKind::Rate => Self::Rate(u8::try_from(value).unwrap_or(u8::MAX)),
        }
    }

    /// Returns its kind and value.
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

/// A change by an administrator. `Some` sets a field, and `Some(None)` clears it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferPatch {
    /// The title.
    pub title: Option<String>,
    /// Parts of the discount, or no discount.
    pub discount: Option<Option<DiscountPatch>>,
    /// The smallest order.
    pub min_order_amount: Option<Option<u64>>,
    /// The quantity.
    pub total_quantity: Option<Option<u64>>,
    /// The beginning of the window.
    pub starts_at: Option<Option<Timestamp>>,
    /// The end of the window.
    pub ends_at: Option<Option<Timestamp>>,
    /// Days from issuing to expiry.
    pub use_within_days: Option<Option<u16>>,
}

impl OfferPatch {
    /// Returns everything that is wrong with this patch, whatever offer it is applied to; empty if nothing is
    /// wrong.
    pub fn check(&self) -> Vec<InvalidField> {
        // A value without a kind is checked as an amount, because amounts may be larger than rates.
        let discount = self.discount.flatten().and_then(|DiscountPatch { kind, value }| {
            let value = value?;
            Some(DiscountPatch {
                kind: kind.or(Some(DiscountKind::Amount)),
                value: Some(value),
            })
        });
        let patch = Self {
            discount: discount.map(Some),
            ..self.clone()
        };
        match patch.apply(&Offer::titled("any")) {
            Ok(offer) => offer.check(),
            Err(error) => vec![error],
        }
    }

    /// Returns the offer with this patch applied. The result is not checked further.
    ///
    /// # Errors
    ///
    /// If the patch leaves a discount without a kind or a value.
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
    fn messages_of_another_node_are_kept_word_for_word() {
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
