//! Lists of issuances. Each list is one statement, which joins the latest uses.

use sqlx::mysql::MySqlArguments;
use sqlx::query::Query;
use sqlx::{MySql, MySqlConnection};

use super::reads::{coupon, coupons_of};
use crate::coupon::rows::columns::{
    self as rows, coupon_range, issuance_columns, page_columns, state_condition,
};
use crate::coupon::rows::{IssuancePage, IssuanceQuery, IssuancesOf};
use crate::coupon::uses::UsedIssuance;
use crate::store::Result;
use crate::store::columns::integer;
use crate::store::mysql::error::on_read;
use crate::store::mysql::{Dialect, snapshot};

/// The issuances `i` that a condition selects, with their latest uses. `$from` is `issuances AS i` with a hint,
/// and what it is joined to.
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
    let found = found.iter().map(rows::used_issuance).collect::<Result<_>>()?;
    Ok(query.sorted(found))
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
