//! How the rows of a batch stand, asked when storing it came back with anything but success.
//!
//! Every read here is an autocommit statement, and so sees all that was committed before it began.

use std::collections::{HashMap, HashSet};

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::columns::{self as rows, coupon_columns, integer, issuance_columns, number};
use crate::coupon::offer::Issuance;
use crate::ids::CouponId;
use crate::store::Result;
use crate::store::batch::{Batch, CouponChange, Entries, Found, FoundRows, Portion};
use crate::store::mysql::cluster;
use crate::store::mysql::dialect::Dialect;
use crate::store::mysql::error::on_read;

const COUPON: &str = concat!("SELECT ", coupon_columns!(), " FROM coupons AS c WHERE c.id = ?");

/// How each portion stands: by as many statements whatever the batch holds, as one for each of a thousand
/// coupons would take longer than a call may.
pub(crate) async fn read_back(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    batch: &Batch,
) -> Result<Vec<Found>> {
    // The fences first: raising one waited for every statement that had passed it, so once it is lost, what
    // the rows say is final.
    let shards = cluster::shards(connection).await?;
    let issuances = batch
        .portions
        .iter()
        .filter_map(|portion| match &portion.entries {
            Entries::Issuances(issuances) => Some((portion.coupon, &issuances[..])),
            Entries::Change(_) => None,
        });
    let issuances: Vec<(CouponId, &[Issuance])> = issuances.collect();
    let mut stored = stored(connection, dialect, &issuances).await?;
    let absent = issuances
        .into_iter()
        .filter(|(coupon, _)| !stored.contains_key(&coupon.get()));
    let displaced = displaced(connection, dialect, &absent.collect::<Vec<_>>()).await?;
    let mut found = Vec::with_capacity(batch.portions.len());
    for Portion {
        coupon,
        shard,
        fence,
        entries,
    } in &batch.portions
    {
        let fence_holds = shards
            .iter()
            .any(|row| row.id == *shard && row.epoch == fence.epoch && row.owner == Some(fence.owner));
        let rows = match (entries, stored.remove(&coupon.get())) {
            (Entries::Change(change), _) => change_stands(connection, change).await?,
            // A row that cannot be read is none of these: it is this coupon's trouble alone, and no reason to
            // keep others waiting.
            (Entries::Issuances(sent), Some(rows)) => {
                let rows = rows.into_iter().collect::<Result<Vec<_>>>();
                if rows.is_ok_and(|rows| rows[..] == sent[..]) {
                    FoundRows::Stored
                } else {
                    FoundRows::Different
                }
            }
            (Entries::Issuances(_), None) if displaced.contains(&coupon.get()) => FoundRows::Different,
            (Entries::Issuances(_), None) => FoundRows::Absent,
        };
        found.push(Found { fence_holds, rows });
    }
    Ok(found)
}

/// What stands in the places of these issuances, by coupon and in order.
async fn stored(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    portions: &[(CouponId, &[Issuance])],
) -> Result<HashMap<u64, Vec<Result<Issuance>>>> {
    let places = values(portions, |coupon, issuance| {
        format!("{}({coupon},{})", dialect.row(), issuance.id.sequence)
    });
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

/// The coupons of which one of these users has another in the place of one of these. The names are converted,
/// not the column: else no index is used.
async fn displaced(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    portions: &[(CouponId, &[Issuance])],
) -> Result<HashSet<u64>> {
    let places = values(portions, |coupon, issuance| {
        format!("{}({coupon},'{}',{})", dialect.row(), issuance.user, issuance.nth)
    });
    if places.is_empty() {
        return Ok(HashSet::new());
    }
    let statement = format!(
        "WITH v (c, u, n) AS (VALUES {places}) SELECT DISTINCT i.coupon_id FROM v STRAIGHT_JOIN issuances AS i FORCE INDEX (by_user)
             ON i.user_id = CONVERT(v.u USING ascii) COLLATE ascii_bin AND i.coupon_id = v.c AND i.nth = v.n"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(statement))
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    rows.iter().map(|row| number(row, "coupon_id")).collect()
}

/// All the issuances as rows of a statement.
fn values(portions: &[(CouponId, &[Issuance])], row: impl Fn(CouponId, &Issuance) -> String) -> String {
    let rows = portions
        .iter()
        .flat_map(|(coupon, issuances)| issuances.iter().map(|issuance| row(*coupon, issuance)));
    rows.collect::<Vec<_>>().join(",")
}

async fn change_stands(connection: &mut MySqlConnection, change: &CouponChange) -> Result<FoundRows> {
    let row = sqlx::query(COUPON)
        .bind(integer(change.coupon.id.get()))
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    let Some(Ok(stored)) = row.as_ref().map(rows::coupon) else {
        return Ok(FoundRows::Different);
    };
    Ok(if stored == change.coupon {
        FoundRows::Stored
    } else if stored.version + 1 == change.coupon.version {
        FoundRows::Absent
    } else {
        FoundRows::Different
    })
}
