//! Loads a coupon and, in pages, its issuances. There may be a million issuances. SQLite joins each page into
//! one text, because returning each row by itself costs a switch between threads.

use sqlx::{Row, SqliteConnection};

use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issued::LoadedIssuance;
use crate::coupon::ledger::CouponHead;
use crate::coupon::rows::columns::{self as rows, coupon_columns, head_columns};
use crate::coupon::tail::Tail;
use crate::store::columns::{integer, readable};
use crate::store::sqlite::error::on_read;
use crate::store::{Result, StoreError};
use crate::time::Timestamp;

/// Number of rows in a page: about 300 KiB of text. Reading them is short enough not to delay checkpoints.
const PAGE_ROWS: u32 = 2_000;

/// One line for each row. User ids and keys contain neither spaces nor line breaks.
const PAGE: &str = "
SELECT count(*) AS row_count, group_concat(line, char(10)) AS lines
  FROM (SELECT concat_ws(' ', sequence, nth, issued_at, coalesce(expires_at, '-'), user_id, request_key)
               AS line
          FROM issuances
         WHERE coupon_id = ?1 AND sequence > ?2
         ORDER BY sequence
         LIMIT ?3)";

/// The coupon's own row, with what only its owner needs.
pub(crate) const HEAD: &str = concat!("SELECT ", head_columns!(), " FROM coupons AS c WHERE c.id = ?1");

/// Reads the coupon's own row.
pub(crate) async fn head(connection: &mut SqliteConnection, id: CouponId) -> Result<Option<CouponHead>> {
    let row = sqlx::query(HEAD)
        .bind(integer(id.get()))
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    row.as_ref().map(rows::head).transpose()
}

/// The rows of one page.
pub struct Page {
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
    /// Hands the rows to the tail. If there may be another page, returns the sequence after which it begins.
    pub(crate) fn feed(&self, tail: &mut Tail) -> Result<Option<Sequence>> {
        let coupon = tail.coupon();
        let unreadable = |error| StoreError::Unreadable(format!("coupon {coupon}: {error}"));
        let mut last = Sequence::NONE;
        for line in self.lines.lines() {
            let issuance = readable(parse(line), "issuances")?;
            // SQLite does not promise to join the lines in the order in which it read them.
            if issuance.sequence <= last {
                let why = format!("issuances came out of order after {last}");
                return Err(StoreError::Unreadable(why));
            }
            last = issuance.sequence;
            tail.take(&issuance).map_err(unreadable)?;
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
