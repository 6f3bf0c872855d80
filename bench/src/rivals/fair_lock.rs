//! A fair lock in Redis around the transaction: waiters are in a queue, and a release wakes the first of
//! them. The scripts do what those of Redisson's fair lock do: a waiter that does not take the lock in time
//! loses its place, so that a dead one does not stop the queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use redis::aio::{ConnectionManager, PubSubSink, PubSubStream};
use redis::{Client, Script};
use testkit::ids::CouponId;
use tokio::sync::Notify;

use super::database::Database;
use super::rival::{Failure, IssueRequest, Outcome, Rival};
use super::{redis_link, redis_lock, tables};

/// How long a lock is held at most.
const LEASE: Duration = Duration::from_secs(10);
/// How long a request waits for the lock.
const WAIT_LIMIT: Duration = Duration::from_secs(10);
/// Time between two attempts of a waiter that is not woken, because a message may be lost.
const RETRY: Duration = Duration::from_secs(1);
/// Time before another attempt to subscribe, once the connection is lost.
const RESUBSCRIBE: Duration = Duration::from_millis(50);
/// How long a waiter keeps its place without an attempt.
const PLACE: Duration = Duration::from_secs(5);

/// Takes the lock if it is free and the caller is the first of the queue; otherwise the caller is in the
/// queue afterwards.
///
/// Keys: the lock, the queue, the times until which waiters keep their places. Arguments: the waiter, the
/// time now, the time until which it keeps its place, the lease; times are in milliseconds.
const ACQUIRE: &str = r"
    local first = redis.call('LINDEX', KEYS[2], 0)
    while first and tonumber(redis.call('ZSCORE', KEYS[3], first) or 0) < tonumber(ARGV[2]) do
        redis.call('LPOP', KEYS[2])
        redis.call('ZREM', KEYS[3], first)
        first = redis.call('LINDEX', KEYS[2], 0)
    end
    if redis.call('EXISTS', KEYS[1]) == 0 and (not first or first == ARGV[1]) then
        if first then
            redis.call('LPOP', KEYS[2])
            redis.call('ZREM', KEYS[3], first)
        end
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
        return 1
    end
    if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then
        redis.call('RPUSH', KEYS[2], ARGV[1])
    end
    redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
    return 0";

/// Releases the lock if the caller holds it, and wakes the first of the queue.
///
/// Keys: the lock, the queue. Argument: the holder. A waiter's name is its channel, a space and a number.
const RELEASE: &str = r"
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    redis.call('DEL', KEYS[1])
    local first = redis.call('LINDEX', KEYS[2], 0)
    if first then
        redis.call('PUBLISH', string.match(first, '^[^ ]+'), first)
    end
    return 1";

/// Gives the place in the queue up. Keys and argument: those of the queue.
const LEAVE: &str = r"
    redis.call('LREM', KEYS[1], 1, ARGV[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
    return 1";

/// The waiters of this process, by their names.
type Waiters = Mutex<HashMap<String, Arc<Notify>>>;

pub(super) struct FairLock {
    database: Database,
    redis: ConnectionManager,
    acquire: Script,
    release: Script,
    leave: Script,
    /// The channel on which the waiters of this process are woken.
    channel: String,
    next: AtomicU64,
    waiters: Arc<Waiters>,
}

impl FairLock {
    pub(super) async fn new(database: Database, redis_url: &str) -> Result<Self, Failure> {
        let (client, redis) = redis_link::connect(redis_url).await?;
        let channel = format!("waiters:{:016x}", rand::random::<u64>());
        let messages = subscribe(&client, &channel).await?;
        let waiters: Arc<Waiters> = Arc::default();
        tokio::spawn(wake(client, channel.clone(), messages, Arc::clone(&waiters)));
        Ok(Self {
            database,
            redis,
            acquire: Script::new(ACQUIRE),
            release: Script::new(RELEASE),
            leave: Script::new(LEAVE),
            channel,
            next: AtomicU64::new(1),
            waiters,
        })
    }

    /// Waits for the lock of a coupon, in the order of the first attempts.
    async fn lock(&self, keys: &Keys, waiter: &str) -> Result<(), Failure> {
        let woken = Arc::new(Notify::new());
        self.waiters().insert(waiter.to_owned(), Arc::clone(&woken));
        let taken = self.wait(keys, waiter, &woken).await;
        self.waiters().remove(waiter);
        if taken.is_err() {
            let mut leave = self.leave.key(&keys.queue);
            let left: Result<i64, _> = leave
                .key(&keys.places)
                .arg(waiter)
                .invoke_async(&mut self.redis.clone())
                .await;
            if let Err(error) = left {
                eprintln!("failed to leave a queue: {error}");
            }
        }
        taken
    }

    async fn wait(&self, keys: &Keys, waiter: &str, woken: &Notify) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let now = testkit::time::Timestamp::now().as_micros() / 1_000;
            let taken: i64 = self
                .acquire
                .key(&keys.lock)
                .key(&keys.queue)
                .key(&keys.places)
                .arg(waiter)
                .arg(now)
                .arg(now + PLACE.as_millis() as i64)
                .arg(LEASE.as_millis() as i64)
                .invoke_async(&mut self.redis.clone())
                .await?;
            if taken == 1 {
                return Ok(());
            }
            let left = WAIT_LIMIT.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(Failure::Overloaded("the lock did not come free in time"));
            }
            // A message between the attempt and this wait is kept by the Notify.
            let _ = tokio::time::timeout(left.min(RETRY), woken.notified()).await;
        }
    }

    async fn unlock(&self, keys: &Keys, waiter: &str) {
        let released: Result<i64, _> = self
            .release
            .key(&keys.lock)
            .key(&keys.queue)
            .arg(waiter)
            .invoke_async(&mut self.redis.clone())
            .await;
        // A lock that was not released expires. What is committed is committed.
        if let Err(error) = released {
            eprintln!("failed to release a lock: {error}");
        }
    }

    fn waiters(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of a coupon's lock.
struct Keys {
    lock: String,
    queue: String,
    places: String,
}

impl Keys {
    fn of(coupon: CouponId) -> Self {
        Self {
            lock: format!("fair:{coupon}"),
            queue: format!("fair:{coupon}:queue"),
            places: format!("fair:{coupon}:places"),
        }
    }
}

/// The messages of a channel. Dropping the sink would end them.
type Messages = (PubSubSink, PubSubStream);

async fn subscribe(client: &Client, channel: &str) -> Result<Messages, redis::RedisError> {
    let mut messages = client.get_async_pubsub().await?;
    messages.subscribe(channel).await?;
    Ok(messages.split())
}

/// Wakes waiters until the process ends. While there is no connection they try again every [`RETRY`].
async fn wake(client: Client, channel: String, mut messages: Messages, waiters: Arc<Waiters>) {
    loop {
        while let Some(message) = messages.1.next().await {
            let waiter: String = message.get_payload().unwrap_or_default();
            let waiters = waiters.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(woken) = waiters.get(&waiter) {
                woken.notify_one();
            }
        }
        messages = loop {
            tokio::time::sleep(RESUBSCRIBE).await;
            match subscribe(&client, &channel).await {
                Ok(messages) => break messages,
                Err(error) => eprintln!("failed to subscribe: {error}"),
            }
        };
    }
}

#[async_trait]
impl Rival for FairLock {
    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure> {
        let mut connection = self.database.take().await?;
        let refused = tables::refusal(&mut connection, request).await?;
        connection.keep();
        if let Err(refused) = refused {
            return Ok(refused);
        }
        let keys = Keys::of(request.coupon);
        let waiter = format!("{} {}", self.channel, self.next.fetch_add(1, Ordering::Relaxed));
        self.lock(&keys, &waiter).await?;
        let outcome = redis_lock::write(&self.database, request).await;
        self.unlock(&keys, &waiter).await;
        outcome
    }
}
