//! Reading back what is stored of a batch, after a write that did not succeed.

use sqlx::SqliteConnection;

use super::load::HEAD;
use super::write::portions_json;
use crate::coupon::CouponKind;
use crate::coupon::entry::{CouponChange, CouponRun};
use crate::coupon::offer::Issuance;
use crate::coupon::rows::columns::{self as rows, issuance_columns, use_columns};
use crate::coupon::uses::Use;
use crate::store::Result;
use crate::store::batch::{FoundRows, Portion};
use crate::store::columns::integer;
use crate::store::sqlite::error::on_read;

const ROWS: &str = concat!(
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
        CouponRun::Issuances(issuances) => read_back_issuances(connection, portion, issuances).await,
        CouponRun::Uses(uses) => read_back_uses(connection, uses).await,
        CouponRun::Change(change) => read_back_change(connection, change).await,
    }
}

async fn read_back_issuances(
    connection: &mut SqliteConnection,
    portion: &Portion<CouponKind>,
    issuances: &[Issuance],
) -> Result<FoundRows> {
    let coupon = integer(portion.id.get());
    let sequence =
        |issuance: Option<&Issuance>| issuance.map_or(0, |issuance| integer(issuance.id.sequence.get()));
    let rows = sqlx::query(ROWS)
        .bind(coupon)
        .bind(sequence(issuances.first()))
        .bind(sequence(issuances.last()))
        .fetch_all(&mut *connection)
        .await
        .map_err(on_read)?;
    if !rows.is_empty() {
        // An unreadable row counts as a different row. It concerns this coupon alone, and must not hold up
        // other coupons.
        let stored = rows.iter().map(rows::issuance).collect::<Result<Vec<_>>>();
        return Ok(if stored.is_ok_and(|stored| stored == issuances) {
            FoundRows::Stored
        } else {
            FoundRows::Different
        });
    }
    let json = portions_json(std::slice::from_ref(portion))?;
    let displaced: bool = sqlx::query_scalar(HAS_OTHER_ISSUANCES)
        .bind(json)
        .bind(coupon)
        .fetch_one(connection)
        .await
        .map_err(on_read)?;
    Ok(if displaced {
        FoundRows::Different
    } else {
        FoundRows::Absent
    })
}

async fn read_back_uses(connection: &mut SqliteConnection, uses: &[Use]) -> Result<FoundRows> {
    let number = |made: Option<&Use>| made.map_or(0, |made| integer(made.number.get()));
    let stored = sqlx::query(USES)
        .bind(uses.first().map(|made| integer(made.coupon.get())))
        .bind(number(uses.first()))
        .bind(number(uses.last()))
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    if stored.is_empty() {
        return Ok(FoundRows::Absent);
    }
    let stored = stored.iter().map(rows::used).collect::<Result<Vec<_>>>();
    Ok(if stored.is_ok_and(|stored| stored == uses) {
        FoundRows::Stored
    } else {
        FoundRows::Different
    })
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
