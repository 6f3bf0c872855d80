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

/// Opens the statement of a batch. A server takes most of a microsecond for each value that it reads, so what rows share is said once where that can be.
const INSERT: &str = "INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at) WITH v (";

/// What every row of it has of its own: sequence, user, key, issued at.
const OWN_COLUMNS: &str = "q, u, k, t";

/// The shard first, and locked, as in [`push_many`].
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

    let portions: Vec<_> = portions.iter().map(|portion| Ok((portion, issuances_of(portion)?))).collect::<Result<_>>()?;
    let rows: usize = portions.iter().map(|(_, issuances)| issuances.len()).sum();
    let mut text = String::with_capacity(INSERT.len() + 512 + rows * ROW_BYTES);
    text.push_str(INSERT);
    let pushed = match portions.as_slice() {
        [(portion, issuances)] => push_one(&mut text, dialect, portion, issuances),
        portions => push_many(&mut text, dialect, portions),
    };
    pushed.map_err(|error| StoreError::Unreadable(error.to_string()))?;
    Ok(text)
}

fn issuances_of(portion: &Portion) -> Result<&[Issuance]> {
    match &portion.entries {
        Entries::Issuances(issuances) => Ok(issuances),
        Entries::Change(_) => Err(StoreError::Unreadable("a batch holds a change beside something else".to_owned())),
    }
}

/// What all rows of a portion are held against: its last sequence and its highest nth.
fn limits(issuances: &[Issuance]) -> (u64, u8) {
    let last = issuances.iter().map(|issuance| issuance.id.sequence.get()).max().unwrap_or(0);
    (last, issuances.iter().map(|issuance| issuance.nth).max().unwrap_or(0))
}

/// Whether all are first issuances to their users, without an end of use, as nearly all are.
fn are_plain(issuances: &[Issuance]) -> bool {
    issuances.iter().all(|issuance| issuance.nth == 1 && issuance.expires_at.is_none())
}

/// One coupon, as when everybody wants the same. Order and access by key are fixed as in [`push_many`].
fn push_one(text: &mut String, dialect: Dialect, portion: &Portion, issuances: &[Issuance]) -> std::fmt::Result {
    let is_plain = are_plain(issuances);
    let (columns, nth, expires_at) = if is_plain { ("", "1", "NULL") } else { (", n, x", "v.n", "v.x") };
    write!(text, "{OWN_COLUMNS}{columns}) AS (VALUES ")?;
    for (index, issuance) in issuances.iter().enumerate() {
        text.push_str(if index > 0 { "," } else { "" });
        write!(text, "{}(", dialect.row())?;
        push_issuance(text, issuance)?;
        if !is_plain {
            push_rest(text, issuance)?;
        }
        text.push(')');
    }
    let (Fence { epoch, owner }, (last, nth_max)) = (portion.fence, limits(issuances));
    let (coupon, shard, owner) = (portion.coupon, portion.shard, owner.get());
    write!(
        text,
        ")
SELECT c.id, v.q, v.u, {nth}, v.k, v.t, {expires_at}
  FROM shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
    ON c.id = {coupon} AND (c.total_quantity IS NULL OR {last} <= c.total_quantity) AND {nth_max} <= c.per_user_limit
  STRAIGHT_JOIN v
 WHERE s.shard_id = {shard} AND s.epoch = {epoch} AND s.owner = {owner}"
    )
}

/// Several coupons: each row bears shard, epoch, coupon and the coupon's last sequence in this batch; owner, nth, expires at and the coupon's highest nth
/// only where they are not the same for all.
///
/// `STRAIGHT_JOIN` keeps the order and `FORCE INDEX` the access by key (over few rows MariaDB would rather read a whole table), so that just the rows of
/// `shards` and `coupons` that are named here are read, and locked until the commit: who wants one of these shards waits for this batch, and nobody else does.
fn push_many(text: &mut String, dialect: Dialect, portions: &[(&Portion, &[Issuance])]) -> std::fmt::Result {
    let is_plain = portions.iter().all(|(_, issuances)| are_plain(issuances));
    let owner = portions.first().map(|(portion, _)| portion.fence.owner);
    let owner = owner.filter(|owner| portions.iter().all(|(portion, _)| portion.fence.owner == *owner));
    text.push_str(OWN_COLUMNS);
    text.push_str(", s, e, c, l");
    text.push_str(if owner.is_none() { ", o" } else { "" });
    text.push_str(if is_plain { ") AS (VALUES " } else { ", n, x, h) AS (VALUES " });
    for (index, (portion, issuances)) in portions.iter().enumerate() {
        let (Fence { epoch, owner: own }, (last, nth_max)) = (portion.fence, limits(issuances));
        for (row, issuance) in issuances.iter().enumerate() {
            text.push_str(if index + row > 0 { "," } else { "" });
            write!(text, "{}(", dialect.row())?;
            push_issuance(text, issuance)?;
            write!(text, ",{},{epoch},{},{last}", portion.shard, portion.coupon)?;
            if owner.is_none() {
                write!(text, ",{}", own.get())?;
            }
            if !is_plain {
                push_rest(text, issuance)?;
                write!(text, ",{nth_max}")?;
            }
            text.push(')');
        }
    }
    let owner = owner.map_or_else(|| "v.o".to_owned(), |owner| owner.get().to_string());
    let (nth, expires_at, nth_max) = if is_plain { ("1", "NULL", "1") } else { ("v.n", "v.x", "v.h") };
    write!(
        text,
        ")
SELECT v.c, v.q, v.u, {nth}, v.k, v.t, {expires_at}
  FROM v
  STRAIGHT_JOIN shards AS s FORCE INDEX (PRIMARY) ON s.shard_id = v.s AND s.epoch = v.e AND s.owner = {owner}
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
    ON c.id = v.c AND (c.total_quantity IS NULL OR v.l <= c.total_quantity) AND {nth_max} <= c.per_user_limit"
    )
}

/// Sequence, user, key, issued at.
fn push_issuance(text: &mut String, issuance: &Issuance) -> std::fmt::Result {
    write!(text, "{},'{}',", issuance.id.sequence, issuance.user)?;
    push_text(text, issuance.key.as_str())?;
    write!(text, ",{}", issuance.issued_at.as_micros())
}

/// nth, expires at.
fn push_rest(text: &mut String, issuance: &Issuance) -> std::fmt::Result {
    match issuance.expires_at {
        Some(expires_at) => write!(text, ",{},{}", issuance.nth, expires_at.as_micros()),
        None => write!(text, ",{},NULL", issuance.nth),
    }
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
        let of_rows = |rows| Portion {
            coupon,
            shard: ShardId::new(255).unwrap(),
            fence: Fence { epoch: Epoch::new(ID_MAX), owner: Incarnation::new(ID_MAX).unwrap() },
            entries: Entries::Issuances(Arc::from(vec![issuance.clone(); rows])),
        };
        for portions in [vec![of_rows(BATCH_ROWS_MAX)], vec![of_rows(1); BATCH_ROWS_MAX]] {
            let bytes = statement(Dialect::MySql, &portions).unwrap().len();
            assert!(bytes < STATEMENT_BYTES_MAX, "{bytes}");
        }
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
