//! Reads of one moment that take several statements: a transaction that only reads, on a connection of its
//! own.
//!
//! The transaction always ends: after an error, a timeout or a panic its connection is closed, and otherwise
//! it is committed before the connection returns to its pool.

use std::sync::Arc;

use sqlx::MySqlConnection;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::connections::{Connections, PooledConnection};
use super::error::on_read;
use super::{READ, within};
use crate::store::Result;

/// Begins a snapshot on a connection.
pub(crate) async fn begin(connection: &mut MySqlConnection) -> Result<()> {
    execute(
        connection,
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    )
    .await
}

/// Ends the snapshot of a connection.
pub(crate) async fn end(connection: &mut MySqlConnection) -> Result<()> {
    execute(connection, "COMMIT").await
}

async fn execute(connection: &mut MySqlConnection, statement: &'static str) -> Result<()> {
    let executed = sqlx::raw_sql(statement).execute(connection).await;
    executed.map(drop).map_err(on_read)
}

/// A snapshot for several calls. Dropping it ends it once the call in progress has ended.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// `None` after an error.
    pub(crate) connection: Arc<Mutex<Option<PooledConnection>>>,
}

impl Snapshot {
    /// Takes a connection and begins a snapshot. The caller must let this run to its end.
    pub(crate) async fn begin(connections: &Arc<Connections>) -> Result<Self> {
        let mut taken = connections.take(READ.test_before_use).await?;
        within(READ, begin(taken.connection())).await?;
        Ok(Self {
            connection: Arc::new(Mutex::new(Some(taken))),
        })
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let connection = Arc::clone(&self.connection);
        let end = async move {
            if let Some(mut taken) = connection.lock().await.take() {
                let ended = within(READ, end(taken.connection())).await;
                // A connection on which that fails is closed.
                let _ = taken.settle(ended);
            }
        };
        // If there is no runtime, the connection is closed.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(end);
        }
    }
}

/// Does one piece of work in a [`Snapshot`], without interruption and within a limit.
macro_rules! in_snapshot {
    ($snapshot:expr, $work:path $(, $argument:expr)*) => {{
        let connection = std::sync::Arc::clone(&$snapshot.connection);
        let result = $crate::store::uninterrupted::uninterrupted(async move {
            let mut place = connection.lock().await;
            let ended = || $crate::store::StoreError::NotStored("the snapshot has failed".to_owned());
            let mut taken = place.take().ok_or_else(ended)?;
            let call = $crate::metrics::StoreCall::of(stringify!($work), taken.pool());
            let begun = std::time::Instant::now();
            let work = $work(taken.connection() $(, $argument)*);
            let result = $crate::store::mysql::within($crate::store::mysql::READ, work).await;
            $crate::metrics::handles().store.called(call, begun);
            if result.is_ok() {
                *place = Some(taken);
            }
            result
        })
        .await;
        $crate::store::mysql::judged($crate::store::mysql::READ, result)
    }};
}
pub(crate) use in_snapshot;
