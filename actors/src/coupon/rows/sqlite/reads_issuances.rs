//! Lists of issuances. Each list is one statement, which joins the latest uses.

use sqlx::{Connection, SqliteConnection};

use super::reads::{coupons_of, issued};
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::rows::columns::{
    self as rows, coupon_range, issuance_columns, page_columns, state_condition,
};
use crate::coupon::rows::{IssuancePage, IssuanceQuery, IssuancesOf, UserPlace, UserStep, UserStepPage};
use crate::coupon::uses::{UseState, UsedIssuance};
use crate::ids::{ID_MAX, UserId};
use crate::store::Result;
use crate::store::columns::{integer, readable};
use crate::store::sqlite::error::on_read;

/// The issuances that a condition selects, with their latest uses. `?1` is the time, and `?2` the state, if
/// only issuances in a state are listed.
macro_rules! page {
    ($condition:literal) => {
        concat!(
            "SELECT ",
            page_columns!(),
            " FROM (SELECT ",
            issuance_columns!(),
            " FROM issuances AS i WHERE ",
            $condition,
            ") AS i LEFT JOIN uses AS u ON u.coupon_id = i.coupon_id AND u.use_sequence = (
                SELECT max(n.use_sequence) FROM uses AS n INDEXED BY by_issuance
                 WHERE n.coupon_id = i.coupon_id AND n.sequence = i.sequence)"
        )
    };
    ($condition:literal, $order:literal) => {
        concat!(
            "SELECT ",
            page_columns!(),
            " FROM (SELECT ",
            issuance_columns!(),
            " FROM issuances AS i WHERE ",
            $condition,
            " AND (?2 IS NULL OR ",
            state_condition!("INDEXED BY by_issuance", "?1", "?2"),
            ") ORDER BY ",
            $order,
            " LIMIT ?3) AS i LEFT JOIN uses AS u ON u.coupon_id = i.coupon_id AND u.use_sequence = (
                SELECT max(n.use_sequence) FROM uses AS n INDEXED BY by_issuance
                 WHERE n.coupon_id = i.coupon_id AND n.sequence = i.sequence)"
        )
    };
}

pub(super) const OF_ID: &str = page!("i.coupon_id = ?1 AND i.sequence = ?2");

pub(super) const OF_USER: &str = page!(
    "i.user_id = ?4 AND i.coupon_id BETWEEN ?5 AND ?6
         AND (?7 IS NULL OR (i.issued_at, i.coupon_id, i.sequence) < (?7, ?8, ?9))",
    "i.issued_at DESC, i.coupon_id DESC, i.sequence DESC"
);

pub(super) const OF_COUPON: &str = page!(
    "i.coupon_id = ?4 AND i.sequence > ?5 AND i.sequence <= ?6",
    "i.sequence"
);

/// In the order of the index on users, which is also that of sequences. So no more issuances are read than
/// the page has, if they may be in any state. The `+` makes SQLite use that index. If the user has the
/// issuance with the first sequence or the last one, nothing before or after it is read.
pub(super) const OF_COUPON_AND_USER: &str = page!(
    "i.user_id = ?7 AND i.coupon_id = ?4 AND +i.sequence > ?5 AND +i.sequence <= ?6
         AND i.nth > COALESCE((SELECT nth FROM issuances
               WHERE coupon_id = ?4 AND sequence = ?5 AND +user_id = ?7), 0)
         AND i.nth <= COALESCE((SELECT nth FROM issuances
               WHERE coupon_id = ?4 AND sequence = ?6 AND +user_id = ?7), 9223372036854775807)",
    "i.nth"
);

/// Reads the uses first, and then each issuance by its key.
pub(super) const OF_USED: &str = page!(
    "i.coupon_id = ?4 AND i.sequence IN (
         SELECT sequence FROM uses WHERE coupon_id = ?4 AND use_sequence > ?7 AND use_sequence <= ?8
            AND +sequence > ?5 AND +sequence <= ?6)
         AND (?9 IS NULL OR +i.user_id = ?9)",
    "i.sequence"
);

/// The issuances of one coupon, by their numbers.
pub(super) const OF_USER_WITHIN: &str = page!(
    "i.user_id = ?4 AND i.coupon_id = ?5 AND i.nth > ?6 AND i.nth <= ?10
         AND (i.issued_at, i.coupon_id, i.sequence) < (?7, ?8, ?9)",
    "i.issued_at DESC, i.coupon_id DESC, i.sequence DESC"
);

/// How many issuances a user has of these coupons.
pub(super) const COUNT_OF_USER: &str =
    "SELECT count(*) FROM issuances WHERE user_id = ?1 AND coupon_id BETWEEN ?2 AND ?3";

/// The coupon of an issuance, counted in the order of the key.
pub(super) const COUPON_OF_USER: &str = "
SELECT coupon_id FROM issuances WHERE user_id = ?1 AND coupon_id BETWEEN ?2 AND ?3
 ORDER BY coupon_id, nth LIMIT 1 OFFSET ?4";

/// The number of an issuance of one coupon, counted in their order.
pub(super) const NTH_OF_USER: &str = "
SELECT nth FROM issuances WHERE user_id = ?1 AND coupon_id = ?2 AND nth > ?3 ORDER BY nth LIMIT 1 OFFSET ?4";

/// The sequence of an issuance of one coupon, counted in their order.
pub(super) const SEQUENCE_OF_USER: &str = "
SELECT sequence FROM issuances WHERE user_id = ?1 AND coupon_id = ?2 AND +sequence > ?3
   AND nth > COALESCE((SELECT nth FROM issuances
         WHERE coupon_id = ?2 AND sequence = ?3 AND +user_id = ?1), 0)
 ORDER BY nth LIMIT 1 OFFSET ?4";

/// Issuances by their ids, each an array of coupon and sequence.
pub(super) const WITH_IDS: &str = page!(
    "(i.coupon_id, i.sequence) IN (
         SELECT json_extract(v.value, '$[0]'), json_extract(v.value, '$[1]') FROM json_each(?1) AS v)"
);

/// Reads a page of a list; `None` if the list is about a coupon that does not exist.
pub(crate) async fn issuances(
    connection: &mut SqliteConnection,
    query: &IssuanceQuery,
) -> Result<Option<IssuancePage>> {
    if !query.with_coupons {
        return step(connection, query).await;
    }
    // A transaction that is dropped is rolled back before the connection is used again.
    let mut snapshot = connection.begin().await.map_err(on_read)?;
    let page = step(&mut snapshot, query).await?;
    snapshot.rollback().await.map_err(on_read)?;
    Ok(page)
}

/// Reads a page of a list in a snapshot that its caller has begun, or in one statement.
pub(crate) async fn step(
    connection: &mut SqliteConnection,
    query: &IssuanceQuery,
) -> Result<Option<IssuancePage>> {
    let up_to = match &query.of {
        IssuancesOf::Coupon {
            coupon,
            user: Some(user),
            after,
        } if query.is_search() => last_of_part(connection, user, (*coupon, *after), query.examine).await?,
        IssuancesOf::Coupon { after, .. } => query.up_to(*after),
        _ => Sequence::NONE,
    };
    let mut page = IssuancePage {
        issuances: found(connection, query, up_to).await?,
        ..IssuancePage::default()
    };
    if let IssuancesOf::Coupon { coupon: id, .. } = query.of
        && (query.is_search() || page.issuances.is_empty())
    {
        let Some(issued) = issued(connection, id).await? else {
            return Ok(None);
        };
        if query.is_search() {
            page.next = query.next(&page.issuances, up_to, issued);
        }
    }
    if query.with_coupons {
        let ids = IssuancePage::coupon_ids(&page.issuances);
        page.coupons = coupons_of(connection, &ids).await?;
    }
    Ok(Some(page))
}

/// Reads a page of a list of a user if it has at most this many issuances; `None` if it has more.
pub(crate) async fn of_few(
    connection: &mut SqliteConnection,
    query: &IssuanceQuery,
    at_most: u32,
) -> Result<Option<IssuancePage>> {
    if let Some((user, range)) = query.of_user() {
        let beyond = coupon_at(connection, user, range, at_most);
        if beyond.await?.is_some() {
            return Ok(None);
        }
    }
    issuances(connection, &query.in_one_step(at_most)).await
}

/// Reads these issuances, in no particular order.
pub(crate) async fn with_ids(
    connection: &mut SqliteConnection,
    ids: &[IssuanceId],
) -> Result<Vec<UsedIssuance>> {
    let ids = ids.iter().map(|id| format!("[{},{}]", id.coupon, id.sequence));
    let ids = format!("[{}]", ids.collect::<Vec<_>>().join(","));
    let read = sqlx::query(WITH_IDS).bind(ids).fetch_all(connection).await;
    read.map_err(on_read)?.iter().map(rows::used_issuance).collect()
}

/// Returns the last sequence of a part of the user's issuances of a coupon, which begins after a sequence and
/// has `examine` of them; the highest possible one if fewer are left.
async fn last_of_part(
    connection: &mut SqliteConnection,
    user: &UserId,
    (coupon, after): (CouponId, Sequence),
    examine: u32,
) -> Result<Sequence> {
    let statement = sqlx::query_scalar(SEQUENCE_OF_USER).bind(user.as_str());
    let statement = statement.bind(integer(coupon.get())).bind(integer(after.get()));
    let last: Option<i64> = statement
        .bind(examine - 1)
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    let last = last.and_then(|last| u64::try_from(last).ok());
    Ok(Sequence::new(last.unwrap_or(ID_MAX)))
}

/// Returns how many issuances the user has of the coupons after the first of these up to the second.
pub(crate) async fn count_of_user(
    connection: &mut SqliteConnection,
    user: &UserId,
    (after, last): (Option<CouponId>, Option<CouponId>),
) -> Result<u64> {
    let lowest = after.map_or(0, |after| integer(after.get()) + 1);
    let statement = sqlx::query_scalar(COUNT_OF_USER).bind(user.as_str()).bind(lowest);
    let statement = statement.bind(last.map_or(i64::MAX, |last| integer(last.get())));
    let count: i64 = statement.fetch_one(connection).await.map_err(on_read)?;
    readable(u64::try_from(count).ok(), "COUNT(*)")
}

/// Returns the coupon of the user's issuance after so many others, in the order of the key.
async fn coupon_at(
    connection: &mut SqliteConnection,
    user: &UserId,
    (lowest, highest): (i64, i64),
    offset: u32,
) -> Result<Option<i64>> {
    let statement = sqlx::query_scalar(COUPON_OF_USER).bind(user.as_str());
    let statement = statement.bind(lowest).bind(highest).bind(offset);
    statement.fetch_optional(connection).await.map_err(on_read)
}

/// Takes one step through all issuances of a user, in a snapshot that its caller has begun.
pub(crate) async fn user_step(connection: &mut SqliteConnection, step: &UserStep) -> Result<UserStepPage> {
    let (coupon, after) = match step.place {
        UserPlace::Within(coupon, after) => (coupon, after),
        UserPlace::After(after) => {
            let range = step.coupons(after);
            let cut = coupon_at(connection, &step.user, range, step.examine).await?;
            let first = coupon_at(connection, &step.user, range, 0).await?;
            match first.filter(|_| cut == first) {
                // The first coupon is too much for the step.
                Some(first) => (rows::coupon_id(first)?, 0),
                None => {
                    let (last, next) = UserStep::whole_coupons(range.1, cut);
                    let issuances = newest(connection, step, OF_USER, [range.0, last], None).await?;
                    return Ok(UserStepPage { issuances, next });
                }
            }
        }
    };
    let (id, after) = (integer(coupon.get()), integer(after));
    let statement = sqlx::query_scalar(NTH_OF_USER).bind(step.user.as_str());
    let statement = statement.bind(id).bind(after).bind(step.examine - 1);
    let last: Option<i64> = statement
        .fetch_optional(&mut *connection)
        .await
        .map_err(on_read)?;
    let up_to = Some(last.unwrap_or(i64::MAX));
    let issuances = newest(connection, step, OF_USER_WITHIN, [id, after], up_to).await?;
    let next = step.next_within(coupon, last.and_then(|last| u64::try_from(last).ok()));
    Ok(UserStepPage { issuances, next })
}

/// Reads the newest issuances of a step's part, which has these bounds.
async fn newest(
    connection: &mut SqliteConnection,
    step: &UserStep,
    statement: &'static str,
    from: [i64; 2],
    up_to: Option<i64>,
) -> Result<Vec<UsedIssuance>> {
    let mut statement = sqlx::query(statement)
        .bind(step.now.as_micros())
        .bind(step.state.map(UseState::as_str))
        .bind(step.limit)
        .bind(step.user.as_str());
    for value in from.into_iter().chain(step.after()).chain(up_to) {
        statement = statement.bind(value);
    }
    let found = statement.fetch_all(connection).await.map_err(on_read)?;
    found.iter().map(rows::used_issuance).collect()
}

/// Reads the issuances of a query; of a coupon, up to a sequence.
async fn found(
    connection: &mut SqliteConnection,
    query: &IssuanceQuery,
    up_to: Sequence,
) -> Result<Vec<UsedIssuance>> {
    let listed = |statement| {
        sqlx::query(statement)
            .bind(query.now.as_micros())
            .bind(query.state.map(UseState::as_str))
            .bind(query.limit)
    };
    let statement = match &query.of {
        IssuancesOf::Id(id) => sqlx::query(OF_ID)
            .bind(integer(id.coupon.get()))
            .bind(integer(id.sequence.get())),
        IssuancesOf::User { user, coupon, after } => {
            let (lowest, highest) = coupon_range(*coupon);
            listed(OF_USER)
                .bind(user.as_str())
                .bind(lowest)
                .bind(highest)
                .bind(after.map(|after| after.issued_at.as_micros()))
                .bind(after.map(|after| integer(after.id.coupon.get())))
                .bind(after.map(|after| integer(after.id.sequence.get())))
        }
        IssuancesOf::Coupon { coupon, user, after } => {
            let statement = listed(match user {
                Some(_) => OF_COUPON_AND_USER,
                None => OF_COUPON,
            });
            let statement = statement
                .bind(integer(coupon.get()))
                .bind(integer(after.get()))
                .bind(integer(up_to.get()));
            match user {
                Some(user) => statement.bind(user.as_str()),
                None => statement,
            }
        }
        IssuancesOf::Used {
            coupon,
            user,
            uses,
            sequences,
        } => listed(OF_USED)
            .bind(integer(coupon.get()))
            .bind(integer(sequences.0.get()))
            .bind(integer(sequences.1.get()))
            .bind(integer(uses.0.get()))
            .bind(integer(uses.1.get()))
            .bind(user.as_ref().map(UserId::as_str)),
    };
    let found = statement.fetch_all(connection).await.map_err(on_read)?;
    let found = found.iter().map(rows::used_issuance).collect::<Result<_>>()?;
    Ok(query.sorted(found))
}
