//! Between rows and values.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::coupon::offer::{Coupon, Discount, Issuance, Offer, Status};
use crate::ids::{CouponId, IssuanceId, RequestKey, Sequence, UserId};
use crate::store::sqlite::error::on_read;
use crate::store::{Result, StoreError};
use crate::time::Timestamp;

/// The columns that [`coupon`] reads, of `coupons AS c`.
macro_rules! coupon_columns {
    () => {
        "c.id, c.title, c.discount_kind, c.discount_value, c.min_order_amount, c.total_quantity, c.per_user_limit, \
         c.starts_at, c.ends_at, c.use_within_days, c.status, c.version, c.created_at, c.updated_at"
    };
}
pub(crate) use coupon_columns;

/// The columns that [`issuance`] reads.
macro_rules! issuance_columns {
    () => {
        "coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at"
    };
}
pub(crate) use issuance_columns;

/// A number as SQLite takes it. Every number here stays below 2^53.
pub(crate) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column of a row.
pub(crate) fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(on_read)
}

/// A column that holds a number that is not negative.
pub(crate) fn number(row: &SqliteRow, column: &str) -> Result<u64> {
    readable(u64::try_from(get::<i64>(row, column)?).ok(), column)
}

/// What was read, if it makes sense.
pub(crate) fn readable<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| StoreError::Unreadable(format!("{what} holds what this program does not know")))
}

fn numeric<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<Option<T>> {
    get::<Option<i64>>(row, column)?
        .map(|value| readable(T::try_from(value).ok(), column))
        .transpose()
}

fn time(row: &SqliteRow, column: &str) -> Result<Timestamp> {
    readable(Timestamp::from_micros(get(row, column)?), column)
}

fn optional_time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>> {
    get::<Option<i64>>(row, column)?
        .map(|micros| readable(Timestamp::from_micros(micros), column))
        .transpose()
}

/// The coupon in a row of [`coupon_columns`].
pub(crate) fn coupon(row: &SqliteRow) -> Result<Coupon> {
    let value = numeric::<u64>(row, "discount_value")?;
    let discount = match (get::<Option<&str>>(row, "discount_kind")?, value) {
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
            title: get(row, "title")?,
            discount,
            min_order_amount: numeric(row, "min_order_amount")?,
            total_quantity: numeric(row, "total_quantity")?,
            per_user_limit: get(row, "per_user_limit")?,
            starts_at: optional_time(row, "starts_at")?,
            ends_at: optional_time(row, "ends_at")?,
            use_within_days: numeric(row, "use_within_days")?,
        },
        status: readable(Status::parse(get(row, "status")?), "status")?,
        version: number(row, "version")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

/// The issuance in a row of [`issuance_columns`].
pub(crate) fn issuance(row: &SqliteRow) -> Result<Issuance> {
    Ok(Issuance {
        id: IssuanceId {
            coupon: readable(CouponId::new(number(row, "coupon_id")?), "coupon_id")?,
            sequence: Sequence::new(number(row, "sequence")?),
        },
        user: readable(UserId::parse(get(row, "user_id")?).ok(), "user_id")?,
        nth: get(row, "nth")?,
        key: readable(RequestKey::parse(get(row, "request_key")?).ok(), "request_key")?,
        issued_at: time(row, "issued_at")?,
        expires_at: optional_time(row, "expires_at")?,
    })
}

/// How a discount stands in its two columns.
pub(crate) fn discount_columns(discount: Option<Discount>) -> (Option<&'static str>, Option<i64>) {
    match discount {
        None => (None, None),
        Some(Discount::Amount(value)) => (Some("amount"), Some(integer(value))),
        Some(Discount::Rate(value)) => (Some("rate"), Some(i64::from(value))),
    }
}
