//! Configuration: defaults < file < environment (`FIRSTCOME__HTTP__LISTEN`) < flags.
//!
//! A key that nobody knows is an error, and so is a value that makes no sense: whatever is wrong is said before anything is started.
//! Secrets never leave through `Debug` or [`Config::to_toml`].

mod load;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use load::Sources;
pub use value::StoreUrl;

/// Longest time that can be set: whoever means more has made a mistake.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Why a configuration cannot stand; the message names the key.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct InvalidConfig(String);

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where this node keeps what it must not forget: its name, the admin token it made, the embedded database.
    pub data_dir: PathBuf,
    /// Who this node is.
    pub node: Node,
    /// The HTTP side.
    pub http: Http,
    /// How the node stops.
    pub shutdown: Shutdown,
    /// Where coupons are stored.
    pub store: Store,
    /// How nodes know that the others live.
    pub cluster: Cluster,
    /// Who may do what.
    pub auth: Auth,
    /// What is logged.
    pub log: Log,
}

/// `node.…`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// The node's name; by default one that is made once and kept in the data directory.
    pub id: Option<String>,
}

/// `http.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long an issue request, or a read, may take.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// How long a change by an administrator may take: longer, as every node may have to hear of it first.
    #[serde(with = "humantime_serde")]
    pub change_deadline: Duration,
    /// Most requests in this node's queues together; more are told `OVERLOADED`.
    pub requests_max: usize,
}

/// `shutdown.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long to go on serving after `/readyz` says 503, so that balancers notice. Default: 5 s, and 0 on loopback.
    #[serde(with = "humantime_serde")]
    pub delay: Option<Duration>,
    /// How long finishing may take after that.
    #[serde(with = "humantime_serde")]
    pub limit: Duration,
}

/// `store.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `sqlite://<path>`, or `mysql://user:password@host:port/database`; by default a file in the data directory.
    pub url: Option<String>,
    /// A file that holds it.
    pub url_file: Option<PathBuf>,
    /// How long starting and migrating wait for another node's migration, and for whoever uses a table that is to be altered. Servers only.
    #[serde(with = "humantime_serde")]
    pub migration_wait: Duration,
}

/// `cluster.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// How long a node may decide after its last successful beat.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// Time between beats.
    #[serde(with = "humantime_serde")]
    pub beat: Duration,
}

/// `auth.…`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// How users are recognised.
    pub mode: AuthMode,
    /// What administrators show; by default one that is made once and kept in the data directory.
    #[serde(serialize_with = "value::hidden")]
    pub admin_token: Option<SecretString>,
    /// A file that holds it.
    pub admin_token_file: Option<PathBuf>,
    /// Networks whose `X-User-Id` is believed.
    #[serde(deserialize_with = "value::networks")]
    pub trusted_proxies: Vec<IpNet>,
}

/// How users are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// By the header `X-User-Id`, which a gateway in front has checked.
    #[default]
    Header,
}

/// `log.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// A level, or several by module: `info`, `info,node=debug`.
    pub level: String,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            node: Node::default(),
            http: Http::default(),
            shutdown: Shutdown::default(),
            store: Store::default(),
            cluster: Cluster::default(),
            auth: Auth::default(),
            log: Log::default(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: None, url_file: None, migration_wait: Duration::from_secs(30) }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            deadline: Duration::from_secs(3),
            change_deadline: Duration::from_secs(10),
            requests_max: actors::router::REQUESTS_MAX,
        }
    }
}

impl Default for Shutdown {
    /// Delay and limit together stay below the 30 s that orchestrators commonly wait before they kill.
    fn default() -> Self {
        Self { delay: None, limit: Duration::from_secs(20) }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self { lease: Duration::from_secs(3), beat: Duration::from_millis(300) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl Config {
    /// Where coupons are stored.
    pub fn store_url(&self) -> Result<StoreUrl, InvalidConfig> {
        match &self.store.url {
            Some(url) => StoreUrl::parse(url).map_err(|message| InvalidConfig(format!("store.url: {message}"))),
            None => Ok(StoreUrl::Sqlite(self.data_dir.join("firstcome.db"))),
        }
    }

    /// How long to go on serving after `/readyz` says 503.
    pub fn shutdown_delay(&self) -> Duration {
        let usual = if self.http.listen.ip().is_loopback() { Duration::ZERO } else { Duration::from_secs(5) };
        self.shutdown.delay.unwrap_or(usual)
    }

    /// The configuration as a file would have it, with defaults filled in and secrets hidden.
    pub fn to_toml(&self) -> Result<String, InvalidConfig> {
        let mut effective = self.clone();
        effective.store.url = Some(self.store_url()?.to_string());
        effective.shutdown.delay = Some(self.shutdown_delay());
        if effective.auth.admin_token_file.is_some() {
            effective.auth.admin_token = None;
        }
        toml::to_string(&effective).map_err(|error| InvalidConfig(error.to_string()))
    }

    /// Everything that no single value shows to be wrong.
    fn check(&self) -> Result<(), InvalidConfig> {
        let fail = |message: &str| Err(InvalidConfig(message.to_owned()));
        self.store_url()?;
        for (key, duration) in [
            ("http.deadline", self.http.deadline),
            ("http.change_deadline", self.http.change_deadline),
            ("cluster.beat", self.cluster.beat),
            ("store.migration_wait", self.store.migration_wait),
        ] {
            if duration.is_zero() || duration > DURATION_MAX {
                return Err(InvalidConfig(format!("{key} must be longer than 0 and at most an hour")));
            }
        }
        for (key, duration) in
            [("cluster.lease", self.cluster.lease), ("shutdown.delay", self.shutdown_delay()), ("shutdown.limit", self.shutdown.limit)]
        {
            if duration > DURATION_MAX {
                return Err(InvalidConfig(format!("{key} must be at most an hour")));
            }
        }
        if self.http.requests_max == 0 {
            return fail("http.requests_max must be at least 1");
        }
        // So that two beats may be lost, or late, and the third still comes in time.
        if self.cluster.lease < self.cluster.beat * 3 {
            return fail("cluster.lease must be at least three times cluster.beat");
        }
        if let Some(id) = &self.node.id {
            actors::ids::NodeId::parse(id).map_err(|error| InvalidConfig(format!("node.id: {error}")))?;
        }
        if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&self.log.level) {
            return Err(InvalidConfig(format!("log.level: {error}")));
        }
        let open_to_others = !self.http.listen.ip().is_loopback();
        if self.auth.mode == AuthMode::Header && open_to_others && self.auth.trusted_proxies.is_empty() {
            return fail(
                "auth.trusted_proxies must name the networks of the gateway that sets X-User-Id (like 10.0.0.0/8) when auth.mode is header \
                 and http.listen is not a loopback address: without it anybody could be anyone",
            );
        }
        Ok(())
    }
}
