//! Puts a node together from its configuration, and takes it apart in the right order.
//!
//! The socket is bound first and answers from then on: alive, not ready. Only then is the store opened and
//! the engine started.

mod links;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::engine::{self, Engine};
use actors::ids::{InvalidId, NodeId};
use actors::store::Store;
use actors::store::mysql::{self, MySqlStore};
use actors::store::sqlite::{self, OpenError, SqliteStore};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use tokio::task::AbortHandle;

use crate::api::{App, routes};
use crate::config::{Config, InvalidConfig, StoreUrl};
use crate::data_file::kept;
use crate::http::listener::{self, Listener};
use crate::service::auth::{Recogniser, Users};
use crate::telemetry;

/// An owner that nobody asked for so long is unloaded: longer than a rush pauses, short enough that
/// yesterday's coupons cost no memory.
const OWNER_IDLE: Duration = Duration::from_secs(300);

/// How often to look whether the node is ready; claims take a beat or two.
const READY_POLL: Duration = Duration::from_millis(10);

/// The file in the data directory that keeps the admin token.
const ADMIN_TOKEN_FILE: &str = "admin_token";
/// The file in the data directory that keeps the node's name.
const NODE_ID_FILE: &str = "node_id";

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot stand.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The socket cannot be had.
    #[error("http.listen: {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The socket for links cannot be had.
    #[error("cluster.listen: {0}: {1}")]
    LinkListen(SocketAddr, io::Error),
    /// The socket cannot be served.
    #[error("http: {0}")]
    Http(#[from] listener::Error),
    /// A file in the data directory cannot be read or made.
    #[error("{}: {error}", path.display())]
    Kept {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// The name kept in the data directory is none.
    #[error("{}: {error}", path.display())]
    NodeId {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: InvalidId,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database server cannot be used.
    #[error("the database server: {0}")]
    Server(#[from] mysql::OpenError),
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] engine::StartError),
}

/// Why a node did not stop as it should. What was told is stored all the same.
#[derive(Debug, thiserror::Error)]
#[error("not everything was finished within {0:?} (shutdown.limit)")]
pub struct StopError(Duration);

/// A running node.
pub struct Service {
    listener: Listener,
    engine: Engine,
    database: Database,
    made_admin_token: Option<SecretString>,
    upkeep: AbortHandle,
    shutdown_delay: Duration,
    shutdown_limit: Duration,
}

impl Service {
    /// Starts a node: it serves, and [`Self::ready`] waits until it serves everything.
    ///
    /// Cancel safety: dropped midway, the listener and the engine may be left running. Only a process that
    /// ends may do so.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        // Before the engine, which takes its handles from the recorder.
        telemetry::metrics();
        let users = Users::new(&config.auth)?;
        let node = node_id(config)?;
        let (admin_token, made_admin_token) = admin_token(config)?;
        let socket = listener::bind(config.http.listen)
            .map_err(|error| StartError::Listen(config.http.listen, error))?;
        let app = Arc::new(App::new(
            node.clone(),
            Recogniser::new(&admin_token, users),
            config,
        ));
        let listener = Listener::serve(socket, routes(Arc::clone(&app)), config.listener())?;
        tracing::info!(address = %listener.address(), %node, commit = telemetry::COMMIT, "listening");
        // Bound before this node has a row that says where it is.
        let cluster = links::bind(config)?;

        let database = Database::open(config).await?;
        let options = engine::Options {
            node,
            http: listener.address().to_string(),
            lease: config.cluster.lease,
            beat: config.cluster.beat,
            idle: OWNER_IDLE,
            requests_max: config.http.requests_max,
            coupon_requests_max: config.http.coupon_requests_max,
            lanes: database.lanes(config),
            cluster,
        };
        let engine = Engine::start(options, database.store()).await?;
        app.started(engine.clone());
        let peers = config.cluster.peers.clone();
        Ok(Self {
            listener,
            engine,
            database,
            made_admin_token,
            upkeep: tokio::spawn(async move {
                tokio::join!(telemetry::upkeep(), app.upkeep(), links::try_peers(&peers))
            })
            .abort_handle(),
            shutdown_delay: config.shutdown_delay(),
            shutdown_limit: config.shutdown.limit,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Waits until the node is ready: it has joined and claimed its shards.
    pub async fn ready(&self) {
        while !self.engine.not_ready().is_empty() {
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// The store that it serves.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.engine.store()
    }

    /// The admin token, if the node made it itself.
    pub fn made_admin_token(&self) -> Option<&SecretString> {
        self.made_admin_token.as_ref()
    }

    /// Stops: says that it is not ready, hands its shards to others and goes on serving for a while, finishes
    /// requests, stores everything, leaves.
    pub async fn stop(self) -> Result<(), StopError> {
        let deadline = Instant::now() + self.shutdown_delay + self.shutdown_limit;
        // Others have the shards before anything else ends, so that nobody waits for more than the moves.
        // What nobody takes is given up in the end.
        tokio::join!(
            self.engine.hand_over(self.shutdown_limit / 2),
            tokio::time::sleep(self.shutdown_delay)
        );
        tracing::debug!("shards are handed over");
        // Requests get half of what is left: whoever holds one open must not keep the engine from storing
        // what others were told.
        let requests_finished = self
            .listener
            .stop(deadline.saturating_duration_since(Instant::now()) / 2)
            .await;
        if !requests_finished {
            tracing::warn!("connections are still open; they are cut");
        }
        tracing::debug!("requests are finished");
        let engine_finished = self
            .engine
            .stop(deadline.saturating_duration_since(Instant::now()))
            .await;
        tracing::debug!("the engine has stopped");
        self.upkeep.abort();
        let closed = tokio::time::timeout(
            deadline.saturating_duration_since(Instant::now()),
            self.database.close(),
        )
        .await;
        tracing::debug!("the store is closed");
        if engine_finished && closed.is_ok() {
            Ok(())
        } else {
            Err(StopError(self.shutdown_limit))
        }
    }
}

/// Whether the configuration can stand, with what it points at: keys are read here.
pub fn check(config: &Config) -> Result<(), InvalidConfig> {
    Users::new(&config.auth).map(|_| ())
}

/// Brings the database's schema up to date.
pub async fn migrate(config: &Config) -> Result<(), StartError> {
    match config.store_url()? {
        StoreUrl::Sqlite(path) => Ok(SqliteStore::migrate(&sqlite::Options::new(path)).await?),
        StoreUrl::MySql(url) => Ok(MySqlStore::migrate(&server_options(config, url)).await?),
    }
}

fn server_options(config: &Config, url: String) -> mysql::Options {
    let store = &config.store;
    mysql::Options {
        lanes: store.lanes,
        migration_wait: store.migration_wait,
        ..mysql::Options::new(url)
    }
}

/// The database that was configured.
enum Database {
    Sqlite(SqliteStore),
    MySql(MySqlStore),
}

impl Database {
    async fn open(config: &Config) -> Result<Self, StartError> {
        match config.store_url()? {
            StoreUrl::Sqlite(path) => Ok(Self::Sqlite(
                SqliteStore::open(&sqlite::Options::new(path)).await?,
            )),
            StoreUrl::MySql(url) => Ok(Self::MySql(MySqlStore::open(&server_options(config, url)).await?)),
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::MySql(store) => Arc::new(store.clone()),
        }
    }

    /// How many batches it stores at the same time.
    fn lanes(&self, config: &Config) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::MySql(_) => config.store.lanes as usize,
        }
    }

    async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::MySql(store) => store.close().await,
        }
    }
}

/// Where an admin token that the node made is kept.
pub(crate) fn admin_token_path(config: &Config) -> PathBuf {
    config.data_dir.join(ADMIN_TOKEN_FILE)
}

/// The administrators' token, and the same once more if the node made it itself.
fn admin_token(config: &Config) -> Result<(SecretString, Option<SecretString>), StartError> {
    if let Some(token) = &config.auth.admin_token {
        return Ok((token.clone(), None));
    }
    let make = || URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let token = kept(&config.data_dir, ADMIN_TOKEN_FILE, make).map_err(|error| StartError::Kept {
        path: admin_token_path(config),
        error,
    })?;
    let token = SecretString::from(token);
    Ok((token.clone(), Some(token)))
}

/// The node's name.
fn node_id(config: &Config) -> Result<NodeId, StartError> {
    let path = config.data_dir.join(NODE_ID_FILE);
    let text = match &config.node.id {
        Some(id) => id.clone(),
        None => kept(&config.data_dir, NODE_ID_FILE, || NodeId::random().to_string()).map_err(|error| {
            StartError::Kept {
                path: path.clone(),
                error,
            }
        })?,
    };
    NodeId::parse(&text).map_err(|error| StartError::NodeId { path, error })
}
