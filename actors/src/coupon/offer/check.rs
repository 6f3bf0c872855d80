//! What administrators may set.

use super::{
    AMOUNT_MAX, DESCRIPTION_CHARS_MAX, Discount, METADATA_KEY_CHARS_MAX, METADATA_PAIRS_MAX,
    METADATA_VALUE_CHARS_MAX, Offer, PER_USER_LIMIT_MAX, TITLE_CHARS_MAX, TOTAL_QUANTITY_MAX,
    USE_WITHIN_DAYS_MAX,
};
use crate::coupon::time_zone;

/// A field of an offer that has a wrong value, and what the value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidField {
    /// Name of the field, as in the API.
    pub field: &'static str,
    /// What the value must be.
    pub message: &'static str,
}

/// Every message about a field, so that messages of other nodes are recognised.
const INVALID_FIELDS: [(&str, &str); 23] = [
    ("title", "must have 1 to 200 characters"),
    ("title", NUL),
    ("description", "must have at most 2000 characters"),
    ("description", NUL),
    ("metadata", "must have at most 20 pairs"),
    ("metadata", "must have keys of at most 40 characters"),
    ("metadata", "must have values of at most 500 characters"),
    ("metadata", NUL),
    ("discount.value", "must be from 1 to 2^53 - 1"),
    ("discount.value", "must be from 1 to 100 percent"),
    ("max_discount", "must be from 1 to 2^53 - 1"),
    ("max_discount", "must be null unless the discount is a rate"),
    ("min_order_amount", "must be from 0 to 2^53 - 1"),
    (
        "total_quantity",
        "must be from 1 to 1000000000, or null for unlimited",
    ),
    ("per_user_limit", "must be from 1 to 100, or null for unlimited"),
    ("use_within_days", "must be from 1 to 3650"),
    ("time_zone", "must be an IANA name, like Asia/Seoul"),
    ("ends_at", "must be after starts_at"),
    ("discount.kind", MISSING),
    ("discount.value", MISSING),
    ("starts_at", UNKNOWN_RULE),
    ("use_until", UNKNOWN_RULE),
    ("status", UNKNOWN_RULE),
];

/// The message about a text with a character that databases do not store alike.
const NUL: &str = "must not contain U+0000";

/// The message about a discount with only a kind or only a value.
pub(super) const MISSING: &str = "is missing, and there was no discount before";
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
    /// Returns everything that is wrong with this offer; empty if nothing is wrong.
    pub fn check(&self) -> Vec<InvalidField> {
        let mut errors = Vec::new();
        self.check_texts(&mut errors);
        errors.extend(self.discount.map(Discount::check).unwrap_or_default());
        let mut must = |holds: bool, field, message| must(&mut errors, holds, field, message);
        if let Some(most) = self.max_discount {
            must(
                (1..=AMOUNT_MAX).contains(&most),
                "max_discount",
                "must be from 1 to 2^53 - 1",
            );
            must(
                matches!(self.discount, Some(Discount::Rate(_))),
                "max_discount",
                "must be null unless the discount is a rate",
            );
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
        let limit_fits = self
            .per_user_limit
            .is_none_or(|limit| (1..=PER_USER_LIMIT_MAX).contains(&limit));
        must(
            limit_fits,
            "per_user_limit",
            "must be from 1 to 100, or null for unlimited",
        );
        let days_fit = self
            .use_within_days
            .is_none_or(|days| (1..=USE_WITHIN_DAYS_MAX).contains(&days));
        must(days_fit, "use_within_days", "must be from 1 to 3650");
        let zone_is_known = self.time_zone.as_deref().is_none_or(time_zone::is_known);
        must(
            zone_is_known,
            "time_zone",
            "must be an IANA name, like Asia/Seoul",
        );
        if let (Some(starts_at), Some(ends_at)) = (self.starts_at, self.ends_at) {
            must(starts_at < ends_at, "ends_at", "must be after starts_at");
        }
        errors
    }

    fn check_texts(&self, errors: &mut Vec<InvalidField>) {
        let mut must = |holds: bool, field, message| must(errors, holds, field, message);
        let title_chars = self.title.chars().count();
        must(
            (1..=TITLE_CHARS_MAX).contains(&title_chars),
            "title",
            "must have 1 to 200 characters",
        );
        must(!self.title.contains('\0'), "title", NUL);
        let description = self.description.as_deref().unwrap_or_default();
        must(
            description.chars().count() <= DESCRIPTION_CHARS_MAX,
            "description",
            "must have at most 2000 characters",
        );
        must(!description.contains('\0'), "description", NUL);
        must(
            self.metadata.len() <= METADATA_PAIRS_MAX,
            "metadata",
            "must have at most 20 pairs",
        );
        let key_fits = |key: &String| key.chars().count() <= METADATA_KEY_CHARS_MAX;
        must(
            self.metadata.keys().all(key_fits),
            "metadata",
            "must have keys of at most 40 characters",
        );
        let value_fits = |value: &String| value.chars().count() <= METADATA_VALUE_CHARS_MAX;
        must(
            self.metadata.values().all(value_fits),
            "metadata",
            "must have values of at most 500 characters",
        );
        let mut texts = self.metadata.iter().flat_map(|(key, value)| [key, value]);
        must(!texts.any(|text| text.contains('\0')), "metadata", NUL);
    }
}

impl Discount {
    /// Returns what is wrong with this discount; empty if nothing is wrong.
    pub(super) fn check(self) -> Vec<InvalidField> {
        let mut errors = Vec::new();
        let (fits, message) = match self {
            Self::Amount(value) => ((1..=AMOUNT_MAX).contains(&value), "must be from 1 to 2^53 - 1"),
            Self::Rate(value) => ((1..=100).contains(&value), "must be from 1 to 100 percent"),
        };
        must(&mut errors, fits, "discount.value", message);
        errors
    }
}

fn must(errors: &mut Vec<InvalidField>, holds: bool, field: &'static str, message: &'static str) {
    if !holds {
        errors.push(InvalidField { field, message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupon::offer::{DiscountKind, DiscountPatch, Metadata, OfferPatch};
    use crate::time::Timestamp;

    #[test]
    fn messages_of_another_node_are_kept_word_for_word() {
        let offer = |discount, starts_at: i64| Offer {
            title: "\0".repeat(TITLE_CHARS_MAX + 1),
            description: Some("\0".repeat(DESCRIPTION_CHARS_MAX + 1)),
            metadata: (0..=METADATA_PAIRS_MAX)
                .map(|pair| ("k".repeat(pair * 3), "\0".repeat(pair * 100)))
                .collect(),
            discount: Some(discount),
            max_discount: Some(0),
            min_order_amount: Some(AMOUNT_MAX + 1),
            total_quantity: Some(0),
            per_user_limit: Some(0),
            starts_at: Timestamp::from_micros(starts_at),
            ends_at: Timestamp::from_micros(0),
            use_within_days: Some(0),
            use_until: None,
            time_zone: Some("Asia/Nowhere".to_owned()),
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
        assert_eq!(errors.len(), 35);
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

    #[test]
    fn a_patch_is_wrong_for_every_coupon_only_if_no_coupon_could_take_it() {
        let wrong = |patch: OfferPatch| -> Vec<_> {
            let errors = patch.check();
            errors.into_iter().map(|error| error.field).collect()
        };
        let most = |max_discount, discount| OfferPatch {
            max_discount: Some(Some(max_discount)),
            discount,
            ..OfferPatch::default()
        };
        let kind = |kind| {
            let value = Some(5);
            Some(Some(DiscountPatch {
                kind: Some(kind),
                value,
            }))
        };
        assert_eq!(wrong(most(1, None)), [""; 0]);
        assert_eq!(wrong(most(0, None)), ["max_discount"]);
        assert_eq!(wrong(most(1, kind(DiscountKind::Rate))), [""; 0]);
        assert_eq!(wrong(most(1, kind(DiscountKind::Amount))), ["max_discount"]);
        assert_eq!(wrong(most(1, Some(None))), ["max_discount"]);
        let value_alone = DiscountPatch {
            kind: None,
            value: Some(101),
        };
        assert_eq!(wrong(most(1, Some(Some(value_alone)))), [""; 0]);
    }

    #[test]
    fn a_patch_of_the_metadata_sets_and_removes_single_pairs() {
        let pairs = |pairs: &[(&str, &str)]| -> Metadata {
            let owned = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            owned.collect()
        };
        let mut offer = Offer {
            metadata: pairs(&[("a", "1"), ("b", "2")]),
            ..Offer::titled("any")
        };
        let mut apply = |metadata| {
            let patch = OfferPatch {
                metadata: Some(metadata),
                ..OfferPatch::default()
            };
            offer = patch.apply(&offer).unwrap();
            offer.metadata.clone()
        };
        let set = |value: &str| Some(value.to_owned());
        let patch = [
            ("a".to_owned(), None),
            ("b".to_owned(), set("3")),
            ("c".to_owned(), set("")),
        ];
        assert_eq!(apply(Some(patch.into())), pairs(&[("b", "3"), ("c", "")]));
        assert_eq!(apply(None), Metadata::new());
    }
}
