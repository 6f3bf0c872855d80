//! An optimistic version: an update that changes nothing if the coupon has changed since it was read, and a
//! bounded number of attempts. Under load most attempts are in vain, and many requests give up.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;

use super::database::Database;
use super::rival::{Failure, IssueRequest, Outcome, Rival};
use super::tables::{self, CouponState};

/// Attempts of one request. More attempts let fewer requests fail, and each of them slows the others down.
const ATTEMPTS: u32 = 50;
/// Longest wait before another attempt. The wait is random, so that requests which failed together do not
/// fail together again.
const BACK_OFF: Duration = Duration::from_millis(20);

pub(super) struct Optimistic {
    database: Database,
}

impl Optimistic {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Rival for Optimistic {
    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure> {
        for _ in 0..ATTEMPTS {
            // Waiting for the next attempt without a connection leaves it to others.
            let mut connection = self.database.take().await?;
            let outcome = match tables::refusal(&mut connection, request).await? {
                Err(refused) => Some(refused),
                Ok(state) => attempt(&mut connection, request, state).await?,
            };
            connection.keep();
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
            tokio::time::sleep(BACK_OFF.mul_f64(rand::random())).await;
        }
        Err(Failure::Overloaded("the coupon changed during every attempt"))
    }
}

/// Issues if the coupon has not changed since it was read; `None` if it has.
async fn attempt(
    connection: &mut MySqlConnection,
    request: &IssueRequest,
    state: CouponState,
) -> Result<Option<Outcome>, Failure> {
    let mut transaction = connection.begin().await?;
    let changed = sqlx::query(
        "UPDATE coupons SET issued = issued + 1, version = version + 1 WHERE id = ? AND version = ?",
    )
    .bind(request.coupon.get())
    .bind(state.version)
    .execute(&mut *transaction)
    .await?;
    if changed.rows_affected() == 0 {
        transaction.rollback().await?;
        return Ok(None);
    }
    let Some(row) = tables::store(&mut transaction, request, state.issued + 1).await? else {
        transaction.rollback().await?;
        return tables::existing(connection, request).await.map(Some);
    };
    transaction.commit().await?;
    Ok(Some(Outcome::Issued(row)))
}
