//! Coupons, what administrators set about them, their phases, and issuances.
//!
//! These are plain values. They do not decide which user gets a coupon, and do not know how they are stored.

mod check;
mod patch;

use std::collections::BTreeMap;

pub use self::check::InvalidField;
pub use self::patch::{DiscountPatch, MetadataPatch, OfferPatch};
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::time_zone;
use crate::coupon::uses::UseCounts;
use crate::ids::{RequestKey, UserId};
use crate::time::Timestamp;

/// Maximum length of a title, in Unicode scalar values.
pub const TITLE_CHARS_MAX: usize = 200;
/// Maximum `total_quantity`.
pub const TOTAL_QUANTITY_MAX: u64 = 1_000_000_000;
/// Maximum `per_user_limit`.
pub const PER_USER_LIMIT_MAX: u8 = 100;
/// Stands for every [`Issuance::nth`] beyond [`PER_USER_LIMIT_MAX`], where it is not stored.
pub const NTH_BEYOND_LIMITS: u32 = PER_USER_LIMIT_MAX as u32 + 1;
/// Maximum `use_within_days`: ten years.
pub const USE_WITHIN_DAYS_MAX: u16 = 3650;
/// Maximum length of a description, in Unicode scalar values.
pub const DESCRIPTION_CHARS_MAX: usize = 2_000;
/// Maximum number of pairs in a coupon's metadata.
pub const METADATA_PAIRS_MAX: usize = 20;
/// Maximum length of a key in a coupon's metadata, in Unicode scalar values.
pub const METADATA_KEY_CHARS_MAX: usize = 40;
/// Maximum length of a value in a coupon's metadata, in Unicode scalar values.
pub const METADATA_VALUE_CHARS_MAX: usize = 500;
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

/// Pairs that administrators keep with a coupon for their own programs.
pub type Metadata = BTreeMap<String, String>;

/// What administrators set. [`Offer::check`] tells what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The coupon's title, 1 to [`TITLE_CHARS_MAX`] Unicode scalar values.
    pub title: String,
    /// What the coupon is for, at most [`DESCRIPTION_CHARS_MAX`] Unicode scalar values.
    pub description: Option<String>,
    /// Pairs for the programs of administrators.
    pub metadata: Metadata,
    /// What the coupon takes off an order, if that is set.
    pub discount: Option<Discount>,
    /// The most that a percentage takes off an order, in the currency's smallest unit.
    pub max_discount: Option<u64>,
    /// Smallest order on which the coupon may be used, in the currency's smallest unit.
    pub min_order_amount: Option<u64>,
    /// How many coupons there are, 1 to [`TOTAL_QUANTITY_MAX`]; `None` if unlimited.
    pub total_quantity: Option<u64>,
    /// How many coupons one user may have, 1 to [`PER_USER_LIMIT_MAX`]; `None` if unlimited. This never
    /// changes after the coupon is created.
    pub per_user_limit: Option<u8>,
    /// The beginning of the window, inclusive.
    pub starts_at: Option<Timestamp>,
    /// The end of the window, exclusive.
    pub ends_at: Option<Timestamp>,
    /// Days from issuing to expiry, 1 to [`USE_WITHIN_DAYS_MAX`].
    pub use_within_days: Option<u16>,
    /// The end of use, exclusive. With days, the earlier end counts.
    pub use_until: Option<Timestamp>,
    /// The IANA name of the time zone in which the last of the days ends.
    pub time_zone: Option<String>,
}

impl Offer {
    /// Makes an offer with this title, without limits except that a user may have only one coupon.
    pub fn titled(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            description: None,
            metadata: Metadata::new(),
            discount: None,
            max_discount: None,
            min_order_amount: None,
            total_quantity: None,
            per_user_limit: Some(1),
            starts_at: None,
            ends_at: None,
            use_within_days: None,
            use_until: None,
            time_zone: None,
        }
    }

    /// Returns when a coupon that is issued at `issued_at` can no longer be used; `None` if it never expires.
    pub fn expires_at(&self, issued_at: Timestamp) -> Option<Timestamp> {
        let days = self.use_within_days.map(|days| {
            let zone = self.time_zone.as_deref();
            zone.and_then(|zone| time_zone::end_of_day(issued_at, days, zone))
                .unwrap_or_else(|| issued_at.plus_days(days))
        });
        match (days, self.use_until) {
            (Some(days), Some(until)) => Some(days.min(until)),
            (days, until) => days.or(until),
        }
    }
}

/// The kind of a discount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscountKind {
    /// [`Discount::Amount`]
    Amount,
    /// [`Discount::Rate`]
    Rate,
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
    /// Returns the phase at `now`. `taken` issuances count against the quantity. The order of the checks is
    /// the order of precedence of refusals.
    pub fn phase(&self, now: Timestamp, taken: Sequence) -> Phase {
        match self.status {
            Status::Closed => Phase::Closed,
            Status::Paused => Phase::Paused,
            Status::Open if self.offer.starts_at.is_some_and(|starts_at| now < starts_at) => Phase::Scheduled,
            Status::Open if self.offer.ends_at.is_some_and(|ends_at| now >= ends_at) => Phase::Ended,
            Status::Open if self.is_sold_out(taken) => Phase::SoldOut,
            Status::Open => Phase::Live,
        }
    }

    /// Returns true if no coupon is left. `taken` issuances count against the quantity.
    pub fn is_sold_out(&self, taken: Sequence) -> bool {
        self.offer
            .total_quantity
            .is_some_and(|total| taken.get() >= total)
    }
}

/// A coupon, its highest sequence, and what became of its issuances, as read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouponView {
    /// The coupon.
    pub coupon: Coupon,
    /// Its highest stored sequence.
    pub issued: Sequence,
    /// How many issuances are in which state.
    pub uses: UseCounts,
}

impl CouponView {
    /// Returns how many issuances count against the quantity: those that were not given back.
    pub fn taken(&self) -> Sequence {
        taken(self.issued, self.uses)
    }
}

/// Returns how many issuances count against the quantity.
pub(super) fn taken(issued: Sequence, uses: UseCounts) -> Sequence {
    Sequence::new(issued.get().saturating_sub(uses.returned))
}

/// One coupon given to one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuance {
    /// The coupon, and the sequence.
    pub id: IssuanceId,
    /// The user that has the coupon.
    pub user: UserId,
    /// Counts the user's issuances of this coupon, from 1. Beyond all limits, a stored issuance may have
    /// [`NTH_BEYOND_LIMITS`].
    pub nth: u32,
    /// The key of the issue request.
    pub key: RequestKey,
    /// When the owner decided it.
    pub issued_at: Timestamp,
    /// When it expires, by the offer at the time of issuing.
    pub expires_at: Option<Timestamp>,
}

/// Returns an [`Issuance::nth`] as far as limits count, which is as far as every database stores it.
pub const fn counted(nth: u32) -> u32 {
    if nth > NTH_BEYOND_LIMITS {
        NTH_BEYOND_LIMITS
    } else {
        nth
    }
}
