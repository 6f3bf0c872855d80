//! No lock: a transaction reads how many are issued, and writes one more. Two requests that read at the same
//! time both write the same number, so more are issued than there are. The broken baseline.

use async_trait::async_trait;

use super::database::Database;
use super::rival::{Failure, IssueRequest, Outcome, Rival};
use super::tables;

pub(super) struct NoLock {
    database: Database,
}

impl NoLock {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Rival for NoLock {
    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure> {
        let mut connection = self.database.take().await?;
        let outcome = tables::read_and_write(&mut connection, request).await?;
        connection.keep();
        Ok(outcome)
    }
}
