//! Statistics of a coupon.

use sqlx::MySqlConnection;

use crate::coupon::rows::statistics::{Statistics, StatisticsQuery, StatisticsRange, use_statistics_columns};
use crate::store::Result;
use crate::store::columns::integer;
use crate::store::mysql::error::on_read;

/// The hints are as in `reads.rs`.
const LAST: &str = "
SELECT COALESCE((SELECT i.sequence FROM issuances AS i FORCE INDEX FOR ORDER BY (PRIMARY)
                  WHERE i.coupon_id = c.id ORDER BY i.coupon_id DESC, i.sequence DESC LIMIT 1), 0) AS issued,
       COALESCE((SELECT u.use_sequence FROM uses AS u FORCE INDEX FOR ORDER BY (PRIMARY)
                  WHERE u.coupon_id = c.id ORDER BY u.coupon_id DESC, u.use_sequence DESC LIMIT 1), 0) AS used
  FROM coupons AS c WHERE c.id = ?";

const ISSUANCES: &str = "
SELECT issued_at DIV ? AS bucket, COUNT(*) AS number FROM issuances FORCE INDEX (PRIMARY)
 WHERE coupon_id = ? AND sequence > ? AND sequence <= ? AND issued_at >= ? AND issued_at < ?
 GROUP BY bucket";

const USES: &str = concat!(
    "SELECT used_at DIV ? AS bucket, ",
    use_statistics_columns!("SIGNED"),
    " FROM uses FORCE INDEX (PRIMARY)
 WHERE coupon_id = ? AND use_sequence > ? AND use_sequence <= ? AND used_at >= ? AND used_at < ?
 GROUP BY bucket, kind"
);

/// Takes one step of a computation; `None` if the coupon does not exist.
pub(crate) async fn statistics(
    connection: &mut MySqlConnection,
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
