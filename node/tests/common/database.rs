//! What an administrator of a database server may do.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use testkit::servers::Server;

use crate::eventually::eventually;

/// An empty database on the server; its name.
pub async fn database(server: &Server) -> String {
    let name = Server::fresh_name();
    let create = format!("CREATE DATABASE {name}");
    // A server of a group takes writes some time after connections.
    eventually("the server takes writes", async || {
        let Ok(mut shell) = administrator(server).await else {
            return false;
        };
        sqlx::raw_sql(AssertSqlSafe(create.clone()))
            .execute(&mut shell)
            .await
            .is_ok()
    })
    .await;
    name
}

/// A connection with all rights.
pub async fn administrator(server: &Server) -> sqlx::Result<MySqlConnection> {
    server.administrator().connect().await
}

/// Runs statements as text.
pub async fn run(shell: &mut MySqlConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(shell)
        .await
        .unwrap();
}

/// One number.
pub async fn number(shell: &mut MySqlConnection, query: &str) -> i64 {
    sqlx::raw_sql(AssertSqlSafe(query.to_owned()))
        .fetch_one(shell)
        .await
        .unwrap()
        .try_get(0)
        .unwrap()
}
