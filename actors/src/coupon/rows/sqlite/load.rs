//! Loads a coupon and, in pages, its issuances and their uses. There may be a million issuances. SQLite joins
//! each page into one text, because returning each row by itself costs a switch between threads.

use std::fmt::Display;

use sqlx::{Row, SqliteConnection};

use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::issued::LoadedIssuance;
use crate::coupon::ledger::CouponHead;
use crate::coupon::rows::columns::{self as rows, coupon_columns, head_columns};
use crate::coupon::tail::{Tail, TailCursor};
use crate::coupon::uses::latest::LoadedUse;
use crate::coupon::uses::{Figures, UseKind, UseNumber};
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

/// One line for each row. A value that may be NULL has a sign before it. Orders contain neither spaces nor
/// line breaks.
const USES_PAGE: &str = "
SELECT count(*) AS row_count, group_concat(line, char(10)) AS lines
  FROM (SELECT concat_ws(' ', use_sequence, sequence, kind, returns, used_at,
                         coalesce('=' || order_amount, '-'), coalesce('=' || discount, '-'),
                         coalesce('=' || hold_until, '-'), coalesce('=' || order_id, '-')) AS line
          FROM uses
         WHERE coupon_id = ?1 AND use_sequence > ?2
         ORDER BY use_sequence
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

/// The rows of one page: of issuances, or of uses.
pub struct Page {
    from: TailCursor,
    row_count: u32,
    lines: String,
}

/// Reads the page at a place.
pub(crate) async fn page(
    connection: &mut SqliteConnection,
    coupon: CouponId,
    from: TailCursor,
) -> Result<Page> {
    let (statement, after) = match from.issuances_after {
        Some(after) => (PAGE, after.get()),
        None => (USES_PAGE, from.uses_after.get()),
    };
    let row = sqlx::query(statement)
        .bind(integer(coupon.get()))
        .bind(integer(after))
        .bind(PAGE_ROWS)
        .fetch_one(connection)
        .await
        .map_err(on_read)?;
    let lines: Option<String> = row.try_get("lines").map_err(on_read)?;
    Ok(Page {
        from,
        row_count: row.try_get("row_count").map_err(on_read)?,
        lines: lines.unwrap_or_default(),
    })
}

impl Page {
    /// Hands the rows to the tail. If there may be another page, returns where it begins.
    pub(crate) fn feed(&self, tail: &mut Tail) -> Result<Option<TailCursor>> {
        let coupon = tail.coupon();
        let unreadable = |error: &dyn Display| StoreError::Unreadable(format!("coupon {coupon}: {error}"));
        let mut last = 0;
        for line in self.lines.lines() {
            let place = if self.from.issuances_after.is_some() {
                let issuance = readable(parse(line), "issuances")?;
                tail.take(&issuance).map_err(|error| unreadable(&error))?;
                issuance.sequence.get()
            } else {
                let used = readable(parse_use(line), "uses")?;
                tail.take_use(&used).map_err(|error| unreadable(&error))?;
                used.number.get()
            };
            // SQLite does not promise to join the lines in the order in which it read them.
            if place <= last {
                let why = format!("rows came out of order after {last}");
                return Err(StoreError::Unreadable(why));
            }
            last = place;
        }
        let is_full = self.row_count == PAGE_ROWS;
        Ok(match self.from.issuances_after {
            Some(_) => Some(TailCursor {
                issuances_after: is_full.then_some(Sequence::new(last)),
                ..self.from
            }),
            None => is_full.then_some(TailCursor {
                uses_after: UseNumber::new(last),
                ..self.from
            }),
        })
    }
}

fn parse_use(line: &str) -> Option<LoadedUse<'_>> {
    /// Reads what follows the sign; `-` alone stands for NULL.
    fn maybe<T>(field: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
        match field.strip_prefix('=') {
            Some(field) => read(field).map(Some),
            None => (field == "-").then_some(None),
        }
    }
    let time = |micros: &str| Timestamp::from_micros(micros.parse().ok()?);
    let mut fields = line.split(' ');
    let mut next = || fields.next();
    let (number, sequence) = (next()?.parse().ok()?, next()?.parse().ok()?);
    let kind = UseKind::parse(next()?)?;
    let (returns, at) = (next()?, time(next()?)?);
    let amount = maybe(next()?, |amount| amount.parse().ok())?;
    let discount = maybe(next()?, |discount| discount.parse().ok())?;
    let hold_until = maybe(next()?, time)?;
    let order = match next()? {
        "-" => None,
        order => Some(order.strip_prefix('=')?),
    };
    let used = LoadedUse {
        number: UseNumber::new(number),
        sequence: Sequence::new(sequence),
        kind,
        order,
        figures: amount
            .zip(discount)
            .map(|(amount, discount)| Figures { amount, discount }),
        hold_until,
        returns: returns != "0",
        at,
    };
    fields.next().is_none().then_some(used)
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
