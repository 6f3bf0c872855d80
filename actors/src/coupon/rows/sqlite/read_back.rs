//! Reading back what is stored of a batch, after a write that did not succeed.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::load::HEAD;
use super::write::portions_json;
use crate::coupon::CouponKind;
use crate::coupon::entry::{CouponChange, CouponRun};
use crate::coupon::ids::CouponId;
use crate::coupon::rows::columns::{self as rows, issuance_columns, use_columns};
use crate::store::Result;
use crate::store::batch::{FoundRows, Portion};
use crate::store::columns::integer;
use crate::store::sqlite::error::on_read;

const ISSUANCES: &str = concat!(
    "SELECT ",
    issuance_columns!(),
    " FROM issuances WHERE coupon_id = ?1 AND sequence BETWEEN ?2 AND ?3 ORDER BY sequence"
);

const USES: &str = concat!(
    "SELECT ",
    use_columns!(),
    " FROM uses WHERE coupon_id = ?1 AND use_sequence BETWEEN ?2 AND ?3 ORDER BY use_sequence"
);

/// `?1` is the [`portions_json`] of one portion.
const HAS_OTHER_ISSUANCES: &str = "
SELECT EXISTS (
    SELECT 1
      FROM jsonb_each(?1, '$[0][6]') AS row
     CROSS JOIN issuances AS i
        ON i.user_id = row.value ->> 1 AND i.coupon_id = ?2 AND i.nth = row.value ->> 2)";

/// Returns what is stored of a portion.
pub(crate) async fn read_back(
    connection: &mut SqliteConnection,
    portion: &Portion<CouponKind>,
) -> Result<FoundRows> {
    match &portion.run {
        CouponRun::Issuances(sent) => {
            let numbers = numbers(sent, |issuance| issuance.id.sequence.get());
            match stored(connection, ISSUANCES, portion.id, numbers, rows::issuance).await? {
                None if is_displaced(connection, portion).await? => Ok(FoundRows::Different),
                stored => Ok(FoundRows::of(stored, sent)),
            }
        }
        CouponRun::Uses(sent) => {
            let numbers = numbers(sent, |made| made.number.get());
            let stored = stored(connection, USES, portion.id, numbers, rows::used).await?;
            Ok(FoundRows::of(stored, sent))
        }
        CouponRun::Change(change) => read_back_change(connection, change).await,
    }
}

/// Returns the numbers of the first and the last of these rows.
fn numbers<T>(sent: &[T], number: impl Fn(&T) -> u64) -> (i64, i64) {
    let number = |row: Option<&T>| row.map_or(0, |row| integer(number(row)));
    (number(sent.first()), number(sent.last()))
}

/// Returns the rows that are stored with these numbers; `None` if there are none.
async fn stored<T>(
    connection: &mut SqliteConnection,
    statement: &'static str,
    coupon: CouponId,
    (first, last): (i64, i64),
    read: fn(&SqliteRow) -> Result<T>,
) -> Result<Option<Vec<Result<T>>>> {
    let rows = sqlx::query(statement)
        .bind(integer(coupon.get()))
        .bind(first)
        .bind(last)
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    Ok((!rows.is_empty()).then(|| rows.iter().map(read).collect()))
}

/// Returns true if a stored issuance has the same user and `nth` as one of this portion.
async fn is_displaced(connection: &mut SqliteConnection, portion: &Portion<CouponKind>) -> Result<bool> {
    sqlx::query_scalar(HAS_OTHER_ISSUANCES)
        .bind(portions_json(std::slice::from_ref(portion))?)
        .bind(integer(portion.id.get()))
        .fetch_one(connection)
        .await
        .map_err(on_read)
}

async fn read_back_change(connection: &mut SqliteConnection, change: &CouponChange) -> Result<FoundRows> {
    let row = sqlx::query(HEAD)
        .bind(integer(change.coupon.id.get()))
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    let Some(Ok(stored)) = row.as_ref().map(rows::head) else {
        return Ok(FoundRows::Different);
    };
    Ok(change.found_in(&stored))
}
