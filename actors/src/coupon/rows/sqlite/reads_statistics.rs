//! Statistics of a coupon.

use sqlx::SqliteConnection;

use crate::coupon::rows::statistics::{Statistics, StatisticsQuery, StatisticsRange, use_statistics_columns};
use crate::store::Result;
use crate::store::columns::integer;
use crate::store::sqlite::error::on_read;

const LAST: &str = "
SELECT coalesce((SELECT max(sequence) FROM issuances WHERE coupon_id = c.id), 0) AS issued,
       coalesce((SELECT max(use_sequence) FROM uses WHERE coupon_id = c.id), 0) AS used
  FROM coupons AS c WHERE c.id = ?1";

const ISSUANCES: &str = "
SELECT issued_at / ?1 AS bucket, COUNT(*) AS number FROM issuances
 WHERE coupon_id = ?2 AND sequence > ?3 AND sequence <= ?4 AND issued_at >= ?5 AND issued_at < ?6
 GROUP BY 1";

const USES: &str = concat!(
    "SELECT used_at / ?1 AS bucket, ",
    use_statistics_columns!("INTEGER"),
    " FROM uses
 WHERE coupon_id = ?2 AND use_sequence > ?3 AND use_sequence <= ?4 AND used_at >= ?5 AND used_at < ?6
 GROUP BY 1, kind"
);

/// Takes one step of a computation; `None` if the coupon does not exist.
pub(crate) async fn statistics(
    connection: &mut SqliteConnection,
    query: &StatisticsQuery,
    mut so_far: Statistics,
) -> Result<Option<Statistics>> {
    let coupon = integer(query.coupon.get());
    let last = sqlx::query(LAST).bind(coupon).fetch_optional(&mut *connection);
    let Some(last) = last.await.map_err(on_read)? else {
        return Ok(None);
    };
    let Some(range) = so_far.next(&last)? else {
        return Ok(Some(so_far));
    };
    let (statement, (after, up_to)) = match range {
        StatisticsRange::Issuances(after, up_to) => (ISSUANCES, (after, up_to)),
        StatisticsRange::Uses(after, up_to) => (USES, (after, up_to)),
    };
    let (from, to) = query.times();
    let rows = sqlx::query(statement)
        .bind(query.bucket_micros)
        .bind(coupon)
        .bind(integer(after))
        .bind(integer(up_to))
        .bind(from)
        .bind(to)
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    so_far.add(range, &rows)?;
    Ok(Some(so_far))
}
