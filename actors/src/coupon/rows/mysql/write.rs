//! Storing a batch: one guarded autocommit statement, so that no lock is held for longer than a round trip,
//! and a lost connection does not leave a transaction open.

use sqlx::{AssertSqlSafe, MySqlConnection};

use crate::coupon::entry::CouponChange;
use crate::coupon::rows::columns::{discount_columns, metadata_column};
use crate::ids::{Fence, ShardId};
use crate::store::Result;
use crate::store::columns::integer;
use crate::store::mysql::error::on_write;

/// The shard's row is read first and is locked, as in `insert.rs`.
const UPDATE: &str = "
UPDATE shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY) ON c.id = ?
   SET c.title = ?, c.description = ?, c.metadata = ?, c.discount_kind = ?, c.discount_value = ?,
       c.max_discount = ?, c.min_order_amount = ?, c.total_quantity = ?, c.starts_at = ?, c.ends_at = ?,
       c.use_within_days = ?, c.use_until = ?, c.time_zone = ?, c.status = ?, c.version = ?, c.updated_at = ?,
       c.change_keys = ?
 WHERE s.shard_id = ? AND s.epoch = ? AND s.owner = ?
   AND c.version = ?
   AND (? IS NULL
        OR ? + ? >= GREATEST(?, COALESCE((SELECT MAX(sequence) FROM issuances WHERE coupon_id = ?), 0)))
   AND ? = COALESCE((SELECT u.returned FROM uses AS u FORCE INDEX FOR ORDER BY (PRIMARY)
                      WHERE u.coupon_id = ? ORDER BY u.coupon_id DESC, u.use_sequence DESC LIMIT 1), 0)";

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
    let stored = sqlx::query(UPDATE)
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
        .bind(coupon.updated_at.as_micros())
        .bind(change.keys.column())
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
    Ok(stored.rows_affected())
}
