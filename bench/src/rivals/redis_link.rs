//! The connection to Redis, which all requests share. Commands are pipelined: each leaves at once, and answers
//! come in the order of the commands.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use super::rival::Failure;

/// How long Redis may take to answer. A sync of its log to the disk may delay an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Connects to the Redis at this URL.
pub(super) async fn connect(url: &str) -> Result<(Client, MultiplexedConnection), Failure> {
    let client = Client::open(url)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_LIMIT))
        .set_response_timeout(Some(ANSWER_LIMIT));
    let connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    Ok((client, connection))
}
