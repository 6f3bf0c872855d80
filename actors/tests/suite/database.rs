//! A database on a shared server, and a store on it.

use std::sync::Arc;

use actors::store::ClusterStore;
use actors::store::mysql::{MySqlStore, OpenError, Options};
use async_trait::async_trait;
use sqlx::mysql::MySqlConnection;
use testkit::servers::{Server, ServerKind};
use tokio::sync::RwLockReadGuard;

use crate::support::Database;

/// A database on the shared server of one kind.
pub struct OnServer {
    pub server: &'static Server,
    pub name: String,
    pub store: Arc<MySqlStore>,
}

impl OnServer {
    /// Makes an empty database. The server must be available.
    pub async fn empty(kind: ServerKind) -> (&'static Server, String) {
        let server = Server::shared(kind);
        let name = server.make_database("CHARACTER SET latin1").await.unwrap();
        (server, name)
    }

    /// Makes a database and a store on it. The store connects to `port` if a port is given.
    pub async fn through(kind: ServerKind, port: Option<u16>) -> Self {
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

    /// Opens a connection of an administrator to this database.
    pub async fn shell(&self) -> MySqlConnection {
        self.server.shell(&self.name).await.unwrap()
    }
}

/// Makes a type for a kind of server, and implements [`Database`] for the type.
macro_rules! database {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name {
            database: OnServer,
            _beside: RwLockReadGuard<'static, ()>,
        }

        #[async_trait]
        impl Database for $name {
            type Store = MySqlStore;

            fn is_available() -> bool {
                ServerKind::$name.is_available()
            }

            async fn new() -> Self {
                let _beside = crate::beside(ServerKind::$name).await;
                let database = OnServer::through(ServerKind::$name, None).await;
                Self { database, _beside }
            }

            fn store(&self) -> Arc<MySqlStore> {
                self.database.store.clone()
            }

            async fn reopen(&mut self) {
                self.database.store.close().await;
                self.database.store = Arc::new(self.database.open().await.unwrap());
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
