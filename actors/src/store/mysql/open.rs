//! Opens a database by its URL: checks the server's version and settings, and migrates the schema.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection, Row};
use tokio::time::timeout;

use super::STATEMENT_BYTES_MAX;
use super::dialect::Dialect;
use super::error::{NO_SUCH_TABLE, number};
use super::session::{self, setting};
use super::settings::{self, Settings};
use crate::store::{StoreError, migrations};

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
    /// The server cannot be reached, denies access, is read-only, or does not apply the session settings that
    /// the promises rest on.
    #[error("opening the database: {0}")]
    Refused(StoreError),
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

/// Connects for checking and migrating. The connection is not kept.
pub(super) async fn connect(options: &MySqlConnectOptions) -> Result<MySqlConnection, OpenError> {
    let connected = timeout(CONNECT_LIMIT, session::connect(options)).await;
    let late = || StoreError::NotStored(format!("the server did not answer within {CONNECT_LIMIT:?}"));
    connected
        .unwrap_or_else(|_| Err(late()))
        .map_err(OpenError::Refused)
}

/// Returns the server's dialect, or an error if it cannot be used. Warns about settings that may lose
/// commits.
pub(super) async fn look(connection: &mut MySqlConnection) -> Result<Dialect, OpenError> {
    in_time(CONNECT_LIMIT, settings(connection)).await
}

/// Limits the wait for a server that no longer answers.
async fn in_time<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, OpenError>>,
) -> Result<T, OpenError> {
    let late = || {
        OpenError::Refused(StoreError::NotStored(format!(
            "the server did not answer within {limit:?}"
        )))
    };
    timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
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

/// What the schema needs.
enum Need {
    Nothing,
    /// Migrations are missing.
    Migration,
    /// A migration was interrupted.
    Repair(i64),
}

/// Brings the schema up to date. A schema that is one version newer is left as it is: this release works with
/// it, so that an upgrade can be undone. If there is nothing to do, this takes no lock and needs no right to
/// alter tables.
pub(super) async fn migrate(
    connection: &mut MySqlConnection,
    migrator: &Migrator,
    wait: Duration,
) -> Result<(), OpenError> {
    if matches!(
        in_time(CONNECT_LIMIT, need(connection, migrator)).await?,
        Need::Nothing
    ) {
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
    // Another node may have migrated the database during the wait.
    match need(connection, migrator).await? {
        Need::Nothing => return Ok(()),
        Need::Migration => {}
        // A migration that was interrupted is run again from its beginning, which every migration allows. No
        // other node runs it, because this node has the lock.
        Need::Repair(version) => {
            tracing::warn!(version, "a migration was interrupted and is run again");
            let forget = "DELETE FROM _sqlx_migrations WHERE version = ? AND NOT success";
            sqlx::query(forget)
                .bind(version)
                .execute(&mut *connection)
                .await?;
        }
    }
    let mut unlocked = Migrator {
        migrations: migrator.migrations.clone(),
        ..Migrator::DEFAULT
    };
    unlocked.set_locking(false);
    // `run` would do the same, but the compiler does not see that its future can be sent between threads.
    Ok(unlocked.run_direct(None, connection, false).await?)
}

async fn need(connection: &mut MySqlConnection, migrator: &Migrator) -> Result<Need, OpenError> {
    let known = migrations::highest(migrator);
    let asked = sqlx::query_as::<_, (i64, Vec<u8>, bool)>(
        "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version",
    );
    let applied = match asked.fetch_all(connection).await {
        Ok(applied) => applied,
        Err(error) if number(&error) == Some(NO_SUCH_TABLE) => return Ok(Need::Migration),
        Err(error) => return Err(error.into()),
    };
    let found = applied.iter().map(|(version, ..)| *version).max().unwrap_or(0);
    if found > known + 1 {
        return Err(OpenError::TooNew { found, known });
    }
    for migration in migrator.iter() {
        match applied.iter().find(|(version, ..)| *version == migration.version) {
            None => return Ok(Need::Migration),
            Some((version, _, false)) => return Ok(Need::Repair(*version)),
            Some((version, checksum, true)) if checksum[..] != *migration.checksum => {
                return Err(MigrateError::VersionMismatch(*version).into());
            }
            Some(_) => {}
        }
    }
    Ok(Need::Nothing)
}

/// Closes the connection in an orderly way.
pub(super) async fn leave(connection: MySqlConnection) {
    // An error does not matter: the connection is dropped in any case.
    let _ = timeout(CONNECT_LIMIT, connection.close()).await;
}
