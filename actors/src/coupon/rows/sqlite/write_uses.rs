//! Storing uses: one guarded statement, which is prepared once for batches of all sizes.

use std::fmt::Write;

use sqlx::SqliteConnection;

use super::write::push_escaped;
use crate::coupon::CouponKind;
use crate::coupon::entry::CouponRun;
use crate::coupon::rows::mixed_sorts;
use crate::coupon::uses::Use;
use crate::ids::Fence;
use crate::owning::kind::Run;
use crate::store::batch;
use crate::store::sqlite::error::on_write;
use crate::store::{Result, StoreError};

type Portion = batch::Portion<CouponKind>;

/// `?1` is [`portions_json`]. `CROSS JOIN` keeps the order: the guards are checked once for each portion,
/// before its rows.
const INSERT: &str = "
INSERT INTO uses (coupon_id, use_sequence, sequence, kind, order_id, order_amount, discount, hold_until, returns,
                  reason, author, used_at, reserved, redeemed, revoked, returned, lapses_at)
SELECT c.id, row.value ->> 0, row.value ->> 1, row.value ->> 2, row.value ->> 3, row.value ->> 4,
       row.value ->> 5, row.value ->> 6, row.value ->> 7, row.value ->> 8, row.value ->> 9, row.value ->> 10,
       row.value ->> 11, row.value ->> 12, row.value ->> 13, row.value ->> 14, row.value ->> 15
  FROM jsonb_each(?1) AS portion
 CROSS JOIN shards AS s
    ON s.shard_id = portion.value ->> 0 AND s.epoch = portion.value ->> 1 AND s.owner = portion.value ->> 2
 CROSS JOIN coupons AS c
    ON c.id = portion.value ->> 3
 CROSS JOIN jsonb_each(portion.value, '$[4]') AS row";

/// Stores the uses of portions. Returns how many rows it stored.
pub(super) async fn uses(connection: &mut SqliteConnection, portions: &[Portion]) -> Result<u64> {
    let stored = sqlx::query(INSERT)
        .bind(portions_json(portions)?)
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok(stored.rows_affected())
}

/// Returns portions of uses as an array of `[shard, epoch, owner, coupon, [[number, …], …]]`, each use with
/// its columns in their order.
fn portions_json(portions: &[Portion]) -> Result<String> {
    /// Number of bytes of a row with an order of usual length. The text grows if it is longer.
    const ROW_BYTES: usize = 192;

    let rows: usize = portions.iter().map(|portion| portion.run.rows()).sum();
    let mut json = String::with_capacity((rows + portions.len()) * ROW_BYTES);
    for portion in portions {
        let CouponRun::Uses(uses) = &portion.run else {
            return Err(mixed_sorts());
        };
        json.push(if json.is_empty() { '[' } else { ',' });
        push_portion(&mut json, portion, uses).map_err(|error| StoreError::Unreadable(error.to_string()))?;
    }
    json.push(']');
    Ok(json)
}

fn push_portion(json: &mut String, portion: &Portion, uses: &[Use]) -> std::fmt::Result {
    let Fence { epoch, owner } = portion.fence;
    write!(
        json,
        "[{},{epoch},{},{},[",
        portion.shard,
        owner.get(),
        portion.id
    )?;
    for (index, made) in uses.iter().enumerate() {
        json.push_str(if index > 0 { ",[" } else { "[" });
        push_use(json, made)?;
        json.push(']');
    }
    json.push_str("]]");
    Ok(())
}

fn push_use(json: &mut String, made: &Use) -> std::fmt::Result {
    let (shown, counts) = (&made.shown, made.counts);
    write!(
        json,
        "{},{},\"{}\",",
        made.number,
        made.sequence,
        shown.kind.as_str()
    )?;
    match &shown.order {
        Some(order) => {
            json.push('"');
            push_escaped(json, order.as_str());
            json.push('"');
        }
        None => json.push_str("null"),
    }
    push_number(json, shown.figures.map(|figures| figures.amount))?;
    push_number(json, shown.figures.map(|figures| figures.discount))?;
    push_number(json, shown.hold_until.map(|until| until.as_micros()))?;
    write!(json, ",{},", u8::from(shown.returns))?;
    // Any text has a JSON form.
    let reason = made.reason.as_deref();
    json.push_str(&reason.map_or_else(
        || "null".to_owned(),
        |reason| serde_json::to_string(reason).unwrap_or_default(),
    ));
    json.push_str(",\"");
    push_escaped(json, made.author.as_str());
    write!(
        json,
        "\",{},{},{},{},{}",
        shown.at.as_micros(),
        counts.reserved,
        counts.redeemed,
        counts.revoked,
        counts.returned
    )?;
    push_number(json, made.lapses_at.map(|lapse| lapse.as_micros()))
}

fn push_number(json: &mut String, number: Option<impl std::fmt::Display>) -> std::fmt::Result {
    match number {
        Some(number) => write!(json, ",{number}"),
        None => {
            json.push_str(",null");
            Ok(())
        }
    }
}
