//! Conversions between rows and values.

use crate::coupon::change_keys::ChangeKeys;
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::ledger::CouponHead;
use crate::coupon::offer::{Coupon, Discount, Issuance, Metadata, Offer, PER_USER_LIMIT_MAX, Status};
use crate::ids::{RequestKey, UserId};
use crate::store::Result;
use crate::store::columns::{StoredRow, integer, number, optional_number, optional_time, readable, time};

/// The columns of `coupons AS c` that [`coupon`] reads.
macro_rules! coupon_columns {
    () => {
        "c.id, c.title, c.description, c.metadata, c.max_discount, c.no_user_limit, c.use_until, \
         c.time_zone, c.discount_kind, c.discount_value, c.min_order_amount, c.total_quantity, \
         c.per_user_limit, c.starts_at, c.ends_at, c.use_within_days, c.status, c.version, c.created_at, \
         c.updated_at"
    };
}
pub(crate) use coupon_columns;

/// The columns of `coupons AS c` that [`head`] reads.
macro_rules! head_columns {
    () => {
        concat!(coupon_columns!(), ", c.change_keys")
    };
}
pub(crate) use head_columns;

/// The columns that [`issuance`] reads.
macro_rules! issuance_columns {
    () => {
        "coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at"
    };
}
pub(crate) use issuance_columns;

/// Returns the coupon in a row with [`coupon_columns`].
pub(crate) fn coupon(row: &impl StoredRow) -> Result<Coupon> {
    let value = optional_number::<u64>(row, "discount_value")?;
    let discount = match (row.optional_text("discount_kind")?, value) {
        (None, None) => None,
        (Some("amount"), Some(value)) => Some(Discount::Amount(value)),
        (Some("rate"), Some(value)) => Some(Discount::Rate(readable(
            u8::try_from(value).ok(),
            "discount_value",
        )?)),
        _ => return readable(None, "discount_kind"),
    };
    Ok(Coupon {
        id: readable(CouponId::new(number(row, "id")?), "id")?,
        offer: Offer {
            title: row.text("title")?.to_owned(),
            description: row.optional_text("description")?.map(str::to_owned),
            metadata: metadata(row.optional_text("metadata")?)?,
            discount,
            max_discount: optional_number(row, "max_discount")?,
            min_order_amount: optional_number(row, "min_order_amount")?,
            total_quantity: optional_number(row, "total_quantity")?,
            per_user_limit: match number(row, "no_user_limit")? {
                0_u8 => Some(number(row, "per_user_limit")?),
                _ => None,
            },
            starts_at: optional_time(row, "starts_at")?,
            ends_at: optional_time(row, "ends_at")?,
            use_within_days: optional_number(row, "use_within_days")?,
            use_until: optional_time(row, "use_until")?,
            time_zone: row.optional_text("time_zone")?.map(str::to_owned),
        },
        status: readable(Status::parse(row.text("status")?), "status")?,
        version: number(row, "version")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn metadata(text: Option<&str>) -> Result<Metadata> {
    text.map_or_else(
        || Ok(Metadata::new()),
        |text| readable(serde_json::from_str(text).ok(), "metadata"),
    )
}

/// Returns the value of the column of metadata: a JSON object, or NULL if there are no pairs.
pub(crate) fn metadata_column(metadata: &Metadata) -> Option<String> {
    // Texts under texts always have a JSON form.
    (!metadata.is_empty()).then(|| serde_json::to_string(metadata).unwrap_or_default())
}

/// Returns the values of the two columns of the limit per user. Without a limit, the first column has the
/// highest limit, which nodes of the previous release use.
pub(crate) fn limit_columns(per_user_limit: Option<u8>) -> (u8, bool) {
    per_user_limit.map_or((PER_USER_LIMIT_MAX, true), |limit| (limit, false))
}

/// Returns the coupon and its keys in a row with [`head_columns`].
pub(crate) fn head(row: &impl StoredRow) -> Result<CouponHead> {
    let change_keys = ChangeKeys::parse(row.optional_text("change_keys")?);
    Ok(CouponHead {
        coupon: coupon(row)?,
        change_keys: readable(change_keys, "change_keys")?,
    })
}

/// Returns the issuance in a row with [`issuance_columns`].
pub(crate) fn issuance(row: &impl StoredRow) -> Result<Issuance> {
    Ok(Issuance {
        id: IssuanceId {
            coupon: readable(CouponId::new(number(row, "coupon_id")?), "coupon_id")?,
            sequence: Sequence::new(number(row, "sequence")?),
        },
        user: readable(UserId::parse(row.text("user_id")?).ok(), "user_id")?,
        nth: number(row, "nth")?,
        key: readable(RequestKey::parse(row.text("request_key")?).ok(), "request_key")?,
        issued_at: time(row, "issued_at")?,
        expires_at: optional_time(row, "expires_at")?,
    })
}

/// Returns the lowest and the highest coupon id of a list of this coupon's issuances, or of all coupons'
/// issuances if `coupon` is `None`.
pub(crate) fn coupon_range(coupon: Option<CouponId>) -> (i64, i64) {
    coupon.map_or((0, i64::MAX), |coupon| {
        (integer(coupon.get()), integer(coupon.get()))
    })
}

/// Returns the values of a discount's two columns.
pub(crate) fn discount_columns(discount: Option<Discount>) -> (Option<&'static str>, Option<i64>) {
    match discount {
        None => (None, None),
        Some(Discount::Amount(value)) => (Some("amount"), Some(integer(value))),
        Some(Discount::Rate(value)) => (Some("rate"), Some(i64::from(value))),
    }
}
