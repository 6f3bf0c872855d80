//! The stores that are measured, with durable commits.

use clap::ValueEnum;
use sqlx::{ConnectOptions, Connection};

use super::{Bench, Compare};
use crate::load::Failed;
use testkit::servers::{Server, ServerKind};

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StoreKind {
    /// Embedded.
    Sqlite,
    /// A private MySQL.
    Mysql,
    /// A private MariaDB.
    Mariadb,
}

/// A store, or the reason why this machine does not have it.
pub(super) struct MeasuredStore {
    pub(super) name: String,
    pub(super) store: Result<StoreServer, String>,
}

/// The place where databases are made.
pub(super) enum StoreServer {
    Embedded,
    Server(Box<Server>),
}

impl Compare {
    /// Starts the stores that the flags name. A missing server is reported, and with
    /// `FIRSTCOME_REQUIRE_DATABASES=1` it is an error.
    pub(super) async fn start_stores(&self) -> Result<Vec<MeasuredStore>, Failed> {
        let mut stores = Vec::new();
        for kind in &self.stores {
            stores.push(match kind {
                StoreKind::Sqlite => MeasuredStore {
                    name: "SQLite".to_owned(),
                    store: Ok(StoreServer::Embedded),
                },
                StoreKind::Mysql => {
                    self.server(
                        ServerKind::MySql,
                        &["--log-bin=binlog", "--sync-binlog=1", "--server-id=1"],
                    )
                    .await
                }
                StoreKind::Mariadb => self.server(ServerKind::MariaDb, &[]).await,
            });
        }
        let required = std::env::var("FIRSTCOME_REQUIRE_DATABASES").is_ok_and(|required| required == "1");
        match stores.iter().find_map(|measured| measured.store.as_ref().err()) {
            Some(why) if required => Err(format!("FIRSTCOME_REQUIRE_DATABASES=1, but {why}").into()),
            Some(_) | None => Ok(stores),
        }
    }

    async fn server(&self, kind: ServerKind, more: &[&str]) -> MeasuredStore {
        let pool = format!("--innodb-buffer-pool-size={}M", self.buffer_pool_mib);
        let option = match kind {
            ServerKind::MySql => "--innodb-redo-log-capacity",
            ServerKind::MariaDb => "--innodb-log-file-size",
        };
        let redo_log = self.redo_log_mib.map(|mib| format!("{option}={mib}M"));
        let mut arguments = vec!["--innodb-flush-log-at-trx-commit=1", pool.as_str()];
        arguments.extend(redo_log.as_deref());
        arguments.extend(more);
        let started = match Server::start(kind, &arguments) {
            Ok(server) => version(&server)
                .await
                .map(|version| (version, server))
                .map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        match started {
            Ok((version, server)) => MeasuredStore {
                name: format!("{} {version}", kind.name()),
                store: Ok(StoreServer::Server(Box::new(server))),
            },
            Err(why) => {
                eprintln!("NOT MEASURED: {}: {why}", kind.name());
                MeasuredStore {
                    name: kind.name().to_owned(),
                    store: Err(why),
                }
            }
        }
    }
}

impl Bench<'_> {
    /// Returns the stores without the embedded one.
    pub(super) fn servers(&self) -> impl Iterator<Item = &MeasuredStore> {
        self.stores
            .iter()
            .filter(|measured| !matches!(measured.store, Ok(StoreServer::Embedded)))
    }

    /// Returns the settings of the servers, as a note below a table.
    pub(super) fn settings(&self) -> String {
        let redo_log = self
            .flags
            .redo_log_mib
            .map(|mib| format!(", a redo log of {mib} MiB"))
            .unwrap_or_default();
        format!(
            "SQLite: WAL, `synchronous=FULL`. MySQL and MariaDB: `innodb_flush_log_at_trx_commit=1`, a buffer pool of {} MiB{redo_log}; MySQL with its binary \
             log and `sync_binlog=1`, MariaDB without one.",
            self.flags.buffer_pool_mib
        )
    }
}

impl StoreServer {
    /// Makes an empty database and returns its URL.
    pub(super) async fn fresh(&self, bench: &Bench<'_>) -> Result<String, Failed> {
        match self {
            Self::Embedded => {
                let directory = tempfile::Builder::new()
                    .prefix("sqlite-")
                    .tempdir_in(bench.scratch)?
                    .keep();
                Ok(format!("sqlite://{}", directory.join("firstcome.db").display()))
            }
            Self::Server(server) => Ok(server.url(&server.make_database("").await?, None)),
        }
    }
}

async fn version(server: &Server) -> Result<String, Failed> {
    let mut connection = server.administrator().connect().await?;
    let version: String = sqlx::query_scalar("SELECT VERSION()")
        .fetch_one(&mut connection)
        .await?;
    connection.close().await?;
    Ok(version.split('-').next().unwrap_or_default().to_owned())
}
