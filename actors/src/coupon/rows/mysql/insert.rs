//! The text of the statement that stores issuances, guarded by shard, epoch, owner, quantity and limit per
//! user.
//!
//! Values are literals: a prepared statement for each batch size would fill the caches of the server and of
//! the client, and preparing without caching costs another round trip. All values are numbers and checked
//! ASCII. A server takes most of a microsecond for each literal. So values that rows have in common are
//! written only once where possible.
//!
//! `STRAIGHT_JOIN` fixes the order. `FORCE INDEX` makes the server use keys, because MariaDB prefers to read
//! a whole table if it has few rows. So only the named rows of `shards` and `coupons` are read, and they are
//! locked until the commit. A shard's row is read before the rows of its coupons. A claim or hand-off of one
//! of these shards waits for this batch, and claims and hand-offs of other shards do not.

use std::fmt::{Result as Written, Write};

use crate::coupon::CouponKind;
use crate::coupon::entry::CouponRun;
use crate::coupon::offer::{Issuance, NTH_BEYOND_LIMITS, counted};
use crate::coupon::rows::mixed_sorts;
use crate::ids::{Fence, Incarnation};
use crate::store::batch;
use crate::store::mysql::dialect::Dialect;
use crate::store::{Result, StoreError};

type Portion = batch::Portion<CouponKind>;

/// Number of bytes of a row with ids and keys of usual length. The text grows if they are longer.
const ROW_BYTES: usize = 128;

/// Number of bytes around the rows.
const FRAME_BYTES: usize = 768;

/// How many issuances of the coupon were given back to its quantity. It is read only if the quantity alone
/// does not allow a portion.
const RETURNED: &str = "COALESCE((SELECT u.returned FROM uses AS u FORCE INDEX FOR ORDER BY (PRIMARY)
    WHERE u.coupon_id = c.id ORDER BY u.coupon_id DESC, u.use_sequence DESC LIMIT 1), 0)";

/// Returns the statement that stores portions of issuances.
///
/// # Errors
///
/// If one of the portions holds other entries.
pub fn statement(dialect: Dialect, portions: &[Portion]) -> Result<String> {
    let portions: Vec<_> = portions
        .iter()
        .map(|portion| Ok((portion, issuances_of(portion)?)))
        .collect::<Result<_>>()?;
    let rows: usize = portions.iter().map(|(_, issuances)| issuances.len()).sum();
    let mut text = String::with_capacity(FRAME_BYTES + rows * ROW_BYTES);
    let shared = Shared::by(&portions);
    let written = match portions.as_slice() {
        [(portion, issuances)] => push_one(&mut text, dialect, &shared, portion, issuances),
        portions => push_many(&mut text, dialect, &shared, portions),
    };
    written.map_err(|error| StoreError::Unreadable(error.to_string()))?;
    Ok(text)
}

fn issuances_of(portion: &Portion) -> Result<&[Issuance]> {
    match &portion.run {
        CouponRun::Issuances(issuances) => Ok(issuances),
        CouponRun::Uses(_) | CouponRun::Change(_) => Err(mixed_sorts()),
    }
}

/// What all rows of a batch have in common.
struct Shared {
    /// The owner, if all portions have the same owner. Owners differ only after a node has rejoined.
    owner: Option<Incarnation>,
    /// True if every `nth` in the batch is 1.
    are_first: bool,
    /// True if no issuance in the batch expires.
    are_endless: bool,
}

impl Shared {
    fn by(portions: &[(&Portion, &[Issuance])]) -> Self {
        let owner = portions.first().map(|(portion, _)| portion.fence.owner);
        let mut issuances = portions.iter().flat_map(|(_, issuances)| issuances.iter());
        Self {
            owner: owner.filter(|owner| portions.iter().all(|(portion, _)| portion.fence.owner == *owner)),
            are_first: issuances.clone().all(|issuance| issuance.nth == 1),
            are_endless: issuances.all(|issuance| issuance.expires_at.is_none()),
        }
    }

    /// Writes the beginning of the statement, with the columns of [`Self::push_issuance`]. These are
    /// sequence, user, key and time of issue. There is also `nth`, unless every `nth` is 1, and the expiry,
    /// unless no issuance expires.
    fn push_insert(&self, text: &mut String) {
        text.push_str(
            "INSERT INTO issuances (coupon_id, sequence, user_id, nth, request_key, issued_at, expires_at) \
             WITH v (q, u, k, t",
        );
        text.push_str(if self.are_first { "" } else { ", n" });
        text.push_str(if self.are_endless { "" } else { ", x" });
    }

    fn push_issuance(&self, text: &mut String, issuance: &Issuance) -> Written {
        write!(text, "{},", issuance.id.sequence)?;
        push_text(text, issuance.user.as_str())?;
        text.push(',');
        push_text(text, issuance.key.as_str())?;
        write!(text, ",{}", issuance.issued_at.as_micros())?;
        if !self.are_first {
            text.push(',');
            push_nth(text, issuance.nth)?;
        }
        match issuance.expires_at {
            _ if self.are_endless => Ok(()),
            Some(expires_at) => write!(text, ",{}", expires_at.as_micros()),
            None => text.write_str(",NULL"),
        }
    }

    /// Returns the selected columns, without the coupon.
    fn selected(&self) -> String {
        let nth = if self.are_first { "1" } else { "v.n" };
        let expires_at = if self.are_endless { "NULL" } else { "v.x" };
        format!("v.q, v.u, {nth}, v.k, v.t, {expires_at}")
    }
}

/// Returns the last sequence and the highest `nth` of a portion. Every row of the portion is checked against
/// these two values, so that all rows are stored or none.
fn highest(issuances: &[Issuance]) -> (u64, u32) {
    let last = issuances
        .iter()
        .map(|issuance| issuance.id.sequence.get())
        .max()
        .unwrap_or(0);
    (
        last,
        issuances.iter().map(|issuance| issuance.nth).max().unwrap_or(0),
    )
}

/// Writes the statement for one coupon, for example when all users want the same coupon. The statement's
/// guards are constants, so the server reads and locks the shard and the coupon before any row.
fn push_one(
    text: &mut String,
    dialect: Dialect,
    shared: &Shared,
    portion: &Portion,
    issuances: &[Issuance],
) -> Written {
    shared.push_insert(text);
    text.push_str(") AS (VALUES ");
    for (index, issuance) in issuances.iter().enumerate() {
        text.push_str(if index > 0 { "," } else { "" });
        write!(text, "{}(", dialect.row())?;
        shared.push_issuance(text, issuance)?;
        text.push(')');
    }
    let (Fence { epoch, owner }, (last, nth_max)) = (portion.fence, highest(issuances));
    let (coupon, shard, owner, selected) = (portion.id, portion.shard, owner.get(), shared.selected());
    write!(
        text,
        ")
SELECT c.id, {selected}
  FROM shards AS s FORCE INDEX (PRIMARY)
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
    ON c.id = {coupon}
   AND (c.total_quantity IS NULL OR {last} <= c.total_quantity OR {last} <= c.total_quantity + {RETURNED})
   AND ({nth_max} <= c.per_user_limit OR c.no_user_limit)
  STRAIGHT_JOIN v
 WHERE s.shard_id = {shard} AND s.epoch = {epoch} AND s.owner = {owner}"
    )
}

/// Writes the statement for several coupons. Each row carries its shard, its epoch, its coupon, and the
/// coupon's last sequence in this batch. It also carries the owner, unless all portions have the same owner,
/// and the coupon's highest `nth`, unless every `nth` is 1.
fn push_many(
    text: &mut String,
    dialect: Dialect,
    shared: &Shared,
    portions: &[(&Portion, &[Issuance])],
) -> Written {
    shared.push_insert(text);
    text.push_str(", s, e, c, l");
    text.push_str(if shared.owner.is_some() { "" } else { ", o" });
    text.push_str(if shared.are_first { "" } else { ", h" });
    text.push_str(") AS (VALUES ");
    for (index, (portion, issuances)) in portions.iter().enumerate() {
        let (Fence { epoch, owner }, (last, nth_max)) = (portion.fence, highest(issuances));
        for (row, issuance) in issuances.iter().enumerate() {
            text.push_str(if index + row > 0 { "," } else { "" });
            write!(text, "{}(", dialect.row())?;
            shared.push_issuance(text, issuance)?;
            write!(text, ",{},{epoch},{},{last}", portion.shard, portion.id)?;
            if shared.owner.is_none() {
                write!(text, ",{}", owner.get())?;
            }
            if !shared.are_first {
                write!(text, ",{nth_max}")?;
            }
            text.push(')');
        }
    }
    let owner = shared
        .owner
        .map_or_else(|| "v.o".to_owned(), |owner| owner.get().to_string());
    let (selected, nth_max) = (shared.selected(), if shared.are_first { "1" } else { "v.h" });
    write!(
        text,
        ")
SELECT v.c, {selected}
  FROM v
  STRAIGHT_JOIN shards AS s FORCE INDEX (PRIMARY) ON s.shard_id = v.s AND s.epoch = v.e AND s.owner = {owner}
  STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
    ON c.id = v.c
   AND (c.total_quantity IS NULL OR v.l <= c.total_quantity OR v.l <= c.total_quantity + {RETURNED})
   AND ({nth_max} <= c.per_user_limit OR c.no_user_limit)"
    )
}

/// Writes `nth` as it is stored: not beyond the limits, because the column has one byte. Rows without it do
/// not clash in the key that keeps the limit.
pub(super) fn push_nth(text: &mut String, nth: u32) -> Written {
    if counted(nth) == NTH_BEYOND_LIMITS {
        text.write_str("NULL")
    } else {
        write!(text, "{nth}")
    }
}

/// Writes visible ASCII as a literal that means the same under every SQL mode. It is hexadecimal if a
/// character could end the literal or escape another character.
pub(super) fn push_text(text: &mut String, value: &str) -> Written {
    if !value.contains(['\'', '\\']) {
        return write!(text, "'{value}'");
    }
    text.push_str("_ascii x'");
    for byte in value.bytes() {
        write!(text, "{byte:02x}")?;
    }
    text.push('\'');
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
    use crate::ids::{Epoch, ID_MAX, REQUEST_KEY_BYTES_MAX, RequestKey, ShardId, USER_ID_BYTES_MAX, UserId};
    use crate::store::batch::BATCH_ROWS_MAX;
    use crate::store::mysql::STATEMENT_BYTES_MAX;
    use crate::time::Timestamp;

    #[test]
    fn the_largest_batch_fits_into_the_smallest_packet_limit_of_a_server() {
        let coupon = CouponId::new(ID_MAX).unwrap();
        let time = Timestamp::parse("1000-01-01T00:00:00Z").unwrap();
        let issuance = Issuance {
            id: IssuanceId {
                coupon,
                sequence: Sequence::new(1_000_000_000),
            },
            user: UserId::parse(&"'".repeat(USER_ID_BYTES_MAX)).unwrap(),
            nth: 1_000_000_000,
            key: RequestKey::parse(&"'".repeat(REQUEST_KEY_BYTES_MAX)).unwrap(),
            issued_at: time,
            expires_at: Some(time),
        };
        let of_rows = |rows, owner| Portion {
            id: coupon,
            shard: ShardId::new(255).unwrap(),
            fence: Fence {
                epoch: Epoch::new(ID_MAX),
                owner: Incarnation::new(owner).unwrap(),
            },
            run: CouponRun::Issuances(Arc::from(vec![issuance.clone(); rows])),
        };
        let of_one = vec![of_rows(BATCH_ROWS_MAX, ID_MAX)];
        let mut of_many = vec![of_rows(1, ID_MAX); BATCH_ROWS_MAX];
        of_many[0] = of_rows(1, ID_MAX - 1);
        for portions in [of_one, of_many] {
            let bytes = statement(Dialect::MySql, &portions).unwrap().len();
            assert!(bytes < STATEMENT_BYTES_MAX, "{bytes}");
        }
    }

    #[test]
    fn no_character_ends_a_literal_early() {
        let literal = |value| {
            let mut text = String::new();
            push_text(&mut text, value).unwrap();
            text
        };
        assert_eq!(literal("plain--key#/*\"%"), "'plain--key#/*\"%'");
        assert_eq!(literal("a'"), "_ascii x'6127'");
        assert_eq!(literal("\\"), "_ascii x'5c'");
    }
}
