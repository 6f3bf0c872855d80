//! Storing a batch: of issuances by one guarded statement, which is prepared once for batches of all sizes;
//! of a change by one transaction, together with its row of the audit log.

use std::fmt::Write;

use sqlx::{Connection, SqliteConnection};

use crate::coupon::CouponKind;
use crate::coupon::entry::{CouponChange, CouponRun};
use crate::coupon::offer::Issuance;
use crate::coupon::rows::columns::{discount_columns, metadata_column, record_columns};
use crate::coupon::rows::mixed_sorts;
use crate::ids::{Fence, ShardId};
use crate::owning::kind::Run;
use crate::store::batch;
use crate::store::columns::integer;
use crate::store::sqlite::error::on_write;
use crate::store::{Result, StoreError};

type Portion = batch::Portion<CouponKind>;

/// `?1` is [`portions_json`]. `CROSS JOIN` keeps the order: the guards are checked once for each portion,
/// before its rows.
const INSERT: &str = "
INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at)
SELECT c.id, row.value ->> 0, row.value ->> 1, row.value ->> 2, row.value ->> 3, row.value ->> 4,
       row.value ->> 5
  FROM jsonb_each(?1) AS portion
 CROSS JOIN shards AS s
    ON s.shard_id = portion.value ->> 0 AND s.epoch = portion.value ->> 1 AND s.owner = portion.value ->> 2
 CROSS JOIN coupons AS c
    ON c.id = portion.value ->> 3
   AND (c.total_quantity IS NULL
        OR portion.value ->> 4 <= c.total_quantity
        OR portion.value ->> 4 <= c.total_quantity
           + coalesce((SELECT returned FROM uses WHERE coupon_id = c.id ORDER BY use_sequence DESC LIMIT 1), 0))
   AND (portion.value ->> 5 <= c.per_user_limit OR c.no_user_limit)
 CROSS JOIN jsonb_each(portion.value, '$[6]') AS row";

const UPDATE: &str = "
UPDATE coupons
   SET title = ?1, discount_kind = ?2, discount_value = ?3, min_order_amount = ?4, total_quantity = ?5,
       starts_at = ?6, ends_at = ?7, use_within_days = ?8, status = ?9, version = ?10, updated_at = ?11,
       change_keys = ?17, description = ?19, metadata = ?20, max_discount = ?21, use_until = ?22, time_zone = ?23
 WHERE id = ?12
   AND version = ?18
   AND EXISTS (SELECT 1 FROM shards WHERE shard_id = ?13 AND epoch = ?14 AND owner = ?15)
   AND (?5 IS NULL
        OR ?5 + ?24 >= max(?16, coalesce((SELECT max(sequence) FROM issuances WHERE coupon_id = ?12), 0)))
   AND ?24 = coalesce((SELECT returned FROM uses WHERE coupon_id = ?12 ORDER BY use_sequence DESC LIMIT 1), 0)";

/// The row of the audit log for the version that [`UPDATE`] made.
const RECORD: &str =
    "INSERT INTO coupon_changes (coupon_id, version, changed_at, author, asked) VALUES (?1, ?2, ?3, ?4, ?5)";

/// Stores the issuances of portions given as [`portions_json`]. Returns how many rows it stored.
pub(crate) async fn issuances(connection: &mut SqliteConnection, portions_json: String) -> Result<u64> {
    // `execute` steps to the end of the statement, where it commits. With a call that returns rows, the
    // statement might not be stepped to its end.
    let stored = sqlx::query(INSERT)
        .bind(portions_json)
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok(stored.rows_affected())
}

/// Stores a change. Returns 1 if its guards hold, and 0 if they do not.
pub(crate) async fn change(
    connection: &mut SqliteConnection,
    shard: ShardId,
    fence: Fence,
    change: &CouponChange,
) -> Result<u64> {
    let (coupon, offer) = (&change.coupon, &change.coupon.offer);
    let (kind, value) = discount_columns(offer.discount);
    // The change and its row of the audit log are stored together.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(on_write)?;
    let stored = sqlx::query(UPDATE)
        .bind(&offer.title)
        .bind(kind)
        .bind(value)
        .bind(offer.min_order_amount.map(integer))
        .bind(offer.total_quantity.map(integer))
        .bind(offer.starts_at.map(|time| time.as_micros()))
        .bind(offer.ends_at.map(|time| time.as_micros()))
        .bind(offer.use_within_days)
        .bind(coupon.status.as_str())
        .bind(integer(coupon.version))
        .bind(coupon.updated_at.as_micros())
        .bind(integer(coupon.id.get()))
        .bind(shard.get())
        .bind(integer(fence.epoch.get()))
        .bind(integer(fence.owner.get()))
        .bind(integer(change.issued.get()))
        .bind(change.keys.column())
        .bind(integer(change.from_version))
        .bind(&offer.description)
        .bind(metadata_column(&offer.metadata))
        .bind(offer.max_discount.map(integer))
        .bind(offer.use_until.map(|time| time.as_micros()))
        .bind(&offer.time_zone)
        .bind(integer(change.returned))
        .execute(&mut *transaction)
        .await
        .map_err(on_write)?;
    if stored.rows_affected() == 1 && change.makes_version() {
        let (author, asked) = record_columns(change.record.as_ref());
        sqlx::query(RECORD)
            .bind(integer(coupon.id.get()))
            .bind(integer(coupon.version))
            .bind(coupon.updated_at.as_micros())
            .bind(author)
            .bind(asked)
            .execute(&mut *transaction)
            .await
            .map_err(on_write)?;
    }
    transaction.commit().await.map_err(on_write)?;
    Ok(stored.rows_affected())
}

/// Returns portions of issuances as an array of `[shard, epoch, owner, coupon, last sequence, highest nth,
/// [[sequence, user, nth, key, issued_at, expires_at], …]]`.
pub(crate) fn portions_json(portions: &[Portion]) -> Result<String> {
    /// Number of bytes of a row with ids and keys of usual length. The text grows if they are longer.
    const ROW_BYTES: usize = 112;

    let rows: usize = portions.iter().map(|portion| portion.run.rows()).sum();
    let mut json = String::with_capacity(rows * ROW_BYTES + portions.len() * ROW_BYTES);
    for portion in portions {
        let CouponRun::Issuances(issuances) = &portion.run else {
            return Err(mixed_sorts());
        };
        json.push(if json.is_empty() { '[' } else { ',' });
        push_portion(&mut json, portion, issuances)
            .map_err(|error| StoreError::Unreadable(error.to_string()))?;
    }
    json.push(']');
    Ok(json)
}

fn push_portion(json: &mut String, portion: &Portion, issuances: &[Issuance]) -> std::fmt::Result {
    let last = issuances
        .iter()
        .map(|issuance| issuance.id.sequence.get())
        .max()
        .unwrap_or(0);
    let nth_max = issuances.iter().map(|issuance| issuance.nth).max().unwrap_or(0);
    let Fence { epoch, owner } = portion.fence;
    write!(
        json,
        "[{},{epoch},{},{},{last},{nth_max},[",
        portion.shard,
        owner.get(),
        portion.id
    )?;
    for (index, issuance) in issuances.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        write!(json, "[{},\"", issuance.id.sequence)?;
        push_escaped(json, issuance.user.as_str());
        write!(json, "\",{},\"", issuance.nth)?;
        push_escaped(json, issuance.key.as_str());
        write!(json, "\",{},", issuance.issued_at.as_micros())?;
        match issuance.expires_at {
            Some(expires_at) => write!(json, "{}]", expires_at.as_micros())?,
            None => json.push_str("null]"),
        }
    }
    json.push_str("]]");
    Ok(())
}

/// Writes visible ASCII as part of a JSON string: only two of its characters must be escaped.
pub(super) fn push_escaped(json: &mut String, text: &str) {
    if !text.contains(['"', '\\']) {
        return json.push_str(text);
    }
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            json.push('\\');
        }
        json.push(character);
    }
}
