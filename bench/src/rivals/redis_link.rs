//! The connection to Redis, which all requests share. Commands are pipelined: each leaves at once, and
//! answers come in the order of the commands. A connection that breaks is made again; commands on their way
//! then fail.

use std::time::Duration;

use redis::Client;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use super::rival::Failure;

/// How long Redis may take to answer. A sync of its log to the disk may delay an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// First and longest wait before the next attempt to connect.
const REDIAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// Attempts to connect that a command waits for, some seconds in all.
const ATTEMPTS: usize = 20;

/// Connects to the Redis at this URL.
pub(super) async fn connect(url: &str) -> Result<(Client, ConnectionManager), Failure> {
    let client = Client::open(url)?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(ANSWER_LIMIT))
        .set_response_timeout(Some(ANSWER_LIMIT))
        .set_min_delay(REDIAL.0)
        .set_max_delay(REDIAL.1)
        .set_number_of_retries(ATTEMPTS);
    let connection = client.get_connection_manager_with_config(config).await?;
    Ok((client, connection))
}
