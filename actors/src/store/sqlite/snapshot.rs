//! Reads of one moment that take several statements: a transaction that only reads, on a connection of its
//! own.
//!
//! The transaction always ends: after an error or a panic its connection is closed, and otherwise it is
//! committed before the connection returns to its pool.

use std::sync::Arc;

use sqlx::SqliteConnection;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::error::on_read;
use super::{Lent, read_limited};
use crate::metrics::Pool;
use crate::store::Result;

/// A snapshot for several calls. Dropping it ends it once the call in progress has ended.
pub(crate) struct Snapshot {
    /// `None` after an error.
    pub(crate) connection: Arc<Mutex<Option<Reading>>>,
}

/// A connection in a snapshot. Dropping this closes the connection.
pub(crate) struct Reading(Option<Lent>);

impl Snapshot {
    /// Begins a snapshot on this connection. The moment is that of the first read.
    pub(crate) async fn begin(lent: Lent) -> Result<Self> {
        let mut reading = Reading(Some(lent));
        reading.execute("BEGIN").await?;
        Ok(Self {
            connection: Arc::new(Mutex::new(Some(reading))),
        })
    }
}

impl Reading {
    /// Returns the connection, and its pool.
    pub(crate) fn connection(&mut self) -> Result<(&mut SqliteConnection, Pool)> {
        let gone = || crate::store::StoreError::NotStored("the snapshot has ended".to_owned());
        let lent = self.0.as_mut().ok_or_else(gone)?;
        Ok((&mut lent.connection, lent.pool))
    }

    async fn execute(&mut self, statement: &'static str) -> Result<()> {
        let (connection, _) = self.connection()?;
        let executed = sqlx::raw_sql(statement).execute(connection).await;
        executed.map(drop).map_err(on_read)
    }

    /// Ends the snapshot, and returns the connection to its pool.
    async fn end(mut self) -> Result<()> {
        self.execute("COMMIT").await?;
        drop(self.0.take());
        Ok(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(lent) = &mut self.0 {
            lent.connection.close_on_drop();
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let connection = Arc::clone(&self.connection);
        let end = async move {
            if let Some(reading) = connection.lock().await.take() {
                // A connection on which that fails is closed.
                let _ = read_limited(reading.end()).await;
            }
        };
        // If there is no runtime, the process is ending, and the connection ends with it.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(end);
        }
    }
}

/// Does one piece of work in a [`Snapshot`], without interruption and within a limit.
macro_rules! in_snapshot {
    ($snapshot:expr, $work:path $(, $argument:expr)*) => {{
        let connection = std::sync::Arc::clone(&$snapshot.connection);
        $crate::store::sqlite::read_limited(async move {
            let mut place = connection.lock().await;
            let ended = || $crate::store::StoreError::NotStored("the snapshot has failed".to_owned());
            let mut reading = place.take().ok_or_else(ended)?;
            let (connection, pool) = reading.connection()?;
            let call = $crate::metrics::StoreCall::of(stringify!($work), pool);
            let begun = std::time::Instant::now();
            let result = $work(connection $(, $argument)*).await;
            $crate::metrics::handles().store.called(call, begun);
            if result.is_ok() {
                *place = Some(reading);
            }
            result
        })
        .await
    }};
}
pub(crate) use in_snapshot;
