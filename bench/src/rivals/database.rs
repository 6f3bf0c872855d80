//! Connections to MySQL.
//!
//! sqlx's pool pings every connection that is returned. That is a further round trip for each request, which
//! the rivals need not pay, so this is a smaller pool. A connection is kept only after work that ended well;
//! otherwise it is closed, which ends its transaction and releases its locks.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::rival::Failure;

/// How long a request waits for a connection. The service gives up after the same time as the rivals that
/// wait for a lock.
const TAKE_LIMIT: Duration = Duration::from_secs(10);

/// READ COMMITTED takes no locks on gaps, and a statement that finds no row to change keeps no lock.
const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// A bounded number of connections.
#[derive(Debug)]
pub(super) struct Database {
    options: MySqlConnectOptions,
    permits: Semaphore,
    idle: Mutex<Vec<MySqlConnection>>,
}

impl Database {
    /// Makes a pool of at most this many connections, none of which is open yet.
    pub(super) fn new(url: &str, connections: u16) -> Result<Self, Failure> {
        Ok(Self {
            options: url.parse()?,
            permits: Semaphore::new(usize::from(connections)),
            idle: Mutex::default(),
        })
    }

    /// Waits for a connection, in the order of the calls. Cancel safe.
    pub(super) async fn take(&self) -> Result<PooledConnection<'_>, Failure> {
        let permit = tokio::time::timeout(TAKE_LIMIT, self.permits.acquire()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(Failure::Overloaded("no connection to the database is free"));
        };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(PooledConnection {
            database: self,
            connection: Some(connection),
            _permit: permit,
        })
    }

    async fn connect(&self) -> sqlx::Result<MySqlConnection> {
        let mut connection = self.options.connect().await?;
        sqlx::raw_sql(SESSION).execute(&mut connection).await?;
        Ok(connection)
    }
}

/// A connection in use. Dropping this value closes the connection, unless it is kept.
#[derive(Debug)]
pub(super) struct PooledConnection<'a> {
    database: &'a Database,
    connection: Option<MySqlConnection>,
    _permit: SemaphorePermit<'a>,
}

impl PooledConnection<'_> {
    /// Returns the connection to the pool. It must not be within a transaction.
    pub(super) fn keep(mut self) {
        if let Some(connection) = self.connection.take() {
            let mut idle = self.database.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(connection);
        }
    }
}

impl Deref for PooledConnection<'_> {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        self.connection
            .as_ref()
            .expect("the connection is there until it is kept")
    }
}

impl DerefMut for PooledConnection<'_> {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        self.connection
            .as_mut()
            .expect("the connection is there until it is kept")
    }
}

/// True if a row was not stored because a row with the same key is.
pub(super) fn is_duplicate(error: &sqlx::Error) -> bool {
    number(error) == Some(1_062)
}

/// True if the server rolled the transaction back because of other transactions, so that it may be repeated:
/// a deadlock, or a lock that did not come free in time.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1_205 | 1_213))
}

/// Returns MySQL's number of an error.
fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}
