//! The rows of nodes and shards. The only node uses these rows as the nodes of a cluster do, so that both run
//! the same code.

use std::fmt::Write;

use sqlx::SqliteConnection;

use super::error::{on_read, on_write};
use crate::ids::{Fence, Incarnation, NodeId, SHARD_HASH, SHARDS, ShardId};
use crate::store::cluster_rows::{EndedRow, Sweep};
use crate::store::columns::{StoredRow, integer, number, readable};
use crate::store::{Claim, HandOff, NodeRow, NodeState, Result, ShardRow, StoreError, links};

const CLUSTER: &str = "SELECT shards, hash, (SELECT count(*) FROM shards) AS row_count FROM cluster";

const MAKE_SHARDS: &str = "
INSERT INTO shards (shard_id, epoch)
WITH RECURSIVE numbers (number) AS (SELECT 0 UNION ALL SELECT number + 1 FROM numbers WHERE number + 1 < ?1)
SELECT number, 0 FROM numbers WHERE true
    ON CONFLICT DO NOTHING";

/// `?1` is an array of `[shard, epoch seen, owner seen, claimant]`.
const CLAIM: &str = "
UPDATE shards
   SET epoch = epoch + 1, owner = claim.value ->> 3
  FROM jsonb_each(?1) AS claim
 WHERE shard_id = claim.value ->> 0 AND epoch = claim.value ->> 1 AND owner IS claim.value ->> 2";

/// `?1` is an array of `[shard, epoch, owner, new owner]`.
const HAND_OFF: &str = "
UPDATE shards
   SET epoch = epoch + 1, owner = held.value ->> 3
  FROM jsonb_each(?1) AS held
 WHERE shard_id = held.value ->> 0 AND epoch = held.value ->> 1 AND owner = held.value ->> 2";

/// `?1` is an array of `[shard, epoch, owner]`.
const RELEASE: &str = "
UPDATE shards
   SET owner = NULL
  FROM jsonb_each(?1) AS held
 WHERE shard_id = held.value ->> 0 AND epoch = held.value ->> 1 AND owner = held.value ->> 2";

const BEAT: &str = "
UPDATE nodes
   SET beat = beat + 1, state = ?3, links = ?4, ended_at = iif(?3 = 'ended', unixepoch(), 0)
 WHERE node_id = ?1 AND incarnation = ?2 AND state <> 'ended'";

/// The rows of all nodes, and the time.
const NODES: &str = "
SELECT node_id, incarnation, beat, state, http, cluster, links, lease, lease_of, ended_at, unixepoch() AS asked_at
  FROM nodes
 ORDER BY node_id";

/// The rows of ended nodes, and the time.
const ENDED: &str = "
SELECT node_id, incarnation, ended_at, unixepoch() AS asked_at
  FROM nodes
 WHERE state = 'ended'";

/// `?1` is an array of `[node, incarnation]`.
const MARK: &str = "
UPDATE nodes
   SET ended_at = ?2
  FROM jsonb_each(?1) AS ended
 WHERE node_id = ended.value ->> 0 AND incarnation = ended.value ->> 1 AND state = 'ended'";

/// `?1` is an array of `[node, incarnation]`.
const REMOVE: &str = "
DELETE FROM nodes
 WHERE state = 'ended'
   AND (node_id, incarnation) IN (SELECT ended.value ->> 0, ended.value ->> 1 FROM jsonb_each(?1) AS ended)";

/// Returns true if all of the cluster's rows exist. Fails if they were created for another number of shards
/// or another hash.
pub(crate) async fn is_made(connection: &mut SqliteConnection) -> Result<bool> {
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
pub(crate) async fn make(connection: &mut SqliteConnection) -> Result<()> {
    sqlx::query(MAKE_SHARDS)
        .bind(SHARDS)
        .execute(&mut *connection)
        .await
        .map_err(on_write)?;
    sqlx::query("INSERT INTO cluster (id, shards, hash) VALUES (1, ?1, ?2) ON CONFLICT DO NOTHING")
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
    connection: &mut SqliteConnection,
    node: &NodeRow,
    replaces: Option<Incarnation>,
) -> Result<bool> {
    let statement = match replaces {
        None => {
            "INSERT INTO nodes (node_id, incarnation, beat, state, http, cluster, links, lease, lease_of)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?2)
                 ON CONFLICT DO NOTHING"
        }
        Some(_) => {
            "UPDATE nodes SET incarnation = ?2, beat = ?3, state = ?4, http = ?5, cluster = ?6, links = ?7, lease = ?8,
                    lease_of = ?2, ended_at = 0
              WHERE node_id = ?1 AND incarnation = ?9"
        }
    };
    let mut query = sqlx::query(statement)
        .bind(node.id.as_str())
        .bind(integer(node.incarnation.get()))
        .bind(integer(node.beat))
        .bind(node.state.as_str())
        .bind(&node.http)
        .bind(&node.cluster)
        .bind(links::text_of(&node.links))
        .bind(node.lease_micros());
    if let Some(replaced) = replaces {
        query = query.bind(integer(replaced.get()));
    }
    Ok(query.execute(connection).await.map_err(on_write)?.rows_affected() == 1)
}

/// Counts one beat.
pub(crate) async fn beat(
    connection: &mut SqliteConnection,
    id: &NodeId,
    incarnation: Incarnation,
    state: NodeState,
    linked: &[Incarnation],
) -> Result<Option<u64>> {
    let counted = sqlx::query(BEAT)
        .bind(id.as_str())
        .bind(integer(incarnation.get()))
        .bind(state.as_str())
        .bind(links::text_of(linked))
        .execute(&mut *connection)
        .await
        .map_err(on_write)?;
    if counted.rows_affected() == 0 {
        return Ok(None);
    }
    let row = sqlx::query("SELECT beat FROM nodes WHERE node_id = ?1")
        .bind(id.as_str())
        .fetch_one(connection)
        .await
        .map_err(on_write)?;
    number(&row, "beat").map(Some)
}

/// Declares another incarnation dead.
pub(crate) async fn end(connection: &mut SqliteConnection, by: Incarnation, dead: &NodeRow) -> Result<bool> {
    let ended = sqlx::query(
        "UPDATE nodes SET state = 'ended', ended_at = unixepoch()
          WHERE node_id = ?1 AND incarnation = ?2 AND beat = ?3 AND state <> 'ended'
            AND EXISTS (SELECT 1 FROM nodes WHERE incarnation = ?4 AND state <> 'ended')",
    )
    .bind(dead.id.as_str())
    .bind(integer(dead.incarnation.get()))
    .bind(integer(dead.beat))
    .bind(integer(by.get()))
    .execute(connection)
    .await
    .map_err(on_write)?;
    Ok(ended.rows_affected() == 1)
}

/// Removes rows of ended nodes.
pub(crate) async fn sweep(connection: &mut SqliteConnection) -> Result<usize> {
    let rows = sqlx::query(ENDED)
        .fetch_all(&mut *connection)
        .await
        .map_err(on_read)?;
    let Some(now) = rows.first().map(|row| row.integer("asked_at")).transpose()? else {
        return Ok(0);
    };
    let rows = rows.iter().map(EndedRow::read).collect::<Result<_>>()?;
    let Sweep { mark, remove } = Sweep::plan(now, rows);
    let json = |rows: &[EndedRow]| {
        json_rows(
            rows.iter()
                .map(|row| format!("\"{}\",{}", row.id, row.incarnation.get())),
        )
    };
    sqlx::query(MARK)
        .bind(json(&mark))
        .bind(now)
        .execute(&mut *connection)
        .await
        .map_err(on_write)?;
    sqlx::query(REMOVE)
        .bind(json(&remove))
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok(remove.len())
}

/// Returns all nodes' rows.
pub(crate) async fn nodes(connection: &mut SqliteConnection) -> Result<Vec<NodeRow>> {
    let rows = sqlx::query(NODES).fetch_all(connection).await.map_err(on_read)?;
    rows.iter().map(NodeRow::read).collect()
}

/// Returns all shards' rows.
pub(crate) async fn shards(connection: &mut SqliteConnection) -> Result<Vec<ShardRow>> {
    let rows = sqlx::query("SELECT shard_id, epoch, owner FROM shards ORDER BY shard_id")
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    rows.iter().map(ShardRow::read).collect()
}

/// Claims shards in one statement, then reads their rows. No other connection writes in between.
pub(crate) async fn claim(connection: &mut SqliteConnection, claims: &[Claim]) -> Result<Vec<ShardRow>> {
    let json = json_rows(claims.iter().map(|claim| {
        let owner = claim
            .seen
            .owner
            .map_or_else(|| "null".to_owned(), |owner| owner.get().to_string());
        format!(
            "{},{},{owner},{}",
            claim.seen.id,
            claim.seen.epoch,
            claim.claimant.get()
        )
    }));
    sqlx::query(CLAIM)
        .bind(json)
        .execute(&mut *connection)
        .await
        .map_err(on_write)?;
    rows_of(connection, claims.iter().map(|claim| claim.seen.id)).await
}

/// Hands shards off in one statement, then reads their rows.
pub(crate) async fn hand_off(
    connection: &mut SqliteConnection,
    hand_offs: &[HandOff],
) -> Result<Vec<ShardRow>> {
    let json = json_rows(hand_offs.iter().map(|given| {
        let HandOff { shard, from, to } = given;
        format!("{shard},{},{},{}", from.epoch, from.owner.get(), to.get())
    }));
    sqlx::query(HAND_OFF)
        .bind(json)
        .execute(&mut *connection)
        .await
        .map_err(on_write)?;
    rows_of(connection, hand_offs.iter().map(|given| given.shard)).await
}

/// Returns the rows of these shards, in this order.
async fn rows_of(
    connection: &mut SqliteConnection,
    ids: impl Iterator<Item = ShardId>,
) -> Result<Vec<ShardRow>> {
    let rows = shards(connection).await?;
    ids.map(|id| readable(rows.iter().find(|row| row.id == id).copied(), "shards"))
        .collect()
}

/// Releases shards.
pub(crate) async fn release(connection: &mut SqliteConnection, held: &[(ShardId, Fence)]) -> Result<()> {
    let json = json_rows(
        held.iter()
            .map(|(shard, fence)| format!("{shard},{},{}", fence.epoch, fence.owner.get())),
    );
    sqlx::query(RELEASE)
        .bind(json)
        .execute(connection)
        .await
        .map_err(on_write)?;
    Ok(())
}

/// Returns a JSON array of arrays. Each item of `rows` is the text between the brackets of one inner array.
fn json_rows(rows: impl Iterator<Item = String>) -> String {
    let mut json = String::from("[");
    for (index, row) in rows.enumerate() {
        let comma = if index > 0 { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(json, "{comma}[{row}]");
    }
    json.push(']');
    json
}

const FENCE: &str = "SELECT EXISTS (SELECT 1 FROM shards WHERE shard_id = ?1 AND epoch = ?2 AND owner = ?3)";

/// Returns true if the shard has this epoch and owner.
pub(crate) async fn fence_holds(
    connection: &mut SqliteConnection,
    shard: ShardId,
    fence: Fence,
) -> Result<bool> {
    sqlx::query_scalar(FENCE)
        .bind(shard.get())
        .bind(integer(fence.epoch.get()))
        .bind(integer(fence.owner.get()))
        .fetch_one(connection)
        .await
        .map_err(on_read)
}
