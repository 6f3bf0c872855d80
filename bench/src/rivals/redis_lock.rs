//! A lock in Redis around the transaction, taken by trying again every 100 ms, for 10 s at most. It is
//! released after the commit, by the token of the request that holds it.
//!
//! A request that waits has no place in a queue: the one that tries next after a release gets the lock. The
//! lock expires, so that it does not outlive a process; a holder that is slower than that holds it no more,
//! and then only the keys of the table prevent that a sequence is given twice.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::Script;
use redis::aio::ConnectionManager;

use super::database::Database;
use super::redis_link;
use super::rival::{Failure, IssueRequest, Outcome, Rival};
use super::tables;

/// How long a lock is held at most.
const LEASE: Duration = Duration::from_secs(10);
/// How long a request waits for the lock.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// Time between two attempts.
const RETRY: Duration = Duration::from_millis(100);

/// Deletes the lock if the token is still that of the caller.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1";

pub(super) struct RedisLock {
    database: Database,
    redis: ConnectionManager,
    release: Script,
}

impl RedisLock {
    pub(super) async fn new(database: Database, redis_url: &str) -> Result<Self, Failure> {
        Ok(Self {
            database,
            redis: redis_link::connect(redis_url).await?.1,
            release: Script::new(RELEASE),
        })
    }

    /// Takes the lock of a coupon. Returns its name and the token that releases it.
    async fn lock(&self, request: &IssueRequest) -> Result<(String, String), Failure> {
        let name = format!("lock:{}", request.coupon);
        let token = format!("{:032x}", rand::random::<u128>());
        let begun = Instant::now();
        loop {
            let taken: Option<String> = redis::cmd("SET")
                .arg(&name)
                .arg(&token)
                .arg("NX")
                .arg("PX")
                .arg(LEASE.as_millis() as u64)
                .query_async(&mut self.redis.clone())
                .await?;
            if taken.is_some() {
                return Ok((name, token));
            }
            if begun.elapsed() + RETRY > WAIT_LIMIT {
                return Err(Failure::Overloaded("the lock did not come free in time"));
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

#[async_trait]
impl Rival for RedisLock {
    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure> {
        let mut connection = self.database.take().await?;
        let refused = tables::refusal(&mut connection, request).await?;
        connection.keep();
        if let Err(refused) = refused {
            return Ok(refused);
        }
        let (name, token) = self.lock(request).await?;
        let outcome = write(&self.database, request).await;
        let released: Result<i64, _> = self
            .release
            .key(name)
            .arg(token)
            .invoke_async(&mut self.redis.clone())
            .await;
        // A lock that was not released expires. What is committed is committed.
        if let Err(error) = released {
            eprintln!("failed to release a lock: {error}");
        }
        outcome
    }
}

/// Issues, and returns the connection to the pool.
pub(super) async fn write(database: &Database, request: &IssueRequest) -> Result<Outcome, Failure> {
    let mut connection = database.take().await?;
    let outcome = tables::read_and_write(&mut connection, request).await?;
    connection.keep();
    Ok(outcome)
}
