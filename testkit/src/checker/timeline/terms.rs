//! What a version of a coupon defines about the use of its issuances.

use smol_str::SmolStr;

use super::Version;
use crate::history::Patch;
use crate::rows::Terms;
use crate::time::Timestamp;

impl Version {
    /// True if an issuance of this version may have this expiry.
    pub(in super::super) fn may_expire(&self, issued_at: Timestamp, expires_at: Option<Timestamp>) -> bool {
        let end = |days: Option<u16>, zone: Option<SmolStr>| match (days, zone) {
            (None, _) => Some(None),
            (Some(days), None) => Some(Some(issued_at.plus_days(days))),
            // A time zone that this program does not know allows any expiry.
            (Some(days), Some(zone)) => issued_at.end_of_day(days, &zone).map(Some),
        };
        self.days.may(|days| {
            self.time_zone.may(|zone| {
                let Some(end) = end(days, zone) else { return true };
                self.use_until
                    .may(|until| end.into_iter().chain(until).min() == expires_at)
            })
        })
    }

    /// True if this version may allow an order of this amount.
    pub(in super::super) fn may_allow_order(&self, amount: u64) -> bool {
        self.min_order_amount
            .may(|min| min.is_none_or(|min| min <= amount))
    }

    /// True if this version may refuse an order of this amount as too small, with this minimum if it is
    /// known.
    pub(in super::super) fn may_refuse_order(&self, amount: u64, told: Option<u64>) -> bool {
        self.min_order_amount
            .may(|min| min.is_some_and(|min| min > amount && told.is_none_or(|told| told == min)))
    }

    /// True if this discount may be that of this version for an order of this amount.
    pub(in super::super) fn may_take_off(&self, amount: u64, discount: u64) -> bool {
        self.discount.may(|defined| {
            self.max_discount.may(|max| {
                let taken = defined.map_or(0, |defined| defined.of(amount, max));
                taken == discount
            })
        })
    }
}

/// True if these terms have every value that the patch sets.
pub(super) fn shows(patch: &Patch, terms: &Terms) -> bool {
    fn is<T: PartialEq>(asked: Option<&T>, shown: &T) -> bool {
        asked.is_none_or(|asked| asked == shown)
    }
    let discount = match patch.discount {
        Some(Some(discount)) => discount.map(Some),
        Some(None) => Some(None),
        None => None,
    };
    is(patch.total_quantity.as_ref(), &terms.total_quantity)
        && is(patch.starts_at.as_ref(), &terms.starts_at)
        && is(patch.ends_at.as_ref(), &terms.ends_at)
        && is(patch.use_within_days.as_ref(), &terms.use_within_days)
        && is(patch.use_until.as_ref(), &terms.use_until)
        && is(patch.time_zone.as_ref(), &terms.time_zone)
        && is(discount.as_ref(), &terms.discount)
        && is(patch.max_discount.as_ref(), &terms.max_discount)
        && is(patch.min_order_amount.as_ref(), &terms.min_order_amount)
}
