//! How the rows of a batch stand, asked when storing it came back with anything but success.
//!
//! Every read here is an autocommit statement, and so sees all that was committed before it began.

use std::fmt::Write;

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::dialect::Dialect;
use super::error::on_read;
use super::rows::{self, coupon_columns, get, integer, issuance_columns};
use crate::offer::Issuance;
use crate::store::{Result, StoreError};
use crate::write_back::batch::{Batch, CouponChange, Entries, Found, FoundRows, Portion};

const FENCE: &str = "SELECT EXISTS (SELECT 1 FROM shards WHERE shard_id = ? AND epoch = ? AND owner = ?)";

const ROWS: &str =
    concat!("SELECT ", issuance_columns!(), " FROM issuances WHERE coupon_id = ? AND sequence BETWEEN ? AND ? ORDER BY sequence");

const COUPON: &str = concat!("SELECT ", coupon_columns!(), " FROM coupons AS c WHERE c.id = ?");

/// How each portion stands.
pub(super) async fn read_back(connection: &mut MySqlConnection, dialect: Dialect, batch: &Batch) -> Result<Vec<Found>> {
    let mut found = Vec::with_capacity(batch.portions.len());
    for portion in &batch.portions {
        // The fence first: raising it waited for every statement that had passed it, so once it is lost, what the rows say is final.
        let fence_holds = fence_holds(connection, portion).await?;
        let rows = match &portion.entries {
            Entries::Issuances(issuances) => issuances_stand(connection, dialect, portion, issuances).await?,
            Entries::Change(change) => change_stands(connection, change).await?,
        };
        found.push(Found { fence_holds, rows });
    }
    Ok(found)
}

async fn fence_holds(connection: &mut MySqlConnection, portion: &Portion) -> Result<bool> {
    let holds: i64 = sqlx::query_scalar(FENCE)
        .bind(portion.shard.get())
        .bind(integer(portion.fence.epoch.get()))
        .bind(integer(portion.fence.owner.get()))
        .fetch_one(connection)
        .await
        .map_err(on_read)?;
    Ok(holds == 1)
}

async fn issuances_stand(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    portion: &Portion,
    issuances: &[Issuance],
) -> Result<FoundRows> {
    let sequence = |issuance: Option<&Issuance>| issuance.map_or(0, |issuance| integer(issuance.id.sequence.get()));
    let rows = sqlx::query(ROWS)
        .bind(integer(portion.coupon.get()))
        .bind(sequence(issuances.first()))
        .bind(sequence(issuances.last()))
        .fetch_all(&mut *connection)
        .await
        .map_err(on_read)?;
    if !rows.is_empty() {
        // A row that cannot be read is none of these: it is this coupon's trouble alone, and no reason to keep others waiting.
        let stored = rows.iter().map(rows::issuance).collect::<Result<Vec<_>>>();
        return Ok(if stored.is_ok_and(|stored| stored == issuances) { FoundRows::Stored } else { FoundRows::Different });
    }
    let statement = in_their_place(dialect, portion, issuances).map_err(|error| StoreError::Unreadable(error.to_string()))?;
    let row = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_one(connection).await.map_err(on_read)?;
    Ok(if get::<i64>(&row, "displaced")? == 1 { FoundRows::Different } else { FoundRows::Absent })
}

/// Asks whether any of the users has one of this coupon in the place of these. The names are converted, not the column: else no index is used.
fn in_their_place(dialect: Dialect, portion: &Portion, issuances: &[Issuance]) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::from("SELECT EXISTS (WITH v (u, n) AS (VALUES ");
    for (index, issuance) in issuances.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(text, "{comma}{}('{}',{})", dialect.row(), issuance.user, issuance.nth)?;
    }
    write!(
        text,
        ") SELECT 1 FROM v STRAIGHT_JOIN issuances AS i FORCE INDEX (by_user)
              ON i.user_id = CONVERT(v.u USING ascii) COLLATE ascii_bin AND i.coupon_id = {} AND i.nth = v.n) AS displaced",
        portion.coupon
    )?;
    Ok(text)
}

async fn change_stands(connection: &mut MySqlConnection, change: &CouponChange) -> Result<FoundRows> {
    let row = sqlx::query(COUPON).bind(integer(change.coupon.id.get())).fetch_optional(connection).await.map_err(on_read)?;
    let Some(Ok(stored)) = row.as_ref().map(rows::coupon) else { return Ok(FoundRows::Different) };
    Ok(if stored == change.coupon {
        FoundRows::Stored
    } else if stored.version + 1 == change.coupon.version {
        FoundRows::Absent
    } else {
        FoundRows::Different
    })
}
