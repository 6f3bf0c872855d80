//! Configuration: defaults < file < environment (`FIRSTCOME__HTTP__LISTEN`) < flags.
//!
//! A key that nobody knows is an error, and so is a value that makes no sense: whatever is wrong is said
//! before anything is started. Secrets never leave through `Debug` or [`Config::to_toml`].

mod access;
mod cluster;
mod limits;
mod load;
mod origin;
mod users;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use access::AccessLog;
pub use cluster::{Cluster, ClusterTls, HostPort};
pub use limits::Limits;
pub use load::Sources;
pub use origin::Origin;
pub use users::{Jwt, JwtAlgorithm};
pub use value::StoreUrl;

use crate::http::listener;

/// Longest time that can be set: whoever means more has made a mistake.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Most lanes of a node: a shard writes through one lane, and a lane that has few of them has small batches.
const LANES_MAX: u32 = 64;

/// Most connections that can be set: as many as a process can have open files on a usual Linux
/// (`fs.nr_open`).
const CONNECTIONS_LIMIT: usize = 1_048_576;

/// Why a configuration cannot stand; the message names the key.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct InvalidConfig(pub(crate) String);

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where this node keeps what it must not forget: its name, the admin token it made, the embedded
    /// database.
    pub data_dir: PathBuf,
    /// Who this node is.
    pub node: Node,
    /// The HTTP side.
    pub http: Http,
    /// How the node stops.
    pub shutdown: Shutdown,
    /// Where coupons are stored.
    pub store: Store,
    /// How it is one of several nodes, and how they know that the others live.
    pub cluster: Cluster,
    /// Who may do what.
    pub auth: Auth,
    /// How much one user may ask.
    pub limits: Limits,
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
    /// Pages of which sites may read our answers in a browser.
    #[serde(deserialize_with = "value::origins")]
    pub cors_origins: Vec<Origin>,
    /// Most requests in one coupon's queue; more are told `OVERLOADED`.
    pub coupon_requests_max: usize,
    /// Most connections; more are told `OVERLOADED` and closed.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// How long a client may take to send the body, in all.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// How long a connection may stay open between requests.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a client may take to read the next 16 KiB of answers.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// TLS, if it has files.
    pub tls: Tls,
}

/// `http.tls.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The certificate and what leads up to its root, in PEM; with it and its key, HTTPS is served in place
    /// of HTTP.
    pub certificate_file: Option<PathBuf>,
    /// Its key, in PEM.
    pub key_file: Option<PathBuf>,
    /// How long a client may take for its handshake.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How often to look whether the files have changed.
    #[serde(with = "humantime_serde")]
    pub reload_every: Duration,
}

/// `shutdown.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long to go on serving after `/readyz` says 503, so that balancers notice. Default: 5 s, and 0 on
    /// loopback.
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
    /// `sqlite://<path>`, or `mysql://user:password@host:port/database`; by default a file in the data
    /// directory.
    pub url: Option<String>,
    /// A file that holds it.
    pub url_file: Option<PathBuf>,
    /// How long starting and migrating wait for another node's migration, and for whoever uses a table that
    /// is to be altered. Servers only.
    #[serde(with = "humantime_serde")]
    pub migration_wait: Duration,
    /// How many batches a node stores at the same time, each on a connection of its own. Servers only: SQLite
    /// takes one at a time.
    pub lanes: u32,
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
    /// Networks whose `X-User-Id` and `X-Forwarded-For` are believed.
    #[serde(deserialize_with = "value::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// What a user's token must be, where `mode` is `jwt`.
    pub jwt: Jwt,
}

/// How users are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// By the header `X-User-Id`, which a gateway in front has checked.
    #[default]
    Header,
    /// By a signed token (JWT) in `Authorization`.
    Jwt,
}

/// `log.…`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// A level, or several by module: `info`, `info,node=debug`.
    pub level: String,
    /// Which requests get a line, at level `info`.
    pub access: AccessLog,
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
            limits: Limits::default(),
            log: Log::default(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            migration_wait: Duration::from_secs(30),
            lanes: 4,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            deadline: Duration::from_secs(3),
            change_deadline: Duration::from_secs(10),
            requests_max: actors::owning::router::REQUESTS_MAX,
            cors_origins: Vec::new(),
            coupon_requests_max: actors::owning::owner::actor::OWNER_PLACES,
            connections_max: listener::CONNECTIONS_MAX,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            // Longer than the 60 s that balancers commonly keep connections, so that they close first and
            // never send into a closed one.
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(20),
            tls: Tls::default(),
        }
    }
}

impl Http {
    /// `https` with TLS, else `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.certificate_file.is_some() {
            "https"
        } else {
            "http"
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate_file: None,
            key_file: None,
            handshake_timeout: Duration::from_secs(10),
            // Certificates are replaced days before they end.
            reload_every: Duration::from_secs(10),
        }
    }
}

impl Default for Shutdown {
    /// Delay and limit together stay below the 30 s that orchestrators commonly wait before they kill.
    fn default() -> Self {
        Self {
            delay: None,
            limit: Duration::from_secs(20),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
            access: AccessLog::Off,
        }
    }
}

impl Config {
    /// Where coupons are stored.
    pub fn store_url(&self) -> Result<StoreUrl, InvalidConfig> {
        match &self.store.url {
            Some(url) => {
                StoreUrl::parse(url).map_err(|message| InvalidConfig(format!("store.url: {message}")))
            }
            None => Ok(StoreUrl::Sqlite(self.data_dir.join("firstcome.db"))),
        }
    }

    /// How the socket is served.
    pub(crate) fn listener(&self) -> listener::Options {
        let Http {
            connections_max,
            header_timeout,
            body_timeout,
            idle_timeout,
            write_timeout,
            ref tls,
            ..
        } = self.http;
        let files = tls.certificate_file.clone().zip(tls.key_file.clone());
        let tls = files.map(|(certificate_file, key_file)| {
            let Tls {
                handshake_timeout,
                reload_every,
                ..
            } = *tls;
            crate::http::tls::Options {
                certificate_file,
                key_file,
                handshake_timeout,
                reload_every,
            }
        });
        let (trusted_proxies, access) = (self.auth.trusted_proxies.clone(), self.log.access);
        let cors_origins = self.http.cors_origins.clone();
        listener::Options {
            connections_max,
            header_timeout,
            body_timeout,
            idle_timeout,
            write_timeout,
            trusted_proxies,
            access,
            cors_origins,
            tls,
        }
    }

    /// How long to go on serving after `/readyz` says 503.
    pub fn shutdown_delay(&self) -> Duration {
        let usual = if self.http.listen.ip().is_loopback() {
            Duration::ZERO
        } else {
            Duration::from_secs(5)
        };
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
        if effective.auth.jwt.key_file.is_some() {
            effective.auth.jwt.key = None;
        }
        if effective.cluster.cookie_file.is_some() {
            effective.cluster.cookie = None;
        }
        toml::to_string(&effective).map_err(|error| InvalidConfig(error.to_string()))
    }

    /// Everything that no single value shows to be wrong.
    fn check(&self) -> Result<(), InvalidConfig> {
        let fail = |message: &str| Err(InvalidConfig(message.to_owned()));
        self.cluster.check(&self.store_url()?)?;
        self.auth.jwt.check(self.auth.mode)?;
        self.limits.check()?;
        for (key, duration) in [
            ("http.deadline", self.http.deadline),
            ("http.change_deadline", self.http.change_deadline),
            ("http.header_timeout", self.http.header_timeout),
            ("http.body_timeout", self.http.body_timeout),
            ("http.idle_timeout", self.http.idle_timeout),
            ("http.write_timeout", self.http.write_timeout),
            ("http.tls.handshake_timeout", self.http.tls.handshake_timeout),
            ("http.tls.reload_every", self.http.tls.reload_every),
            ("cluster.beat", self.cluster.beat),
            ("store.migration_wait", self.store.migration_wait),
        ] {
            if duration.is_zero() || duration > DURATION_MAX {
                return Err(InvalidConfig(format!(
                    "{key} must be longer than 0 and at most an hour"
                )));
            }
        }
        for (key, duration) in [
            ("cluster.lease", self.cluster.lease),
            ("shutdown.delay", self.shutdown_delay()),
            ("shutdown.limit", self.shutdown.limit),
        ] {
            if duration > DURATION_MAX {
                return Err(InvalidConfig(format!("{key} must be at most an hour")));
            }
        }
        if !(1..=LANES_MAX).contains(&self.store.lanes) {
            return Err(InvalidConfig(format!("store.lanes must be 1 to {LANES_MAX}")));
        }
        if self.http.requests_max == 0 || self.http.coupon_requests_max == 0 {
            return fail("http.requests_max and http.coupon_requests_max must be at least 1");
        }
        if self.http.connections_max == 0 || self.http.connections_max > CONNECTIONS_LIMIT {
            return Err(InvalidConfig(format!(
                "http.connections_max must be 1 to {CONNECTIONS_LIMIT}"
            )));
        }
        if self.http.tls.certificate_file.is_some() != self.http.tls.key_file.is_some() {
            return fail("http.tls.certificate_file and http.tls.key_file must both be set, or neither");
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
