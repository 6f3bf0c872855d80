//! Reading back what is stored of a batch, after a write that did not succeed.
//!
//! Every read in this file is an autocommit statement, and so sees everything that was committed before the
//! read began.

use std::collections::{HashMap, HashSet};
use std::fmt::{Result as Written, Write};

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection};

use super::insert::{push_nth, push_text};
use super::load::HEAD;
use crate::coupon::CouponKind;
use crate::coupon::entry::{CouponChange, CouponRun};
use crate::coupon::ids::CouponId;
use crate::coupon::offer::{Issuance, counted};
use crate::coupon::rows::columns::{self as rows, issuance_columns, use_columns};
use crate::coupon::uses::Use;
use crate::store::batch::{FoundRows, Portion};
use crate::store::columns::{self, integer};
use crate::store::mysql::dialect::Dialect;
use crate::store::mysql::error::on_read;
use crate::store::{Result, StoreError};

/// Returns what is stored of each portion. The number of statements does not depend on the number of
/// portions, because a statement for each of a thousand coupons would take longer than a call may take.
pub(crate) async fn read_back(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    portions: &[Portion<CouponKind>],
) -> Result<Vec<FoundRows>> {
    let (mut issuances, mut uses) = (Vec::new(), Vec::new());
    for Portion { id, run, .. } in portions {
        match run {
            CouponRun::Issuances(sent) => issuances.push((*id, &sent[..])),
            CouponRun::Uses(sent) => uses.push((*id, &sent[..])),
            CouponRun::Change(_) => {}
        }
    }
    let mut stored = stored(connection, dialect, &ISSUANCES, &issuances).await?;
    let mut stored_uses = self::stored(connection, dialect, &USES, &uses).await?;
    issuances.retain(|(coupon, _)| !stored.contains_key(&coupon.get()));
    let displaced = displaced(connection, dialect, &issuances).await?;
    let mut found = Vec::with_capacity(portions.len());
    for Portion { id, run, .. } in portions {
        found.push(match run {
            CouponRun::Change(change) => read_back_change(connection, change).await?,
            CouponRun::Uses(sent) => FoundRows::of(stored_uses.remove(&id.get()), sent),
            CouponRun::Issuances(_) if displaced.contains(&id.get()) => FoundRows::Different,
            CouponRun::Issuances(sent) => FoundRows::of(stored.remove(&id.get()), &as_stored(sent)),
        });
    }
    Ok(found)
}

/// Returns these issuances with what is stored of them.
fn as_stored(sent: &[Issuance]) -> Vec<Issuance> {
    let stored = |issuance: &Issuance| Issuance {
        nth: counted(issuance.nth),
        ..issuance.clone()
    };
    sent.iter().map(stored).collect()
}

/// A table of dense rows.
struct Table<T> {
    /// What [`Self::read`] reads.
    select: &'static str,
    /// The column of the number, which is after the coupon in the primary key.
    number: &'static str,
    number_of: fn(&T) -> u64,
    read: fn(&MySqlRow) -> Result<T>,
}

const ISSUANCES: Table<Issuance> = Table {
    select: concat!(
        "SELECT ",
        issuance_columns!(),
        " FROM v STRAIGHT_JOIN issuances FORCE INDEX (PRIMARY)"
    ),
    number: "sequence",
    number_of: |issuance| issuance.id.sequence.get(),
    read: rows::issuance,
};

const USES: Table<Use> = Table {
    select: concat!(
        "SELECT ",
        use_columns!(),
        " FROM v STRAIGHT_JOIN uses FORCE INDEX (PRIMARY)"
    ),
    number: "use_sequence",
    number_of: |made| made.number.get(),
    read: rows::used,
};

/// Returns the rows that are stored in the places of these, by coupon and in order.
async fn stored<T>(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    table: &Table<T>,
    portions: &[(CouponId, &[T])],
) -> Result<HashMap<u64, Vec<Result<T>>>> {
    let places = values(portions, |text, coupon, row| {
        write!(text, "{}({coupon},{})", dialect.row(), (table.number_of)(row))
    })?;
    let mut stored = HashMap::new();
    if places.is_empty() {
        return Ok(stored);
    }
    let Table { select, number, .. } = table;
    let statement = format!(
        "WITH v (c, q) AS (VALUES {places}) {select} ON coupon_id = v.c AND {number} = v.q
             ORDER BY coupon_id, {number}"
    );
    for row in sqlx::raw_sql(AssertSqlSafe(statement))
        .fetch_all(connection)
        .await
        .map_err(on_read)?
    {
        stored
            .entry(columns::number(&row, "coupon_id")?)
            .or_insert_with(Vec::new)
            .push((table.read)(&row));
    }
    Ok(stored)
}

/// Returns the coupons with a stored issuance that has the same user and `nth` as one of these issuances. The
/// statement converts the literals and not the column. If it converted the column, no index would be used.
async fn displaced(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    portions: &[(CouponId, &[Issuance])],
) -> Result<HashSet<u64>> {
    let places = values(portions, |text, coupon, issuance| {
        write!(text, "{}({coupon},", dialect.row())?;
        push_text(text, issuance.user.as_str())?;
        text.push(',');
        push_nth(text, issuance.nth)?;
        text.write_char(')')
    })?;
    if places.is_empty() {
        return Ok(HashSet::new());
    }
    let statement = format!(
        "WITH v (c, u, n) AS (VALUES {places}) SELECT DISTINCT i.coupon_id
             FROM v STRAIGHT_JOIN issuances AS i FORCE INDEX (by_user)
             ON i.user_id = CONVERT(v.u USING ascii) COLLATE ascii_bin AND i.coupon_id = v.c AND i.nth = v.n"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(statement))
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    rows.iter().map(|row| columns::number(row, "coupon_id")).collect()
}

/// Returns all the rows as rows of a `VALUES` list, each written by `push_row`.
fn values<T>(
    portions: &[(CouponId, &[T])],
    push_row: impl Fn(&mut String, CouponId, &T) -> Written,
) -> Result<String> {
    let mut text = String::new();
    for (coupon, rows) in portions {
        for row in *rows {
            text.push_str(if text.is_empty() { "" } else { "," });
            push_row(&mut text, *coupon, row).map_err(|error| StoreError::Unreadable(error.to_string()))?;
        }
    }
    Ok(text)
}

async fn read_back_change(connection: &mut MySqlConnection, change: &CouponChange) -> Result<FoundRows> {
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
