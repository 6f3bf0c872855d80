//! Opens a database by its URL: checks the server's version and settings, and migrates the schema.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, Migrator};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::time::timeout;

use super::dialect::Dialect;
use super::error::{self, NO_SUCH_TABLE, TABLE_ACCESS_DENIED, number};
use super::session::{self, ConnectError, setting};
use super::settings::{self, Settings};
use super::{STATEMENT_BYTES_MAX, cluster};
use crate::store::migrations::tables::{self, Tables};
use crate::store::migrations::{self, Applied, History, Need, Unusable};
use crate::store::{self, StoreError};

/// Limit of connecting (with handshake and session settings), and of each other step that waits for the
/// server.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A migration may take this many times as long as it waits for other migrations, because altering a table of
/// millions of rows takes seconds.
const WAITS_MAX: u32 = 10;

/// Lock names are shared by all databases of a server, and have at most 64 characters.
const LOCK_NAME: &str = "CONCAT('firstcome-', LEFT(SHA2(DATABASE(), 256), 32))";

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is invalid, or names no database.
    #[error("the database's URL: {0}")]
    Url(String),
    /// The server cannot be reached at present. This may pass.
    #[error("the server at {server} cannot be reached: {why}")]
    Away {
        /// Host, port and database.
        server: String,
        /// The reason.
        why: String,
    },
    /// The server denies access, is read-only, or does not apply the session settings on which the promises
    /// depend.
    #[error("the server at {server} cannot be used: {why}")]
    Refused {
        /// Host, port and database.
        server: String,
        /// The reason, and what to do.
        why: String,
    },
    /// The server's version is not supported.
    #[error("the server is {found}, and this program needs MySQL 8.0.19 or MariaDB 10.6, or later")]
    Version {
        /// What the server calls itself.
        found: String,
    },
    /// A batch would not fit into one packet.
    #[error("max_allowed_packet of the server is {found} bytes: set it to {needed} or more")]
    Packet {
        /// The value that the server is set to.
        found: u64,
        /// The number of bytes that the largest batch may take.
        needed: u64,
    },
    /// The database was migrated by a program that is more than one version newer.
    #[error("the database has schema {found}, and this program knows up to {known} and works with at most {}: a newer program is needed", .known + 1)]
    TooNew {
        /// The highest version that the database has.
        found: i64,
        /// The highest version that this program has.
        known: i64,
    },
    /// A table belongs to another program, or has lost something.
    #[error("{0}")]
    Tables(String),
    /// Another node's migration did not end in time.
    #[error("another migration of this database did not end within {0:?}")]
    Locked(Duration),
    /// The schema cannot be brought up to date.
    #[error("migrating the database: {0}")]
    Migrate(#[from] MigrateError),
    /// The server failed while it was checked or migrated.
    #[error("opening the database: {0}")]
    Database(#[from] sqlx::Error),
}

impl OpenError {
    /// Returns true if the server may be reached later. Otherwise an administrator has to change something
    /// first.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. })
    }

    /// Adds the server to an error of reaching it.
    pub(super) fn at(self, options: &MySqlConnectOptions) -> Self {
        let server = session::place(options);
        let (Self::Database(error)
        | Self::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))) = &self
        else {
            return self;
        };
        if number(error) == Some(TABLE_ACCESS_DENIED) {
            let why =
                format!("{error}; run `firstcome migrate` with a user that may create and alter tables");
            return Self::Refused { server, why };
        }
        match error::remedy(error) {
            None => Self::Away {
                server,
                why: error.to_string(),
            },
            Some(_) => self,
        }
    }
}

impl From<Unusable> for OpenError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::TooNew { found, known } => Self::TooNew { found, known },
            Unusable::Differs(version) => MigrateError::VersionMismatch(version).into(),
        }
    }
}

/// Connects for checking and migrating. The connection is not kept.
pub(super) async fn connect(options: &MySqlConnectOptions) -> Result<MySqlConnection, OpenError> {
    let connected = timeout(CONNECT_LIMIT, session::connect(options)).await;
    let failure = match connected.unwrap_or_else(|_| Err(late(CONNECT_LIMIT).into())) {
        Ok(connection) => return Ok(connection),
        Err(failure) => failure,
    };
    let server = session::place(options);
    Err(match failure {
        ConnectError::Failed(error) => match error::remedy(&error) {
            None => OpenError::Away {
                server,
                why: error.to_string(),
            },
            Some(remedy) => OpenError::Refused {
                server,
                why: format!("{error}; {remedy}"),
            },
        },
        ConnectError::Unfit(why) => OpenError::Refused { server, why },
    })
}

/// Returns the error of a server that does not answer.
fn late(limit: Duration) -> sqlx::Error {
    let why = format!("the server did not answer within {limit:?}");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why))
}

/// Returns the server's dialect, or an error if it cannot be used. Warns about settings that may lose
/// commits.
pub(super) async fn check_server(connection: &mut MySqlConnection) -> Result<Dialect, OpenError> {
    in_time(CONNECT_LIMIT, settings(connection)).await
}

/// Limits the wait for a server that no longer answers.
async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, OpenError>>,
) -> Result<T, OpenError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(late(limit).into()))
}

async fn settings(connection: &mut MySqlConnection) -> Result<Dialect, OpenError> {
    let rows = sqlx::raw_sql(settings::SHOW).fetch_all(connection).await?;
    let settings = Settings(rows.iter().map(setting).collect::<sqlx::Result<_>>()?);
    let version = settings.get("version");
    let dialect = match Dialect::of(version) {
        Some((dialect, version)) if version >= dialect.first_version() => dialect,
        _ => {
            return Err(OpenError::Version {
                found: version.to_owned(),
            });
        }
    };
    let (found, needed) = (
        settings.number("max_allowed_packet").unwrap_or(0),
        STATEMENT_BYTES_MAX as u64,
    );
    if found < needed {
        return Err(OpenError::Packet { found, needed });
    }
    for warning in settings.warnings() {
        tracing::warn!(%warning, server = dialect.name(), "the server's settings may lose confirmed commits");
    }
    Ok(dialect)
}

/// Brings the schema up to date. A schema that is one version newer is left as it is: this release works with
/// it, so that an upgrade can be undone. If there is nothing to do, this takes no lock and needs no right to
/// alter tables.
pub(super) async fn migrate(
    connection: &mut MySqlConnection,
    migrator: &Migrator,
    wait: Duration,
) -> Result<(), OpenError> {
    let looking = async { Ok(history(connection, migrator).await?.need(migrator)?) };
    if in_time(CONNECT_LIMIT, looking).await? == Need::Nothing {
        return Ok(());
    }
    // The server limits the wait for the lock and for each table. This limit is for a server that no longer
    // answers.
    in_time(
        wait * WAITS_MAX + CONNECT_LIMIT,
        migrate_one_at_a_time(connection, migrator, wait),
    )
    .await
}

async fn migrate_one_at_a_time(
    connection: &mut MySqlConnection,
    migrator: &Migrator,
    wait: Duration,
) -> Result<(), OpenError> {
    // sqlx would wait for its own lock without a limit.
    let seconds = wait.as_secs().max(1);
    let lock_statement = AssertSqlSafe(format!("SELECT GET_LOCK({LOCK_NAME}, {seconds}) = 1 AS locked"));
    let row = sqlx::raw_sql(lock_statement).fetch_one(&mut *connection).await?;
    if row.try_get::<Option<i64>, _>("locked")? != Some(1) {
        return Err(OpenError::Locked(wait));
    }
    let migrated = migrate_locked(connection, migrator, seconds).await;
    // The server releases the lock with the connection in any case.
    let _ = sqlx::raw_sql(AssertSqlSafe(format!("DO RELEASE_LOCK({LOCK_NAME})")))
        .execute(connection)
        .await;
    migrated
}

async fn migrate_locked(
    connection: &mut MySqlConnection,
    migrator: &Migrator,
    seconds: u64,
) -> Result<(), OpenError> {
    let wait = AssertSqlSafe(format!("SET SESSION lock_wait_timeout = {seconds}"));
    sqlx::raw_sql(wait).execute(&mut *connection).await?;
    // Another node may have migrated during the wait.
    let history = history(connection, migrator).await?;
    match history.need(migrator)? {
        Need::Nothing => return Ok(()),
        Need::Migration => {}
        // A migration that was interrupted is run again from its beginning, which every migration allows. No
        // other node runs it, because this node has the lock.
        Need::Repair(version) => {
            tracing::warn!(version, "a migration was cut short and is run again");
            let forget = format!("DELETE FROM {} WHERE version = ? AND NOT success", history.table);
            sqlx::query(AssertSqlSafe(forget))
                .bind(version)
                .execute(&mut *connection)
                .await?;
        }
    }
    let mut unlocked = Migrator {
        migrations: migrator.migrations.clone(),
        table_name: history.table.into(),
        // A schema that is newer by one version is fine.
        ignore_missing: true,
        ..Migrator::DEFAULT
    };
    unlocked.set_locking(false);
    // `run` would do the same, but the compiler does not see that its future can be sent between threads.
    Ok(unlocked.run_direct(None, connection, false).await?)
}

/// Reads which migrations were applied, and checks that the tables with this program's names belong to this
/// program.
async fn history(connection: &mut MySqlConnection, migrator: &Migrator) -> Result<History, OpenError> {
    let recorded = recorded(connection, migrations::TABLE).await?;
    let formerly = match recorded {
        Some(_) => None,
        None => recorded_in_former_table(connection).await?,
    };
    let history = History::of(migrator, recorded, formerly);
    let found = tables(connection, &tables::names(migrator)).await?;
    let is_applied = |migration: &Migration| history.has(migration);
    match tables::mismatch(migrator, is_applied, &found) {
        None => Ok(history),
        Some(why) => Err(OpenError::Tables(why)),
    }
}

/// Returns the migrations in a table; `None` if there is no such table.
async fn recorded(connection: &mut MySqlConnection, table: &str) -> sqlx::Result<Option<Vec<Applied>>> {
    let statement = AssertSqlSafe(format!("SELECT version, checksum, success FROM {table}"));
    let asked = sqlx::query_as::<_, (i64, Vec<u8>, bool)>(statement);
    match asked.fetch_all(connection).await {
        Ok(applied) => Ok(Some(applied.into_iter().map(Applied::from).collect())),
        Err(error) if number(&error) == Some(NO_SUCH_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the migrations in the table with the former name. That table may belong to another program, have
/// any columns, and not be readable.
async fn recorded_in_former_table(connection: &mut MySqlConnection) -> sqlx::Result<Option<Vec<Applied>>> {
    match recorded(connection, migrations::FORMER_TABLE).await {
        Err(sqlx::Error::Io(error)) => Err(sqlx::Error::Io(error)),
        Err(_) => Ok(None),
        recorded => recorded,
    }
}

/// Checks that these tables and the cluster's rows are there.
pub(super) async fn inspect(connection: &mut MySqlConnection, made: &Tables) -> store::Result<()> {
    let names = made.keys().cloned().collect();
    let found = tables(connection, &names).await.map_err(error::on_read)?;
    if let Some(why) = tables::damage(made, &found) {
        return Err(StoreError::Unreadable(why));
    }
    match cluster::is_made(connection).await? {
        true => Ok(()),
        false => Err(StoreError::Unreadable(store::ROWS_MISSING.to_owned())),
    }
}

/// Returns which of these tables and views the database has, with their columns.
async fn tables(connection: &mut MySqlConnection, names: &BTreeSet<String>) -> sqlx::Result<Tables> {
    // The names are those in the migrations, and need no escaping.
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let statement = format!(
        "SELECT CONCAT('', TABLE_NAME) AS table_name, CONCAT('', COLUMN_NAME) AS column_name
           FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ({})",
        names.join(", ")
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(statement))
        .fetch_all(connection)
        .await?;
    let mut tables = Tables::new();
    for row in rows {
        let columns = tables.entry(row.try_get("table_name")?).or_default();
        columns.insert(row.try_get("column_name")?);
    }
    Ok(tables)
}

/// Closes the connection in an orderly way.
pub(super) async fn leave(connection: MySqlConnection) {
    // An error does not matter: the connection is dropped in any case.
    let _ = timeout(CONNECT_LIMIT, connection.close()).await;
}
