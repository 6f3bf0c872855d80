//! Configuration: defaults < file < environment (`FIRSTCOME__HTTP__LISTEN`) < flags.
//!
//! Keys are declared in sections, which [`keys`] collects into one table. An unknown key or a value that is
//! not allowed is an error, and is reported before anything is started. Secrets are hidden in `Debug` and in
//! [`Config::to_toml`].

mod access_log;
mod check;
mod cluster;
mod differences;
mod jwks_url;
mod jwt;
pub mod keys;
mod limits;
mod load;
mod origin;
mod role;
mod trace;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use actors::owning::door::DOOR_TTL;
use ipnet::IpNet;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use access_log::AccessLog;
pub(crate) use check::log_targets;
pub use cluster::{Cluster, ClusterTls, HostPort};
pub use jwks_url::JwksUrl;
pub use jwt::{Jwt, JwtAlgorithm};
pub use limits::Limits;
pub use load::Sources;
pub use origin::Origin;
pub use role::RoleName;
pub use trace::Trace;
pub use value::StoreUrl;

use self::check::{at_most_an_hour, between, positive_and_at_most_an_hour};
use self::keys::section;
use crate::http::listener;
use crate::http::trace::Sampler;

/// Maximum number of lanes of a node. Each has a connection of its own to the database, whose server has a
/// bound of connections for all nodes.
const LANES_MAX: u32 = 64;

/// Largest value of `http.connections_max`: the usual maximum of open files of a process on Linux
/// (`fs.nr_open`).
const CONNECTIONS_LIMIT: usize = 1_048_576;

/// Why a configuration is not valid; the message names the key.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {0}")]
pub struct InvalidConfig(pub(crate) String);

section! {
    /// The whole configuration.
    pub struct Config in "" {
        /// Directory for what the node must not lose: its id, the admin token that it created, the embedded
        /// database.
        data_dir: PathBuf = PathBuf::from("./data"), "path";
    }
    sections {
        /// The identity of this node.
        node: Node;
        /// HTTP.
        http: Http;
        /// Bounds of queues and rates.
        limits: Limits;
        /// Stopping.
        shutdown: Shutdown;
        /// The database.
        store: Store;
        /// The cluster and its heartbeats.
        cluster: Cluster;
        /// Authentication.
        auth: Auth;
        /// What users may do with coupons.
        coupon: Coupon;
        /// Logging.
        log: Log;
        /// Tracing.
        trace: Trace;
    }
    not_keys {
        /// Former keys that were used, each with its present name.
        former_keys: Vec<(&'static str, &'static str)>;
    }
}

section! {
    /// `node.…`
    pub struct Node in "node." {
        /// The id of this node.
        id: Option<String> = None, "1 to 64 characters", check = check::node_id,
            unset = "created once and stored in `data_dir`";
    }
}

section! {
    /// `coupon.…`
    pub struct Coupon in "coupon." {
        /// True if users may reserve their own issuances for orders, and release them. Otherwise only
        /// administrators and services may.
        user_may_reserve: bool = false, "boolean";
    }
}

section! {
    /// `http.…`
    pub struct Http in "http." {
        /// Address to listen on; port 0 takes a free one.
        #[serde(deserialize_with = "value::address")]
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8080)), "address";
        /// Time for an issue request or a read.
        #[serde(with = "humantime_serde")]
        deadline: Duration = Duration::from_secs(3), "duration", check = positive_and_at_most_an_hour;
        /// Time for a change by an administrator. The default is longer than for other requests, because all
        /// nodes may have to acknowledge the change first.
        #[serde(with = "humantime_serde")]
        change_deadline: Duration = Duration::from_secs(10), "duration", check = positive_and_at_most_an_hour;
        /// Maximum number of open connections; further connections are answered `OVERLOADED` and closed.
        connections_max: usize = listener::CONNECTIONS_MAX, "number",
            check = |max| between(*max, 1..=CONNECTIONS_LIMIT);
        /// Time for a client to send the head of a request.
        #[serde(with = "humantime_serde")]
        header_timeout: Duration = Duration::from_secs(10), "duration", check = positive_and_at_most_an_hour;
        /// Time for a client to send the whole body.
        #[serde(with = "humantime_serde")]
        body_timeout: Duration = Duration::from_secs(10), "duration", check = positive_and_at_most_an_hour;
        /// Time that a connection may stay open between requests. The default exceeds the 60 s after which
        /// balancers usually close connections, so that a balancer never sends into a closed connection.
        #[serde(with = "humantime_serde")]
        idle_timeout: Duration = Duration::from_secs(75), "duration", check = positive_and_at_most_an_hour;
        /// Time for a client to read the next 16 KiB of responses.
        #[serde(with = "humantime_serde")]
        write_timeout: Duration = Duration::from_secs(20), "duration", check = positive_and_at_most_an_hour;
        /// Origins whose pages may read responses, like `https://shop.example`.
        #[serde(deserialize_with = "value::origins")]
        cors_origins: Vec<Origin> = Vec::new(), "list of origins";
    }
    sections {
        /// TLS, which is used if its files are set.
        tls: Tls;
    }
}

section! {
    /// `http.tls.…`
    pub struct Tls in "http.tls." {
        /// The certificate and its chain, in PEM. With a certificate and its key, the node serves HTTPS
        /// instead of HTTP.
        certificate_file: Option<PathBuf> = None, "path";
        /// The key of the certificate, in PEM.
        key_file: Option<PathBuf> = None, "path";
        /// Timeout of a handshake.
        #[serde(with = "humantime_serde")]
        handshake_timeout: Duration = Duration::from_secs(10), "duration",
            check = positive_and_at_most_an_hour;
        /// Interval between checks whether the files have changed.
        #[serde(with = "humantime_serde")]
        reload_every: Duration = Duration::from_secs(10), "duration", check = positive_and_at_most_an_hour;
    }
}

section! {
    /// `shutdown.…`. Both times together stay below the 30 s after which orchestrators usually kill a
    /// process.
    pub struct Shutdown in "shutdown." {
        /// Time for which the node keeps serving after `/readyz` responds 503, so that balancers notice.
        #[serde(with = "humantime_serde")]
        delay: Option<Duration> = None, "duration", check = check::optional_at_most_an_hour,
            unset = "`\"5s\"`; `\"0s\"` if `http.listen` is its default, or loopback with port 0";
        /// Time for finishing requests and storing everything after that.
        #[serde(with = "humantime_serde")]
        limit: Duration = Duration::from_secs(20), "duration", check = at_most_an_hour;
    }
}

section! {
    /// `store.…`
    pub struct Store in "store." {
        /// The database: `sqlite://<path>`, or `mysql://user:password@host:port/database`.
        url: Option<String> = None, "URL", unset = "SQLite in `data_dir`";
        /// A file with the URL.
        url_file: Option<PathBuf> = None, "path";
        /// Time that a node waits, at its start or in `firstcome migrate`, for another node's migration and
        /// for clients of a table that is to be altered. Servers only.
        #[serde(with = "humantime_serde")]
        migration_wait: Duration = Duration::from_secs(30), "duration", check = positive_and_at_most_an_hour;
        /// Maximum number of batches that the node stores at the same time, each on a connection of its own.
        /// Servers only: SQLite stores one batch at a time.
        lanes: u32 = 4, "number", check = |lanes| between(*lanes, 1..=LANES_MAX);
    }
}

section! {
    /// `auth.…`
    pub struct Auth in "auth." {
        /// How users are authenticated: `header` by `X-User-Id`, `jwt` by a signed token.
        mode: AuthMode = AuthMode::Header, "`header` or `jwt`";
        /// The token of administrators.
        #[serde(serialize_with = "value::hidden")]
        admin_token: Option<SecretString> = None, "secret, 8 to 512 characters", check = check::admin_token,
            unset = "created once and stored in `data_dir`";
        /// A file with the admin token.
        admin_token_file: Option<PathBuf> = None, "path";
        /// A file with named keys and their roles (TOML), reloaded when it changes.
        keys_file: Option<PathBuf> = None, "path";
        /// Networks whose `X-User-Id` and `X-Forwarded-For` are trusted, like `10.0.0.0/8`.
        #[serde(deserialize_with = "value::networks")]
        trusted_proxies: Vec<IpNet> = Vec::new(), "list of networks";
    }
    sections {
        /// Requirements for users' tokens, if `mode` is `jwt`.
        jwt: Jwt;
    }
}

/// How users are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMode {
    /// By the header `X-User-Id`, which a gateway sets.
    #[default]
    Header,
    /// By a signed token (JWT) in `Authorization`.
    Jwt,
}

section! {
    /// `log.…`
    pub struct Log in "log." {
        /// The format of lines: `text` for a terminal, `json` for programs.
        format: LogFormat = LogFormat::Text, "`text` or `json`";
        /// A level, or several by module: `info`, `info,node=debug`. The libraries `ractor` and
        /// `ractor_cluster` log no more than warnings unless they are named.
        level: String = "info".to_owned(), "levels", check = |level| check::log_level(level);
        /// Requests that are logged, at level `info`.
        access: AccessLog = AccessLog::Off, "`off`, `errors`, `all` or `sample:N`";
    }
}

/// The format of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text for a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Http {
    /// Returns `https` with TLS, otherwise `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.certificate_file.is_some() {
            "https"
        } else {
            "http"
        }
    }
}

impl Config {
    /// Returns a warning for each key that is set by its former name.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.former_keys
            .iter()
            .map(|(former, present)| format!("{former} is now {present}; the former name will be removed"))
    }

    /// The database.
    pub fn store_url(&self) -> Result<StoreUrl, InvalidConfig> {
        match &self.store.url {
            Some(url) => {
                StoreUrl::parse(url).map_err(|message| InvalidConfig(format!("store.url: {message}")))
            }
            None => Ok(StoreUrl::Sqlite(self.data_dir.join("firstcome.db"))),
        }
    }

    /// Returns the options of the HTTP listener. The configuration does not say which requests are hot.
    pub(crate) fn listener(&self) -> listener::Options {
        let http = &self.http;
        let files = http.tls.certificate_file.clone().zip(http.tls.key_file.clone());
        let tls = files.map(|(certificate_file, key_file)| crate::http::tls::Options {
            certificate_file,
            key_file,
            handshake_timeout: http.tls.handshake_timeout,
            reload_every: http.tls.reload_every,
        });
        listener::Options {
            connections_max: http.connections_max,
            client_connections_max: self.limits.client_connections_max,
            unsent_bytes_max: self.limits.unsent_bytes_max,
            header_timeout: http.header_timeout,
            body_timeout: http.body_timeout,
            idle_timeout: http.idle_timeout,
            write_timeout: http.write_timeout,
            trusted_proxies: self.auth.trusted_proxies.clone(),
            access: self.log.access,
            cors_origins: http.cors_origins.clone(),
            tls,
            is_hot: |_, _| false,
            sampler: Sampler::default(),
        }
    }

    /// Time for which the node keeps serving after `/readyz` responds 503.
    pub fn shutdown_delay(&self) -> Duration {
        let listen = self.http.listen;
        // The default address is for a node without a balancer, and no balancer can know a port that the
        // system chose. Any other node may have a balancer, also on the same machine.
        let is_alone = listen == Http::default().listen || listen.ip().is_loopback() && listen.port() == 0;
        let default = if is_alone {
            Duration::ZERO
        } else {
            Duration::from_secs(5)
        };
        self.shutdown.delay.unwrap_or(default)
    }

    /// Returns the effective configuration as the text of a file, with defaults filled in and secrets hidden.
    pub fn to_toml(&self) -> Result<String, InvalidConfig> {
        toml::to_string(&self.effective()?).map_err(|error| InvalidConfig(error.to_string()))
    }

    /// Returns the configuration with defaults filled in, and without secrets that were read from files.
    fn effective(&self) -> Result<Self, InvalidConfig> {
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
        Ok(effective)
    }

    /// Checks each value, and then the values together.
    fn check(&self) -> Result<(), InvalidConfig> {
        let fail = |message: &str| Err(InvalidConfig(message.to_owned()));
        self.check_values()?;
        self.cluster.check(&self.store_url()?)?;
        self.check_change_deadline()?;
        self.auth.jwt.check(self.auth.mode)?;
        self.limits.check()?;
        if self.cluster.listen.is_some() && self.auth.admin_token.is_none() {
            return fail(
                "auth.admin_token or auth.admin_token_file must be set if cluster.listen is: \
                 a token that all nodes share; otherwise each node creates its own, which the others refuse",
            );
        }
        if self.http.tls.certificate_file.is_some() != self.http.tls.key_file.is_some() {
            return fail("http.tls.certificate_file and http.tls.key_file must both be set, or neither");
        }
        let is_loopback = self.http.listen.ip().is_loopback();
        if self.auth.mode == AuthMode::Header && !is_loopback && self.auth.trusted_proxies.is_empty() {
            return fail(
                "auth.trusted_proxies must name the networks of the gateway that sets X-User-Id (like \
                 10.0.0.0/8) when auth.mode is header and http.listen is not a loopback address: \
                 otherwise any client could act as any user",
            );
        }
        Ok(())
    }

    /// Checks that a change can be answered after the loss of a node. The lost node may refuse requests based
    /// on the state before the change until its lease and the notices at its door have ended.
    fn check_change_deadline(&self) -> Result<(), InvalidConfig> {
        let (deadline, lease) = (self.http.change_deadline, self.cluster.lease);
        if self.cluster.listen.is_none() || deadline > lease + DOOR_TTL {
            return Ok(());
        }
        Err(InvalidConfig(format!(
            "http.change_deadline ({deadline:?}) must be longer than cluster.lease ({lease:?}) plus \
             {DOOR_TTL:?} if cluster.listen is set: after the loss of a node a change may have to wait that \
             long"
        )))
    }
}
