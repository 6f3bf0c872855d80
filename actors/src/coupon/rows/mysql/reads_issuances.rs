//! Lists of issuances. Each list is one statement, which joins the latest uses.

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql, MySqlConnection};

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
use crate::store::mysql::error::on_read;
use crate::store::mysql::{Dialect, snapshot};
use crate::time::Timestamp;

/// How many times more entries of the index on users a step goes through than it examines issuances, at most.
/// An entry takes much less time than an issuance, which is read in the table and looked up among the uses.
const IN_INDEX_MAX: u32 = 20;

/// The issuances `i` that a condition selects, with their latest uses. `$from` is `issuances AS i` with a
/// hint, and what it is joined to.
macro_rules! page {
    ($from:expr, $condition:literal, $state:expr, $order:expr) => {
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
    ($from:expr, $condition:literal, $order:expr) => {
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

/// A user's issuances of a coupon, between two sequences that are found in this index.
macro_rules! between {
    ($index:literal) => {
        concat!(
            "(SELECT sequence AS found FROM issuances FORCE INDEX (",
            $index,
            ") WHERE user_id = ? AND coupon_id = ? AND sequence > ? AND sequence <= ?) AS n
              STRAIGHT_JOIN issuances AS i FORCE INDEX (PRIMARY)"
        )
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

/// In any state. Uses the index on users: a user has few issuances, and a coupon may have a million. Reads
/// only the issuances of the page in the table.
const OF_COUPON_AND_USER: &str = page!(
    "(SELECT sequence AS found FROM issuances FORCE INDEX (by_user)
        WHERE user_id = ? AND coupon_id = ? AND sequence > ? AND sequence <= ?
        ORDER BY sequence LIMIT ?) AS n
      STRAIGHT_JOIN issuances AS i FORCE INDEX (PRIMARY)",
    "i.coupon_id = ? AND i.sequence = n.found",
    "",
    ""
);

/// In one state, by [`Part::index`].
const OF_COUPON_AND_USER_IN_STATE: [&str; 2] = [
    pages!(
        between!("by_user"),
        "i.coupon_id = ? AND i.sequence = n.found",
        " ORDER BY i.sequence LIMIT ?"
    )[1],
    pages!(
        between!("PRIMARY"),
        "i.coupon_id = ? AND i.sequence = n.found",
        " ORDER BY i.sequence LIMIT ?"
    )[1],
];

/// Issuances whose ids are in the table `v`.
const WITH_IDS: &str = page!(
    "v STRAIGHT_JOIN issuances AS i FORCE INDEX (PRIMARY)",
    "i.coupon_id = v.coupon AND i.sequence = v.number",
    "",
    ""
);

/// Reads the uses first, and then each issuance by its key.
const OF_USED: [&str; 2] = pages!(
    "(SELECT DISTINCT sequence AS used FROM uses FORCE INDEX (PRIMARY)
        WHERE coupon_id = ? AND use_sequence > ? AND use_sequence <= ? AND sequence > ? AND sequence <= ?) AS n
      STRAIGHT_JOIN issuances AS i FORCE INDEX (PRIMARY)",
    "i.coupon_id = ? AND i.sequence = n.used AND i.user_id = COALESCE(?, i.user_id)",
    " ORDER BY i.sequence LIMIT ?"
);

/// A part of a user's issuances of a coupon, by [`Part::index`].
const OF_USER_WITHIN: [[&str; 2]; 2] = [
    pages!(
        between!("by_user"),
        "i.coupon_id = ? AND i.sequence = n.found AND (i.issued_at, i.coupon_id, i.sequence) < (?, ?, ?)",
        newest_first!()
    ),
    pages!(
        between!("PRIMARY"),
        "i.coupon_id = ? AND i.sequence = n.found AND (i.issued_at, i.coupon_id, i.sequence) < (?, ?, ?)",
        newest_first!()
    ),
];

/// How many issuances a user has of these coupons.
const COUNT_OF_USER: &str = "
SELECT COUNT(*) FROM issuances FORCE INDEX (by_user) WHERE user_id = ? AND coupon_id BETWEEN ? AND ?";

/// The coupon of an issuance, counted in the order of the key. With the id of the last coupon, MariaDB would go
/// through all that a user has of a single one.
const COUPON_OF_USER: &str = "
SELECT coupon_id FROM issuances FORCE INDEX (by_user)
 WHERE user_id = ? AND coupon_id >= ? ORDER BY coupon_id, nth LIMIT 1 OFFSET ?";

/// The sequence of an issuance of one coupon, counted in their order.
const SEQUENCE_OF_USER: &str = "
SELECT sequence FROM issuances FORCE INDEX (by_user)
 WHERE user_id = ? AND coupon_id = ? AND sequence > ? ORDER BY sequence LIMIT 1 OFFSET ?";

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
    let part = match &query.of {
        IssuancesOf::Coupon {
            coupon,
            user: Some(user),
            after,
        } if query.is_search() => {
            Some(Part::of_user(connection, user, *coupon, after.get(), query.examine).await?)
        }
        _ => None,
    };
    let mut page = IssuancePage {
        issuances: found(connection, query, part.as_ref()).await?,
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
            let up_to = part.map_or_else(|| query.up_to(after), |part| part.up_to());
            page.next = query.next(&page.issuances, up_to, issued);
        }
    }
    if query.with_coupons {
        let ids = IssuancePage::coupon_ids(&page.issuances);
        page.coupons = coupons_of(connection, dialect, &ids).await?;
    }
    Ok(Some(page))
}

/// Reads a page of a list of a user if it has at most this many issuances; `None` if it has more.
pub(crate) async fn of_few(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    query: &IssuanceQuery,
    at_most: u32,
) -> Result<Option<IssuancePage>> {
    if let Some((user, range)) = query.of_user() {
        let beyond = coupon_at(connection, user, range, at_most);
        if beyond.await?.is_some() {
            return Ok(None);
        }
    }
    issuances(connection, dialect, &query.in_one_step(at_most)).await
}

/// Reads these issuances, in no particular order. Values are literals, as in `insert.rs`.
pub(crate) async fn with_ids(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    ids: &[IssuanceId],
) -> Result<Vec<UsedIssuance>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let row = dialect.row();
    let ids = ids
        .iter()
        .map(|id| format!("{row}({},{})", id.coupon, id.sequence));
    let statement = format!(
        "WITH v (coupon, number) AS (VALUES {}) {WITH_IDS}",
        ids.collect::<Vec<_>>().join(",")
    );
    let read = sqlx::raw_sql(AssertSqlSafe(statement))
        .fetch_all(connection)
        .await;
    used(&read.map_err(on_read)?)
}

/// Returns how many issuances the user has of the coupons after the first of these up to the second.
pub(crate) async fn count_of_user(
    connection: &mut MySqlConnection,
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
    connection: &mut MySqlConnection,
    user: &UserId,
    (lowest, highest): (i64, i64),
    offset: u32,
) -> Result<Option<i64>> {
    let statement = sqlx::query_scalar(COUPON_OF_USER).bind(user.as_str());
    let found = statement
        .bind(lowest)
        .bind(offset)
        .fetch_optional(connection)
        .await;
    Ok(found.map_err(on_read)?.filter(|coupon| *coupon <= highest))
}

/// A part of a user's issuances of a coupon, after a sequence.
struct Part {
    /// The last sequence of the part; `None` if it has all that are left.
    last: Option<u64>,
    /// The index that has the sequences. This is 0 for that on users, which has them in no usable order, so
    /// each part goes through all that the user has of the coupon. It is 1 for the table if these are too
    /// many: then the part has so many sequences of the coupon, also those of other users.
    index: usize,
}

impl Part {
    /// Finds the end of a part that begins after a sequence and has `examine` issuances, or sequences.
    async fn of_user(
        connection: &mut MySqlConnection,
        user: &UserId,
        coupon: CouponId,
        after: u64,
        examine: u32,
    ) -> Result<Self> {
        let id = integer(coupon.get());
        let in_index_max = examine.saturating_mul(IN_INDEX_MAX);
        if coupon_at(connection, user, (id, id), in_index_max)
            .await?
            .is_some()
        {
            let up_to = after.saturating_add(examine.into());
            let further = sqlx::query(GOES_ON).bind(id).bind(integer(up_to));
            let further = further.fetch_optional(connection).await.map_err(on_read)?;
            let last = further.map(|_| up_to);
            return Ok(Self { last, index: 1 });
        }
        let statement = sqlx::query_scalar(SEQUENCE_OF_USER).bind(user.as_str());
        let statement = statement.bind(id).bind(integer(after)).bind(examine - 1);
        let last: Option<i64> = statement.fetch_optional(connection).await.map_err(on_read)?;
        let last = last.and_then(|last| u64::try_from(last).ok());
        Ok(Self { last, index: 0 })
    }

    /// Returns the highest sequence that the part may have.
    fn up_to(&self) -> Sequence {
        Sequence::new(self.last.unwrap_or(ID_MAX))
    }
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
    let part = Part::of_user(connection, &step.user, coupon, after, step.examine).await?;
    let id = integer(coupon.get());
    let statement = sqlx::query(in_state(OF_USER_WITHIN[part.index], step.state));
    let statement = statement.bind(user).bind(id).bind(integer(after));
    let statement = statement.bind(integer(part.up_to().get())).bind(id);
    let issuances = newest(connection, statement, step).await?;
    let next = step.next_within(coupon, part.last);
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

/// Reads the issuances of a query; of a part of a user's issuances of a coupon if it is a search among them.
async fn found(
    connection: &mut MySqlConnection,
    query: &IssuanceQuery,
    part: Option<&Part>,
) -> Result<Vec<UsedIssuance>> {
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
            let up_to = part.map_or_else(|| query.up_to(*after), Part::up_to);
            let between = [coupon.get(), after.get(), up_to.get()].map(integer);
            of_coupon(between, user.as_ref(), part, query)
        }
        IssuancesOf::Used {
            coupon,
            user,
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
                .bind(coupon)
                .bind(user.as_ref().map(UserId::as_str));
            limited(statement)
        }
    };
    let found = statement.fetch_all(connection).await.map_err(on_read)?;
    Ok(query.sorted(used(&found)?))
}

/// Returns the statement that reads those of a coupon, between two sequences.
fn of_coupon<'q>(
    [coupon, after, up_to]: [i64; 3],
    user: Option<&'q UserId>,
    part: Option<&Part>,
    query: &IssuanceQuery,
) -> Query<'q, MySql, MySqlArguments> {
    let statement = match (user, part) {
        (None, _) => sqlx::query(in_state(OF_COUPON, query.state)),
        (Some(user), None) => sqlx::query(OF_COUPON_AND_USER).bind(user.as_str()),
        (Some(user), Some(part)) => sqlx::query(OF_COUPON_AND_USER_IN_STATE[part.index]).bind(user.as_str()),
    };
    let statement = statement.bind(coupon).bind(after).bind(up_to);
    let limited = |statement| limited(statement, query.state, query.now, query.limit);
    match (user, part) {
        (None, _) => limited(statement),
        (Some(_), None) => limited(statement).bind(coupon),
        (Some(_), Some(_)) => limited(statement.bind(coupon)),
    }
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
