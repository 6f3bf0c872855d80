//! One atomic update with the condition in it, and the insert, in a transaction. The update also returns the
//! number, so nothing is read under the lock that it takes.

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::database::Database;
use super::rival::{Failure, IssueRequest, Outcome, Rival};
use super::tables;

pub(super) struct AtomicUpdate {
    database: Database,
}

impl AtomicUpdate {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Rival for AtomicUpdate {
    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure> {
        let mut connection = self.database.take().await?;
        let outcome = match tables::refusal(&mut connection, request).await? {
            Err(refused) => refused,
            Ok(_) => updated(&mut connection, request).await?,
        };
        connection.keep();
        Ok(outcome)
    }
}

async fn updated(connection: &mut MySqlConnection, request: &IssueRequest) -> Result<Outcome, Failure> {
    let mut transaction = connection.begin().await?;
    // LAST_INSERT_ID with an argument returns the new value with the answer.
    let updated = sqlx::query(
        "UPDATE coupons SET issued = LAST_INSERT_ID(issued + 1) \
         WHERE id = ? AND (total_quantity IS NULL OR issued < total_quantity)",
    )
    .bind(request.coupon.get())
    .execute(&mut *transaction)
    .await?;
    if updated.rows_affected() == 0 {
        transaction.rollback().await?;
        return match tables::refusal(connection, request).await? {
            Err(refused) => Ok(refused),
            Ok(_) => Err(Failure::Overloaded("the coupon was widened meanwhile")),
        };
    }
    let Some(row) = tables::store(&mut transaction, request, updated.last_insert_id()).await? else {
        transaction.rollback().await?;
        return tables::existing(connection, request).await;
    };
    transaction.commit().await?;
    Ok(Outcome::Issued(row))
}
