//! A row lock: `SELECT … FOR UPDATE` on the coupon, held until the commit.

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::database::Database;
use super::rival::{Failure, IssueRequest, Outcome, Rival};
use super::tables;

pub(super) struct RowLock {
    database: Database,
}

impl RowLock {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Rival for RowLock {
    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure> {
        let mut connection = self.database.take().await?;
        let outcome = match tables::refusal(&mut connection, request).await? {
            Err(refused) => refused,
            Ok(_) => locked(&mut connection, request).await?,
        };
        connection.keep();
        Ok(outcome)
    }
}

async fn locked(connection: &mut MySqlConnection, request: &IssueRequest) -> Result<Outcome, Failure> {
    let mut transaction = connection.begin().await?;
    let (total_quantity, issued): (Option<i64>, i64) =
        sqlx::query_as("SELECT total_quantity, issued FROM coupons WHERE id = ? FOR UPDATE")
            .bind(request.coupon.get())
            .fetch_one(&mut *transaction)
            .await?;
    if let Some(total_quantity) = total_quantity.filter(|total_quantity| issued >= *total_quantity) {
        transaction.rollback().await?;
        // The user may have got the last one meanwhile.
        return match tables::refusal(connection, request).await? {
            Err(refused) => Ok(refused),
            Ok(_) => Ok(Outcome::SoldOut {
                total_quantity: total_quantity.unsigned_abs(),
            }),
        };
    }
    let sequence = issued.unsigned_abs() + 1;
    let Some(row) = tables::store(&mut transaction, request, sequence).await? else {
        transaction.rollback().await?;
        return tables::existing(connection, request).await;
    };
    tables::write_issued(&mut transaction, request.coupon, sequence).await?;
    transaction.commit().await?;
    Ok(Outcome::Issued(row))
}
