//! The reads of uses by clients.

use std::collections::HashMap;

use sqlx::SqliteConnection;

use crate::coupon::ids::IssuanceId;
use crate::coupon::rows::columns::{self as rows, use_columns};
use crate::coupon::uses::{LatestUse, Use, UseNumber};
use crate::store::Result;
use crate::store::columns::integer;
use crate::store::sqlite::error::on_read;

/// `?1` is an array of `[coupon, sequence]`.
const LATEST: &str = "
SELECT u.* FROM json_each(?1) AS v CROSS JOIN uses AS u
    ON u.coupon_id = v.value ->> 0 AND u.use_sequence = (
       SELECT max(n.use_sequence) FROM uses AS n
        WHERE n.coupon_id = v.value ->> 0 AND n.sequence = v.value ->> 1)";

const OF_ISSUANCE: &str = concat!(
    "SELECT ",
    use_columns!(),
    " FROM uses WHERE coupon_id = ?1 AND sequence = ?2 AND use_sequence > ?3 ORDER BY use_sequence LIMIT ?4"
);

/// Returns the latest uses of those of these issuances that were used.
pub(super) async fn latest(
    connection: &mut SqliteConnection,
    issuances: &[IssuanceId],
) -> Result<HashMap<IssuanceId, LatestUse>> {
    let places: Vec<_> = issuances
        .iter()
        .map(|id| format!("[{},{}]", id.coupon, id.sequence))
        .collect();
    let found = sqlx::query(LATEST)
        .bind(format!("[{}]", places.join(",")))
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    found.iter().map(rows::latest_use).collect()
}

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
