//! Starts a node from its configuration, and stops it in the right order.
//!
//! The socket is bound first and answers from then on: the node is alive, not ready. Then the store is
//! opened, once its server can be reached, and the engine started.

mod links;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::cluster::membership::JoinError;
use actors::cluster::membership::life_record::{LifeRecord, LifeRecordError};
use actors::coupon::rows::AddSecretError;
use actors::critical::critical;
use actors::engine;
use actors::ids::{InvalidId, NodeId};
use secrecy::SecretString;
use tokio::task::JoinSet;

use crate::api::{TRACED_PATHS, is_hot, register_metrics, routes};
use crate::config::{Cluster, Config, HostPort, InvalidConfig, StoreUrl};
use crate::data_file;
use crate::http::listener::{self, Listener};
use crate::http::trace::Sampler;
use crate::service::Service;
use crate::service::auth::{Authenticator, KeyRing, UserSource, random_secret};
use crate::service::cluster::report_others;
use crate::service::codes::CodesError;
use crate::service::engine::CouponEngine;
use crate::service::store::{Database, OpenError};
use crate::telemetry;
use crate::telemetry::spans::SpanExport;

/// Time after which an idle owner is passivated: longer than the pauses of a rush, and short enough that
/// yesterday's coupons use no memory.
const OWNER_IDLE: Duration = Duration::from_secs(300);

/// Interval between checks whether the node is ready; claims take a beat or two.
const READY_POLL: Duration = Duration::from_millis(10);

/// The file in the data directory with the admin token.
const ADMIN_TOKEN_FILE: &str = "admin_token";
/// The file in the data directory with the node's id.
const NODE_ID_FILE: &str = "node_id";
/// The ending of the file in the data directory with the record of the node's incarnations; its name begins
/// with the node's id, as nodes with configured ids may share a directory.
const RECORD_FILE_ENDING: &str = ".incarnations";
/// How long a start waits for the record while the previous process ends.
const RECORD_WAIT: Duration = Duration::from_secs(2);
/// Interval between two attempts to lock the record.
const RECORD_POLL: Duration = Duration::from_millis(20);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The HTTP socket cannot be bound.
    #[error("http.listen: {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The socket for links cannot be bound.
    #[error("cluster.listen: {0}: {1}")]
    LinkListen(SocketAddr, io::Error),
    /// The HTTP socket cannot be served.
    #[error("http: {0}")]
    Http(#[from] listener::Error),
    /// A file in the data directory cannot be read or created.
    #[error("{}: {error}", path.display())]
    DataFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The node's id is not valid.
    #[error("{}: {error}", path.display())]
    NodeId {
        /// The file that holds the id.
        path: PathBuf,
        /// The reason.
        error: InvalidId,
    },
    /// A live process has the record of this node's incarnations.
    #[error(
        "{}: another process runs as the node {node} on this data_dir: give each process a data_dir of its \
         own",
        path.display()
    )]
    Running {
        /// The record.
        path: PathBuf,
        /// The id of both processes.
        node: NodeId,
    },
    /// Another process has joined as this node.
    #[error(
        "{0}: give this node a node.id of its own, or a data_dir that is not a copy (its file {NODE_ID_FILE} \
         names the node)"
    )]
    Taken(JoinError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The secrets of codes cannot be read.
    #[error(transparent)]
    Codes(#[from] CodesError),
    /// The engine did not start.
    #[error(transparent)]
    Engine(engine::StartError),
}

impl From<engine::StartError> for StartError {
    fn from(error: engine::StartError) -> Self {
        match error {
            engine::StartError::Join(taken @ JoinError::Taken { .. }) => Self::Taken(taken),
            error => Self::Engine(error),
        }
    }
}

/// A node did not finish stopping in time. Everything that was answered is stored nevertheless.
#[derive(Debug, thiserror::Error)]
#[error("not everything was finished within {0:?} (shutdown.limit)")]
pub struct StopError(Duration);

/// The file with the admin token that the node created.
pub(crate) struct AdminTokenFile {
    pub(crate) path: PathBuf,
    /// The token, if this start created it.
    pub(crate) created: Option<SecretString>,
}

/// A running node.
pub struct RunningNode {
    listener: Listener,
    engine: CouponEngine,
    database: Database,
    admin_token_file: Option<AdminTokenFile>,
    maintenance: JoinSet<()>,
    spans: SpanExport,
    shutdown_delay: Duration,
    shutdown_limit: Duration,
}

impl RunningNode {
    /// Starts a node. It answers from then on; [`Self::ready`] waits until it is ready. While the database
    /// server cannot be reached, this waits.
    ///
    /// Cancel safety: if this future is dropped before it completes, the listener and the engine may keep
    /// running. So drop it only when the process is about to exit.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        // The recorder is installed before the engine starts, because the engine takes its handles from the
        // recorder.
        telemetry::metrics();
        register_metrics();
        check_tls(config)?;
        let users = UserSource::new(&config.auth)?;
        KeyRing::check(&config.auth)?;
        let node = node_id(config)?;
        let record = life_record(config, &node).await?;
        let (admin_token, admin_token_file) = admin_token(config)?;
        let socket = listener::bind(config.http.listen)
            .map_err(|error| StartError::Listen(config.http.listen, error))?;
        let keys = KeyRing::new(&admin_token, config.auth.keys_file.as_deref())?;
        let authenticator = Authenticator::new(keys, users);
        let service = Arc::new(Service::new(node.clone(), authenticator, config));
        let spans = SpanExport::start(&config.trace, &node)?;
        let listener = Listener::serve(
            socket,
            routes(Arc::clone(&service)),
            listener_options(config, &spans),
        )?;
        let address = listener.address();
        tracing::info!(%address, %node, commit = telemetry::COMMIT, "listening for HTTP");
        // The socket for links is bound before this node has a row with its addresses.
        let cluster = links::bind(config)?;

        // These tasks end with the node, or when this function fails.
        let mut maintenance = JoinSet::new();
        let maintaining = maintain(Arc::clone(&service), config.cluster.peers.clone());
        maintenance.spawn(critical("maintenance", maintaining));
        let waits = || service.set_store_is_unusable(true);
        let database = Database::open_when_reachable(config, waits).await?;
        service.set_store_is_unusable(false);
        let options = engine::Options {
            node,
            http: listener.address().to_string(),
            lease: config.cluster.lease,
            beat: config.cluster.beat,
            idle: OWNER_IDLE,
            requests_max: config.limits.requests_max,
            owner_requests_max: config.limits.coupon_requests_max,
            lanes: database.lanes(config),
            record,
            cluster,
            spans: spans.spans(),
        };
        let (store, rows) = database.store();
        service.codes().open(&*rows).await?;
        let engine = CouponEngine::start(options, store, rows).await?;
        service.set_engine(engine.clone());
        let watching = watch(database.clone(), service, config.cluster.clone());
        maintenance.spawn(critical("watching the database", watching));
        Ok(Self {
            listener,
            engine,
            database,
            admin_token_file,
            maintenance,
            spans,
            shutdown_delay: config.shutdown_delay(),
            shutdown_limit: config.shutdown.limit,
        })
    }

    /// Returns the address of the node's HTTP socket.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Waits until the node is ready: it has joined and claimed its shards.
    pub async fn ready(&self) {
        while !self.engine.not_ready().is_empty() {
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// The engine.
    pub(crate) fn engine(&self) -> &CouponEngine {
        &self.engine
    }

    /// The file of the admin token, if none is configured.
    pub(crate) fn admin_token_file(&self) -> Option<&AdminTokenFile> {
        self.admin_token_file.as_ref()
    }

    /// Stops the node: hands its shards off while it keeps serving, finishes requests, stores everything and
    /// leaves the cluster.
    pub async fn stop(mut self) -> Result<(), StopError> {
        let deadline = Instant::now() + self.shutdown_delay + self.shutdown_limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        // The shards are handed off before anything else stops, so requests wait only for the hand-offs. A
        // shard that no node accepts is released when the engine stops.
        tokio::join!(
            self.engine.hand_off(self.shutdown_limit / 2),
            tokio::time::sleep(self.shutdown_delay)
        );
        tracing::debug!("shards are handed off");
        // Requests get half of the time that is left: a client that holds a request open must not keep the
        // engine from storing what is decided.
        if !self.listener.stop(left() / 2).await {
            tracing::warn!("cutting connections that are still open");
        }
        tracing::debug!("requests are finished");
        // Their spans are sent meanwhile.
        let (engine_finished, ()) = tokio::join!(self.engine.stop(left()), self.spans.stop());
        tracing::debug!("the engine has stopped");
        self.maintenance.abort_all();
        let closed = tokio::time::timeout(left(), self.database.close()).await;
        tracing::debug!("the store is closed");
        if engine_finished && closed.is_ok() {
            Ok(())
        } else {
            Err(StopError(self.shutdown_limit))
        }
    }
}

fn listener_options(config: &Config, spans: &SpanExport) -> listener::Options {
    listener::Options {
        is_hot,
        sampler: Sampler::new(spans.spans(), TRACED_PATHS, config.trace.ratio),
        ..config.listener()
    }
}

/// Runs the background tasks that need no database, until the future is dropped.
async fn maintain(service: Arc<Service>, peers: Vec<HostPort>) {
    tokio::join!(
        telemetry::upkeep(),
        service.maintain(),
        links::check_peers(&peers)
    );
}

/// Watches the database, until the future is dropped.
async fn watch(database: Database, service: Arc<Service>, cluster: Cluster) {
    let report_others = async {
        if cluster.listen.is_none() {
            report_others(database.cluster_store(), service.node(), cluster.lease).await;
        }
    };
    let (_, rows) = database.store();
    tokio::join!(
        database.watch(|is_damaged| service.set_store_is_unusable(is_damaged)),
        service.codes().renew(&*rows),
        report_others
    );
}

/// Checks what the configuration refers to: reads the named keys, the keys of tokens, and the files of TLS.
pub fn check(config: &Config) -> Result<(), InvalidConfig> {
    KeyRing::check(&config.auth)?;
    UserSource::new(&config.auth)?;
    check_tls(config)
}

fn check_tls(config: &Config) -> Result<(), InvalidConfig> {
    if let Some(tls) = config.listener().tls {
        let checked = tls.check();
        checked.map_err(|error| InvalidConfig(format!("http.tls: {error}")))?;
    }
    if let Some(files) = links::tls_files(&config.cluster) {
        let checked = files.check();
        checked.map_err(|error| InvalidConfig(format!("cluster.tls: {error}")))?;
    }
    Ok(())
}

/// Brings the schema of the database up to date.
pub async fn migrate(config: &Config) -> Result<(), StartError> {
    Ok(Database::migrate(config).await?)
}

/// Adds a secret of codes to the database. Returns its number.
pub async fn rotate_codes(config: &Config) -> Result<u32, AddSecretError> {
    Database::add_code_secret(config).await
}

/// Returns the admin token, and its file if none is configured.
fn admin_token(config: &Config) -> Result<(SecretString, Option<AdminTokenFile>), StartError> {
    if let Some(token) = &config.auth.admin_token {
        return Ok((token.clone(), None));
    }
    let (token, is_new) = data_file(config, ADMIN_TOKEN_FILE, random_secret)?;
    let (token, path) = (SecretString::from(token), config.data_dir.join(ADMIN_TOKEN_FILE));
    if is_new {
        tracing::info!(path = %path.display(), "created the admin token");
    }
    let created = is_new.then(|| token.clone());
    Ok((token, Some(AdminTokenFile { path, created })))
}

/// Returns the node's id.
fn node_id(config: &Config) -> Result<NodeId, StartError> {
    let text = match &config.node.id {
        Some(id) => id.clone(),
        None => data_file(config, NODE_ID_FILE, || NodeId::random().to_string())?.0,
    };
    NodeId::parse(&text).map_err(|error| StartError::NodeId {
        path: config.data_dir.join(NODE_ID_FILE),
        error,
    })
}

/// Opens the record of the node's incarnations, which lets a node that was killed join again at once. SQLite
/// needs no such record, because only one process can open its file.
async fn life_record(config: &Config, node: &NodeId) -> Result<LifeRecord, StartError> {
    if let StoreUrl::Sqlite(_) = config.store_url()? {
        return Ok(LifeRecord::default());
    }
    let path = config.data_dir.join(format!("{node}{RECORD_FILE_ENDING}"));
    let deadline = Instant::now() + RECORD_WAIT;
    loop {
        let opened = std::fs::create_dir_all(&config.data_dir).map_err(LifeRecordError::from);
        match opened.and_then(|()| LifeRecord::open(&path)) {
            Ok(record) => return Ok(record),
            Err(LifeRecordError::Locked) if Instant::now() < deadline => {
                tokio::time::sleep(RECORD_POLL).await;
            }
            Err(LifeRecordError::Locked) => {
                let node = node.clone();
                return Err(StartError::Running { path, node });
            }
            Err(LifeRecordError::File(error)) => {
                tracing::warn!(
                    %error, path = %path.display(),
                    "no record of this node's incarnations: after a crash it waits for its lease to end"
                );
                return Ok(LifeRecord::default());
            }
        }
    }
}

/// Returns the text of a file in the data directory, and creates the file if it does not exist. Returns true
/// if it was created.
fn data_file(
    config: &Config,
    name: &str,
    create: impl FnOnce() -> String,
) -> Result<(String, bool), StartError> {
    data_file::read_or_create(&config.data_dir, name, create).map_err(|error| StartError::DataFile {
        path: config.data_dir.join(name),
        error,
    })
}
