//! Connections of one kind: so many at most, kept for the next who needs one, and closed after anything but
//! success.
//!
//! Not sqlx's pool: that one answers a returned connection's doubt with a ping, where a lane wants it at
//! once; and here the doubt itself decides. A connection comes back only from work that went well. After an
//! error, a limit passed, a panic or a demotion it is closed: whatever it was waiting for, whatever it may
//! still hold, goes with it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::canary::Canary;
use super::session;
use crate::store::{Result, StoreError};

/// A connection that rested longer is tried before it is used: the server may have hung up, or have been
/// demoted.
const RESTED: Duration = Duration::from_millis(100);

/// How long closing waits for what is under way, and for each farewell.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// How much is asked of a connection before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// It is tried if it rested: for work that shows a demoted server by itself.
    IfRested,
    /// It is always tried: for reads, which a demoted server would answer with old rows.
    Always,
}

/// The connections of one kind.
pub(crate) struct Connections {
    options: MySqlConnectOptions,
    take_limit: Duration,
    most: u32,
    turns: Arc<Semaphore>,
    /// What a new connection must find, if anything.
    canary: Option<Arc<Canary>>,
    resting: Mutex<Vec<Resting>>,
}

#[derive(Debug)]
struct Resting {
    connection: MySqlConnection,
    since: Instant,
}

/// A connection in use. Dropped, it is closed; only [`Self::settle`] with a success keeps it.
#[derive(Debug)]
pub(crate) struct Taken {
    connection: MySqlConnection,
    home: Arc<Connections>,
    _turn: OwnedSemaphorePermit,
}

/// Without the options, which hold the password.
impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("most", &self.most)
            .field("free", &self.turns.available_permits())
            .finish_non_exhaustive()
    }
}

impl Connections {
    /// At most `most` connections, at least one, opened when they are needed. A call that waits longer than
    /// the limit for one has certainly begun nothing.
    pub(crate) fn new(
        options: MySqlConnectOptions,
        most: u32,
        take_limit: Duration,
        canary: Option<Arc<Canary>>,
    ) -> Arc<Self> {
        let most = most.max(1);
        Arc::new(Self {
            options,
            take_limit,
            most,
            turns: Arc::new(Semaphore::new(most as usize)),
            canary,
            resting: Mutex::default(),
        })
    }

    /// One that reaches a server which takes writes.
    ///
    /// Cancel safety: a dropped future closes what it was trying.
    pub(crate) async fn take(self: &Arc<Self>, care: Care) -> Result<Taken> {
        let limit = self.take_limit;
        let taken = timeout(limit, Box::pin(self.take_in_time(care))).await;
        taken.unwrap_or_else(|_| {
            Err(StoreError::NotStored(format!(
                "no connection to the database within {limit:?}"
            )))
        })
    }

    async fn take_in_time(self: &Arc<Self>, care: Care) -> Result<Taken> {
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
                });
            }
            // What befell one befell its neighbours.
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
        })
    }

    fn wake(&self) -> Option<Resting> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Lets what is under way end, within a limit, and says farewell to the server. Nothing is taken any
    /// more.
    pub(crate) async fn close(&self) {
        let all = timeout(CLOSE_LIMIT, self.turns.acquire_many(self.most)).await;
        self.turns.close();
        drop(all);
        while let Some(resting) = self.wake() {
            // A server that is gone needs no farewell.
            let _ = timeout(CLOSE_LIMIT, resting.connection.close()).await;
        }
    }
}

impl Taken {
    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.connection
    }

    /// Keeps the connection if the work on it went well, and closes it otherwise.
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
