//! Creating coupons, and the reads of clients.

use std::collections::HashMap;

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, MySql, MySqlConnection};

use crate::coupon::ids::{CouponId, Sequence};
use crate::coupon::offer::{Coupon, CouponView};
use crate::coupon::record::ChangeRow;
use crate::coupon::rows::columns::{
    self as rows, coupon_columns, creation_columns, discount_columns, holds, limit_columns, metadata_column,
    record_columns, use_counts_column,
};
use crate::coupon::rows::search::{SearchDialect, Statement, Value};
use crate::coupon::rows::{CouponPage, CouponQuery, Created, NewCoupon};
use crate::store::Result;
use crate::store::columns::{StoredRow, integer, number, readable};
use crate::store::mysql::error::{DUPLICATE_ENTRY, number as error_number, on_read, on_write};
use crate::store::mysql::{Dialect, snapshot};
use crate::time::{Timestamp, timestamp};

/// A coupon's highest sequence. The hint makes MySQL and MariaDB find it at the end of the coupon's range of
/// the primary key. Without the hint they read all rows of the coupon.
macro_rules! issued_column {
    () => {
        "(SELECT i.sequence FROM issuances AS i FORCE INDEX FOR ORDER BY (PRIMARY)
           WHERE i.coupon_id = c.id ORDER BY i.coupon_id DESC, i.sequence DESC LIMIT 1) AS issued"
    };
}

/// A coupon's columns, its highest sequence, and its counts.
macro_rules! view_columns {
    ($holds:expr) => {
        concat!(
            coupon_columns!(),
            ", ",
            issued_column!(),
            ", ",
            use_counts_column!("FORCE INDEX FOR ORDER BY (PRIMARY)", $holds)
        )
    };
}

/// The same for several coupons, with holds that have lapsed. These databases read a part of an index only for a
/// coupon whose id is in the statement, so [`without_lapsed`] reads what is missing.
macro_rules! views_columns {
    () => {
        view_columns!("u.reserved")
    };
}

const CREATE: &str = "
INSERT INTO coupons (title, description, metadata, discount_kind, discount_value, max_discount,
                     min_order_amount, total_quantity, per_user_limit, no_user_limit, starts_at, ends_at,
                     use_within_days, use_until, time_zone, status, version, created_at, updated_at,
                     creation_key, creation_body, created_by, created_as)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?)";

const CREATED_BEFORE: &str = "SELECT id, creation_body FROM coupons WHERE creation_key = ?";

const COUPON: &str = concat!(
    "SELECT ",
    view_columns!(holds!("FORCE INDEX (by_lapse)", "?", "?")),
    " FROM coupons AS c WHERE c.id = ?"
);

const ISSUED: &str = concat!("SELECT ", issued_column!(), " FROM coupons AS c WHERE c.id = ?");

const SEARCH: SearchDialect = SearchDialect {
    by_phase: "FORCE INDEX (by_phase)",
    by_id: "FORCE INDEX (PRIMARY)",
    // The hint keeps MariaDB from scanning all coupons into a join buffer.
    join: "STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)",
    columns: views_columns!(),
    columns_times: 0,
    last_issuance: "(SELECT i.sequence FROM issuances AS i FORCE INDEX (PRIMARY) \
                    WHERE i.coupon_id = c.id AND i.sequence = c.total_quantity + COALESCE(\
                        (SELECT u.returned FROM uses AS u FORCE INDEX FOR ORDER BY (PRIMARY) \
                          WHERE u.coupon_id = c.id ORDER BY u.coupon_id DESC, u.use_sequence DESC LIMIT 1), 0))",
    title: "LOCATE(LOWER(?), LOWER(c.title)) > 0",
};

const CREATION: &str = concat!(
    "SELECT ",
    creation_columns!(),
    " FROM coupons AS c WHERE c.id = ?"
);

const CHANGES: &str = "
SELECT version, changed_at, author, asked FROM coupon_changes
 WHERE coupon_id = ? AND version > ? AND changed_at IS NOT NULL
 ORDER BY version LIMIT ?";

/// Creates a coupon, or returns the one that this key created before. The earlier coupon is looked up first,
/// because each attempt to insert a row takes an id, even one that fails.
pub(crate) async fn create_coupon(connection: &mut MySqlConnection, new: &NewCoupon) -> Result<Created> {
    if let Some(before) = created_before(connection, new).await? {
        return Ok(before);
    }
    let (offer, body) = (&new.offer, new.body());
    let (author, asked) = record_columns(new.record.as_ref());
    let (kind, value) = discount_columns(offer.discount);
    let (per_user_limit, no_user_limit) = limit_columns(offer.per_user_limit);
    let made = sqlx::query(CREATE)
        .bind(&offer.title)
        .bind(&offer.description)
        .bind(metadata_column(&offer.metadata))
        .bind(kind)
        .bind(value)
        .bind(offer.max_discount.map(integer))
        .bind(offer.min_order_amount.map(integer))
        .bind(offer.total_quantity.map(integer))
        .bind(per_user_limit)
        .bind(no_user_limit)
        .bind(offer.starts_at.map(|time| time.as_micros()))
        .bind(offer.ends_at.map(|time| time.as_micros()))
        .bind(offer.use_within_days)
        .bind(offer.use_until.map(|time| time.as_micros()))
        .bind(&offer.time_zone)
        .bind(new.status.as_str())
        .bind(new.created_at.as_micros())
        .bind(new.created_at.as_micros())
        .bind(new.key.as_str())
        .bind(&body)
        .bind(author)
        .bind(asked)
        .execute(&mut *connection)
        .await;
    match made {
        Ok(made) => {
            let id = readable(CouponId::new(made.last_insert_id()), "id")?;
            let (offer, status, created_at) = (offer.clone(), new.status, new.created_at);
            return Ok(Created::New(Coupon {
                id,
                offer,
                status,
                version: 1,
                created_at,
                updated_at: created_at,
            }));
        }
        // The only value that must be unique is the key, so another coupon has this key. That coupon is
        // committed: if it were not, this statement would still wait.
        Err(error) if error_number(&error) == Some(DUPLICATE_ENTRY) => {}
        Err(error) => return Err(on_write(error)),
    }
    readable(created_before(connection, new).await?, "creation_key")
}

/// Returns what the key created before, if anything.
async fn created_before(connection: &mut MySqlConnection, new: &NewCoupon) -> Result<Option<Created>> {
    let asked = sqlx::query(CREATED_BEFORE).bind(new.key.as_str());
    let Some(row) = asked.fetch_optional(&mut *connection).await.map_err(on_read)? else {
        return Ok(None);
    };
    if row.text("creation_body")? != new.body() {
        return Ok(Some(Created::KeyReused));
    }
    let view = coupon(connection, id(&row)?).await?;
    Ok(view.map(Created::Before))
}

/// Returns one coupon, with the holds that have not lapsed now.
pub(crate) async fn coupon(connection: &mut MySqlConnection, id: CouponId) -> Result<Option<CouponView>> {
    let id = integer(id.get());
    let row = sqlx::query(COUPON)
        .bind(id)
        .bind(timestamp().as_micros())
        .bind(id)
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    row.as_ref().map(view).transpose()
}

/// Returns the highest sequence of a coupon; `None` if the coupon does not exist.
pub(super) async fn issued(connection: &mut MySqlConnection, id: CouponId) -> Result<Option<Sequence>> {
    let row = sqlx::query(ISSUED)
        .bind(integer(id.get()))
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    row.as_ref().map(highest).transpose()
}

/// Takes one step of a search for coupons.
pub(crate) async fn coupons(connection: &mut MySqlConnection, query: &CouponQuery) -> Result<CouponPage> {
    // After an error the connection is closed, which ends the snapshot.
    snapshot::begin(connection).await?;
    let page = step(connection, query).await?;
    snapshot::end(connection).await?;
    Ok(page)
}

/// Takes one step of a search for coupons in a snapshot that its caller has begun.
pub(crate) async fn step(connection: &mut MySqlConnection, query: &CouponQuery) -> Result<CouponPage> {
    let last = match query.last_examined(&SEARCH) {
        None => None,
        Some(statement) => {
            let row = bound(&statement).fetch_optional(&mut *connection).await;
            row.map_err(on_read)?.as_ref().map(id).transpose()?
        }
    };
    let rows = bound(&query.found(&SEARCH, last))
        .fetch_all(&mut *connection)
        .await;
    let mut rows: Vec<CouponView> = rows.map_err(on_read)?.iter().map(view).collect::<Result<_>>()?;
    without_lapsed(connection, &mut rows, query.now).await?;
    Ok(query.page(rows, last))
}

/// Takes holds that have lapsed at `now` out of the counts of these coupons, in the snapshot in which they were
/// read.
async fn without_lapsed(
    connection: &mut MySqlConnection,
    views: &mut [CouponView],
    now: Timestamp,
) -> Result<()> {
    let reserved = views.iter().filter(|view| view.uses.reserved > 0);
    let counts: Vec<String> = reserved
        .map(|view| {
            let (id, now) = (view.coupon.id, now.as_micros());
            let holds = holds!("FORCE INDEX (by_lapse)", "?", "?");
            let holds = holds
                .replacen('?', &id.to_string(), 1)
                .replacen('?', &now.to_string(), 1);
            format!("SELECT {id} AS id, {holds} AS holds")
        })
        .collect();
    if counts.is_empty() {
        return Ok(());
    }
    let read = sqlx::raw_sql(AssertSqlSafe(counts.join(" UNION ALL ")))
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    let mut holds = HashMap::new();
    for row in &read {
        holds.insert(id(row)?, number::<u64>(row, "holds")?);
    }
    for view in views {
        let reserved = &mut view.uses.reserved;
        *reserved = holds.get(&view.coupon.id).map_or(0, |holds| *holds.min(reserved));
    }
    Ok(())
}

fn bound(statement: &Statement) -> Query<'_, MySql, MySqlArguments> {
    // The statement contains no text from a client.
    let query = sqlx::query(AssertSqlSafe(statement.text.clone()));
    statement.values.iter().fold(query, |query, value| match value {
        Value::Integer(number) => query.bind(*number),
        Value::Text(text) => query.bind(text.as_str()),
    })
}

fn id(row: &MySqlRow) -> Result<CouponId> {
    readable(CouponId::new(number(row, "id")?), "id")
}

/// Returns these coupons, with the holds that have not lapsed now, in a snapshot that its caller has begun.
/// Values are literals, as in `insert.rs`.
pub(super) async fn coupons_of(
    connection: &mut MySqlConnection,
    dialect: Dialect,
    ids: &[CouponId],
) -> Result<HashMap<CouponId, CouponView>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let row = dialect.row();
    let ids: Vec<_> = ids.iter().map(|id| format!("{row}({id})")).collect();
    let statement = format!(
        "WITH v (id) AS (VALUES {}) SELECT {} FROM v STRAIGHT_JOIN coupons AS c FORCE INDEX (PRIMARY)
             ON c.id = v.id",
        ids.join(","),
        views_columns!(),
    );
    let read = sqlx::raw_sql(AssertSqlSafe(statement))
        .fetch_all(&mut *connection)
        .await
        .map_err(on_read)?;
    let mut views: Vec<CouponView> = read.iter().map(view).collect::<Result<_>>()?;
    without_lapsed(connection, &mut views, timestamp()).await?;
    let by_id = views.into_iter().map(|view| (view.coupon.id, view));
    Ok(by_id.collect())
}

fn view(row: &MySqlRow) -> Result<CouponView> {
    Ok(CouponView {
        uses: rows::use_counts(row)?,
        coupon: rows::coupon(row)?,
        issued: highest(row)?,
    })
}

fn highest(row: &MySqlRow) -> Result<Sequence> {
    let issued = row
        .optional_integer("issued")?
        .map_or(Ok(0), |issued| readable(u64::try_from(issued).ok(), "issued"))?;
    Ok(Sequence::new(issued))
}

/// Returns a page of a coupon's changes, which begins with its creation.
pub(crate) async fn changes(
    connection: &mut MySqlConnection,
    coupon: CouponId,
    after_version: u64,
    limit: u32,
) -> Result<Option<Vec<ChangeRow>>> {
    let id = integer(coupon.get());
    let creation = sqlx::query(CREATION).bind(id).fetch_optional(&mut *connection);
    let Some(creation) = creation.await.map_err(on_read)? else {
        return Ok(None);
    };
    let mut changes = Vec::new();
    if after_version < 1 && limit > 0 {
        changes.push(rows::change_row(&creation, 1)?);
    }
    let left = i64::from(limit).saturating_sub(changes.len() as i64);
    let read = sqlx::query(CHANGES)
        .bind(id)
        .bind(integer(after_version))
        .bind(left)
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    for row in &read {
        changes.push(rows::change_row(row, number(row, "version")?)?);
    }
    Ok(Some(changes))
}
