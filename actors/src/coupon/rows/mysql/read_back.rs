//! Reading back what is stored of a batch, after a write that did not succeed.
//!
//! Every read in this file is an autocommit statement, and so sees everything that was committed before the
//! read began.

use std::collections::{HashMap, HashSet};
use std::fmt::{Result as Written, Write};

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
use crate::store::columns::{integer, number};
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
    let issuances = portions.iter().filter_map(|portion| match &portion.run {
        CouponRun::Issuances(issuances) => Some((portion.id, &issuances[..])),
        CouponRun::Uses(_) | CouponRun::Change(_) => None,
    });
    let issuances: Vec<(CouponId, &[Issuance])> = issuances.collect();
    let mut stored = stored(connection, dialect, &issuances).await?;
    let absent = issuances
        .into_iter()
        .filter(|(coupon, _)| !stored.contains_key(&coupon.get()));
    let displaced = displaced(connection, dialect, &absent.collect::<Vec<_>>()).await?;
    let mut stored_uses = stored_uses(connection, dialect, portions).await?;
    let mut found = Vec::with_capacity(portions.len());
    for Portion { id, run, .. } in portions {
        found.push(match (run, stored.remove(&id.get())) {
            (CouponRun::Change(change), _) => read_back_change(connection, change).await?,
            (CouponRun::Uses(sent), _) => match stored_uses.remove(&id.get()) {
                Some(rows) => same(rows, sent),
                None => FoundRows::Absent,
            },
            // An unreadable row concerns this coupon alone, and must not hold up other coupons.
            (CouponRun::Issuances(sent), Some(rows)) => same(rows, &as_stored(sent)),
            (CouponRun::Issuances(_), None) if displaced.contains(&id.get()) => FoundRows::Different,
            (CouponRun::Issuances(_), None) => FoundRows::Absent,
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

/// Returns whether the rows in the places of these entries are these entries.
fn same<T: PartialEq>(rows: Vec<Result<T>>, sent: &[T]) -> FoundRows {
    let rows = rows.into_iter().collect::<Result<Vec<_>>>();
    if rows.is_ok_and(|rows| rows[..] == sent[..]) {
        FoundRows::Stored
    } else {
        FoundRows::Different
    }
}

/// Returns the uses that are stored with the numbers of these portions, by coupon and in order.
async fn stored_uses(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    portions: &[Portion<CouponKind>],
) -> Result<HashMap<u64, Vec<Result<Use>>>> {
    let (mut places, mut stored) = (String::new(), HashMap::new());
    for portion in portions {
        let CouponRun::Uses(uses) = &portion.run else {
            continue;
        };
        for made in uses.iter() {
            places.push_str(if places.is_empty() { "" } else { "," });
            write!(places, "{}({},{})", dialect.row(), portion.id, made.number)
                .map_err(|error| StoreError::Unreadable(error.to_string()))?;
        }
    }
    if places.is_empty() {
        return Ok(stored);
    }
    let statement = format!(
        "WITH v (c, q) AS (VALUES {places}) SELECT {} FROM v STRAIGHT_JOIN uses FORCE INDEX (PRIMARY)
             ON coupon_id = v.c AND use_sequence = v.q ORDER BY coupon_id, use_sequence",
        use_columns!()
    );
    for row in sqlx::raw_sql(AssertSqlSafe(statement))
        .fetch_all(connection)
        .await
        .map_err(on_read)?
    {
        stored
            .entry(number(&row, "coupon_id")?)
            .or_insert_with(Vec::new)
            .push(rows::used(&row));
    }
    Ok(stored)
}

/// Returns the issuances that are stored with these sequences, by coupon and in order.
async fn stored(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    portions: &[(CouponId, &[Issuance])],
) -> Result<HashMap<u64, Vec<Result<Issuance>>>> {
    let places = values(portions, |text, coupon, issuance| {
        write!(text, "{}({coupon},{})", dialect.row(), issuance.id.sequence)
    })?;
    let mut stored = HashMap::new();
    if places.is_empty() {
        return Ok(stored);
    }
    let statement = format!(
        "WITH v (c, q) AS (VALUES {places}) SELECT {} FROM v STRAIGHT_JOIN issuances FORCE INDEX (PRIMARY)
             ON coupon_id = v.c AND sequence = v.q ORDER BY coupon_id, sequence",
        issuance_columns!()
    );
    for row in sqlx::raw_sql(AssertSqlSafe(statement))
        .fetch_all(connection)
        .await
        .map_err(on_read)?
    {
        stored
            .entry(number(&row, "coupon_id")?)
            .or_insert_with(Vec::new)
            .push(rows::issuance(&row));
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
    rows.iter().map(|row| number(row, "coupon_id")).collect()
}

/// Returns all the issuances as rows of a `VALUES` list, each written by `push_row`.
fn values(
    portions: &[(CouponId, &[Issuance])],
    push_row: impl Fn(&mut String, CouponId, &Issuance) -> Written,
) -> Result<String> {
    let mut text = String::new();
    for (coupon, issuances) in portions {
        for issuance in *issuances {
            text.push_str(if text.is_empty() { "" } else { "," });
            push_row(&mut text, *coupon, issuance)
                .map_err(|error| StoreError::Unreadable(error.to_string()))?;
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
