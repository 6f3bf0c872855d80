//! A database of its own on a shared server, and a store on it.

use std::sync::Arc;

use actors::store::Store;
use actors::store::mysql::{MySqlStore, OpenError, Options};
use async_trait::async_trait;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions};

use crate::support::Database;
use testkit::servers::{Kind, Server};

/// A database on the shared server of one kind.
pub struct OnServer {
    pub server: &'static Server,
    pub name: String,
    pub store: Arc<MySqlStore>,
}

impl OnServer {
    /// An empty database; the server must be there.
    pub async fn empty(kind: Kind) -> (&'static Server, String) {
        let server = Server::shared(kind).expect("asked before");
        let name = Server::fresh_name();
        let mut admin = admin(server).await;
        run(
            &mut admin,
            &format!("CREATE DATABASE {name} CHARACTER SET latin1"),
        )
        .await;
        (server, name)
    }

    /// A database with a store on it, reached through another port if one is given.
    pub async fn through(kind: Kind, port: Option<u16>) -> Self {
        let (server, name) = Self::empty(kind).await;
        let store = MySqlStore::open(&Options::new(server.url(&name, port)))
            .await
            .unwrap();
        store.check().await.unwrap();
        Self {
            server,
            name,
            store: Arc::new(store),
        }
    }

    pub async fn open(&self) -> Result<MySqlStore, OpenError> {
        MySqlStore::open(&Options::new(self.server.url(&self.name, None))).await
    }

    /// A connection of an administrator, in this database.
    pub async fn shell(&self) -> MySqlConnection {
        let mut admin = admin(self.server).await;
        run(&mut admin, &format!("USE {}", self.name)).await;
        admin
    }
}

/// A connection with all rights.
pub async fn admin(server: &Server) -> MySqlConnection {
    let options = MySqlConnectOptions::new()
        .socket(server.socket())
        .username("root")
        .ssl_mode(sqlx::mysql::MySqlSslMode::Disabled);
    options.connect().await.unwrap()
}

/// Runs statements as text.
pub async fn run(connection: &mut MySqlConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

/// Makes a [`Database`] of each server.
macro_rules! database {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(pub OnServer);

        #[async_trait]
        impl Database for $name {
            fn is_there() -> bool {
                Server::shared(Kind::$name).is_some()
            }

            async fn new() -> Self {
                Self(OnServer::through(Kind::$name, None).await)
            }

            fn store(&self) -> Arc<dyn Store> {
                self.0.store.clone()
            }

            async fn reopen(&mut self) {
                self.0.store.close().await;
                self.0.store = Arc::new(self.0.open().await.unwrap());
            }
        }
    };
}

database!(
    /// A database on MySQL.
    MySql
);
database!(
    /// A database on MariaDB.
    MariaDb
);
