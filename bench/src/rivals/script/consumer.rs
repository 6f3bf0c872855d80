//! Writes the queue to MySQL in batches, one after the other.

use std::fmt::Write as _;
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;

use super::super::database::Database;
use super::super::rival::Failure;
use super::super::tables;
use super::QUEUE;

/// Rows of one statement. Larger batches gain little, and their text would not fit in one packet of the
/// network.
const BATCH_ROWS_MAX: isize = 500;
/// Time between two looks at an empty queue.
const IDLE: Duration = Duration::from_millis(2);
/// Time before another attempt after an error.
const BACK_OFF: Duration = Duration::from_millis(200);

/// Writes until the process ends.
pub(super) async fn run(database: Database, mut redis: ConnectionManager) {
    loop {
        match write_batch(&database, &mut redis).await {
            Ok(true) => {}
            Ok(false) => tokio::time::sleep(IDLE).await,
            // The entries stay in the queue, and everything behind them waits.
            Err(error) => {
                eprintln!("failed to write a batch: {error}");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// Writes the first entries of the queue, and removes them once they are committed. Returns false if there
/// are none.
async fn write_batch(database: &Database, redis: &mut ConnectionManager) -> Result<bool, Failure> {
    let entries: Vec<String> = redis.lrange(QUEUE, 0, BATCH_ROWS_MAX - 1).await?;
    if entries.is_empty() {
        return Ok(false);
    }
    let mut connection = database.take().await?;
    tables::run(&mut connection, statement(&entries)?).await?;
    connection.keep();
    let () = redis
        .ltrim(
            QUEUE,
            isize::try_from(entries.len()).unwrap_or(BATCH_ROWS_MAX),
            -1,
        )
        .await?;
    Ok(true)
}

/// Returns a statement that stores these entries, or leaves them as they are if they are stored.
fn statement(entries: &[String]) -> Result<String, Failure> {
    let mut text =
        "INSERT INTO issuances (coupon_id, user_id, sequence, issued_at, request_key) VALUES ".to_owned();
    for (index, entry) in entries.iter().enumerate() {
        let parts: Vec<&str> = entry.splitn(5, ' ').collect();
        let [coupon, user, sequence, issued_at, key] = parts[..] else {
            return Err(Failure::Unreadable(format!("{entry:?} is no entry")));
        };
        let separator = if index == 0 { "" } else { "," };
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "{separator}({},'{}',{},{},'{}')",
            digits(coupon)?,
            escaped(user),
            digits(sequence)?,
            digits(issued_at)?,
            escaped(key)
        );
    }
    text.push_str(" ON DUPLICATE KEY UPDATE sequence = issuances.sequence");
    Ok(text)
}

fn digits(text: &str) -> Result<&str, Failure> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number
        .then_some(text)
        .ok_or_else(|| Failure::Unreadable(format!("{text:?} is no number")))
}

/// Escapes what could end a text in quotes. User ids and keys are visible ASCII.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "''")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_holds_all_entries_with_their_texts_escaped() {
        let entries = [r"7 al'ice\ 1 1000 k'".to_owned(), "7 bob 2 1001 k2".to_owned()];
        let text = statement(&entries).unwrap();
        assert!(
            text.contains(r"VALUES (7,'al''ice\\',1,1000,'k'''),(7,'bob',2,1001,'k2') ON DUPLICATE"),
            "{text}"
        );
        for wrong in ["7 bob 2 1001", "7 bob x 1001 k", "7 bob  1001 k"] {
            assert!(statement(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
