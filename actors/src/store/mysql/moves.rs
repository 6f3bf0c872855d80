//! Claims, hand-offs and releases: compare-and-sets of many rows of `shards` by one statement and one commit.
//!
//! Each row is compared and set by itself: a row that is no longer as it was seen is left as it is, and the
//! others are changed all the same. The rows are read after that, so the answer is what is stored.
//!
//! `STRAIGHT_JOIN` and `FORCE INDEX` make the server find each row by its key, so that only the named rows
//! are locked. All statements lock them in the order of their numbers, so that two claimants do not deadlock.
//! Values are literals, because a prepared statement for each number of rows would fill the caches.

use std::fmt::{Result as Written, Write};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::cluster::shards;
use super::error::{is_lock, on_read, on_write};
use crate::ids::{Epoch, Fence, Incarnation, ShardId};
use crate::store::columns::{integer, number, readable};
use crate::store::{Claim, HandOff, Result, ShardRow, StoreError};
use crate::summary::{self, Occurrence};

/// Maximum number of rows that one statement changes. A third of all shards needs two statements. The rows of
/// one statement stay locked together until its commit, so a statement that waits for a lock holds up no more
/// than these rows.
const ROWS_MAX: usize = 64;

/// After this time no further statement is begun, so that the rows can still be read within the call's limit.
const STATEMENTS_LIMIT: Duration = Duration::from_secs(3);

/// A compare-and-set of one row.
#[derive(Debug, Clone, Copy)]
struct Move {
    shard: ShardId,
    epoch: Epoch,
    from: Option<Incarnation>,
    to: Option<Incarnation>,
}

impl Move {
    /// Returns true if the move gives the shard to a next owner, in the next epoch. A released shard keeps
    /// its epoch.
    fn raises(&self) -> bool {
        self.to.is_some()
    }
}

/// Claims shards, then reads their rows.
pub(crate) async fn claim(connection: &mut MySqlConnection, claims: &[Claim]) -> Result<Vec<ShardRow>> {
    let moves = claims.iter().map(|Claim { seen, claimant }| Move {
        shard: seen.id,
        epoch: seen.epoch,
        from: seen.owner,
        to: Some(*claimant),
    });
    change_and_read(connection, moves.collect()).await
}

/// Hands shards off, then reads their rows.
pub(crate) async fn hand_off(
    connection: &mut MySqlConnection,
    hand_offs: &[HandOff],
) -> Result<Vec<ShardRow>> {
    let moves = hand_offs.iter().map(|HandOff { shard, from, to }| Move {
        shard: *shard,
        epoch: from.epoch,
        from: Some(from.owner),
        to: Some(*to),
    });
    change_and_read(connection, moves.collect()).await
}

/// Releases shards.
pub(crate) async fn release(connection: &mut MySqlConnection, held: &[(ShardId, Fence)]) -> Result<()> {
    let moves: Vec<Move> = held
        .iter()
        .map(|(shard, fence)| Move {
            shard: *shard,
            epoch: fence.epoch,
            from: Some(fence.owner),
            to: None,
        })
        .collect();
    let changed = change(connection, &moves).await?;
    // A release is not answered by rows. So a row that stayed locked must be an error.
    changed.locked.map_or(Ok(()), |why| {
        Err(after(changed.statements, StoreError::NotStored(why)))
    })
}

async fn change_and_read(connection: &mut MySqlConnection, moves: Vec<Move>) -> Result<Vec<ShardRow>> {
    let Changed { statements, .. } = change(connection, &moves).await?;
    let rows = shards(connection)
        .await
        .map_err(|error| after(statements, error))?;
    let row_of = |moved: &Move| readable(rows.iter().find(|row| row.id == moved.shard).copied(), "shards");
    moves.iter().map(row_of).collect()
}

/// What became of a call's statements.
struct Changed {
    /// Number of statements that were committed.
    statements: usize,
    /// Why a row was not changed, if one stayed locked or there was no time for it.
    locked: Option<String>,
}

/// Executes the moves. A row that stays locked is skipped.
async fn change(connection: &mut MySqlConnection, moves: &[Move]) -> Result<Changed> {
    let begun = Instant::now();
    let mut sorted = moves.to_vec();
    sorted.sort_unstable_by_key(|moved| moved.shard);
    let mut changed = Changed {
        statements: 0,
        locked: None,
    };
    for portion in sorted.chunks(ROWS_MAX) {
        let locked = if begun.elapsed() > STATEMENTS_LIMIT {
            Some("no time was left".to_owned())
        } else {
            change_unlocked(connection, portion, &mut changed.statements)
                .await
                .map_err(|error| after(changed.statements, error))?
        };
        changed.locked = locked.or(changed.locked);
    }
    Ok(changed)
}

/// Executes one statement. If a row stays locked, executes it for the rows that are not locked. Returns why a
/// row was not changed, if one was locked.
async fn change_unlocked(
    connection: &mut MySqlConnection,
    moves: &[Move],
    statements: &mut usize,
) -> Result<Option<String>> {
    let why = match execute(connection, moves).await {
        Ok(()) => {
            *statements += 1;
            return Ok(None);
        }
        Err(error) if is_lock(&error) => error.to_string(),
        Err(error) => return Err(on_write(error)),
    };
    let unlocked = match moves {
        [_] => Vec::new(),
        _ => unlocked(connection, moves).await?,
    };
    let mut skipped = moves.len() - unlocked.len();
    // A row may have been locked again since. Then these rows are skipped as well.
    match execute(connection, &unlocked).await {
        Ok(()) => *statements += usize::from(!unlocked.is_empty()),
        Err(error) if is_lock(&error) => skipped = moves.len(),
        Err(error) => return Err(on_write(error)),
    }
    tracing::debug!(skipped, %why, "the owners of shards were not changed");
    for _ in 0..skipped {
        summary::count(Occurrence::OwnerNotChanged, None, Some(why.clone()));
    }
    Ok((skipped > 0).then_some(why))
}

async fn execute(connection: &mut MySqlConnection, moves: &[Move]) -> sqlx::Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    sqlx::raw_sql(AssertSqlSafe(update(moves)))
        .execute(connection)
        .await
        .map(drop)
}

/// Returns the moves whose rows no other statement has locked at this moment. The locks that this statement
/// takes end with it.
async fn unlocked(connection: &mut MySqlConnection, moves: &[Move]) -> Result<Vec<Move>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(select_unlocked(moves)))
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    let ids = rows.iter().map(|row| number::<u16>(row, "shard_id"));
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let is_free = |moved: &&Move| ids.contains(&moved.shard.get());
    Ok(moves.iter().filter(is_free).copied().collect())
}

/// Returns the statement that changes these rows. An owner of 0 means no owner, so that all columns are
/// whole numbers for the server.
///
/// One row needs no list. A server would also read a list of one row, and the row of `shards` with it, while
/// it still plans the statement.
fn update(moves: &[Move]) -> String {
    let owner = |owner: Option<Incarnation>| owner.map_or(0, |owner| integer(owner.get()));
    if let [moved] = moves {
        return format!(
            "UPDATE shards SET epoch = epoch + {}, owner = NULLIF({}, 0) \
             WHERE shard_id = {} AND epoch = {} AND COALESCE(owner, 0) = {}",
            u8::from(moved.raises()),
            owner(moved.to),
            moved.shard,
            integer(moved.epoch.get()),
            owner(moved.from),
        );
    }
    let mut text = String::from("UPDATE (");
    // Writing to a string cannot fail.
    let _ = push_rows(&mut text, moves, |text, moved, [epoch, from, to, raise]| {
        write!(
            text,
            ",{}{epoch},{}{from},{}{to},{}{raise}",
            integer(moved.epoch.get()),
            owner(moved.from),
            owner(moved.to),
            u8::from(moved.raises()),
        )
    });
    text.push_str(
        ") AS v STRAIGHT_JOIN shards AS s FORCE INDEX (PRIMARY) \
         ON s.shard_id = v.shard AND s.epoch = v.epoch AND COALESCE(s.owner, 0) = v.from_owner \
         SET s.epoch = s.epoch + v.raise, s.owner = NULLIF(v.to_owner, 0)",
    );
    text
}

fn select_unlocked(moves: &[Move]) -> String {
    let mut text = String::from("SELECT s.shard_id FROM (");
    let _ = push_rows(&mut text, moves, |_, _, _| Ok(()));
    text.push_str(
        ") AS v STRAIGHT_JOIN shards AS s FORCE INDEX (PRIMARY) ON s.shard_id = v.shard FOR UPDATE SKIP LOCKED",
    );
    text
}

/// Writes a row for each move, which begins with its shard. MariaDB has no names for the columns of `VALUES`
/// here, so the first row names them.
fn push_rows(
    text: &mut String,
    moves: &[Move],
    push_more: impl Fn(&mut String, &Move, [&str; 4]) -> Written,
) -> Written {
    for (index, moved) in moves.iter().enumerate() {
        let (join, name, names) = match index {
            0 => (
                "",
                " AS shard",
                [" AS epoch", " AS from_owner", " AS to_owner", " AS raise"],
            ),
            _ => (" UNION ALL ", "", [""; 4]),
        };
        write!(text, "{join}SELECT {}{name}", moved.shard)?;
        push_more(text, moved, names)?;
    }
    Ok(())
}

/// Returns the error of a call in which this many statements had been committed before one failed. If there
/// were any, the outcome of the whole call is unknown.
fn after(committed: usize, error: StoreError) -> StoreError {
    match error {
        StoreError::NotStored(why) if committed > 0 => StoreError::Unknown(why),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(shard: u16, epoch: u64, from: Option<u64>, to: Option<u64>) -> Move {
        Move {
            shard: ShardId::new(shard).unwrap(),
            epoch: Epoch::new(epoch),
            from: from.and_then(Incarnation::new),
            to: to.and_then(Incarnation::new),
        }
    }

    #[test]
    fn one_statement_changes_many_rows() {
        let moves = [moved(3, 0, None, Some(7)), moved(9, 5, Some(8), None)];
        assert_eq!(
            update(&moves),
            "UPDATE (SELECT 3 AS shard,0 AS epoch,0 AS from_owner,7 AS to_owner,1 AS raise \
             UNION ALL SELECT 9,5,8,0,0) AS v STRAIGHT_JOIN shards AS s FORCE INDEX (PRIMARY) \
             ON s.shard_id = v.shard AND s.epoch = v.epoch AND COALESCE(s.owner, 0) = v.from_owner \
             SET s.epoch = s.epoch + v.raise, s.owner = NULLIF(v.to_owner, 0)"
        );
        assert_eq!(
            update(&moves[..1]),
            "UPDATE shards SET epoch = epoch + 1, owner = NULLIF(7, 0) \
             WHERE shard_id = 3 AND epoch = 0 AND COALESCE(owner, 0) = 0"
        );
        assert_eq!(
            select_unlocked(&moves),
            "SELECT s.shard_id FROM (SELECT 3 AS shard UNION ALL SELECT 9) AS v \
             STRAIGHT_JOIN shards AS s FORCE INDEX (PRIMARY) ON s.shard_id = v.shard FOR UPDATE SKIP LOCKED"
        );
    }
}
