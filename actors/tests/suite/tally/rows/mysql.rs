//! Tallies in MySQL and MariaDB.

use std::collections::{HashMap, HashSet};

use actors::store::batch::{FoundRows, Portion};
use actors::store::columns::integer;
use actors::store::mysql::error::{on_read, on_write};
use actors::store::mysql::{Dialect, MySqlRows};
use actors::store::{Result, StoreError};
use sqlx::migrate::Migration;
use sqlx::{AssertSqlSafe, MySqlConnection};

use super::super::{Addition, PartialTallyRows, Tally, TallyHead, TallyId};
use super::{PAGE_ROWS, addition, fill, migration};

const TABLES: &str = concat!(
    "
CREATE TABLE IF NOT EXISTS tallies (id BIGINT PRIMARY KEY, bound BIGINT NOT NULL) ENGINE = InnoDB;
CREATE TABLE IF NOT EXISTS additions (
    tally_id BIGINT NOT NULL, number BIGINT NOT NULL, amount BIGINT NOT NULL, total BIGINT NOT NULL,
    request_key VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (tally_id, number), UNIQUE KEY by_key (tally_id, request_key)
) ENGINE = InnoDB;",
    fill!()
);

const COLUMNS: &str = "a.tally_id, a.number, a.amount, a.total, a.request_key";

/// Returns the key as a literal that means the same under every SQL mode.
fn literal(addition: &Addition) -> String {
    let bytes = addition.key.as_str().bytes();
    let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    format!("_ascii x'{hex}'")
}

/// Returns all additions of these portions as rows of a statement.
fn values(
    dialect: Dialect,
    portions: &[Portion<Tally>],
    row: impl Fn(&Portion<Tally>, &Addition) -> String,
) -> String {
    let rows = portions.iter().flat_map(|portion| {
        let row = &row;
        portion
            .run
            .0
            .iter()
            .map(move |addition| format!("{}({})", dialect.row(), row(portion, addition)))
    });
    rows.collect::<Vec<_>>().join(",")
}

impl MySqlRows for Tally {
    type MySqlCursor = u64;
    type MySqlPage = Vec<Addition>;

    fn mysql_migrations() -> Vec<Migration> {
        vec![migration(TABLES)]
    }

    async fn mysql_write(
        connection: &mut MySqlConnection,
        dialect: Dialect,
        portions: Vec<Portion<Self>>,
    ) -> Result<u64> {
        let rows = values(dialect, &portions, |portion, addition| {
            let (epoch, owner) = (portion.fence.epoch, portion.fence.owner.get());
            let last = portion.run.0.last().map_or(0, |last| last.total);
            let (number, amount, total) = (addition.number, addition.amount, addition.total);
            let (shard, tally, key) = (portion.shard, portion.id.0, literal(addition));
            format!("{shard},{epoch},{owner},{tally},{last},{number},{amount},{total},{key}")
        });
        let statement = format!(
            "INSERT INTO additions (tally_id, number, amount, total, request_key)
             WITH v (s, e, o, c, l, n, a, t, k) AS (VALUES {rows})
             SELECT v.c, v.n, v.a, v.t, v.k FROM v
             STRAIGHT_JOIN shards AS s FORCE INDEX (PRIMARY)
                ON s.shard_id = v.s AND s.epoch = v.e AND s.owner = v.o
             STRAIGHT_JOIN tallies AS t FORCE INDEX (PRIMARY) ON t.id = v.c AND v.l <= t.bound"
        );
        let stored = sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await;
        Ok(stored.map_err(on_write)?.rows_affected())
    }

    async fn mysql_read_back(
        connection: &mut MySqlConnection,
        dialect: Dialect,
        portions: &[Portion<Self>],
    ) -> Result<Vec<FoundRows>> {
        let places = values(dialect, portions, |portion, addition| {
            format!("{},{}", portion.id.0, addition.number)
        });
        let statement = format!(
            "WITH v (c, n) AS (VALUES {places}) SELECT {COLUMNS} FROM v
             STRAIGHT_JOIN additions AS a FORCE INDEX (PRIMARY) ON a.tally_id = v.c AND a.number = v.n
             ORDER BY a.tally_id, a.number"
        );
        let rows = sqlx::query_as::<_, (i64, i64, i64, i64, String)>(AssertSqlSafe(statement));
        let mut stored: HashMap<TallyId, Vec<Addition>> = HashMap::new();
        for row in rows.fetch_all(&mut *connection).await.map_err(on_read)? {
            let addition = addition(row)?;
            stored.entry(addition.tally).or_default().push(addition);
        }
        let keys = values(dialect, portions, |portion, addition| {
            format!("{},{}", portion.id.0, literal(addition))
        });
        let statement = format!(
            "WITH v (c, k) AS (VALUES {keys}) SELECT DISTINCT a.tally_id FROM v
             STRAIGHT_JOIN additions AS a FORCE INDEX (by_key)
                ON a.tally_id = v.c AND a.request_key = CONVERT(v.k USING ascii) COLLATE ascii_bin"
        );
        let taken = sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement)).fetch_all(connection);
        let taken: HashSet<i64> = taken.await.map_err(on_read)?.into_iter().collect();
        let found = portions.iter().map(|portion| match stored.get(&portion.id) {
            Some(rows) if rows[..] == portion.run.0[..] => FoundRows::Stored,
            Some(_) => FoundRows::Different,
            None if taken.contains(&integer(portion.id.0)) => FoundRows::Different,
            None => FoundRows::Absent,
        });
        Ok(found.collect())
    }

    async fn mysql_head(connection: &mut MySqlConnection, id: TallyId) -> Result<Option<TallyHead>> {
        let query = sqlx::query_scalar("SELECT bound FROM tallies WHERE id = ?").bind(integer(id.0));
        let bound: Option<i64> = query.fetch_optional(connection).await.map_err(on_read)?;
        Ok(bound.map(|bound| TallyHead {
            id,
            bound: bound.unsigned_abs(),
        }))
    }

    fn mysql_cursor(reading: &PartialTallyRows) -> u64 {
        reading.after()
    }

    async fn mysql_page(connection: &mut MySqlConnection, id: TallyId, after: u64) -> Result<Vec<Addition>> {
        let statement = format!(
            "SELECT {COLUMNS} FROM additions AS a WHERE a.tally_id = ? AND a.number > ? \
             ORDER BY a.number LIMIT ?"
        );
        let query = sqlx::query_as(AssertSqlSafe(statement))
            .bind(integer(id.0))
            .bind(integer(after));
        let rows = query
            .bind(PAGE_ROWS)
            .fetch_all(connection)
            .await
            .map_err(on_read)?;
        rows.into_iter().map(addition).collect()
    }

    fn mysql_next(page: &Vec<Addition>) -> Result<Option<u64>> {
        let last = page.last().map(|addition| addition.number);
        Ok(last.filter(|_| page.len() == PAGE_ROWS as usize))
    }

    fn mysql_take(reading: &mut PartialTallyRows, page: Vec<Addition>) -> Result<()> {
        let mut additions = page.into_iter();
        additions.try_for_each(|addition| reading.take(addition).map_err(StoreError::Unreadable))
    }
}
