//! The rows of nodes and shards. Every statement that changes rows finds them by a whole key, so that it
//! locks only these rows.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use super::error::{DUPLICATE_ENTRY, number as error_number, on_read, on_write};
use crate::ids::{Incarnation, NodeId, SHARD_HASH, SHARDS, ShardId};
use crate::store::cluster_rows::{EndedRow, Sweep};
use crate::store::columns::{StoredRow, integer, number};
use crate::store::{NodeRow, NodeState, Result, ShardRow, StoreError, links};

const CLUSTER: &str = "SELECT shards, hash, (SELECT COUNT(*) FROM shards) AS row_count FROM cluster";

/// Locks at most two rows: the row of the dead node, and the row of the node that declares it dead. The node
/// that declares it dead must have a live row.
const END: &str = "
UPDATE nodes AS living FORCE INDEX (by_incarnation)
  STRAIGHT_JOIN nodes AS dead FORCE INDEX (PRIMARY) ON dead.node_id = ? AND dead.incarnation = ? AND dead.beat = ? AND dead.state <> 'ended'
   SET dead.state = 'ended', dead.ended_at = UNIX_TIMESTAMP()
 WHERE living.incarnation = ? AND living.state <> 'ended'";

/// The acknowledgement returns the new beat in place of the id of an inserted row.
const BEAT: &str = "
UPDATE nodes
   SET beat = LAST_INSERT_ID(beat + 1), state = ?, links = ?, ended_at = IF(?, UNIX_TIMESTAMP(), 0)
 WHERE node_id = ? AND incarnation = ? AND state <> 'ended'";

/// The rows of all nodes, and the time of the server's clock.
const NODES: &str = "
SELECT node_id, incarnation, beat, state, http, cluster, links, lease, lease_of, ended_at, CAST(UNIX_TIMESTAMP() AS SIGNED) AS asked_at
  FROM nodes
 ORDER BY node_id";

/// The rows of ended nodes, and the time of the server's clock.
const ENDED: &str = "
SELECT node_id, incarnation, ended_at, CAST(UNIX_TIMESTAMP() AS SIGNED) AS asked_at
  FROM nodes
 WHERE state = 'ended'";

/// Notes that the node of a row was ended at some time before now.
const MARK: &str =
    "UPDATE nodes SET ended_at = UNIX_TIMESTAMP() WHERE node_id = ? AND incarnation = ? AND state = 'ended'";

const REMOVE: &str = "DELETE FROM nodes WHERE node_id = ? AND incarnation = ? AND state = 'ended'";

/// Returns true if all of the cluster's rows exist. Fails if they were created for another number of shards
/// or another hash.
pub(crate) async fn is_made(connection: &mut MySqlConnection) -> Result<bool> {
    let Some(row) = sqlx::query(CLUSTER)
        .fetch_optional(connection)
        .await
        .map_err(on_read)?
    else {
        return Ok(false);
    };
    let (shards, hash, row_count) = (
        number::<u64>(&row, "shards")?,
        row.text("hash")?,
        number::<u64>(&row, "row_count")?,
    );
    if shards != u64::from(SHARDS) || hash != SHARD_HASH {
        let why = format!(
            "the cluster was made with {shards} shards by {hash}, this program has {SHARDS} by {SHARD_HASH}"
        );
        return Err(StoreError::Unreadable(why));
    }
    Ok(row_count == shards)
}

/// Creates the cluster's rows that are missing.
pub(crate) async fn make(connection: &mut MySqlConnection) -> Result<()> {
    let rows = ShardId::all()
        .map(|shard| format!("({shard}, 0)"))
        .collect::<Vec<_>>()
        .join(", ");
    // Unlike IGNORE, this does not hide other errors.
    let shards = format!(
        "INSERT INTO shards (shard_id, epoch) VALUES {rows} ON DUPLICATE KEY UPDATE shards.shard_id = shards.shard_id"
    );
    sqlx::raw_sql(AssertSqlSafe(shards))
        .execute(&mut *connection)
        .await
        .map_err(on_write)?;
    sqlx::query("INSERT INTO cluster (id, shards, hash) VALUES (1, ?, ?) ON DUPLICATE KEY UPDATE cluster.id = cluster.id")
        .bind(SHARDS)
        .bind(SHARD_HASH)
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok(())
}

/// Inserts a node's row, or replaces the row of the incarnation `replaces`. Returns false if another process
/// was first.
pub(crate) async fn join(
    connection: &mut MySqlConnection,
    node: &NodeRow,
    replaces: Option<Incarnation>,
) -> Result<bool> {
    let statement = match replaces {
        None => {
            "INSERT INTO nodes (incarnation, beat, state, http, cluster, links, lease, lease_of, ended_at, node_id)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"
        }
        Some(_) => {
            "UPDATE nodes SET incarnation = ?, beat = ?, state = ?, http = ?, cluster = ?, links = ?, lease = ?, lease_of = ?, ended_at = 0
              WHERE node_id = ? AND incarnation = ?"
        }
    };
    let mut query = sqlx::query(statement)
        .bind(integer(node.incarnation.get()))
        .bind(integer(node.beat))
        .bind(node.state.as_str())
        .bind(&node.http)
        .bind(&node.cluster)
        .bind(links::text_of(&node.links))
        .bind(node.lease_micros())
        .bind(integer(node.incarnation.get()))
        .bind(node.id.as_str());
    if let Some(replaced) = replaces {
        query = query.bind(integer(replaced.get()));
    }
    match query.execute(connection).await {
        Ok(joined) => Ok(joined.rows_affected() == 1),
        Err(error) if error_number(&error) == Some(DUPLICATE_ENTRY) => Ok(false),
        Err(error) => Err(on_write(error)),
    }
}

/// Counts one beat.
pub(crate) async fn beat(
    connection: &mut MySqlConnection,
    id: &NodeId,
    incarnation: Incarnation,
    state: NodeState,
    linked: &[Incarnation],
) -> Result<Option<u64>> {
    let counted = sqlx::query(BEAT)
        .bind(state.as_str())
        .bind(links::text_of(linked))
        .bind(state == NodeState::Ended)
        .bind(id.as_str())
        .bind(integer(incarnation.get()))
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok((counted.rows_affected() == 1).then(|| counted.last_insert_id()))
}

/// Declares another incarnation dead.
pub(crate) async fn end(connection: &mut MySqlConnection, by: Incarnation, dead: &NodeRow) -> Result<bool> {
    let ended = sqlx::query(END)
        .bind(dead.id.as_str())
        .bind(integer(dead.incarnation.get()))
        .bind(integer(dead.beat))
        .bind(integer(by.get()))
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok(ended.rows_affected() == 1)
}

/// Number of rows that a sweep marks or removes by one commit. It is small, so that a sweep commits some rows
/// even if the database is so far away that there is no time for more.
const SWEPT_BY_ONE_COMMIT: usize = 8;

/// A sweep that takes longer leaves the rest to the next one. Even if its last commit takes long, the sweep
/// ends within the limit of a write.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(2);

/// Removes rows of ended nodes.
pub(crate) async fn sweep(connection: &mut MySqlConnection) -> Result<usize> {
    let rows = sqlx::query(ENDED)
        .fetch_all(&mut *connection)
        .await
        .map_err(on_read)?;
    let Some(now) = rows.first().map(|row| row.integer("asked_at")).transpose()? else {
        return Ok(0);
    };
    let rows = rows.iter().map(EndedRow::read).collect::<Result<_>>()?;
    let Sweep { mark, remove } = Sweep::plan(now, rows);
    let began = Instant::now();
    execute_for_each(connection, MARK, &mark, began).await?;
    execute_for_each(connection, REMOVE, &remove, began).await
}

/// Executes a statement for each of these rows, until [`SWEEP_TIME_MAX`] after `began`. Returns for how many.
/// The statement names one row, so that no live row is locked.
async fn execute_for_each(
    connection: &mut MySqlConnection,
    statement: &'static str,
    rows: &[EndedRow],
    began: Instant,
) -> Result<usize> {
    let mut executed = 0;
    for rows in rows.chunks(SWEPT_BY_ONE_COMMIT) {
        if began.elapsed() >= SWEEP_TIME_MAX {
            break;
        }
        let mut transaction = connection.begin().await.map_err(on_write)?;
        for row in rows {
            sqlx::query(statement)
                .bind(row.id.as_str())
                .bind(integer(row.incarnation.get()))
                .execute(&mut *transaction)
                .await
                .map_err(on_write)?;
        }
        transaction.commit().await.map_err(on_write)?;
        executed += rows.len();
    }
    Ok(executed)
}

/// Returns all nodes' rows.
pub(crate) async fn nodes(connection: &mut MySqlConnection) -> Result<Vec<NodeRow>> {
    let rows = sqlx::query(NODES).fetch_all(connection).await.map_err(on_read)?;
    rows.iter().map(NodeRow::read).collect()
}

/// Returns all shards' rows.
pub(crate) async fn shards(connection: &mut MySqlConnection) -> Result<Vec<ShardRow>> {
    let rows = sqlx::query("SELECT shard_id, epoch, owner FROM shards ORDER BY shard_id")
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    rows.iter().map(ShardRow::read).collect()
}
