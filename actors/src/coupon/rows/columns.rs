//! Conversions between rows and values.

use crate::coupon::change_keys::ChangeKeys;
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::ledger::CouponHead;
use crate::coupon::offer::{
    Coupon, Discount, Issuance, Metadata, NTH_BEYOND_LIMITS, Offer, PER_USER_LIMIT_MAX, Status,
};
use crate::coupon::record::{ChangeRecord, ChangeRow};
use crate::coupon::uses::{Figures, LatestUse, Use, UseCounts, UseKind, UseNumber, UsedIssuance};
use crate::ids::{Author, OrderId, RequestKey, UserId};
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

/// The columns that [`used`] reads.
macro_rules! use_columns {
    () => {
        "coupon_id, use_sequence, sequence, kind, order_id, order_amount, discount, hold_until, returns, \
         reason, author, used_at, reserved, redeemed, revoked, returned, lapses_at"
    };
}
pub(crate) use use_columns;

/// The columns of `issuances AS i`, and of the latest use `uses AS u` if there is one, that [`used_issuance`]
/// reads.
macro_rules! page_columns {
    () => {
        "i.coupon_id, i.sequence, i.user_id, i.nth, i.request_key, i.issued_at, i.expires_at, \
         u.kind, u.order_id, u.order_amount, u.discount, u.hold_until, u.returns, u.used_at"
    };
}
pub(crate) use page_columns;

/// The condition that `issuances AS i` is in a state at a time, as
/// [`UsedIssuance::state`](crate::coupon::uses::UsedIssuance::state) defines it. Its parameters, in order:
/// the time, the time again, and the state.
macro_rules! state_condition {
    ($index:literal, $now:literal, $state:literal) => {
        concat!(
            "COALESCE((SELECT CASE WHEN u.kind IN ('redeemed', 'revoked') \
                                     OR (u.kind = 'reserved' AND u.hold_until > ",
            $now,
            ") THEN u.kind END FROM uses AS u ",
            $index,
            " WHERE u.coupon_id = i.coupon_id AND u.sequence = i.sequence \
              ORDER BY u.coupon_id DESC, u.sequence DESC, u.use_sequence DESC LIMIT 1), \
             CASE WHEN i.expires_at <= ",
            $now,
            " THEN 'expired' ELSE 'issued' END) = ",
            $state
        )
    };
}
pub(crate) use state_condition;

/// The counts of a coupon in `coupons AS c`, in the form that [`use_counts`] reads, from its last use `u`.
/// `$from` follows `uses AS u`, such as a hint. `$holds` is how many holds have not lapsed, where some use of
/// the coupon is a reservation that no use follows.
macro_rules! use_counts_column {
    ($from:literal, $holds:expr) => {
        concat!(
            "(SELECT CONCAT_WS(' ', u.reserved, u.redeemed, u.revoked, u.returned, \
                               CASE WHEN u.reserved = 0 THEN 0 ELSE ",
            $holds,
            " END) FROM uses AS u ",
            $from,
            " WHERE u.coupon_id = c.id ORDER BY u.coupon_id DESC, u.use_sequence DESC LIMIT 1) AS use_counts"
        )
    };
}
pub(crate) use use_counts_column;

/// How many holds of a coupon have not lapsed at a time, in the table `uses AS h` with a hint: the reservations
/// that lapse later, without those that another use follows.
macro_rules! holds {
    ($index:literal, $coupon:literal, $now:literal) => {
        concat!(
            "(SELECT 2 * COUNT(CASE WHEN h.kind = 'reserved' THEN 1 END) - COUNT(*) FROM uses AS h ",
            $index,
            " WHERE h.coupon_id = ",
            $coupon,
            " AND h.lapses_at > ",
            $now,
            ")"
        )
    };
}
pub(crate) use holds;

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
/// highest limit, which nodes of the former build use.
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

/// The columns of `coupons AS c` that [`change_row`] reads.
macro_rules! creation_columns {
    () => {
        "c.created_at AS changed_at, c.created_by AS author, c.created_as AS asked"
    };
}
pub(crate) use creation_columns;

/// Returns the values of a record's two columns: who made a change, and what it asked for.
pub(crate) fn record_columns(record: Option<&ChangeRecord>) -> (Option<&str>, Option<&str>) {
    record
        .map(|record| (record.author.as_str(), record.asked.as_str()))
        .unzip()
}

/// Returns the row of the audit log for this version, from the columns `changed_at`, `author` and `asked`.
pub(crate) fn change_row(row: &impl StoredRow, version: u64) -> Result<ChangeRow> {
    let author = row.optional_text("author")?.map(Author::parse);
    let author = author.map(|author| readable(author, "author")).transpose()?;
    let asked = row.optional_text("asked")?.map(str::to_owned);
    Ok(ChangeRow {
        version,
        changed_at: time(row, "changed_at")?,
        record: author
            .zip(asked)
            .map(|(author, asked)| ChangeRecord { author, asked }),
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
        nth: optional_number(row, "nth")?.unwrap_or(NTH_BEYOND_LIMITS),
        key: readable(RequestKey::parse(row.text("request_key")?).ok(), "request_key")?,
        issued_at: time(row, "issued_at")?,
        expires_at: optional_time(row, "expires_at")?,
    })
}

/// Returns the counts in a row with [`use_counts_column`].
pub(crate) fn use_counts(row: &impl StoredRow) -> Result<UseCounts> {
    let Some(text) = row.optional_text("use_counts")? else {
        return Ok(UseCounts::default());
    };
    let numbers: Vec<u64> = text.split(' ').map_while(|number| number.parse().ok()).collect();
    let counts = match numbers[..] {
        [reserved, redeemed, revoked, returned, holds] => Some(UseCounts {
            // An order may reserve after a hold that this clock takes for live.
            reserved: holds.min(reserved),
            redeemed,
            revoked,
            returned,
        }),
        _ => None,
    };
    readable(counts, "use_counts")
}

/// Returns the kind of a use.
fn use_kind(row: &impl StoredRow) -> Result<UseKind> {
    readable(UseKind::parse(row.text("kind")?), "kind")
}

/// Returns what answers show of the use in a row with [`use_columns`].
fn shown_use(row: &impl StoredRow) -> Result<LatestUse> {
    let order = row.optional_text("order_id")?.map(OrderId::parse).transpose();
    let amount = optional_number(row, "order_amount")?;
    let discount = optional_number(row, "discount")?;
    Ok(LatestUse {
        kind: use_kind(row)?,
        order: readable(order.ok(), "order_id")?,
        figures: amount
            .zip(discount)
            .map(|(amount, discount)| Figures { amount, discount }),
        hold_until: optional_time(row, "hold_until")?,
        returns: number::<u8>(row, "returns")? != 0,
        at: time(row, "used_at")?,
    })
}

/// Returns the issuance with its latest use in a row with [`page_columns`].
pub(crate) fn used_issuance(row: &impl StoredRow) -> Result<UsedIssuance> {
    let is_used = row.optional_text("kind")?.is_some();
    Ok(UsedIssuance {
        issuance: issuance(row)?,
        latest: is_used.then(|| shown_use(row)).transpose()?,
    })
}

/// Returns the use in a row with [`use_columns`].
pub(crate) fn used(row: &impl StoredRow) -> Result<Use> {
    Ok(Use {
        coupon: readable(CouponId::new(number(row, "coupon_id")?), "coupon_id")?,
        number: UseNumber::new(number(row, "use_sequence")?),
        sequence: Sequence::new(number(row, "sequence")?),
        shown: shown_use(row)?,
        reason: row.optional_text("reason")?.map(str::to_owned),
        author: readable(Author::parse(row.text("author")?), "author")?,
        counts: UseCounts {
            reserved: number(row, "reserved")?,
            redeemed: number(row, "redeemed")?,
            revoked: number(row, "revoked")?,
            returned: number(row, "returned")?,
        },
        lapses_at: optional_time(row, "lapses_at")?,
    })
}

/// Returns the lowest and the highest coupon id of a list of this coupon's issuances, or of all coupons'
/// issuances if `coupon` is `None`.
pub(crate) fn coupon_range(coupon: Option<CouponId>) -> (i64, i64) {
    coupon.map_or((0, i64::MAX), |coupon| {
        (integer(coupon.get()), integer(coupon.get()))
    })
}

/// Returns the coupon id that a column has.
pub(crate) fn coupon_id(column: i64) -> Result<CouponId> {
    let id = u64::try_from(column).ok().and_then(CouponId::new);
    readable(id, "coupon_id")
}

/// Returns the values of a discount's two columns.
pub(crate) fn discount_columns(discount: Option<Discount>) -> (Option<&'static str>, Option<i64>) {
    match discount {
        None => (None, None),
        Some(Discount::Amount(value)) => (Some("amount"), Some(integer(value))),
        Some(Discount::Rate(value)) => (Some("rate"), Some(i64::from(value))),
    }
}
