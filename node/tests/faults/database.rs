//! Queries of a database server's administrator.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Row};

/// Returns the one number that a query gives.
pub async fn number(shell: &mut MySqlConnection, query: &str) -> i64 {
    let row = sqlx::raw_sql(AssertSqlSafe(query.to_owned()))
        .fetch_one(shell)
        .await;
    row.unwrap().try_get(0).unwrap()
}
