//! A lock of the process within the transaction. The lock is released before the commit, so the next request
//! reads what was there before the commit, and issues the same place again. A transaction that an annotation
//! puts around the whole method does the same.

use async_trait::async_trait;
use sqlx::Connection;
use tokio::sync::Mutex;

use super::database::Database;
use super::rival::{Failure, IssueRequest, Outcome, Rival};
use super::tables;

pub(super) struct LockInTransaction {
    database: Database,
    lock: Mutex<()>,
}

impl LockInTransaction {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            lock: Mutex::new(()),
        }
    }
}

#[async_trait]
impl Rival for LockInTransaction {
    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure> {
        let mut connection = self.database.take().await?;
        let mut transaction = connection.begin().await?;
        let outcome = {
            let _locked = self.lock.lock().await;
            match tables::refusal(&mut transaction, request).await? {
                Err(refused) => Some(refused),
                Ok(state) => match tables::store(&mut transaction, request, state.issued + 1).await? {
                    None => None,
                    Some(row) => {
                        tables::write_issued(&mut transaction, request.coupon, state.issued + 1).await?;
                        Some(Outcome::Issued(row))
                    }
                },
            }
        };
        let Some(outcome) = outcome else {
            transaction.rollback().await?;
            let outcome = tables::existing(&mut connection, request).await?;
            connection.keep();
            return Ok(outcome);
        };
        transaction.commit().await?;
        connection.keep();
        Ok(outcome)
    }
}
