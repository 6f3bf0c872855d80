//! Lists of issuances. Each list is one statement, which joins the latest uses.

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{MySql, MySqlConnection};

use super::reads::{coupon, coupons_of};
use crate::coupon::ids::CouponId;
use crate::coupon::rows::columns::{
    self as rows, coupon_range, issuance_columns, page_columns, state_condition,
};
use crate::coupon::rows::{IssuancePage, IssuanceQuery, IssuancesOf, UserPlace, UserStep, UserStepPage};
use crate::coupon::uses::UsedIssuance;
use crate::ids::UserId;
use crate::store::Result;
use crate::store::columns::integer;
use crate::store::mysql::error::on_read;
use crate::store::mysql::{Dialect, snapshot};

/// The issuances `i` that a condition selects, with their latest uses. `$from` is `issuances AS i` with a
/// hint, and what it is joined to.
macro_rules! page {
    ($from:literal, $condition:literal, $state:expr, $order:literal) => {
        concat!(
            "SELECT ",
            page_columns!(),
            " FROM (SELECT ",
            issuance_columns!(),
            " FROM ",
            $from,
            " WHERE ",
            $condition,
            $state,
            $order,
            ") AS i LEFT JOIN uses AS u FORCE INDEX (PRIMARY)
                ON u.coupon_id = i.coupon_id AND u.use_sequence = (
                   SELECT MAX(n.use_sequence) FROM uses AS n FORCE INDEX (by_issuance)
                    WHERE n.coupon_id = i.coupon_id AND n.sequence = i.sequence)"
        )
    };
}

/// The same list for issuances in any state, and for issuances in one state.
macro_rules! pages {
    ($from:literal, $condition:literal, $order:literal) => {
        [
            page!($from, $condition, "", $order),
            page!(
                $from,
                $condition,
                concat!(" AND ", state_condition!("FORCE INDEX (by_issuance)", "?", "?")),
                $order
            ),
        ]
    };
}

const OF_ID: &str = page!("issuances AS i", "i.coupon_id = ? AND i.sequence = ?", "", "");

const OF_USER: [&str; 2] = pages!(
    "issuances AS i FORCE INDEX (by_user)",
    "i.user_id = ? AND i.coupon_id BETWEEN ? AND ?",
    " ORDER BY i.issued_at DESC, i.coupon_id DESC, i.sequence DESC LIMIT ?"
);

const OF_USER_AFTER: [&str; 2] = pages!(
    "issuances AS i FORCE INDEX (by_user)",
    "i.user_id = ? AND i.coupon_id BETWEEN ? AND ? AND (i.issued_at, i.coupon_id, i.sequence) < (?, ?, ?)",
    " ORDER BY i.issued_at DESC, i.coupon_id DESC, i.sequence DESC LIMIT ?"
);

const OF_COUPON: [&str; 2] = pages!(
    "issuances AS i FORCE INDEX (PRIMARY)",
    "i.coupon_id = ? AND i.sequence > ? AND i.sequence <= ?",
    " ORDER BY i.sequence LIMIT ?"
);

/// Uses the index on users: a user has few issuances, and a coupon may have a million.
const OF_COUPON_AND_USER: [&str; 2] = pages!(
    "issuances AS i FORCE INDEX (by_user)",
    "i.coupon_id = ? AND i.sequence > ? AND i.sequence <= ? AND i.user_id = ?",
    " ORDER BY i.sequence LIMIT ?"
);

/// Reads the uses first, and then each issuance by its key.
const OF_USED: [&str; 2] = pages!(
    "(SELECT DISTINCT sequence AS used FROM uses FORCE INDEX (PRIMARY)
        WHERE coupon_id = ? AND use_sequence > ? AND use_sequence <= ? AND sequence > ? AND sequence <= ?) AS n
      STRAIGHT_JOIN issuances AS i FORCE INDEX (PRIMARY)",
    "i.coupon_id = ? AND i.sequence = n.used",
    " ORDER BY i.sequence LIMIT ?"
);

/// The issuances of the lowest coupons.
const OF_USER_BY_COUPON: &str = page!(
    "issuances AS i FORCE INDEX (by_user)",
    "i.user_id = ? AND i.coupon_id BETWEEN ? AND ?",
    "",
    " ORDER BY i.coupon_id, i.nth LIMIT ?"
);

/// Those within the limits, which have a number.
const OF_USER_NUMBERED: &str = page!(
    "issuances AS i FORCE INDEX (by_user)",
    "i.user_id = ? AND i.coupon_id = ? AND i.nth > ?",
    "",
    " ORDER BY i.nth LIMIT ?"
);

/// Those beyond the limits, which were issued later.
const OF_USER_UNNUMBERED: &str = page!(
    "issuances AS i FORCE INDEX (by_user)",
    "i.user_id = ? AND i.coupon_id = ? AND i.nth IS NULL AND i.sequence > ?",
    "",
    " ORDER BY i.sequence LIMIT ?"
);

const OF_USER_BEYOND: &str = "
SELECT coupon_id FROM issuances FORCE INDEX (by_user)
 WHERE user_id = ? AND coupon_id BETWEEN ? AND ? ORDER BY coupon_id, nth LIMIT 1 OFFSET ?";

/// Reads a page of a list; `None` if the list is about a coupon that does not exist.
pub(crate) async fn issuances(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    query: &IssuanceQuery,
) -> Result<Option<IssuancePage>> {
    if !query.with_coupons {
        return step(connection, dialect, query).await;
    }
    // After an error the connection is closed, which ends the snapshot.
    snapshot::begin(connection).await?;
    let page = step(connection, dialect, query).await?;
    snapshot::end(connection).await?;
    Ok(page)
}

/// Reads a page of a list in a snapshot that its caller has begun, or in one statement.
pub(crate) async fn step(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    query: &IssuanceQuery,
) -> Result<Option<IssuancePage>> {
    let mut page = IssuancePage {
        issuances: found(connection, query).await?,
        ..IssuancePage::default()
    };
    if let IssuancesOf::Coupon {
        coupon: id, after, ..
    } = query.of
        && (query.is_search() || page.issuances.is_empty())
    {
        let Some(view) = coupon(connection, id).await? else {
            return Ok(None);
        };
        if query.is_search() {
            page.next = query.next(&page.issuances, after, &view);
        }
    }
    if query.with_coupons {
        let ids = IssuancePage::coupon_ids(&page.issuances);
        page.coupons = coupons_of(connection, dialect, &ids).await?;
    }
    Ok(Some(page))
}

/// Returns true if the user has more issuances than this.
pub(crate) async fn user_has_more_than(
    connection: &mut MySqlConnection,
    user: &UserId,
    coupon: Option<CouponId>,
    count: u32,
) -> Result<bool> {
    let (lowest, highest) = coupon_range(coupon);
    let beyond = sqlx::query(OF_USER_BEYOND)
        .bind(user.as_str())
        .bind(lowest)
        .bind(highest)
        .bind(count)
        .fetch_optional(connection)
        .await;
    Ok(beyond.map_err(on_read)?.is_some())
}

/// Takes one step through all issuances of a user, in a snapshot that its caller has begun.
pub(crate) async fn user_step(connection: &mut MySqlConnection, step: &UserStep) -> Result<UserStepPage> {
    let user = step.user.as_str();
    let (coupon, after) = match step.place {
        UserPlace::Within(coupon, after) => (coupon, after),
        UserPlace::After(after) => {
            let (lowest, highest) = step.coupons(after);
            let statement = sqlx::query(OF_USER_BY_COUPON)
                .bind(user)
                .bind(lowest)
                .bind(highest);
            let found = statement.bind(step.limit()).fetch_all(connection).await;
            return Ok(step.of_whole_coupons(used(&found.map_err(on_read)?)?));
        }
    };
    let id = integer(coupon.get());
    let numbered = sqlx::query(OF_USER_NUMBERED).bind(user).bind(id).bind(after.nth);
    let numbered = numbered.bind(step.examine).fetch_all(&mut *connection).await;
    let mut found = used(&numbered.map_err(on_read)?)?;
    // It has read at most as many as it may.
    let left = step.examine - found.len() as u32;
    if left > 0 {
        let others = sqlx::query(OF_USER_UNNUMBERED).bind(user).bind(id);
        let others = others.bind(integer(after.sequence.get())).bind(left);
        let others = others.fetch_all(connection).await.map_err(on_read)?;
        found.extend(used(&others)?);
    }
    found.sort_unstable_by_key(|used| used.issuance.id.sequence);
    Ok(step.within(coupon, found))
}

fn used(rows: &[MySqlRow]) -> Result<Vec<UsedIssuance>> {
    rows.iter().map(rows::used_issuance).collect()
}

async fn found(connection: &mut MySqlConnection, query: &IssuanceQuery) -> Result<Vec<UsedIssuance>> {
    let text = |[all, in_state]: [&'static str; 2]| query.state.map_or(all, |_| in_state);
    let statement = match &query.of {
        IssuancesOf::Id(id) => sqlx::query(OF_ID)
            .bind(integer(id.coupon.get()))
            .bind(integer(id.sequence.get())),
        IssuancesOf::User { user, coupon, after } => {
            let (lowest, highest) = coupon_range(*coupon);
            let statement = text(after.map_or(OF_USER, |_| OF_USER_AFTER));
            let mut statement = sqlx::query(statement)
                .bind(user.as_str())
                .bind(lowest)
                .bind(highest);
            if let Some(after) = after {
                statement = statement
                    .bind(after.issued_at.as_micros())
                    .bind(integer(after.id.coupon.get()))
                    .bind(integer(after.id.sequence.get()));
            }
            limited(statement, query)
        }
        IssuancesOf::Coupon { coupon, user, after } => {
            let statement = user.as_ref().map_or(OF_COUPON, |_| OF_COUPON_AND_USER);
            let mut statement = sqlx::query(text(statement))
                .bind(integer(coupon.get()))
                .bind(integer(after.get()))
                .bind(integer(query.up_to(*after).get()));
            if let Some(user) = user {
                statement = statement.bind(user.as_str());
            }
            limited(statement, query)
        }
        IssuancesOf::Used {
            coupon,
            uses,
            sequences,
        } => {
            let coupon = integer(coupon.get());
            let statement = sqlx::query(text(OF_USED))
                .bind(coupon)
                .bind(integer(uses.0.get()))
                .bind(integer(uses.1.get()))
                .bind(integer(sequences.0.get()))
                .bind(integer(sequences.1.get()))
                .bind(coupon);
            limited(statement, query)
        }
    };
    let found = statement.fetch_all(connection).await.map_err(on_read)?;
    Ok(query.sorted(used(&found)?))
}

/// Binds the values of the state and the limit.
fn limited<'q>(
    mut statement: Query<'q, MySql, MySqlArguments>,
    query: &IssuanceQuery,
) -> Query<'q, MySql, MySqlArguments> {
    if let Some(state) = query.state {
        let now = query.now.as_micros();
        statement = statement.bind(now).bind(now).bind(state.as_str());
    }
    statement.bind(query.limit)
}
