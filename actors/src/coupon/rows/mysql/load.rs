//! Loading a coupon and, in pages, its issuances. There may be a million of them.

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issued::LoadedIssuance;
use crate::coupon::ledger::CouponHead;
use crate::coupon::rows::columns::{self as rows, coupon_columns, head_columns};
use crate::coupon::tail::Tail;
use crate::store::columns::{integer, readable};
use crate::store::mysql::error::on_read;
use crate::store::{Result, StoreError};
use crate::time::Timestamp;

/// Number of rows in a page: about a megabyte, for which a connection takes a few milliseconds.
const PAGE_ROWS: u32 = 8_000;

/// [`issuance`] reads these columns by their positions.
const PAGE: &str = "
SELECT sequence, user_id, nth, request_key, issued_at, expires_at
  FROM issuances
 WHERE coupon_id = ? AND sequence > ?
 ORDER BY sequence
 LIMIT ?";

/// The coupon's own row, with what only its owner needs.
pub(crate) const HEAD: &str = concat!("SELECT ", head_columns!(), " FROM coupons AS c WHERE c.id = ?");

/// Reads the coupon's own row.
pub(crate) async fn head(connection: &mut MySqlConnection, id: CouponId) -> Result<Option<CouponHead>> {
    let row = sqlx::query(HEAD)
        .bind(integer(id.get()))
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    row.as_ref().map(rows::head).transpose()
}

/// The rows of one page, not decoded yet.
pub struct Page {
    rows: Vec<MySqlRow>,
    /// The sequence after which the next page begins, if there may be one.
    pub(crate) next: Option<Sequence>,
}

/// Reads the page after a sequence.
pub(crate) async fn page(
    connection: &mut MySqlConnection,
    coupon: CouponId,
    after: Sequence,
) -> Result<Page> {
    let query = sqlx::query(PAGE)
        .bind(integer(coupon.get()))
        .bind(integer(after.get()))
        .bind(PAGE_ROWS);
    let rows = query.fetch_all(connection).await.map_err(on_read)?;
    let next = match rows.last() {
        Some(last) if rows.len() == PAGE_ROWS as usize => Some(issuance(last)?.sequence),
        _ => None,
    };
    Ok(Page { rows, next })
}

impl Page {
    /// Hands the rows to the tail.
    pub(crate) fn feed(&self, tail: &mut Tail) -> Result<()> {
        let coupon = tail.coupon();
        self.rows.iter().try_for_each(|row| {
            let unreadable = |error| StoreError::Unreadable(format!("coupon {coupon}: {error}"));
            tail.take(&issuance(row)?).map_err(unreadable)
        })
    }
}

fn issuance(row: &MySqlRow) -> Result<LoadedIssuance<'_>> {
    let time = |micros| readable(Timestamp::from_micros(micros), "issuances");
    let number = |place: usize| -> Result<i64> { row.try_get(place).map_err(on_read) };
    Ok(LoadedIssuance {
        sequence: Sequence::new(readable(u64::try_from(number(0)?).ok(), "sequence")?),
        user: row.try_get(1).map_err(on_read)?,
        nth: readable(u32::try_from(number(2)?).ok(), "nth")?,
        key: row.try_get(3).map_err(on_read)?,
        issued_at: time(number(4)?)?,
        expires_at: row
            .try_get::<Option<i64>, _>(5)
            .map_err(on_read)?
            .map(time)
            .transpose()?,
    })
}
