//! Reading an owner's million issuances: by pages that SQLite joins into one text each, as a row at a time
//! costs a hand-over between threads.

use sqlx::{Row, SqliteConnection};

use super::columns::{integer, readable};
use crate::coupon::offer::Coupon;
use crate::ids::{CouponId, Sequence};
use crate::store::sqlite::error::on_read;
use crate::store::{LoadSink, LoadedIssuance, Result, StoreError};
use crate::time::Timestamp;

/// Rows a page: about 300 KiB of text, and so short a read that it never keeps the log from being moved.
const PAGE_ROWS: u32 = 2_000;

/// A line a row; user ids and keys hold neither spaces nor line ends.
const PAGE: &str = "
SELECT count(*) AS row_count, group_concat(line, char(10)) AS lines
  FROM (SELECT concat_ws(' ', sequence, nth, issued_at, coalesce(expires_at, '-'), user_id, request_key) AS line
          FROM issuances
         WHERE coupon_id = ?1 AND sequence > ?2
         ORDER BY sequence
         LIMIT ?3)";

/// The coupon itself, read before its issuances.
pub(crate) async fn coupon(connection: &mut SqliteConnection, id: CouponId) -> Result<Option<Coupon>> {
    Ok(super::reads::coupon(connection, id)
        .await?
        .map(|view| view.coupon))
}

/// The rows of one page.
pub(crate) struct Page {
    row_count: u32,
    lines: String,
}

/// Reads the page after a sequence.
pub(crate) async fn page(
    connection: &mut SqliteConnection,
    coupon: CouponId,
    after: Sequence,
) -> Result<Page> {
    let row = sqlx::query(PAGE)
        .bind(integer(coupon.get()))
        .bind(integer(after.get()))
        .bind(PAGE_ROWS)
        .fetch_one(connection)
        .await
        .map_err(on_read)?;
    let lines: Option<String> = row.try_get("lines").map_err(on_read)?;
    Ok(Page {
        row_count: row.try_get("row_count").map_err(on_read)?,
        lines: lines.unwrap_or_default(),
    })
}

impl Page {
    /// Hands the rows on; where the next page begins, if there may be one.
    pub(crate) fn feed(&self, after: Sequence, issuances: LoadSink<'_>) -> Result<Option<Sequence>> {
        let mut last = after;
        for line in self.lines.lines() {
            let issuance = readable(parse(line), "issuances")?;
            // That SQLite joins the lines in the order in which it read them is its habit, not its promise.
            if issuance.sequence <= last {
                return Err(StoreError::Unreadable(format!(
                    "issuances came out of order after {last}"
                )));
            }
            last = issuance.sequence;
            issuances(issuance)?;
        }
        Ok((self.row_count == PAGE_ROWS).then_some(last))
    }
}

fn parse(line: &str) -> Option<LoadedIssuance<'_>> {
    let mut fields = line.split(' ');
    let mut next = || fields.next();
    let issuance = LoadedIssuance {
        sequence: Sequence::new(next()?.parse().ok()?),
        nth: next()?.parse().ok()?,
        issued_at: Timestamp::from_micros(next()?.parse().ok()?)?,
        expires_at: match next()? {
            "-" => None,
            micros => Some(Timestamp::from_micros(micros.parse().ok()?)?),
        },
        user: next()?,
        key: next()?,
    };
    fields.next().is_none().then_some(issuance)
}
