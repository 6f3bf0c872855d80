//! Storing a batch: one guarded autocommit statement, so that no lock outlives a round trip, and a cut connection leaves no transaction open.
//!
//! Issuances go as text with their values in it: one statement prepared for each size would fill the server's and our caches, and one that is
//! not kept costs a round trip more. What goes into the text is numbers and checked ASCII.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::canary::Canary;
use super::dialect::Dialect;
use super::error::on_write;
use super::rows::{discount_columns, integer};
use crate::ids::{Fence, Incarnation, ShardId};
use crate::offer::Issuance;
use crate::store::{Result, StoreError};
use crate::write_back::batch::{CouponChange, Entries, Portion};

/// Most bytes of one statement: what [`crate::write_back::batch::BATCH_ROWS_MAX`] rows with the longest ids, and keys that all need hexadecimal,
/// take, and half as much again. A server must take packets of this size.
pub(super) const STATEMENT_BYTES_MAX: usize = 1 << 20;

/// Opens the statement. A row is shard, epoch, owner, coupon, sequence, user, nth, key, issued at, expires at, and, the same for all rows of a
/// coupon, its last sequence and its highest nth in this batch.
const INSERT: &str = "\
INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at)
WITH v (s, e, o, c, q, u, n, k, t, x, l, h) AS (VALUES ";

/// Closes it. `STRAIGHT_JOIN` keeps the order and `FORCE INDEX` the access by key (over few rows MariaDB would rather read a whole table), so that
/// just the rows of `shards` and `coupons` that are named here are read, and locked until the commit: who wants one of these shards waits for
/// this batch, and nobody else does.
const GUARDS: &str = ")
SELECT v.c, v.q, v.u, v.n, v.k, v.t, v.x
  FROM v
  STRAIGHT_JOIN shards AS s FORCE INDEX (PRIMARY) ON s.shard_id = v.s AND s.epoch = v.e AND s.owner = v.o
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
    ON c.id = v.c AND (c.total_quantity IS NULL OR v.l <= c.total_quantity) AND v.h <= c.per_user_limit";

/// The shard first, and locked, as above.
const UPDATE: &str = "
UPDATE shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY) ON c.id = ?
   SET c.title = ?, c.discount_kind = ?, c.discount_value = ?, c.min_order_amount = ?, c.total_quantity = ?, c.starts_at = ?, c.ends_at = ?,
       c.use_within_days = ?, c.status = ?, c.version = ?, c.updated_at = ?
 WHERE s.shard_id = ? AND s.epoch = ? AND s.owner = ?
   AND c.version = ?
   AND (? IS NULL OR ? >= GREATEST(?, COALESCE((SELECT MAX(sequence) FROM issuances WHERE coupon_id = ?), 0)))";

/// Stores the issuances of portions of these incarnations, given as [`statement`]; how many rows.
pub(super) async fn issuances(connection: &mut MySqlConnection, canary: &Canary, owners: &[Incarnation], statement: String) -> Result<u64> {
    // After the wait for a connection, which may have been one for a database that went backwards and is served again.
    owners.iter().try_for_each(|owner| canary.lives(*owner))?;
    let stored = sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.map_err(on_write)?;
    Ok(stored.rows_affected())
}

/// Stores a change; 1 if its guards hold, else 0.
pub(super) async fn change(
    connection: &mut MySqlConnection,
    canary: &Canary,
    shard: ShardId,
    fence: Fence,
    change: &CouponChange,
) -> Result<u64> {
    canary.lives(fence.owner)?;
    let (coupon, offer) = (&change.coupon, &change.coupon.offer);
    let (kind, value) = discount_columns(offer.discount);
    let (id, quantity) = (integer(coupon.id.get()), offer.total_quantity.map(integer));
    let stored = sqlx::query(UPDATE)
        .bind(id)
        .bind(&offer.title)
        .bind(kind)
        .bind(value)
        .bind(offer.min_order_amount.map(integer))
        .bind(quantity)
        .bind(offer.starts_at.map(|time| time.as_micros()))
        .bind(offer.ends_at.map(|time| time.as_micros()))
        .bind(offer.use_within_days)
        .bind(coupon.status.as_str())
        .bind(integer(coupon.version))
        .bind(coupon.updated_at.as_micros())
        .bind(shard.get())
        .bind(integer(fence.epoch.get()))
        .bind(integer(fence.owner.get()))
        .bind(integer(coupon.version) - 1)
        .bind(quantity)
        .bind(quantity)
        .bind(integer(change.issued.get()))
        .bind(id)
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok(stored.rows_affected())
}

/// The statement that stores portions of issuances; an error if one holds a change.
pub fn statement(dialect: Dialect, portions: &[Portion]) -> Result<String> {
    /// What a row of usual ids and keys takes; the text grows beyond it where it must.
    const ROW_BYTES: usize = 192;

    let rows: usize = portions.iter().map(|portion| portion.entries.len()).sum();
    let mut text = String::with_capacity(INSERT.len() + GUARDS.len() + rows * ROW_BYTES);
    text.push_str(INSERT);
    for (index, portion) in portions.iter().enumerate() {
        let Entries::Issuances(issuances) = &portion.entries else {
            return Err(StoreError::Unreadable("a batch holds a change beside something else".to_owned()));
        };
        if index > 0 {
            text.push(',');
        }
        push_portion(&mut text, dialect, portion, issuances).map_err(|error| StoreError::Unreadable(error.to_string()))?;
    }
    text.push_str(GUARDS);
    Ok(text)
}

fn push_portion(text: &mut String, dialect: Dialect, portion: &Portion, issuances: &[Issuance]) -> std::fmt::Result {
    let last = issuances.iter().map(|issuance| issuance.id.sequence.get()).max().unwrap_or(0);
    let nth_max = issuances.iter().map(|issuance| issuance.nth).max().unwrap_or(0);
    let Fence { epoch, owner } = portion.fence;
    let (row, shard, owner, coupon) = (dialect.row(), portion.shard, owner.get(), portion.coupon);
    for (index, issuance) in issuances.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let Issuance { id, user, nth, key, issued_at, expires_at } = issuance;
        write!(text, "{comma}{row}({shard},{epoch},{owner},{coupon},{},'{user}',{nth},", id.sequence)?;
        push_text(text, key.as_str())?;
        write!(text, ",{},", issued_at.as_micros())?;
        match expires_at {
            Some(expires_at) => write!(text, "{}", expires_at.as_micros())?,
            None => text.push_str("NULL"),
        }
        write!(text, ",{last},{nth_max})")?;
    }
    Ok(())
}

/// Visible ASCII as a literal that means the same under every SQL mode: hexadecimal where a character could end it or escape another.
fn push_text(text: &mut String, value: &str) -> std::fmt::Result {
    if !value.contains(['\'', '\\']) {
        return write!(text, "'{value}'");
    }
    text.push_str("_ascii x'");
    for byte in value.bytes() {
        write!(text, "{byte:02x}")?;
    }
    text.push('\'');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::{CouponId, Epoch, ID_MAX, IssuanceId, RequestKey, Sequence, TEXT_ID_BYTES_MAX, UserId};
    use crate::time::Timestamp;
    use crate::write_back::batch::BATCH_ROWS_MAX;

    #[test]
    fn the_largest_batch_fits_into_the_smallest_packet_that_a_server_may_be_set_to() {
        let coupon = CouponId::new(ID_MAX).unwrap();
        let time = Timestamp::parse("1000-01-01T00:00:00Z").unwrap();
        let issuance = Issuance {
            id: IssuanceId { coupon, sequence: Sequence::new(1_000_000_000) },
            user: UserId::parse(&"u".repeat(TEXT_ID_BYTES_MAX)).unwrap(),
            nth: 100,
            key: RequestKey::parse(&"'".repeat(TEXT_ID_BYTES_MAX)).unwrap(),
            issued_at: time,
            expires_at: Some(time),
        };
        let portion = Portion {
            coupon,
            shard: ShardId::new(255).unwrap(),
            fence: Fence { epoch: Epoch::new(ID_MAX), owner: Incarnation::new(ID_MAX).unwrap() },
            entries: Entries::Issuances(Arc::from(vec![issuance; BATCH_ROWS_MAX])),
        };
        let bytes = statement(Dialect::MySql, &[portion]).unwrap().len();
        assert!(bytes < STATEMENT_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn a_text_ends_where_it_should() {
        let literal = |value| {
            let mut text = String::new();
            push_text(&mut text, value).unwrap();
            text
        };
        assert_eq!(literal("plain--key#/*\"%"), "'plain--key#/*\"%'");
        assert_eq!(literal("a'"), "_ascii x'6127'");
        assert_eq!(literal("\\"), "_ascii x'5c'");
    }
}
