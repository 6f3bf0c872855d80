//! Lists of issuances. Each list is one statement, which joins the latest uses.

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{MySql, MySqlConnection};

use super::reads::{coupons_of, issued};
use crate::coupon::rows::columns::{
    self as rows, coupon_range, issuance_columns, page_columns, state_condition,
};
use crate::coupon::rows::{IssuancePage, IssuanceQuery, IssuancesOf, UserPlace, UserStep, UserStepPage};
use crate::coupon::uses::{UseState, UsedIssuance};
use crate::ids::UserId;
use crate::store::Result;
use crate::store::columns::integer;
use crate::store::mysql::error::on_read;
use crate::store::mysql::{Dialect, snapshot};
use crate::time::Timestamp;

/// The issuances `i` that a condition selects, with their latest uses. `$from` is `issuances AS i` with a
/// hint, and what it is joined to.
macro_rules! page {
    ($from:literal, $condition:literal, $state:expr, $order:expr) => {
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
    ($from:literal, $condition:literal, $order:expr) => {
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

/// The order of a user's list.
macro_rules! newest_first {
    () => {
        " ORDER BY i.issued_at DESC, i.coupon_id DESC, i.sequence DESC LIMIT ?"
    };
}

const OF_ID: &str = page!("issuances AS i", "i.coupon_id = ? AND i.sequence = ?", "", "");

const OF_USER: [&str; 2] = pages!(
    "issuances AS i FORCE INDEX (by_user)",
    "i.user_id = ? AND i.coupon_id BETWEEN ? AND ?",
    newest_first!()
);

const OF_USER_AFTER: [&str; 2] = pages!(
    "issuances AS i FORCE INDEX (by_user)",
    "i.user_id = ? AND i.coupon_id BETWEEN ? AND ? AND (i.issued_at, i.coupon_id, i.sequence) < (?, ?, ?)",
    newest_first!()
);

const OF_COUPON: [&str; 2] = pages!(
    "issuances AS i FORCE INDEX (PRIMARY)",
    "i.coupon_id = ? AND i.sequence > ? AND i.sequence <= ?",
    " ORDER BY i.sequence LIMIT ?"
);

/// Uses the index on users: a user has few issuances, and a coupon may have a million. If they may be in any
/// state, reads only those of the page in the table.
const OF_COUPON_AND_USER: [&str; 2] = [
    page!(
        "(SELECT sequence AS found FROM issuances FORCE INDEX (by_user)
            WHERE user_id = ? AND coupon_id = ? AND sequence > ? AND sequence <= ?
            ORDER BY sequence LIMIT ?) AS n
          STRAIGHT_JOIN issuances AS i FORCE INDEX (PRIMARY)",
        "i.coupon_id = ? AND i.sequence = n.found",
        "",
        ""
    ),
    page!(
        "issuances AS i FORCE INDEX (by_user)",
        "i.user_id = ? AND i.coupon_id = ? AND i.sequence > ? AND i.sequence <= ?",
        concat!(" AND ", state_condition!("FORCE INDEX (by_issuance)", "?", "?")),
        " ORDER BY i.sequence LIMIT ?"
    ),
];

/// Reads the uses first, and then each issuance by its key.
const OF_USED: [&str; 2] = pages!(
    "(SELECT DISTINCT sequence AS used FROM uses FORCE INDEX (PRIMARY)
        WHERE coupon_id = ? AND use_sequence > ? AND use_sequence <= ? AND sequence > ? AND sequence <= ?) AS n
      STRAIGHT_JOIN issuances AS i FORCE INDEX (PRIMARY)",
    "i.coupon_id = ? AND i.sequence = n.used",
    " ORDER BY i.sequence LIMIT ?"
);

/// A part of a coupon. The index on users does not have issuances beyond the limits by sequence, so the table
/// is read, also the issuances of other users.
const OF_USER_WITHIN: [&str; 2] = pages!(
    "issuances AS i FORCE INDEX (PRIMARY)",
    "i.coupon_id = ? AND i.sequence > ? AND i.sequence <= ? AND i.user_id = ?
         AND (i.issued_at, i.coupon_id, i.sequence) < (?, ?, ?)",
    newest_first!()
);

/// The coupon of an issuance, counted in the order of the key.
const COUPON_OF_USER: &str = "
SELECT coupon_id FROM issuances FORCE INDEX (by_user)
 WHERE user_id = ? AND coupon_id BETWEEN ? AND ? ORDER BY coupon_id, nth LIMIT 1 OFFSET ?";

/// A row if the coupon has a higher sequence than this.
const GOES_ON: &str = "
SELECT sequence FROM issuances FORCE INDEX (PRIMARY)
 WHERE coupon_id = ? AND sequence > ? ORDER BY sequence LIMIT 1";

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
        let Some(issued) = issued(connection, id).await? else {
            return Ok(None);
        };
        if query.is_search() {
            page.next = query.next(&page.issuances, after, issued);
        }
    }
    if query.with_coupons {
        let ids = IssuancePage::coupon_ids(&page.issuances);
        page.coupons = coupons_of(connection, dialect, &ids).await?;
    }
    Ok(Some(page))
}

/// Reads a page of a user's list if it has at most this many issuances; `None` if it has more.
pub(crate) async fn of_few(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    query: &IssuanceQuery,
    at_most: u32,
) -> Result<Option<IssuancePage>> {
    if let IssuancesOf::User { user, coupon, .. } = &query.of {
        let beyond = coupon_at(connection, user, coupon_range(*coupon), at_most);
        if beyond.await?.is_some() {
            return Ok(None);
        }
    }
    issuances(connection, dialect, query).await
}

/// Returns the coupon of the user's issuance after so many others, in the order of the key.
async fn coupon_at(
    connection: &mut MySqlConnection,
    user: &UserId,
    (lowest, highest): (i64, i64),
    offset: u32,
) -> Result<Option<i64>> {
    let statement = sqlx::query_scalar(COUPON_OF_USER).bind(user.as_str());
    let statement = statement.bind(lowest).bind(highest).bind(offset);
    statement.fetch_optional(connection).await.map_err(on_read)
}

/// Takes one step through all issuances of a user, in a snapshot that its caller has begun.
pub(crate) async fn user_step(connection: &mut MySqlConnection, step: &UserStep) -> Result<UserStepPage> {
    let user = step.user.as_str();
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
                    let statement = sqlx::query(in_state(OF_USER_AFTER, step.state));
                    let statement = statement.bind(user).bind(range.0).bind(last);
                    let issuances = newest(connection, statement, step).await?;
                    return Ok(UserStepPage { issuances, next });
                }
            }
        }
    };
    let (id, up_to) = (coupon.get(), after.saturating_add(step.examine.into()));
    let statement = sqlx::query(in_state(OF_USER_WITHIN, step.state));
    let statement = statement.bind(integer(id)).bind(integer(after));
    let statement = statement.bind(integer(up_to)).bind(user);
    let issuances = newest(connection, statement, step).await?;
    let further = sqlx::query(GOES_ON).bind(integer(id)).bind(integer(up_to));
    let further = further.fetch_optional(connection).await.map_err(on_read)?;
    let next = step.next_within(coupon, further.map(|_| up_to));
    Ok(UserStepPage { issuances, next })
}

/// Reads the newest issuances of a step's part.
async fn newest(
    connection: &mut MySqlConnection,
    mut statement: Query<'_, MySql, MySqlArguments>,
    step: &UserStep,
) -> Result<Vec<UsedIssuance>> {
    for value in step.after() {
        statement = statement.bind(value);
    }
    let statement = limited(statement, step.state, step.now, step.limit);
    used(&statement.fetch_all(connection).await.map_err(on_read)?)
}

fn used(rows: &[MySqlRow]) -> Result<Vec<UsedIssuance>> {
    rows.iter().map(rows::used_issuance).collect()
}

async fn found(connection: &mut MySqlConnection, query: &IssuanceQuery) -> Result<Vec<UsedIssuance>> {
    let text = |statements| in_state(statements, query.state);
    let limited = |statement| limited(statement, query.state, query.now, query.limit);
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
            limited(statement)
        }
        IssuancesOf::Coupon { coupon, user, after } => {
            let coupon = integer(coupon.get());
            let [after, up_to] = [*after, query.up_to(*after)].map(|sequence| integer(sequence.get()));
            match user {
                None => limited(sqlx::query(text(OF_COUPON)).bind(coupon).bind(after).bind(up_to)),
                Some(user) => {
                    let statement = sqlx::query(text(OF_COUPON_AND_USER)).bind(user.as_str());
                    let statement = limited(statement.bind(coupon).bind(after).bind(up_to));
                    match query.state {
                        Some(_) => statement,
                        None => statement.bind(coupon),
                    }
                }
            }
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
            limited(statement)
        }
    };
    let found = statement.fetch_all(connection).await.map_err(on_read)?;
    Ok(query.sorted(used(&found)?))
}

/// Returns the statement for issuances in any state, or for those in one state.
fn in_state([all, in_state]: [&'static str; 2], state: Option<UseState>) -> &'static str {
    state.map_or(all, |_| in_state)
}

/// Binds the values of the state and the limit.
fn limited<'q>(
    mut statement: Query<'q, MySql, MySqlArguments>,
    state: Option<UseState>,
    now: Timestamp,
    limit: u32,
) -> Query<'q, MySql, MySqlArguments> {
    if let Some(state) = state {
        let now = now.as_micros();
        statement = statement.bind(now).bind(now).bind(state.as_str());
    }
    statement.bind(limit)
}
