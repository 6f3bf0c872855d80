//! Changes of an offer by administrators.

use std::collections::BTreeMap;

use super::check::MISSING;
use super::{Discount, DiscountKind, InvalidField, Offer};
use crate::time::Timestamp;

/// A change of a discount. If there was a discount, parts that are not set stay as they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiscountPatch {
    /// The new kind.
    pub kind: Option<DiscountKind>,
    /// The new value.
    pub value: Option<u64>,
}

/// A change of a coupon's metadata: `Some` sets the value of a key, and `None` removes the key.
pub type MetadataPatch = BTreeMap<String, Option<String>>;

impl DiscountPatch {
    pub(super) fn apply(self, discount: Option<Discount>) -> Result<Discount, InvalidField> {
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
    /// The description.
    pub description: Option<Option<String>>,
    /// Some pairs of the metadata, or no metadata.
    pub metadata: Option<Option<MetadataPatch>>,
    /// Parts of the discount, or no discount.
    pub discount: Option<Option<DiscountPatch>>,
    /// The most that a percentage takes off.
    pub max_discount: Option<Option<u64>>,
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
    /// The end of use.
    pub use_until: Option<Option<Timestamp>>,
    /// The time zone of the days.
    pub time_zone: Option<Option<String>>,
}

impl OfferPatch {
    /// Returns everything that is wrong with this patch, whatever offer it is applied to; empty if nothing is
    /// wrong.
    pub fn check(&self) -> Vec<InvalidField> {
        // A value without a kind is checked as an amount, because amounts may be larger than rates.
        let discount = self.discount.map(|discount| {
            let DiscountPatch { kind, value } = discount?;
            let kind = kind.or(Some(DiscountKind::Amount));
            Some(DiscountPatch {
                kind,
                value: Some(value?),
            })
        });
        let is_rate_or_unknown = match self.discount {
            None => true,
            Some(None) => false,
            Some(Some(patch)) => patch.kind != Some(DiscountKind::Amount),
        };
        let patch = Self {
            discount: discount.flatten().map(Some),
            ..self.clone()
        };
        let mut any = Offer::titled("any");
        if is_rate_or_unknown {
            any.discount = Some(Discount::Rate(1));
        }
        match patch.apply(&any) {
            Ok(mut offer) => {
                let discount = std::mem::replace(&mut offer.discount, any.discount);
                let mut errors = offer.check();
                errors.extend(discount.map(Discount::check).unwrap_or_default());
                errors
            }
            Err(error) => vec![error],
        }
    }

    /// Returns true if an owner of the former build does not know all fields that the patch has.
    pub fn needs_version_3(&self) -> bool {
        let Self {
            description,
            metadata,
            max_discount,
            use_until,
            time_zone,
            ..
        } = self;
        description.is_some()
            || metadata.is_some()
            || max_discount.is_some()
            || use_until.is_some()
            || time_zone.is_some()
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
        let mut metadata = offer.metadata.clone();
        match &self.metadata {
            None => {}
            Some(None) => metadata.clear(),
            Some(Some(pairs)) => {
                for (key, value) in pairs {
                    match value {
                        Some(value) => metadata.insert(key.clone(), value.clone()),
                        None => metadata.remove(key),
                    };
                }
            }
        }
        Ok(Offer {
            title: self.title.clone().unwrap_or_else(|| offer.title.clone()),
            description: patched(&self.description, &offer.description),
            metadata,
            discount,
            max_discount: self.max_discount.unwrap_or(offer.max_discount),
            min_order_amount: self.min_order_amount.unwrap_or(offer.min_order_amount),
            total_quantity: self.total_quantity.unwrap_or(offer.total_quantity),
            per_user_limit: offer.per_user_limit,
            starts_at: self.starts_at.unwrap_or(offer.starts_at),
            ends_at: self.ends_at.unwrap_or(offer.ends_at),
            use_within_days: self.use_within_days.unwrap_or(offer.use_within_days),
            use_until: self.use_until.unwrap_or(offer.use_until),
            time_zone: patched(&self.time_zone, &offer.time_zone),
        })
    }
}

fn patched(patch: &Option<Option<String>>, present: &Option<String>) -> Option<String> {
    patch.as_ref().unwrap_or(present).clone()
}
