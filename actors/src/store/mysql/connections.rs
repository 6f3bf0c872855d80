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
const RESTED: Duration = Duration::from_millis(100);

/// How long closing the pool waits for work that is under way, and for each connection to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// When a connection is tested before use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// The connection is tested only if it was unused for [`RESTED`]. This is for work that fails on a
    /// demoted server anyway.
    IfRested,
    /// The connection is always tested. This is for reads, which a demoted server would answer with old rows.
    Always,
}

/// The connections of one kind.
pub(crate) struct Connections {
    pool: Pool,
    options: MySqlConnectOptions,
    take_limit: Duration,
    most: u32,
    turns: Arc<Semaphore>,
    /// What a new connection must find in the database, if anything.
    canary: Option<Arc<Canary>>,
    resting: Mutex<Vec<Resting>>,
}

#[derive(Debug)]
struct Resting {
    connection: MySqlConnection,
    since: Instant,
}

/// A connection in use. Dropping this closes the connection. Only [`Self::settle`] with a success keeps it.
#[derive(Debug)]
pub(crate) struct Taken {
    connection: MySqlConnection,
    home: Arc<Connections>,
    _turn: OwnedSemaphorePermit,
    _in_use: InUse,
}

/// Omits the options, which hold the password.
impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("most", &self.most)
            .field("free", &self.turns.available_permits())
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
            turns: Arc::new(Semaphore::new(most as usize)),
            canary,
            resting: Mutex::default(),
        })
    }

    /// Returns a connection to a server that accepts writes.
    ///
    /// Cancel safety: a dropped future closes the connection that it was making or testing.
    pub(crate) async fn take(self: &Arc<Self>, care: Care) -> Result<Taken> {
        let limit = self.take_limit;
        let taken = timeout(limit, Box::pin(self.take_in_time(care))).await;
        taken.unwrap_or_else(|_| {
            Err(StoreError::NotStored(format!(
                "got no connection to the database within {limit:?}"
            )))
        })
    }

    async fn take_in_time(self: &Arc<Self>, care: Care) -> Result<Taken> {
        let begun = Instant::now();
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| StoreError::NotStored("the store is closed".to_owned()))?;
        while let Some(Resting {
            mut connection,
            since,
        }) = self.wake()
        {
            let is_fresh = care == Care::IfRested && since.elapsed() < RESTED;
            if is_fresh || session::test(&mut connection).await.is_ok() {
                return Ok(Taken {
                    connection,
                    home: Arc::clone(self),
                    _turn: turn,
                    _in_use: handles().store.taken(self.pool, begun),
                });
            }
            // The other unused connections have probably failed for the same reason.
            drop(std::mem::take(
                &mut *self.resting.lock().unwrap_or_else(PoisonError::into_inner),
            ));
        }
        let mut connection = session::connect(&self.options).await?;
        if let Some(canary) = &self.canary {
            canary.look(&mut connection).await?;
        }
        Ok(Taken {
            connection,
            home: Arc::clone(self),
            _turn: turn,
            _in_use: handles().store.taken(self.pool, begun),
        })
    }

    fn wake(&self) -> Option<Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Waits up to a limit for work that is under way, and closes the connections. No connection can be taken
    /// after that.
    pub(crate) async fn close(&self) {
        let all = timeout(CLOSE_LIMIT, self.turns.acquire_many(self.most)).await;
        self.turns.close();
        drop(all);
        while let Some(resting) = self.wake() {
            // An error does not matter: the connection is dropped in any case.
            let _ = timeout(CLOSE_LIMIT, resting.connection.close()).await;
        }
    }
}

impl Taken {
    /// Returns the pool that the connection belongs to.
    pub(crate) fn pool(&self) -> Pool {
        self.home.pool
    }

    /// Returns the connection.
    pub(crate) fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }

    /// Keeps the connection if the work on it succeeded. If not, closes it.
    pub(crate) fn settle<T>(self, result: Result<T>) -> Result<T> {
        if result.is_ok() && !self.home.turns.is_closed() {
            let resting = Resting {
                connection: self.connection,
                since: Instant::now(),
            };
            self.home
                .resting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(resting);
        }
        result
    }
}
