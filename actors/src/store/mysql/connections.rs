//! A pool of connections for one kind of work. Their number is limited. A connection is reused after success,
//! and closed after anything else.
//!
//! sqlx's pool is not used, because it pings every returned connection, and a lane needs its connection again
//! at once. A connection returns to this pool only after work that succeeded. After an error, a timeout, a
//! panic or a demotion the connection is closed. That ends every wait of the connection and releases its
//! locks.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::canary::Canary;
use super::session;
use crate::metrics::{InUse, Pool, handles};
use crate::store::{Result, StoreError};

/// A connection that was unused for longer is tested before use, because the server may have closed it, or
/// may have been demoted.
const UNTESTED_IDLE_MAX: Duration = Duration::from_millis(100);

/// Limit of the test of a connection that was unused for so long that a firewall may have dropped it, which
/// neither side notices. Enough for a round trip to any database that this program works with, and so short
/// that time is left to connect anew.
const LONG_IDLE_TEST_LIMIT: Duration = Duration::from_millis(300);

/// How long closing the pool waits for work that is under way, and for each connection to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// When a connection is tested before use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TestBeforeUse {
    /// The connection is tested only if it was unused for [`UNTESTED_IDLE_MAX`]. This is for work that fails
    /// on a demoted server anyway.
    IfIdle,
    /// The connection is always tested. This is for reads, which a demoted server would answer with old rows.
    Always,
}

/// Limits of time of a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Limit of taking a connection, including connecting or testing it.
    pub(crate) take: Duration,
    /// A connection that was unused for longer has only [`LONG_IDLE_TEST_LIMIT`] for its test.
    pub(crate) long_idle: Duration,
}

/// The connections of one kind.
pub(crate) struct Connections {
    pool: Pool,
    options: MySqlConnectOptions,
    limits: Limits,
    most: u32,
    permits: Arc<Semaphore>,
    /// What a new connection must find in the database, if anything.
    canary: Option<Arc<Canary>>,
    idle: Mutex<Vec<IdleConnection>>,
}

#[derive(Debug)]
struct IdleConnection {
    connection: MySqlConnection,
    /// When it returned to the pool.
    since: Instant,
}

/// A connection in use. Dropping this closes the connection. Only [`Self::settle`] with a success keeps it.
#[derive(Debug)]
pub(crate) struct PooledConnection {
    connection: MySqlConnection,
    origin: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
    _in_use: InUse,
}

/// Omits the options, which hold the password.
impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("most", &self.most)
            .field("free", &self.permits.available_permits())
            .finish_non_exhaustive()
    }
}

impl Connections {
    /// Makes a pool of at most `most` connections, at least one. Connections are opened when needed. A call
    /// that waits longer than the limit fails and has begun nothing.
    pub(crate) fn new(
        pool: Pool,
        options: MySqlConnectOptions,
        most: u32,
        limits: Limits,
        canary: Option<Arc<Canary>>,
    ) -> Arc<Self> {
        let most = most.max(1);
        handles().store.set_max(pool, most);
        Arc::new(Self {
            pool,
            options,
            limits,
            most,
            permits: Arc::new(Semaphore::new(most as usize)),
            canary,
            idle: Mutex::default(),
        })
    }

    /// Returns a connection to a server that accepts writes.
    ///
    /// Cancel safety: a dropped future closes the connection that it was making or testing.
    pub(crate) async fn take(self: &Arc<Self>, test_before_use: TestBeforeUse) -> Result<PooledConnection> {
        let limit = self.limits.take;
        let taken = timeout(limit, Box::pin(self.take_in_time(test_before_use))).await;
        taken.unwrap_or_else(|_| {
            Err(StoreError::NotStored(format!(
                "got no connection to the database within {limit:?}"
            )))
        })
    }

    async fn take_in_time(self: &Arc<Self>, test_before_use: TestBeforeUse) -> Result<PooledConnection> {
        let begun = Instant::now();
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::NotStored("the store is closed".to_owned()))?;
        while let Some(IdleConnection {
            mut connection,
            since,
        }) = self.pop_idle()
        {
            let is_fresh = test_before_use == TestBeforeUse::IfIdle && since.elapsed() < UNTESTED_IDLE_MAX;
            if is_fresh || self.passes_test(&mut connection, since).await {
                return Ok(PooledConnection {
                    connection,
                    origin: Arc::clone(self),
                    _permit: permit,
                    _in_use: handles().store.taken(self.pool, begun),
                });
            }
        }
        let mut connection = session::connect(&self.options).await?;
        if let Some(canary) = &self.canary {
            canary.check_server(&mut connection).await?;
        }
        Ok(PooledConnection {
            connection,
            origin: Arc::clone(self),
            _permit: permit,
            _in_use: handles().store.taken(self.pool, begun),
        })
    }

    /// Tests a connection that returned to the pool at this moment. If it fails, or is not answered in time,
    /// the connections that were unused for as long, or longer, are dropped as well ([`DropIdle`]).
    async fn passes_test(&self, connection: &mut MySqlConnection, since: Instant) -> bool {
        let suspects = DropIdle {
            connections: self,
            since,
        };
        let limit = if since.elapsed() < self.limits.long_idle {
            self.limits.take
        } else {
            LONG_IDLE_TEST_LIMIT
        };
        let passes = matches!(timeout(limit, session::test(connection)).await, Ok(Ok(())));
        if passes {
            std::mem::forget(suspects);
        }
        passes
    }

    fn pop_idle(&self) -> Option<IdleConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Waits up to a limit for work that is under way, and closes the connections. No connection can be taken
    /// after that.
    pub(crate) async fn close(&self) {
        let all = timeout(CLOSE_LIMIT, self.permits.acquire_many(self.most)).await;
        self.permits.close();
        drop(all);
        while let Some(idle) = self.pop_idle() {
            // An error does not matter: the connection is dropped in any case.
            let _ = timeout(CLOSE_LIMIT, idle.connection.close()).await;
        }
    }
}

/// When this is dropped, it drops the connections of a pool that returned to it by `since`, like one that is
/// tested and fails. They have been unused for as long or longer, so they have probably failed as well: after
/// a fail-over all of them have, and behind a firewall the older ones. To test them one by one could take a
/// call longer than it may wait, and to connect anew takes milliseconds. A connection that returned later has
/// worked meanwhile, and is kept.
///
/// This is also dropped if a test is cancelled because the limit of taking a connection passed.
struct DropIdle<'a> {
    connections: &'a Connections,
    since: Instant,
}

impl Drop for DropIdle<'_> {
    fn drop(&mut self) {
        let mut idle = self
            .connections
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let dropped: Vec<_> = idle.extract_if(.., |idle| idle.since <= self.since).collect();
        // Closing them needs no lock.
        drop(idle);
        drop(dropped);
    }
}

impl PooledConnection {
    /// Returns the pool that the connection belongs to.
    pub(crate) fn pool(&self) -> Pool {
        self.origin.pool
    }

    /// Returns the connection.
    pub(crate) fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }

    /// Keeps the connection if the work on it succeeded. If not, closes it.
    pub(crate) fn settle<T>(self, result: Result<T>) -> Result<T> {
        if result.is_ok() && !self.origin.permits.is_closed() {
            let idle = IdleConnection {
                connection: self.connection,
                since: Instant::now(),
            };
            self.origin
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(idle);
        }
        result
    }
}
