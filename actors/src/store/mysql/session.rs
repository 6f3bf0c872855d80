//! Makes and tests one connection. Every session setting on which a promise depends is set and then read
//! back, because a proxy or a rule of the server might not apply it.

use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::{ConnectOptions, Row};

use super::error::on_connect;
use super::nodelay::set_nodelay;
use crate::store::{Result, StoreError};

/// Maximum number of prepared statements that a connection keeps. It is more than this program has, so that
/// no statement is prepared twice.
const STATEMENTS_MAX: usize = 64;

/// - `innodb_lock_wait_timeout`: a lane that waits for a lock should fail soon, because it is then certain
///   that nothing is stored.
/// - `lock_wait_timeout`: the wait for a table that is being altered. The default is a year.
/// - `sql_mode`: a value that does not fit is an error and is never adjusted. Backslashes are ordinary
///   characters.
/// - Isolation: at READ COMMITTED the statement that stores a batch would not lock the shards that it reads.
const SET: &str = "
SET NAMES utf8mb4 COLLATE utf8mb4_bin, SESSION time_zone = '+00:00', SESSION autocommit = 1,
    SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE',
    SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 1;
SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE";

/// The variable that holds the isolation level is called `transaction_isolation` on some servers and
/// `tx_isolation` on others. `read_only` and `innodb_read_only` are included because a demoted server is
/// read-only but does not always close its connections.
const SHOW: &str = "
SHOW VARIABLES WHERE Variable_name IN
    ('transaction_isolation', 'tx_isolation', 'autocommit', 'sql_mode', 'innodb_lock_wait_timeout', 'time_zone', 'read_only', 'innodb_read_only')";

/// Returns the options in a URL, without the session settings that sqlx would make by itself. The error says
/// what is wrong with the URL.
pub(super) fn connect_options(url: &str) -> std::result::Result<MySqlConnectOptions, String> {
    if !["mysql://", "mariadb://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err("it does not begin with mysql:// or mariadb://".to_owned());
    }
    let options: MySqlConnectOptions = url.parse().map_err(|error: sqlx::Error| error.to_string())?;
    if options.get_database().is_none_or(str::is_empty) {
        return Err("it names no database, as in mysql://user@host/firstcome".to_owned());
    }
    Ok(options
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false)
        .statement_cache_capacity(STATEMENTS_MAX)
        // Batches must not be logged, because they hold user ids.
        .log_statements(tracing::log::LevelFilter::Off)
        .log_slow_statements(tracing::log::LevelFilter::Off, Duration::ZERO))
}

/// Returns the place that these options name: host and port or socket, and the database.
pub(super) fn place(options: &MySqlConnectOptions) -> String {
    let database = options.get_database().unwrap_or_default();
    match options.get_socket() {
        Some(socket) => format!("{} (database {database})", socket.display()),
        None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The connection was not made, or was lost at once.
    Failed(sqlx::Error),
    /// The server does not accept writes, or does not apply a setting.
    Unfit(String),
}

impl From<sqlx::Error> for ConnectError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ConnectError> for StoreError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Failed(error) => on_connect(error),
            ConnectError::Unfit(why) => Self::NotStored(why),
        }
    }
}

/// Connects to a server that accepts writes, and makes the session's settings.
///
/// Cancel safety: a dropped future closes the connection.
pub(super) async fn connect(
    options: &MySqlConnectOptions,
) -> std::result::Result<MySqlConnection, ConnectError> {
    let mut connection = options.connect().await?;
    if options.get_socket().is_none() {
        let found = set_nodelay(options.get_port()).await;
        if found == 0 {
            tracing::debug!("TCP_NODELAY was not set: found no socket of a connection to the database");
        }
    }
    sqlx::raw_sql(SET).execute(&mut connection).await?;
    let rows = sqlx::raw_sql(SHOW).fetch_all(&mut connection).await?;
    let settings = rows.iter().map(setting).collect::<sqlx::Result<Vec<_>>>()?;
    match wrong(&settings) {
        None => Ok(connection),
        Some(why) => Err(ConnectError::Unfit(why)),
    }
}

/// Checks that a connection still reaches its server, and that the server accepts writes.
pub(super) async fn test(connection: &mut MySqlConnection) -> Result<()> {
    let query = sqlx::raw_sql("SELECT CONCAT('', @@GLOBAL.read_only) AS read_only");
    let row = query.fetch_one(connection).await.map_err(on_connect)?;
    match is_on(row.try_get("read_only").map_err(on_connect)?) {
        false => Ok(()),
        true => Err(StoreError::NotStored(READ_ONLY.to_owned())),
    }
}

/// The error text for a server that does not accept writes.
pub(super) const READ_ONLY: &str = "the server is read-only";

/// Returns the name and value in a row of `SHOW VARIABLES`.
pub(super) fn setting(row: &MySqlRow) -> sqlx::Result<(String, String)> {
    Ok((row.try_get::<String, _>(0)?.to_ascii_lowercase(), row.try_get(1)?))
}

/// Returns true if this is the value of a switch that is on.
pub(super) fn is_on(value: &str) -> bool {
    !matches!(value, "0" | "OFF" | "")
}

/// Returns what is wrong with a session's settings, if anything.
fn wrong(settings: &[(String, String)]) -> Option<String> {
    let value = |name: &str| {
        settings
            .iter()
            .find(|(setting, _)| setting == name)
            .map_or("", |(_, value)| value.as_str())
    };
    if is_on(value("read_only")) || is_on(value("innodb_read_only")) {
        return Some(READ_ONLY.to_owned());
    }
    let isolation = format!("{}{}", value("transaction_isolation"), value("tx_isolation"));
    let strict =
        value("sql_mode").contains("STRICT_ALL_TABLES") && value("sql_mode").contains("NO_BACKSLASH_ESCAPES");
    let must = [
        (
            isolation.starts_with("REPEATABLE-READ"),
            "the isolation",
            isolation.as_str(),
        ),
        (is_on(value("autocommit")), "autocommit", value("autocommit")),
        (strict, "sql_mode", value("sql_mode")),
        (
            value("innodb_lock_wait_timeout") == "1",
            "innodb_lock_wait_timeout",
            value("innodb_lock_wait_timeout"),
        ),
        (value("time_zone") == "+00:00", "time_zone", value("time_zone")),
    ];
    must.iter()
        .find(|(holds, ..)| !holds)
        .map(|(_, what, is)| format!("{what} of a session stays {is:?} although another value was set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(changed: &[(&str, &str)]) -> Vec<(String, String)> {
        let good = [
            ("transaction_isolation", "REPEATABLE-READ"),
            ("autocommit", "ON"),
            ("sql_mode", "STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES"),
            ("innodb_lock_wait_timeout", "1"),
            ("time_zone", "+00:00"),
            ("read_only", "OFF"),
            ("innodb_read_only", "OFF"),
        ];
        let value = |name: &str, value: &str| {
            changed
                .iter()
                .find(|(changed, _)| *changed == name)
                .map_or(value, |(_, new)| new)
                .to_owned()
        };
        good.iter()
            .map(|(name, is)| ((*name).to_owned(), value(name, is)))
            .collect()
    }

    #[test]
    fn a_session_that_does_not_apply_a_setting_is_refused() {
        assert_eq!(wrong(&settings(&[])), None);
        for (name, value) in [
            ("transaction_isolation", "READ-COMMITTED"),
            ("autocommit", "OFF"),
            ("sql_mode", ""),
            ("innodb_lock_wait_timeout", "50"),
            ("time_zone", "SYSTEM"),
            ("read_only", "ON"),
            ("innodb_read_only", "ON"),
        ] {
            assert!(wrong(&settings(&[(name, value)])).is_some(), "{name} = {value}");
        }
    }
}
