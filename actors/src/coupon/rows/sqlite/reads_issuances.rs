//! Lists of issuances. Each list is one statement, which joins the latest uses.

use sqlx::{Connection, SqliteConnection};

use super::reads::{coupon, coupons_of};
use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::rows::columns::{
    self as rows, coupon_range, issuance_columns, page_columns, state_condition,
};
use crate::coupon::rows::{IssuancePage, IssuanceQuery, IssuancesOf, UserPlace, UserStep, UserStepPage};
use crate::coupon::uses::{UseState, UsedIssuance};
use crate::ids::UserId;
use crate::store::Result;
use crate::store::columns::integer;
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

/// The `+` makes SQLite use the index on users: a user has few issuances, and a coupon may have a million.
pub(super) const OF_COUPON_AND_USER: &str = page!(
    "i.user_id = ?7 AND +i.coupon_id = ?4 AND i.sequence > ?5 AND i.sequence <= ?6",
    "i.sequence"
);

/// Reads the uses first, and then each issuance by its key.
pub(super) const OF_USED: &str = page!(
    "i.coupon_id = ?4 AND i.sequence IN (
         SELECT sequence FROM uses WHERE coupon_id = ?4 AND use_sequence > ?7 AND use_sequence <= ?8
            AND +sequence > ?5 AND +sequence <= ?6)",
    "i.sequence"
);

/// The issuances of the lowest coupons, in any state.
pub(super) const OF_USER_BY_COUPON: &str = page!(
    "i.user_id = ?4 AND i.coupon_id BETWEEN ?5 AND ?6",
    "i.coupon_id, i.nth"
);

/// The issuances of one coupon, in any state.
pub(super) const OF_USER_WITHIN: &str = page!("i.user_id = ?4 AND i.coupon_id = ?5 AND i.nth > ?6", "i.nth");

pub(super) const OF_USER_BEYOND: &str = "
SELECT coupon_id FROM issuances WHERE user_id = ?1 AND coupon_id BETWEEN ?2 AND ?3
 ORDER BY coupon_id, nth LIMIT 1 OFFSET ?4";

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
        page.coupons = coupons_of(connection, &ids).await?;
    }
    Ok(Some(page))
}

/// Returns true if the user has more issuances than this.
pub(crate) async fn user_has_more_than(
    connection: &mut SqliteConnection,
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
pub(crate) async fn user_step(connection: &mut SqliteConnection, step: &UserStep) -> Result<UserStepPage> {
    let statement = match step.place {
        UserPlace::After(_) => OF_USER_BY_COUPON,
        UserPlace::Within(..) => OF_USER_WITHIN,
    };
    // All states, so the time does not matter.
    let statement = sqlx::query(statement)
        .bind(0)
        .bind(None::<&str>)
        .bind(match step.place {
            UserPlace::After(_) => step.limit(),
            UserPlace::Within(..) => step.examine,
        })
        .bind(step.user.as_str());
    let statement = match step.place {
        UserPlace::After(after) => {
            let (lowest, highest) = step.coupons(after);
            statement.bind(lowest).bind(highest)
        }
        UserPlace::Within(coupon, after) => statement.bind(integer(coupon.get())).bind(after.nth),
    };
    let found = statement.fetch_all(connection).await.map_err(on_read)?;
    let mut found: Vec<UsedIssuance> = found.iter().map(rows::used_issuance).collect::<Result<_>>()?;
    match step.place {
        UserPlace::After(_) => Ok(step.of_whole_coupons(found)),
        UserPlace::Within(coupon, _) => {
            found.sort_unstable_by_key(|used| used.issuance.id.sequence);
            Ok(step.within(coupon, found))
        }
    }
}

async fn found(connection: &mut SqliteConnection, query: &IssuanceQuery) -> Result<Vec<UsedIssuance>> {
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
                .bind(integer(Sequence::get(query.up_to(*after))));
            match user {
                Some(user) => statement.bind(user.as_str()),
                None => statement,
            }
        }
        IssuancesOf::Used {
            coupon,
            uses,
            sequences,
        } => listed(OF_USED)
            .bind(integer(coupon.get()))
            .bind(integer(sequences.0.get()))
            .bind(integer(sequences.1.get()))
            .bind(integer(uses.0.get()))
            .bind(integer(uses.1.get())),
    };
    let found = statement.fetch_all(connection).await.map_err(on_read)?;
    let found = found.iter().map(rows::used_issuance).collect::<Result<_>>()?;
    Ok(query.sorted(found))
}
