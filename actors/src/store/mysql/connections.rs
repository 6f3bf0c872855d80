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

/// The connections of one kind.
pub(crate) struct Connections {
    pool: Pool,
    options: MySqlConnectOptions,
    take_limit: Duration,
    most: u32,
    permits: Arc<Semaphore>,
    /// What a new connection must find in the database, if anything.
    canary: Option<Arc<Canary>>,
    idle: Mutex<Vec<IdleConnection>>,
}

#[derive(Debug)]
struct IdleConnection {
    connection: MySqlConnection,
    since: Instant,
}

/// A connection in use. Dropping this closes the connection. Only [`Self::settle`] with a success keeps it.
#[derive(Debug)]
pub(crate) struct Taken {
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
    /// that waits longer than `take_limit` fails and has begun nothing.
    pub(crate) fn new(
        pool: Pool,
        options: MySqlConnectOptions,
        most: u32,
        take_limit: Duration,
        canary: Option<Arc<Canary>>,
    ) -> Arc<Self> {
        let most = most.max(1);
        handles().store.set_max(pool, most);
        Arc::new(Self {
            pool,
            options,
            take_limit,
            most,
            permits: Arc::new(Semaphore::new(most as usize)),
            canary,
            idle: Mutex::default(),
        })
    }

    /// Returns a connection to a server that accepts writes.
    ///
    /// Cancel safety: a dropped future closes the connection that it was making or testing.
    pub(crate) async fn take(self: &Arc<Self>, test_before_use: TestBeforeUse) -> Result<Taken> {
        let limit = self.take_limit;
        let taken = timeout(limit, Box::pin(self.take_in_time(test_before_use))).await;
        taken.unwrap_or_else(|_| {
            Err(StoreError::NotStored(format!(
                "got no connection to the database within {limit:?}"
            )))
        })
    }

    async fn take_in_time(self: &Arc<Self>, test_before_use: TestBeforeUse) -> Result<Taken> {
        let begun = Instant::now();
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::NotStored("the store is closed".to_owned()))?;
        while let Some(IdleConnection {
            mut connection,
            since,
        }) = self.pop_idle()
        {
            let is_fresh = test_before_use == TestBeforeUse::IfIdle && since.elapsed() < UNTESTED_IDLE_MAX;
            if is_fresh || session::test(&mut connection).await.is_ok() {
                return Ok(Taken {
                    connection,
                    origin: Arc::clone(self),
                    _permit: permit,
                    _in_use: handles().store.taken(self.pool, begun),
                });
            }
            // The other unused connections have probably failed for the same reason.
            drop(std::mem::take(
                &mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner),
            ));
        }
        let mut connection = session::connect(&self.options).await?;
        if let Some(canary) = &self.canary {
            canary.check_server(&mut connection).await?;
        }
        Ok(Taken {
            connection,
            origin: Arc::clone(self),
            _permit: permit,
            _in_use: handles().store.taken(self.pool, begun),
        })
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

impl Taken {
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
