//! Coupons as the API writes and reads them.

use actors::coupon::offer::{
    AMOUNT_MAX, CouponView, Discount, DiscountKind, DiscountPatch, Metadata, MetadataPatch, Offer,
    OfferPatch, Status,
};
use actors::time::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::api::error::field_error;
use crate::api::openapi::{
    DiscountPatchSchema, DiscountSchema, MetadataPatchSchema, MetadataSchema, PhaseSchema, StatusSchema,
};
use crate::http::json::{Checked, Object, REQUIRED, Text, Time, clearable, not_null, numbers, parsed};
use crate::http::problem::FieldError;

/// A coupon in a response.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Coupon)]
pub(in crate::api) struct CouponBody<'a> {
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_usize)]
    id: u64,
    #[schema(min_length = 1, max_length = 200)]
    title: &'a str,
    #[schema(required, max_length = 2_000)]
    description: Option<&'a str>,
    #[schema(value_type = MetadataSchema)]
    metadata: &'a Metadata,
    #[schema(required, value_type = Option<DiscountSchema>)]
    discount: Option<DiscountBody>,
    /// The most that a rate takes off.
    #[schema(required, minimum = 1, maximum = 9_007_199_254_740_991_usize)]
    max_discount: Option<u64>,
    #[schema(required, minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    min_order_amount: Option<u64>,
    /// Null: unlimited.
    #[schema(required, minimum = 1, maximum = 1_000_000_000)]
    total_quantity: Option<u64>,
    /// Null: unlimited.
    #[schema(required, minimum = 1, maximum = 100)]
    per_user_limit: Option<u8>,
    /// Inclusive.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    starts_at: Option<Text<Timestamp>>,
    /// Exclusive.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    ends_at: Option<Text<Timestamp>>,
    #[schema(required, minimum = 1, maximum = 3650)]
    use_within_days: Option<u16>,
    /// Exclusive.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    use_until: Option<Text<Timestamp>>,
    #[schema(required, value_type = Option<String>)]
    time_zone: Option<&'a str>,
    #[schema(value_type = StatusSchema)]
    status: &'static str,
    #[schema(value_type = PhaseSchema)]
    phase: &'static str,
    /// Number of stored issuances.
    #[schema(minimum = 0)]
    issued: u64,
    /// Null: unlimited.
    #[schema(required, minimum = 0)]
    remaining: Option<u64>,
    /// How many an order holds. A hold that has lapsed does not count.
    #[schema(minimum = 0)]
    reserved: u64,
    #[schema(minimum = 0)]
    redeemed: u64,
    #[schema(minimum = 0)]
    revoked: u64,
    /// How many of the revoked were given back to the quantity.
    #[schema(minimum = 0)]
    returned: u64,
    /// Counts changes by administrators.
    #[schema(minimum = 1)]
    version: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Text<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Text<Timestamp>,
}

impl<'a> CouponBody<'a> {
    /// The coupon as it is at `now`.
    pub(in crate::api) fn new(view: &'a CouponView, now: Timestamp) -> Self {
        let CouponView { coupon, issued, uses } = view;
        let (offer, issued) = (&coupon.offer, *issued);
        Self {
            id: coupon.id.get(),
            title: &offer.title,
            description: offer.description.as_deref(),
            metadata: &offer.metadata,
            discount: offer.discount.map(DiscountBody::from),
            max_discount: offer.max_discount,
            min_order_amount: offer.min_order_amount,
            total_quantity: offer.total_quantity,
            per_user_limit: offer.per_user_limit,
            starts_at: offer.starts_at.map(Text),
            ends_at: offer.ends_at.map(Text),
            use_within_days: offer.use_within_days,
            use_until: offer.use_until.map(Text),
            time_zone: offer.time_zone.as_deref(),
            status: coupon.status.as_str(),
            phase: coupon.phase(now, view.taken()).as_str(),
            issued: issued.get(),
            remaining: offer
                .total_quantity
                .map(|total| total.saturating_sub(view.taken().get())),
            reserved: uses.reserved,
            redeemed: uses.redeemed,
            revoked: uses.revoked,
            returned: uses.returned,
            version: coupon.version,
            created_at: Text(coupon.created_at),
            updated_at: Text(coupon.updated_at),
        }
    }
}

/// `{"kind": "amount", "value": 10000}`
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct DiscountBody {
    kind: KindBody,
    #[serde(deserialize_with = "discount_value")]
    value: u64,
}

/// Reads the value of a discount. A value that is too large for either kind is refused here, because
/// `Offer::check` does not see a discount whose kind is wrong.
fn discount_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = numbers::required(deserializer)?;
    if value <= AMOUNT_MAX {
        Ok(value)
    } else {
        Err(D::Error::custom(
            "must be from 1 to 2^53 - 1, or from 1 to 100 for a rate",
        ))
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum KindBody {
    Amount,
    Rate,
}

/// Accepts only the name itself. A derived `Deserialize` would also accept the object `{"rate": null}`.
impl<'de> Deserialize<'de> for KindBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "amount or rate", |text| match text {
            "amount" => Some(Self::Amount),
            "rate" => Some(Self::Rate),
            _ => None,
        })
    }
}

impl From<KindBody> for DiscountKind {
    fn from(body: KindBody) -> Self {
        match body {
            KindBody::Amount => Self::Amount,
            KindBody::Rate => Self::Rate,
        }
    }
}

impl From<Discount> for DiscountBody {
    fn from(discount: Discount) -> Self {
        let (kind, value) = discount.parts();
        let kind = match kind {
            DiscountKind::Amount => KindBody::Amount,
            DiscountKind::Rate => KindBody::Rate,
        };
        Self { kind, value }
    }
}

impl From<DiscountBody> for Discount {
    fn from(body: DiscountBody) -> Self {
        Self::new(body.kind.into(), body.value)
    }
}

/// A change that is merged into the present discount.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiscountPatchBody {
    #[serde(default, deserialize_with = "not_null")]
    kind: Option<KindBody>,
    #[serde(default, deserialize_with = "some_discount_value")]
    value: Option<u64>,
}

fn some_discount_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    discount_value(deserializer).map(Some)
}

impl From<DiscountPatchBody> for DiscountPatch {
    fn from(body: DiscountPatchBody) -> Self {
        Self {
            kind: body.kind.map(DiscountKind::from),
            value: body.value,
        }
    }
}

// A number that does not fit into a type of fewer than 64 bits becomes the largest value of that type, which
// `Offer::check` refuses. So the message about such a number is also that of `Offer::check`.

fn narrow_limit(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

fn narrow_days(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// A request to create a coupon.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct CreateBody {
    #[schema(required, value_type = String, min_length = 1, max_length = 200, pattern = "^[^\\u0000]*$")]
    title: Option<String>,
    /// Null: unlimited. It must be given, so that no coupon becomes unlimited by an omission.
    #[serde(default, deserialize_with = "numbers::clearable")]
    #[schema(required, value_type = Option<u64>, minimum = 1, maximum = 1_000_000_000)]
    total_quantity: Option<Option<u64>>,
    /// Null: unlimited.
    #[serde(default, deserialize_with = "numbers::clearable")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 100, default = 1)]
    per_user_limit: Option<Option<u64>>,
    #[schema(max_length = 2_000, pattern = "^[^\\u0000]*$")]
    description: Option<String>,
    #[schema(value_type = Option<MetadataSchema>)]
    metadata: Option<Object<Metadata>>,
    /// Inclusive; any offset.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Time>,
    /// Exclusive, after `starts_at`.
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Time>,
    #[schema(value_type = Option<DiscountSchema>)]
    discount: Option<Object<DiscountBody>>,
    /// The most that a rate takes off.
    #[serde(default, deserialize_with = "numbers::optional")]
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_usize)]
    max_discount: Option<u64>,
    #[serde(default, deserialize_with = "numbers::optional")]
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    min_order_amount: Option<u64>,
    #[serde(default, deserialize_with = "numbers::optional")]
    #[schema(minimum = 1, maximum = 3650)]
    use_within_days: Option<u64>,
    /// Exclusive; with `use_within_days` the earlier end counts.
    #[schema(value_type = Option<String>, format = DateTime)]
    use_until: Option<Time>,
    /// An IANA name: `use_within_days` ends at the local end of the day.
    time_zone: Option<String>,
    /// `open` or `paused`.
    #[schema(pattern = "^(open|paused)$", default = "open")]
    status: Option<String>,
}

/// Becomes the offer and the initial status.
impl Checked for CreateBody {
    type Value = (Offer, Status);

    fn check(self, errors: &mut Vec<FieldError>) -> (Offer, Status) {
        let status = self
            .status
            .as_deref()
            .map_or(Some(Status::Open), super::initial_status);
        if status.is_none() {
            errors.push(FieldError::new("status", "must be open or paused"));
        }
        if self.total_quantity.is_none() {
            errors.push(FieldError::new(
                "total_quantity",
                "is required: a number, or null for unlimited",
            ));
        }
        let title = self.title.unwrap_or_else(|| {
            errors.push(FieldError::new("title", REQUIRED));
            // Stands for the title, so that it is not refused as too short as well.
            REQUIRED.to_owned()
        });
        let offer = Offer {
            title,
            description: self.description,
            metadata: self.metadata.map(|Object(metadata)| metadata).unwrap_or_default(),
            discount: self.discount.map(|Object(discount)| discount.into()),
            max_discount: self.max_discount,
            min_order_amount: self.min_order_amount,
            total_quantity: self.total_quantity.flatten(),
            per_user_limit: self
                .per_user_limit
                .map_or(Some(1), |limit| limit.map(narrow_limit)),
            starts_at: self.starts_at.map(|Time(time)| time),
            ends_at: self.ends_at.map(|Time(time)| time),
            use_within_days: self.use_within_days.map(narrow_days),
            use_until: self.use_until.map(|Time(time)| time),
            time_zone: self.time_zone,
        };
        errors.extend(offer.check().into_iter().map(field_error));
        (offer, status.unwrap_or(Status::Open))
    }
}

/// A change of a coupon: a merge patch, in which null clears a field.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct PatchBody {
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200, pattern = "^[^\\u0000]*$")]
    title: Option<Option<String>>,
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<String>, max_length = 2_000, pattern = "^[^\\u0000]*$")]
    description: Option<Option<String>>,
    /// Merged into the present pairs: null removes a pair.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<MetadataPatchSchema>)]
    metadata: Option<Option<Object<MetadataPatch>>>,
    /// Not below the number already decided, less `returned`.
    #[serde(default, deserialize_with = "numbers::clearable")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 1_000_000_000)]
    total_quantity: Option<Option<u64>>,
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Option<Time>>,
    /// After `starts_at`.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Option<Time>>,
    /// Merged into the present discount.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<DiscountPatchSchema>)]
    discount: Option<Option<Object<DiscountPatchBody>>>,
    #[serde(default, deserialize_with = "numbers::clearable")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9_007_199_254_740_991_usize)]
    max_discount: Option<Option<u64>>,
    #[serde(default, deserialize_with = "numbers::clearable")]
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_usize)]
    min_order_amount: Option<Option<u64>>,
    #[serde(default, deserialize_with = "numbers::clearable")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 3650)]
    use_within_days: Option<Option<u64>>,
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    use_until: Option<Option<Time>>,
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<String>)]
    time_zone: Option<Option<String>>,
}

/// Becomes the patch. Errors that do not depend on the coupon are found here, so that such a request is
/// refused before its `If-Match` is evaluated (RFC 9110, section 13.2.1). The coupon's owner checks the
/// patched offer, because only the owner has the unchanged fields.
impl Checked for PatchBody {
    type Value = OfferPatch;

    fn check(self, errors: &mut Vec<FieldError>) -> OfferPatch {
        let time = |field: Option<Option<Time>>| field.map(|value| value.map(|Time(time)| time));
        if self.title == Some(None) {
            errors.push(FieldError::new("title", "must not be null"));
        }
        let patch = OfferPatch {
            title: self.title.flatten(),
            description: self.description,
            metadata: self.metadata.map(|value| value.map(|Object(metadata)| metadata)),
            discount: self
                .discount
                .map(|value| value.map(|Object(discount)| discount.into())),
            max_discount: self.max_discount,
            min_order_amount: self.min_order_amount,
            total_quantity: self.total_quantity,
            starts_at: time(self.starts_at),
            ends_at: time(self.ends_at),
            use_within_days: self.use_within_days.map(|value| value.map(narrow_days)),
            use_until: time(self.use_until),
            time_zone: self.time_zone,
        };
        errors.extend(patch.check().into_iter().map(field_error));
        patch
    }
}

/// The body of a request that needs no data.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct EmptyBody {}
