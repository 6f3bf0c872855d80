//! Creating coupons, and the reads of clients.

use std::collections::HashMap;

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

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
use crate::store::sqlite::error::{on_read, on_write};
use crate::time::timestamp;

/// A coupon's highest sequence, which the primary key finds at once.
macro_rules! issued_column {
    () => {
        "coalesce((SELECT max(sequence) FROM issuances WHERE coupon_id = c.id), 0) AS issued"
    };
}

/// A coupon's columns, its highest sequence, and its counts at `$now`.
macro_rules! view_columns {
    ($now:literal) => {
        concat!(
            coupon_columns!(),
            ", ",
            issued_column!(),
            ", ",
            use_counts_column!("", holds!("INDEXED BY by_lapse", "u.coupon_id", $now))
        )
    };
}

const CREATE: &str = "
INSERT INTO coupons (title, description, metadata, discount_kind, discount_value, max_discount,
                     min_order_amount, total_quantity, per_user_limit, no_user_limit, starts_at, ends_at,
                     use_within_days, use_until, time_zone, status, version, created_at, updated_at,
                     creation_key, creation_body, created_by, created_as)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, 1, ?17, ?17, ?18, ?19, ?20, ?21)
    ON CONFLICT (creation_key) DO NOTHING";

const CREATED_BEFORE: &str = concat!(
    "SELECT ",
    view_columns!("?2"),
    ", c.creation_body FROM coupons AS c WHERE c.creation_key = ?1"
);

const COUPON: &str = concat!(
    "SELECT ",
    view_columns!("?2"),
    " FROM coupons AS c WHERE c.id = ?1"
);

const ISSUED: &str = concat!("SELECT ", issued_column!(), " FROM coupons AS c WHERE c.id = ?1");

const SEARCH: SearchDialect = SearchDialect {
    by_phase: "INDEXED BY by_phase",
    by_id: "NOT INDEXED",
    // SQLite reads the tables of a CROSS JOIN in this order.
    join: "CROSS JOIN coupons AS c",
    columns: view_columns!("?"),
    columns_times: 1,
    last_issuance: "(SELECT sequence FROM issuances WHERE coupon_id = c.id AND sequence = c.total_quantity + \
                    coalesce((SELECT u.returned FROM uses AS u WHERE u.coupon_id = c.id \
                               ORDER BY u.use_sequence DESC LIMIT 1), 0))",
    title: "instr(lower(c.title), lower(?)) > 0",
};

/// `?1` is an array of ids.
const COUPONS_OF: &str = concat!(
    "SELECT ",
    view_columns!("?2"),
    " FROM json_each(?1) AS v CROSS JOIN coupons AS c ON c.id = v.value"
);

const CREATION: &str = concat!(
    "SELECT ",
    creation_columns!(),
    " FROM coupons AS c WHERE c.id = ?1"
);

const CHANGES: &str = "
SELECT version, changed_at, author, asked FROM coupon_changes
 WHERE coupon_id = ?1 AND version > ?2 AND changed_at IS NOT NULL
 ORDER BY version LIMIT ?3";

/// Creates a coupon, or returns the one that this key created before. The earlier coupon is looked up first,
/// because each attempt to insert a row takes an id, even one that inserts nothing.
pub(crate) async fn create_coupon(connection: &mut SqliteConnection, new: &NewCoupon) -> Result<Created> {
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
        .bind(new.key.as_str())
        .bind(&body)
        .bind(author)
        .bind(asked)
        .execute(&mut *connection)
        .await
        .map_err(on_write)?;
    if made.rows_affected() == 1 {
        let id = readable(
            u64::try_from(made.last_insert_rowid())
                .ok()
                .and_then(CouponId::new),
            "id",
        )?;
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
    readable(created_before(connection, new).await?, "creation_key")
}

/// Returns what the key created before, if anything.
async fn created_before(connection: &mut SqliteConnection, new: &NewCoupon) -> Result<Option<Created>> {
    let asked = sqlx::query(CREATED_BEFORE).bind(new.key.as_str());
    let asked = asked.bind(timestamp().as_micros());
    let Some(row) = asked.fetch_optional(connection).await.map_err(on_read)? else {
        return Ok(None);
    };
    if row.text("creation_body")? == new.body() {
        view(&row).map(Created::Before).map(Some)
    } else {
        Ok(Some(Created::KeyReused))
    }
}

/// Returns one coupon, with the holds that have not lapsed now.
pub(crate) async fn coupon(connection: &mut SqliteConnection, id: CouponId) -> Result<Option<CouponView>> {
    let row = sqlx::query(COUPON)
        .bind(integer(id.get()))
        .bind(timestamp().as_micros())
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    row.as_ref().map(view).transpose()
}

/// Returns the highest sequence of a coupon; `None` if the coupon does not exist.
pub(super) async fn issued(connection: &mut SqliteConnection, id: CouponId) -> Result<Option<Sequence>> {
    let row = sqlx::query(ISSUED)
        .bind(integer(id.get()))
        .fetch_optional(connection)
        .await
        .map_err(on_read)?;
    row.as_ref().map(highest).transpose()
}

/// Takes one step of a search for coupons.
pub(crate) async fn coupons(connection: &mut SqliteConnection, query: &CouponQuery) -> Result<CouponPage> {
    let last = match query.last_examined(&SEARCH) {
        None => None,
        Some(statement) => {
            let row = bound(&statement).fetch_optional(&mut *connection).await;
            row.map_err(on_read)?.as_ref().map(id).transpose()?
        }
    };
    let rows = bound(&query.found(&SEARCH, last)).fetch_all(connection).await;
    let rows = rows.map_err(on_read)?.iter().map(view).collect::<Result<_>>()?;
    Ok(query.page(rows, last))
}

fn bound(statement: &Statement) -> Query<'_, Sqlite, SqliteArguments> {
    // The statement contains no text from a client.
    let query = sqlx::query(AssertSqlSafe(statement.text.clone()));
    statement.values.iter().fold(query, |query, value| match value {
        Value::Integer(number) => query.bind(*number),
        Value::Text(text) => query.bind(text.clone()),
    })
}

fn id(row: &SqliteRow) -> Result<CouponId> {
    readable(CouponId::new(number(row, "id")?), "id")
}

/// Returns these coupons, with the holds that have not lapsed now.
pub(super) async fn coupons_of(
    connection: &mut SqliteConnection,
    ids: &[CouponId],
) -> Result<HashMap<CouponId, CouponView>> {
    let ids: Vec<_> = ids.iter().map(CouponId::to_string).collect();
    let read = sqlx::query(COUPONS_OF)
        .bind(format!("[{}]", ids.join(",")))
        .bind(timestamp().as_micros())
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    let views = read
        .iter()
        .map(|row| view(row).map(|view| (view.coupon.id, view)));
    views.collect()
}

fn view(row: &SqliteRow) -> Result<CouponView> {
    Ok(CouponView {
        uses: rows::use_counts(row)?,
        coupon: rows::coupon(row)?,
        issued: highest(row)?,
    })
}

fn highest(row: &SqliteRow) -> Result<Sequence> {
    Ok(Sequence::new(number(row, "issued")?))
}

/// Returns a page of a coupon's changes, which begins with its creation.
pub(crate) async fn changes(
    connection: &mut SqliteConnection,
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

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;
    use crate::coupon::offer::Phase;
    use crate::coupon::rows::CouponFilter;
    use crate::coupon::rows::sqlite::reads_issuances::{
        COUNT_OF_USER, COUPON_OF_USER, NTH_OF_USER, OF_COUPON, OF_COUPON_AND_USER, OF_ID, OF_USED, OF_USER,
        OF_USER_WITHIN, SEQUENCE_OF_USER, WITH_IDS,
    };

    async fn plan(connection: &mut SqliteConnection, statement: &str) -> String {
        let explained = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let rows = sqlx::query(explained).fetch_all(connection).await.unwrap();
        rows.iter()
            .map(|row| row.text("detail").unwrap().to_owned())
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Statements, and a part of the plan of each.
    const READS: [(&str, &str); 17] = [
        (COUPON, "PRIMARY KEY (coupon_id=?)"),
        (COUPON, HOLDS),
        (OF_ID, "PRIMARY KEY (coupon_id=? AND sequence=?)"),
        (OF_USER, "(user_id=? AND coupon_id>? AND coupon_id<?)"),
        (
            COUNT_OF_USER,
            "USING COVERING INDEX sqlite_autoindex_issuances_2 (user_id=? AND coupon_id>? AND coupon_id<?)",
        ),
        (
            COUPON_OF_USER,
            "USING COVERING INDEX sqlite_autoindex_issuances_2 (user_id=? AND coupon_id>? AND coupon_id<?)",
        ),
        (
            NTH_OF_USER,
            "USING COVERING INDEX sqlite_autoindex_issuances_2 (user_id=? AND coupon_id=? AND nth>?)",
        ),
        (OF_USER_WITHIN, "(user_id=? AND coupon_id=? AND nth>? AND nth<?)"),
        (
            OF_COUPON,
            "PRIMARY KEY (coupon_id=? AND sequence>? AND sequence<?)",
        ),
        (SEQUENCE_OF_USER, "(user_id=? AND coupon_id=? AND nth>?)"),
        (SEQUENCE_OF_USER, "PRIMARY KEY (coupon_id=? AND sequence=?)"),
        (
            OF_COUPON_AND_USER,
            "(user_id=? AND coupon_id=? AND nth>? AND nth<?)",
        ),
        (WITH_IDS, "PRIMARY KEY (coupon_id=? AND sequence=?)"),
        (
            OF_USED,
            "PRIMARY KEY (coupon_id=? AND use_sequence>? AND use_sequence<?)",
        ),
        (OF_USED, "PRIMARY KEY (coupon_id=? AND sequence=?)"),
        (COUPONS_OF, "INTEGER PRIMARY KEY (rowid=?)"),
        (COUPONS_OF, HOLDS),
    ];

    const HOLDS: &str = "SEARCH h USING COVERING INDEX by_lapse (coupon_id=? AND lapses_at>?)";

    #[tokio::test]
    async fn no_read_of_a_client_scans_a_whole_coupon() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for migration in crate::store::migrations::sqlite(&[]).iter() {
            let made = sqlx::raw_sql(migration.sql.clone())
                .execute(&mut connection)
                .await;
            made.unwrap();
        }
        for (statement, search) in READS {
            let plan = plan(&mut connection, statement).await;
            let is_list = plan.contains("LEFT-JOIN");
            assert!(
                !is_list || plan.contains("n USING COVERING INDEX by_issuance (coupon_id=? AND sequence=?)"),
                "{statement}: {plan}"
            );
            let is_by_state = plan.contains("SEARCH u USING INDEX by_issuance (coupon_id=? AND sequence=?)");
            assert!(
                is_by_state == (is_list && ![OF_ID, WITH_IDS].contains(&statement)),
                "{statement}: {plan}"
            );
            // One page of issuances, or the ids of its coupons.
            let plan = plan.replace("SCAN i;", "").replace("SCAN v VIRTUAL TABLE", "");
            assert!(
                plan.contains(search) && !plan.contains("SCAN"),
                "{statement}: {plan}"
            );
            // Only all issuances of one user are sorted, and those with some of the uses.
            let is_sorted = [OF_USER, OF_USER_WITHIN, OF_USED].contains(&statement);
            assert!(is_sorted || !plan.contains("TEMP B-TREE"), "{statement}: {plan}");
        }
    }

    /// A search reads no row of a coupon that it does not find, except for its title.
    #[tokio::test]
    async fn a_search_examines_coupons_in_an_index_and_sorts_nothing() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        for migration in crate::store::migrations::sqlite(&[]).iter() {
            let made = sqlx::raw_sql(migration.sql.clone())
                .execute(&mut connection)
                .await;
            made.unwrap();
        }
        let phases = Phase::ALL.into_iter().map(Some).chain([None]);
        for (phase, title) in phases.flat_map(|phase| [(phase, None), (phase, Some("T".to_owned()))]) {
            let is_by_title = title.is_some();
            let query = CouponQuery {
                filter: CouponFilter { phase, title },
                ..CouponQuery::all(None, 10)
            };
            let statements = query.last_examined(&SEARCH).into_iter();
            for statement in statements.chain([query.found(&SEARCH, None)]) {
                let plan = plan(&mut connection, &statement.text).await;
                let examines = match phase {
                    None => "SEARCH c USING INTEGER PRIMARY KEY (rowid",
                    Some(_) if is_by_title && statement.text.contains("found") => {
                        "SEARCH c USING INDEX by_phase (status=? AND id"
                    }
                    Some(_) => "SEARCH c USING COVERING INDEX by_phase (status=? AND id",
                };
                assert!(plan.contains(examines), "{}: {plan}", statement.text);
                // `found` has at most one page of coupons.
                let others = plan.replace("SCAN found", "");
                assert!(
                    !others.contains("SCAN") && !others.contains("TEMP B-TREE"),
                    "{}: {plan}",
                    statement.text
                );
            }
        }
    }
}
