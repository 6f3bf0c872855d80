//! Tallies in SQLite.

use actors::store::batch::{FoundRows, Portion};
use actors::store::columns::integer;
use actors::store::sqlite::SqliteRows;
use actors::store::sqlite::error::{on_read, on_write};
use actors::store::{Result, StoreError};
use serde_json::json;
use sqlx::SqliteConnection;
use sqlx::migrate::Migration;

use super::super::{Addition, PartialTallyRows, Tally, TallyHead, TallyId};
use super::{PAGE_ROWS, addition, fill, migration};

const TABLES: &str = concat!(
    "
CREATE TABLE tallies (id INTEGER PRIMARY KEY, bound INTEGER NOT NULL);
CREATE TABLE additions (
    tally_id INTEGER NOT NULL, number INTEGER NOT NULL, amount INTEGER NOT NULL, total INTEGER NOT NULL,
    request_key TEXT NOT NULL, PRIMARY KEY (tally_id, number), UNIQUE (tally_id, request_key)
) WITHOUT ROWID;",
    fill!()
);

/// `?1` is an array of `[shard, epoch, owner, tally, last total, [[number, amount, total, key], …]]`.
const INSERT: &str = "
INSERT INTO additions (tally_id, number, amount, total, request_key)
SELECT t.id, row.value ->> 0, row.value ->> 1, row.value ->> 2, row.value ->> 3
  FROM jsonb_each(?1) AS portion
 CROSS JOIN shards AS s
    ON s.shard_id = portion.value ->> 0 AND s.epoch = portion.value ->> 1 AND s.owner = portion.value ->> 2
 CROSS JOIN tallies AS t
    ON t.id = portion.value ->> 3 AND portion.value ->> 4 <= t.bound
 CROSS JOIN jsonb_each(portion.value, '$[5]') AS row";

const COLUMNS: &str = "SELECT tally_id, number, amount, total, request_key FROM additions";

fn portion_json(portion: &Portion<Tally>) -> serde_json::Value {
    let additions = &portion.run.0;
    let rows = additions.iter().map(|addition| {
        json!([
            addition.number,
            addition.amount,
            addition.total,
            addition.key.as_str()
        ])
    });
    json!([
        portion.shard.get(),
        portion.fence.epoch.get(),
        portion.fence.owner.get(),
        portion.id.0,
        additions.last().map_or(0, |addition| addition.total),
        rows.collect::<Vec<_>>(),
    ])
}

impl SqliteRows for Tally {
    type SqliteCursor = u64;
    type SqlitePage = Vec<Addition>;

    fn sqlite_migrations() -> Vec<Migration> {
        vec![migration(TABLES)]
    }

    async fn sqlite_write(connection: &mut SqliteConnection, portions: Vec<Portion<Self>>) -> Result<u64> {
        let portions = portions.iter().map(portion_json).collect::<Vec<_>>();
        let query = sqlx::query(INSERT).bind(serde_json::Value::from(portions).to_string());
        let stored = query.execute(connection).await.map_err(on_write)?;
        Ok(stored.rows_affected())
    }

    async fn sqlite_read_back(
        connection: &mut SqliteConnection,
        portion: &Portion<Self>,
    ) -> Result<FoundRows> {
        let sent = &portion.run.0;
        let first = sent.first().map_or(0, |addition| addition.number);
        let statement = format!("{COLUMNS} WHERE tally_id = ?1 AND number BETWEEN ?2 AND ?3 ORDER BY number");
        let rows = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(integer(portion.id.0))
            .bind(integer(first))
            .bind(integer(first) + sent.len() as i64 - 1)
            .fetch_all(&mut *connection);
        let rows = rows.await.map_err(on_read)?;
        if !rows.is_empty() {
            let stored = rows.into_iter().map(addition).collect::<Result<Vec<_>>>();
            let is_same = stored.is_ok_and(|stored| stored[..] == sent[..]);
            return Ok(if is_same {
                FoundRows::Stored
            } else {
                FoundRows::Different
            });
        }
        for addition in sent.iter() {
            let taken = "SELECT EXISTS (SELECT 1 FROM additions WHERE tally_id = ?1 AND request_key = ?2)";
            let query = sqlx::query_scalar(taken)
                .bind(integer(portion.id.0))
                .bind(addition.key.as_str());
            if query.fetch_one(&mut *connection).await.map_err(on_read)? {
                return Ok(FoundRows::Different);
            }
        }
        Ok(FoundRows::Absent)
    }

    async fn sqlite_head(connection: &mut SqliteConnection, id: TallyId) -> Result<Option<TallyHead>> {
        let query = sqlx::query_scalar("SELECT bound FROM tallies WHERE id = ?1").bind(integer(id.0));
        let bound: Option<i64> = query.fetch_optional(connection).await.map_err(on_read)?;
        Ok(bound.map(|bound| TallyHead {
            id,
            bound: bound.unsigned_abs(),
        }))
    }

    fn sqlite_cursor(reading: &PartialTallyRows) -> u64 {
        reading.after()
    }

    async fn sqlite_page(
        connection: &mut SqliteConnection,
        id: TallyId,
        after: u64,
    ) -> Result<Vec<Addition>> {
        let statement = format!("{COLUMNS} WHERE tally_id = ?1 AND number > ?2 ORDER BY number LIMIT ?3");
        let query = sqlx::query_as(sqlx::AssertSqlSafe(statement))
            .bind(integer(id.0))
            .bind(integer(after));
        let rows = query
            .bind(PAGE_ROWS)
            .fetch_all(connection)
            .await
            .map_err(on_read)?;
        rows.into_iter().map(addition).collect()
    }

    fn sqlite_take(reading: &mut PartialTallyRows, page: Vec<Addition>) -> Result<Option<u64>> {
        let last = page.last().map(|addition| addition.number);
        let next = last.filter(|_| page.len() == PAGE_ROWS as usize);
        let mut additions = page.into_iter();
        additions.try_for_each(|addition| reading.take(addition).map_err(StoreError::Unreadable))?;
        Ok(next)
    }
}
