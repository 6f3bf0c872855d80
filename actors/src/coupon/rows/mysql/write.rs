//! Storing a batch: guarded autocommit statements, so that no lock is held for longer than a round trip, and
//! a lost connection does not leave a transaction open. A batch is one statement; before a change that makes
//! a version, another one reserves its row of the audit log.

use sqlx::{AssertSqlSafe, MySqlConnection};

use crate::coupon::entry::CouponChange;
use crate::coupon::rows::columns::{discount_columns, metadata_column, record_columns};
use crate::ids::{Fence, ShardId};
use crate::store::Result;
use crate::store::columns::integer;
use crate::store::mysql::error::on_write;

/// The statement that stores a change. The shard's row is read first and is locked, as in `insert.rs`.
/// `$join`, `$set` and `$guard` are what a change that makes a version adds to each part.
macro_rules! update {
    ($join:literal, $set:literal, $guard:literal) => {
        concat!(
            "
UPDATE shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY) ON c.id = ?",
            $join,
            "
   SET c.title = ?, c.description = ?, c.metadata = ?, c.discount_kind = ?, c.discount_value = ?,
       c.max_discount = ?, c.min_order_amount = ?, c.total_quantity = ?, c.starts_at = ?, c.ends_at = ?,
       c.use_within_days = ?, c.use_until = ?, c.time_zone = ?, c.status = ?, c.version = ?, c.updated_at = ?,
       c.change_keys = ?",
            $set,
            "
 WHERE s.shard_id = ? AND s.epoch = ? AND s.owner = ?
   AND c.version = ?
   AND (? IS NULL
        OR ? + ? >= GREATEST(?, COALESCE((SELECT MAX(sequence) FROM issuances WHERE coupon_id = ?), 0)))
   AND ? = COALESCE((SELECT u.returned FROM uses AS u FORCE INDEX FOR ORDER BY (PRIMARY)
                      WHERE u.coupon_id = ? ORDER BY u.coupon_id DESC, u.use_sequence DESC LIMIT 1), 0)",
            $guard
        )
    };
}

/// Stores a change that only adds a key.
const UPDATE: &str = update!("", "", "");

/// Stores a change that makes a version, and fills the row of the audit log that [`RESERVE`] made, in one
/// statement.
const UPDATE_AND_RECORD: &str = update!(
    "
  STRAIGHT_JOIN coupon_changes AS h FORCE INDEX (PRIMARY) ON h.coupon_id = c.id AND h.version = c.version + 1",
    ", h.changed_at = ?, h.author = ?, h.asked = ?",
    " AND h.changed_at IS NULL"
);

/// Makes the empty row of the audit log for the next version, because an `UPDATE` cannot add a row. An empty
/// row is no change, and making it again does nothing.
const RESERVE: &str = "
INSERT INTO coupon_changes (coupon_id, version)
SELECT c.id, c.version + 1
  FROM shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY) ON c.id = ?
 WHERE s.shard_id = ? AND s.epoch = ? AND s.owner = ? AND c.version = ?
ON DUPLICATE KEY UPDATE coupon_id = coupon_changes.coupon_id";

/// Executes a statement that stores issuances or uses. Returns how many rows it stored.
pub(crate) async fn execute(connection: &mut MySqlConnection, statement: String) -> Result<u64> {
    let stored = sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok(stored.rows_affected())
}

/// Stores a change. Returns 1 if its guards hold, and 0 if they do not.
pub(crate) async fn change(
    connection: &mut MySqlConnection,
    shard: ShardId,
    fence: Fence,
    change: &CouponChange,
) -> Result<u64> {
    let (coupon, offer) = (&change.coupon, &change.coupon.offer);
    let (kind, value) = discount_columns(offer.discount);
    let (id, quantity) = (integer(coupon.id.get()), offer.total_quantity.map(integer));
    let updated_at = coupon.updated_at.as_micros();
    let is_version = change.makes_version();
    if is_version {
        reserve(connection, shard, fence, change).await?;
    }
    let mut update = sqlx::query(if is_version { UPDATE_AND_RECORD } else { UPDATE })
        .bind(id)
        .bind(&offer.title)
        .bind(&offer.description)
        .bind(metadata_column(&offer.metadata))
        .bind(kind)
        .bind(value)
        .bind(offer.max_discount.map(integer))
        .bind(offer.min_order_amount.map(integer))
        .bind(quantity)
        .bind(offer.starts_at.map(|time| time.as_micros()))
        .bind(offer.ends_at.map(|time| time.as_micros()))
        .bind(offer.use_within_days)
        .bind(offer.use_until.map(|time| time.as_micros()))
        .bind(&offer.time_zone)
        .bind(coupon.status.as_str())
        .bind(integer(coupon.version))
        .bind(updated_at)
        .bind(change.keys.column());
    if is_version {
        let (author, asked) = record_columns(change.record.as_ref());
        update = update.bind(updated_at).bind(author).bind(asked);
    }
    let stored = update
        .bind(shard.get())
        .bind(integer(fence.epoch.get()))
        .bind(integer(fence.owner.get()))
        .bind(integer(change.from_version))
        .bind(quantity)
        .bind(quantity)
        .bind(integer(change.returned))
        .bind(integer(change.issued.get()))
        .bind(id)
        .bind(integer(change.returned))
        .bind(id)
        .execute(connection)
        .await
        .map_err(on_write)?;
    // The row of the audit log counts as well.
    Ok(stored.rows_affected().min(1))
}

async fn reserve(
    connection: &mut MySqlConnection,
    shard: ShardId,
    fence: Fence,
    change: &CouponChange,
) -> Result<()> {
    sqlx::query(RESERVE)
        .bind(integer(change.coupon.id.get()))
        .bind(shard.get())
        .bind(integer(fence.epoch.get()))
        .bind(integer(fence.owner.get()))
        .bind(integer(change.from_version))
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok(())
}
