//! Loading a coupon and, in pages, its issuances and their uses. There may be a million of them.

use std::fmt::Display;

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issued::LoadedIssuance;
use crate::coupon::ledger::CouponHead;
use crate::coupon::offer::NTH_BEYOND_LIMITS;
use crate::coupon::rows::columns::{self as rows, coupon_columns, head_columns};
use crate::coupon::tail::{Tail, TailCursor};
use crate::coupon::uses::latest::LoadedUse;
use crate::coupon::uses::{Figures, UseKind, UseNumber};
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

/// [`used`] reads these columns by their positions.
const USES_PAGE: &str = "
SELECT use_sequence, sequence, kind, order_id, order_amount, discount, hold_until, returns, used_at
  FROM uses
 WHERE coupon_id = ? AND use_sequence > ?
 ORDER BY use_sequence
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

/// The rows of one page, not decoded yet: of issuances, or of uses.
pub struct Page {
    rows: Vec<MySqlRow>,
    is_of_uses: bool,
    /// Where the next page begins, if there may be one.
    pub(crate) next: Option<TailCursor>,
}

/// Reads the page at a place.
pub(crate) async fn page(
    connection: &mut MySqlConnection,
    coupon: CouponId,
    from: TailCursor,
) -> Result<Page> {
    let (statement, after) = match from.issuances_after {
        Some(after) => (PAGE, after.get()),
        None => (USES_PAGE, from.uses_after.get()),
    };
    let query = sqlx::query(statement)
        .bind(integer(coupon.get()))
        .bind(integer(after))
        .bind(PAGE_ROWS);
    let rows = query.fetch_all(connection).await.map_err(on_read)?;
    let last = rows.last().filter(|_| rows.len() == PAGE_ROWS as usize);
    let next = match (from.issuances_after, last) {
        (Some(_), last) => Some(TailCursor {
            issuances_after: last.map(issuance).transpose()?.map(|last| last.sequence),
            ..from
        }),
        (None, Some(last)) => Some(TailCursor {
            uses_after: used(last)?.number,
            ..from
        }),
        (None, None) => None,
    };
    Ok(Page {
        rows,
        is_of_uses: from.issuances_after.is_none(),
        next,
    })
}

impl Page {
    /// Hands the rows to the tail.
    pub(crate) fn feed(&self, tail: &mut Tail) -> Result<()> {
        let coupon = tail.coupon();
        let unreadable = |error: &dyn Display| StoreError::Unreadable(format!("coupon {coupon}: {error}"));
        self.rows.iter().try_for_each(|row| {
            if self.is_of_uses {
                tail.take_use(&used(row)?).map_err(|error| unreadable(&error))
            } else {
                tail.take(&issuance(row)?).map_err(|error| unreadable(&error))
            }
        })
    }
}

fn used(row: &MySqlRow) -> Result<LoadedUse<'_>> {
    let number = |place: usize| -> Result<u64> {
        let number: i64 = row.try_get(place).map_err(on_read)?;
        readable(u64::try_from(number).ok(), "uses")
    };
    let maybe = |place: usize| -> Result<Option<i64>> { row.try_get(place).map_err(on_read) };
    let amount = |place: usize| -> Result<Option<u64>> {
        let amount = maybe(place)?.map(u64::try_from).transpose();
        readable(amount.ok(), "uses")
    };
    let time = |micros| readable(Timestamp::from_micros(micros), "uses");
    Ok(LoadedUse {
        number: UseNumber::new(number(0)?),
        sequence: Sequence::new(number(1)?),
        kind: readable(UseKind::parse(row.try_get(2).map_err(on_read)?), "kind")?,
        order: row.try_get(3).map_err(on_read)?,
        figures: amount(4)?
            .zip(amount(5)?)
            .map(|(amount, discount)| Figures { amount, discount }),
        hold_until: maybe(6)?.map(time).transpose()?,
        returns: number(7)? != 0,
        at: time(maybe(8)?.unwrap_or(i64::MIN))?,
    })
}

fn issuance(row: &MySqlRow) -> Result<LoadedIssuance<'_>> {
    let time = |micros| readable(Timestamp::from_micros(micros), "issuances");
    let number = |place: usize| -> Result<i64> { row.try_get(place).map_err(on_read) };
    Ok(LoadedIssuance {
        sequence: Sequence::new(readable(u64::try_from(number(0)?).ok(), "sequence")?),
        user: row.try_get(1).map_err(on_read)?,
        nth: match row.try_get::<Option<i64>, _>(2).map_err(on_read)? {
            Some(nth) => readable(u32::try_from(nth).ok(), "nth")?,
            None => NTH_BEYOND_LIMITS,
        },
        key: row.try_get(3).map_err(on_read)?,
        issued_at: time(number(4)?)?,
        expires_at: row
            .try_get::<Option<i64>, _>(5)
            .map_err(on_read)?
            .map(time)
            .transpose()?,
    })
}
