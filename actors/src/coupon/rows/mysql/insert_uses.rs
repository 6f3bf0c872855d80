//! The text of the statement that stores uses, guarded by shard, epoch and owner.
//!
//! As for issuances, values are literals, and the joins have a fixed order. A value that all rows of a batch
//! have in common is written only once.

use std::fmt::{Result as Written, Write};

use super::insert::push_text;
use crate::coupon::CouponKind;
use crate::coupon::entry::CouponRun;
use crate::coupon::rows::mixed_sorts;
use crate::coupon::uses::Use;
use crate::store::batch;
use crate::store::mysql::dialect::Dialect;
use crate::store::{Result, StoreError};

type Portion = batch::Portion<CouponKind>;

/// Writes the literal of a column.
type Push = fn(&mut String, &Portion, &Use) -> Written;

/// The columns of the guards: shard, epoch, owner and coupon.
const GUARDS: [Push; 4] = [
    |text, portion, _| write!(text, "{}", portion.shard),
    |text, portion, _| write!(text, "{}", portion.fence.epoch),
    |text, portion, _| write!(text, "{}", portion.fence.owner.get()),
    |text, portion, _| write!(text, "{}", portion.id),
];

/// The columns of a row, without the coupon.
const COLUMNS: [(&str, Push); 16] = [
    ("use_sequence", |text, _, made| write!(text, "{}", made.number)),
    ("sequence", |text, _, made| write!(text, "{}", made.sequence)),
    ("kind", |text, _, made| push_text(text, made.shown.kind.as_str())),
    ("order_id", |text, _, made| match &made.shown.order {
        Some(order) => push_text(text, order.as_str()),
        None => text.write_str("NULL"),
    }),
    ("order_amount", |text, _, made| {
        push_number(text, made.shown.figures.map(|figures| figures.amount))
    }),
    ("discount", |text, _, made| {
        push_number(text, made.shown.figures.map(|figures| figures.discount))
    }),
    ("hold_until", |text, _, made| {
        push_number(text, made.shown.hold_until.map(|until| until.as_micros()))
    }),
    ("returns", |text, _, made| {
        write!(text, "{}", u8::from(made.shown.returns))
    }),
    ("reason", |text, _, made| {
        push_reason(text, made.reason.as_deref())
    }),
    ("author", |text, _, made| push_text(text, made.author.as_str())),
    ("used_at", |text, _, made| {
        write!(text, "{}", made.shown.at.as_micros())
    }),
    ("reserved", |text, _, made| {
        write!(text, "{}", made.counts.reserved)
    }),
    ("redeemed", |text, _, made| {
        write!(text, "{}", made.counts.redeemed)
    }),
    ("revoked", |text, _, made| write!(text, "{}", made.counts.revoked)),
    ("returned", |text, _, made| {
        write!(text, "{}", made.counts.returned)
    }),
    ("lapses_at", |text, _, made| {
        push_number(text, made.lapses_at.map(|lapse| lapse.as_micros()))
    }),
];

/// Returns the statement that stores portions of uses.
///
/// # Errors
///
/// If one of the portions holds other entries.
pub(super) fn statement(dialect: Dialect, portions: &[Portion]) -> Result<String> {
    let mut rows = Vec::new();
    for portion in portions {
        let CouponRun::Uses(uses) = &portion.run else {
            return Err(mixed_sorts());
        };
        rows.extend(uses.iter().map(|made| (portion, made)));
    }
    text(dialect, &rows).map_err(|error| StoreError::Unreadable(error.to_string()))
}

fn text(dialect: Dialect, rows: &[(&Portion, &Use)]) -> std::result::Result<String, std::fmt::Error> {
    let all = || GUARDS.iter().chain(COLUMNS.iter().map(|(_, push)| push));
    let mut common = all()
        .map(|push| common(*push, rows))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    // The number always has a column, so that v has one even for a single row.
    common[GUARDS.len()] = None;
    let varying: Vec<_> = all()
        .zip(&common)
        .filter(|(_, common)| common.is_none())
        .collect();
    // The expression of each column: its literal, or a column of v.
    let mut next = 0;
    let expressions: Vec<String> = common
        .iter()
        .map(|common| {
            common.clone().unwrap_or_else(|| {
                next += 1;
                format!("v.c{next}")
            })
        })
        .collect();
    let (guards, columns) = expressions.split_at(GUARDS.len());
    let mut text = String::with_capacity(1024 + rows.len() * 160);
    text.push_str("INSERT INTO uses (coupon_id");
    for (name, _) in &COLUMNS {
        write!(text, ", {name}")?;
    }
    text.push_str(") WITH v (");
    for column in 1..=varying.len() {
        write!(text, "{}c{column}", if column > 1 { ", " } else { "" })?;
    }
    text.push_str(") AS (VALUES ");
    for (index, (portion, made)) in rows.iter().enumerate() {
        write!(text, "{}{}(", if index > 0 { "," } else { "" }, dialect.row())?;
        for (place, (push, _)) in varying.iter().enumerate() {
            text.push_str(if place > 0 { "," } else { "" });
            push(&mut text, portion, made)?;
        }
        text.push(')');
    }
    write!(text, ")\nSELECT c.id, {}\n  ", columns.join(", "))?;
    let [shard, epoch, owner, coupon] = guards else {
        return Err(std::fmt::Error);
    };
    let shards = "shards AS s FORCE INDEX (PRIMARY)";
    let coupons = "coupons AS c FORCE INDEX (PRIMARY)";
    let fence = format!("s.shard_id = {shard} AND s.epoch = {epoch} AND s.owner = {owner}");
    if guards.iter().all(|guard| !guard.starts_with('v')) {
        write!(
            text,
            "FROM {shards} STRAIGHT_JOIN {coupons} ON c.id = {coupon} STRAIGHT_JOIN v WHERE {fence}"
        )?;
    } else {
        write!(
            text,
            "FROM v STRAIGHT_JOIN {shards} ON {fence} STRAIGHT_JOIN {coupons} ON c.id = {coupon}"
        )?;
    }
    Ok(text)
}

/// Returns the literal that all rows have in a column; `None` if they differ.
fn common(push: Push, rows: &[(&Portion, &Use)]) -> std::result::Result<Option<String>, std::fmt::Error> {
    let (mut first, mut other) = (String::new(), String::new());
    for (index, (portion, made)) in rows.iter().enumerate() {
        other.clear();
        push(&mut other, portion, made)?;
        if index == 0 {
            std::mem::swap(&mut first, &mut other);
        } else if first != other {
            return Ok(None);
        }
    }
    Ok(Some(first))
}

fn push_number(text: &mut String, number: Option<impl std::fmt::Display>) -> Written {
    match number {
        Some(number) => write!(text, "{number}"),
        None => text.write_str("NULL"),
    }
}

/// Writes any text as a literal that means the same under every SQL mode.
fn push_reason(text: &mut String, reason: Option<&str>) -> Written {
    let Some(reason) = reason else {
        return text.write_str("NULL");
    };
    text.push_str("_utf8mb4 x'");
    for byte in reason.bytes() {
        write!(text, "{byte:02x}")?;
    }
    text.push('\'');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coupon::ids::{CouponId, Sequence};
    use crate::coupon::uses::{Figures, LatestUse, UseCounts, UseKind, UseNumber};
    use crate::ids::{
        Author, AuthorKind, Epoch, Fence, ID_MAX, Incarnation, ORDER_ID_BYTES_MAX, OrderId, ShardId,
        USER_ID_BYTES_MAX,
    };
    use crate::store::batch::BATCH_ROWS_MAX;
    use crate::store::mysql::STATEMENT_BYTES_MAX;
    use crate::time::Timestamp;

    #[test]
    fn the_largest_batch_of_uses_fits_into_the_smallest_packet_limit_of_a_server() {
        let coupon = CouponId::new(ID_MAX).unwrap();
        let time = Timestamp::parse("1000-01-01T00:00:00Z").unwrap();
        let of_rows = |rows: usize, different: u64| {
            let made = |row: usize| Use {
                coupon,
                number: UseNumber::new(ID_MAX - row as u64),
                sequence: Sequence::new(ID_MAX - row as u64),
                shown: LatestUse {
                    kind: UseKind::Reserved,
                    order: Some(OrderId::parse(&"'".repeat(ORDER_ID_BYTES_MAX - row % 2)).unwrap()),
                    figures: Some(Figures {
                        amount: ID_MAX - row as u64,
                        discount: ID_MAX - row as u64,
                    }),
                    hold_until: Timestamp::from_micros(time.as_micros() + row as i64),
                    returns: false,
                    at: Timestamp::from_micros(time.as_micros() + row as i64).unwrap(),
                },
                reason: None,
                author: Author::new(AuthorKind::User, &"'".repeat(USER_ID_BYTES_MAX - row % 2)).unwrap(),
                counts: UseCounts {
                    reserved: ID_MAX - row as u64,
                    redeemed: ID_MAX - row as u64,
                    revoked: ID_MAX - row as u64,
                    returned: ID_MAX - row as u64,
                },
                lapses_at: Timestamp::from_micros(time.as_micros() + row as i64),
            };
            Portion {
                id: CouponId::new(ID_MAX - different).unwrap(),
                shard: ShardId::new(255 - (different % 2) as u16).unwrap(),
                fence: Fence {
                    epoch: Epoch::new(ID_MAX - different),
                    owner: Incarnation::new(ID_MAX - different).unwrap(),
                },
                run: CouponRun::Uses((0..rows).map(|row| made(row + different as usize)).collect()),
            }
        };
        let of_many = (0..BATCH_ROWS_MAX as u64).map(|different| of_rows(1, different));
        for portions in [vec![of_rows(BATCH_ROWS_MAX, 0)], of_many.collect()] {
            let bytes = statement(Dialect::MySql, &portions).unwrap().len();
            assert!(bytes < STATEMENT_BYTES_MAX, "{bytes}");
        }
    }
}
