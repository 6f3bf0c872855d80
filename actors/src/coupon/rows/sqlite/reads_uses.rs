//! The reads of uses by clients.

use sqlx::SqliteConnection;

use crate::coupon::ids::{CouponId, IssuanceId};
use crate::coupon::rows::columns::{self as rows, use_columns};
use crate::coupon::uses::{Use, UseNumber};
use crate::store::Result;
use crate::store::columns::{integer, number};
use crate::store::sqlite::error::on_read;

const LAST: &str = "SELECT use_sequence FROM uses WHERE coupon_id = ?1 ORDER BY use_sequence DESC LIMIT 1";

const OF_ISSUANCE: &str = concat!(
    "SELECT ",
    use_columns!(),
    " FROM uses WHERE coupon_id = ?1 AND sequence = ?2 AND use_sequence > ?3 ORDER BY use_sequence LIMIT ?4"
);

/// Returns a page of the uses of an issuance.
pub(super) async fn of_issuance(
    connection: &mut SqliteConnection,
    id: IssuanceId,
    after: UseNumber,
    limit: u32,
) -> Result<Vec<Use>> {
    let found = sqlx::query(OF_ISSUANCE)
        .bind(integer(id.coupon.get()))
        .bind(integer(id.sequence.get()))
        .bind(integer(after.get()))
        .bind(limit)
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    found.iter().map(rows::used).collect()
}

/// Returns the number of a coupon's last use.
pub(super) async fn last(connection: &mut SqliteConnection, coupon: CouponId) -> Result<UseNumber> {
    let found = sqlx::query(LAST)
        .bind(integer(coupon.get()))
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    let Some(row) = found else {
        return Ok(UseNumber::NONE);
    };
    Ok(UseNumber::new(number(&row, "use_sequence")?))
}
