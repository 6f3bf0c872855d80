//! Opens, migrates and closes the database that the configuration names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::coupon::CouponKind;
use actors::coupon::rows::{AddSecretError, CouponRows};
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, SqliteStore};
use actors::store::{ClusterStore, Store, StoreError};

use crate::config::{Config, InvalidConfig, StoreUrl};

/// Interval between two attempts to open a database that cannot be reached.
const OPEN_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between two log messages about such a database.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Interval between two inspections of an open database.
const INSPECT_INTERVAL: Duration = Duration::from_secs(2);

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
    #[error("the database: {0}")]
    Server(#[from] mysql::OpenError),
}

impl OpenError {
    /// True if the database may be reached later. Otherwise an operator has to change something first.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Server(error) if error.may_pass())
    }
}

/// An open database. Cheap to clone.
#[derive(Clone)]
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

    /// Opens the database. While its server cannot be reached, retries for ever, logs the reason every few
    /// seconds, and calls `waits` before each pause.
    pub(crate) async fn open_when_reachable(config: &Config, waits: impl Fn()) -> Result<Self, OpenError> {
        let (began, mut reported) = (Instant::now(), None::<Instant>);
        loop {
            let reason = match Self::open(config).await {
                Ok(database) => match database.reachable().await {
                    Ok(()) => return Ok(database),
                    Err(reason) => {
                        database.close().await;
                        reason
                    }
                },
                Err(error) if error.may_pass() => error.to_string(),
                Err(error) => return Err(error),
            };
            waits();
            if reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL) {
                reported = Some(Instant::now());
                let (database, waited) = (config.store_url()?, began.elapsed());
                tracing::warn!(%database, reason, ?waited, "the database cannot be reached; waiting for it");
            }
            tokio::time::sleep(OPEN_INTERVAL).await;
        }
    }

    /// Checks that the database answers, or returns why it does not at present. The engine finds any other
    /// error when it starts.
    async fn reachable(&self) -> Result<(), String> {
        match self.cluster_store().check().await {
            Err(StoreError::NotStored(why) | StoreError::Unknown(why)) => Err(why),
            _ => Ok(()),
        }
    }

    /// Inspects the database every two seconds, for as long as the future is polled. Calls `found` with true
    /// if a table or a row that the program made is missing, and with false once it is there again.
    pub(crate) async fn watch(&self, found: impl Fn(bool)) {
        let mut is_damaged = false;
        loop {
            tokio::time::sleep(INSPECT_INTERVAL).await;
            let inspected = match self {
                Self::Sqlite(store) => store.inspect().await,
                Self::MySql(store) => store.inspect().await,
            };
            match inspected {
                Err(StoreError::Unreadable(why)) if !is_damaged => {
                    tracing::error!(why, "the database cannot be used");
                    is_damaged = true;
                }
                Ok(()) if is_damaged => {
                    tracing::info!("the database can be used again");
                    is_damaged = false;
                }
                // Beats and batches report a database that cannot be reached.
                _ => continue,
            }
            found(is_damaged);
        }
    }

    /// The rows of nodes and shards.
    pub(crate) fn cluster_store(&self) -> &dyn ClusterStore {
        match self {
            Self::Sqlite(store) => store,
            Self::MySql(store) => store,
        }
    }

    /// Brings the schema of the database up to date.
    pub(crate) async fn migrate(config: &Config) -> Result<(), OpenError> {
        match config.store_url()? {
            StoreUrl::Sqlite(path) => Ok(SqliteStore::migrate(&file_options(path)).await?),
            StoreUrl::MySql(url) => Ok(MySqlStore::migrate(&server_options(config, url)).await?),
        }
    }

    /// Adds a secret of codes to the database, which nodes may use meanwhile. Returns its number.
    pub(crate) async fn add_code_secret(config: &Config) -> Result<u32, AddSecretError> {
        match config
            .store_url()
            .map_err(|error| AddSecretError::Open(Box::new(error)))?
        {
            StoreUrl::Sqlite(path) => SqliteStore::add_code_secret(&path).await,
            StoreUrl::MySql(url) => MySqlStore::add_code_secret(&url).await,
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
