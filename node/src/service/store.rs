//! Opens, migrates and closes the database that the configuration names.

use std::sync::Arc;

use actors::coupon::CouponKind;
use actors::coupon::rows::CouponRows;
use actors::store::Store;
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};

use crate::config::{Config, InvalidConfig, StoreUrl};

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `store.url` is not valid.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The SQLite file cannot be opened.
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    /// The database server cannot be used.
    #[error("the database server: {0}")]
    Server(#[from] mysql::OpenError),
}

/// An open database.
pub(crate) enum Database {
    /// The embedded database, for a single node.
    Sqlite(SqliteStore),
    /// A MySQL or MariaDB server.
    MySql(MySqlStore),
}

impl Database {
    /// Opens the database, and migrates it if needed.
    pub(crate) async fn open(config: &Config) -> Result<Self, OpenError> {
        match config.store_url()? {
            StoreUrl::Sqlite(path) => Ok(Self::Sqlite(SqliteStore::open(&file_options(path)).await?)),
            StoreUrl::MySql(url) => Ok(Self::MySql(MySqlStore::open(&server_options(config, url)).await?)),
        }
    }

    /// Brings the schema of the database up to date.
    pub(crate) async fn migrate(config: &Config) -> Result<(), OpenError> {
        match config.store_url()? {
            StoreUrl::Sqlite(path) => Ok(SqliteStore::migrate(&file_options(path)).await?),
            StoreUrl::MySql(url) => Ok(MySqlStore::migrate(&server_options(config, url)).await?),
        }
    }

    /// The store for the engine, and its rows of coupons.
    pub(crate) fn store(&self) -> (Arc<dyn Store<CouponKind>>, Arc<dyn CouponRows>) {
        match self {
            Self::Sqlite(store) => (Arc::new(store.clone()), Arc::new(store.clone())),
            Self::MySql(store) => (Arc::new(store.clone()), Arc::new(store.clone())),
        }
    }

    /// Number of batches that are stored at the same time.
    pub(crate) fn lanes(&self, config: &Config) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::MySql(_) => config.store.lanes as usize,
        }
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::MySql(store) => store.close().await,
        }
    }
}

fn file_options(path: std::path::PathBuf) -> sqlite::Options {
    sqlite::Options::new(path).with_tables_of::<CouponKind>()
}

fn server_options(config: &Config, url: String) -> mysql::Options {
    let store = &config.store;
    mysql::Options {
        lanes: store.lanes,
        migration_wait: store.migration_wait,
        ..mysql::Options::new(url).with_tables_of::<CouponKind>()
    }
}
