//! What a server's errors mean for a write or a read. This file has all error numbers that this program
//! knows.
//!
//! No error of a server is [`StoreError::Fatal`]. A server whose disk lost writes ends itself, and is
//! restarted or failed over.

use std::io;

use sqlx::mysql::MySqlDatabaseError;

use crate::store::StoreError;

// https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html and
// https://mariadb.com/kb/en/mariadb-error-codes/
const DISK_FULL: u16 = 1021;
const CHECKREAD: u16 = 1020;
const DUPLICATE_KEY_NAME: u16 = 1022;
const INDEX_FILE_CORRUPT: u16 = 1034;
const TOO_MANY_CONNECTIONS: u16 = 1040;
const ACCESS_DENIED_TO_DATABASE: u16 = 1044;
const ACCESS_DENIED: u16 = 1045;
const UNKNOWN_COMMAND: u16 = 1047; // and Galera's "not yet prepared"
const SERVER_SHUTDOWN: u16 = 1053;
const NULL_NOT_ALLOWED: u16 = 1048;
const UNKNOWN_DATABASE: u16 = 1049;
const UNKNOWN_COLUMN: u16 = 1054;
pub(crate) const DUPLICATE_ENTRY: u16 = 1062;
const PARSE: u16 = 1064;
const TABLE_FULL: u16 = 1114;
const HOST_BLOCKED: u16 = 1129;
const HOST_NOT_PRIVILEGED: u16 = 1130;
pub(super) const TABLE_ACCESS_DENIED: u16 = 1142;
const COLUMN_ACCESS_DENIED: u16 = 1143;
pub(crate) const NO_SUCH_TABLE: u16 = 1146;
const PACKET_TOO_LARGE: u16 = 1153;
const UNKNOWN_INDEX: u16 = 1176; // named by FORCE INDEX
const TABLE_CRASHED: u16 = 1194;
const TOO_MANY_USER_CONNECTIONS: u16 = 1203;
const LOCK_WAIT_TIMEOUT: u16 = 1205;
const DEADLOCK: u16 = 1213;
const USER_LIMIT_REACHED: u16 = 1226;
const RIGHT_MISSING: u16 = 1227;
const OUT_OF_RANGE: u16 = 1264;
const DATA_TRUNCATED: u16 = 1265;
const MIXED_COLLATIONS: u16 = 1267;
const MIXED_COLLATIONS_OF_THREE: u16 = 1270;
const MIXED_COLLATIONS_OF_MANY: u16 = 1271;
const OPTION_PREVENTS_STATEMENT: u16 = 1290; // --read-only, --super-read-only
const VIEW_INVALID: u16 = 1356;
const WRONG_VALUE: u16 = 1366;
const DATA_TOO_LONG: u16 = 1406;
const TOO_MANY_STATEMENTS: u16 = 1461;
const ACCESS_DENIED_WITHOUT_PASSWORD: u16 = 1698;
const INDEX_CORRUPT: u16 = 1712;
const DUPLICATE_ENTRY_WITH_KEY_NAME: u16 = 1586;
const READ_ONLY_TRANSACTION: u16 = 1792;
const TABLESPACE_MISSING: u16 = 1812;
const TABLESPACE_DISCARDED: u16 = 1814;
const MUST_CHANGE_PASSWORD: u16 = 1820;
const READ_ONLY_MODE: u16 = 1836;
const PASSWORD_EXPIRED: u16 = 1862;
const TABLE_CORRUPT: u16 = 1877;
const ROLLED_BACK_DURING_COMMIT: u16 = 3101; // group replication's certification
const ACCOUNT_LOCKED: u16 = 3118;
const TLS_REQUIRED: u16 = 3159;
const CHECK_VIOLATED: u16 = 3819;
const CHECK_VIOLATED_IN_MARIADB: u16 = 4025;
const CLOSED_FOR_INACTIVITY: u16 = 4031; // sent before the statement was read
const ACCOUNT_LOCKED_IN_MARIADB: u16 = 4151;

/// Errors of a client, which a proxy passes on when it does not reach its server (MySQL Router, MaxScale).
const OF_A_CLIENT: std::ops::RangeInclusive<u16> = 2000..=2999;
/// ProxySQL has no server that takes connections.
const NO_SERVER_OF_PROXYSQL: u16 = 9001;

/// How sqlx begins its error about an account with an authentication method that sqlx does not support.
const UNKNOWN_PLUGIN: &str = "unknown authentication plugin";

/// Converts the error of a statement that changes something.
pub fn on_write(error: sqlx::Error) -> StoreError {
    let why = error.to_string();
    match &error {
        sqlx::Error::Database(database) => match number(&error) {
            Some(number) => of_number(number, database.code().as_deref(), why),
            None => StoreError::Unknown(why),
        },
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. } => StoreError::Unreadable(why),
        // This is mainly a connection that was lost during the wait: the server may have stored the change.
        _ => StoreError::Unknown(why),
    }
}

/// Returns true if a statement failed because a row stayed locked, or because it lost a deadlock. Nothing of
/// it is stored.
pub(super) fn is_lock(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(LOCK_WAIT_TIMEOUT | DEADLOCK))
}

/// Converts the error of a statement that only reads.
pub fn on_read(error: sqlx::Error) -> StoreError {
    changed_nothing(on_write(error))
}

/// Converts the error of making or testing a connection, before any work. A missing database or table does
/// not mean that rows are unreadable: the server may be the wrong one, or a restore may be under way.
pub(crate) fn on_connect(error: sqlx::Error) -> StoreError {
    match changed_nothing(on_write(error)) {
        StoreError::Unreadable(why) => StoreError::NotStored(why),
        other => other,
    }
}

/// Converts the error of work that changes nothing: its outcome cannot be unknown.
pub(crate) fn changed_nothing(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown(why) => StoreError::NotStored(why),
        other => other,
    }
}

/// Returns what an administrator must do about an error of connecting. `None` if the error may pass by
/// itself: a server that is not there yet, is being restarted or failed over, or has no connection left.
pub(crate) fn remedy(error: &sqlx::Error) -> Option<&'static str> {
    match error {
        sqlx::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => None,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => {
            Some("check the server's certificate, and ssl-mode and ssl-ca in the database's URL")
        }
        sqlx::Error::Database(_) => remedy_of_number(number(error)?),
        sqlx::Error::Protocol(why) if why.contains(UNKNOWN_PLUGIN) => Some(
            "this program cannot log in to such an account: identify it by caching_sha2_password on MySQL or \
             by mysql_native_password on MariaDB",
        ),
        sqlx::Error::Protocol(_) => Some("check that the database's URL names a MySQL or MariaDB server"),
        _ => Some("check the database's URL"),
    }
}

fn remedy_of_number(number: u16) -> Option<&'static str> {
    match number {
        TOO_MANY_CONNECTIONS | TOO_MANY_USER_CONNECTIONS | USER_LIMIT_REACHED | HOST_BLOCKED => None,
        UNKNOWN_COMMAND | SERVER_SHUTDOWN | NO_SERVER_OF_PROXYSQL => None,
        number if OF_A_CLIENT.contains(&number) => None,
        ACCESS_DENIED | ACCESS_DENIED_WITHOUT_PASSWORD => Some(
            "check user and password in the database's URL (special characters are percent-encoded), and \
             that the user may connect from this host",
        ),
        HOST_NOT_PRIVILEGED => Some("create a user that may connect from this host"),
        ACCESS_DENIED_TO_DATABASE => {
            Some("check that the database exists, and grant the user its rights on it")
        }
        UNKNOWN_DATABASE => Some("create the database, or correct its name in the URL"),
        ACCOUNT_LOCKED | ACCOUNT_LOCKED_IN_MARIADB => Some("unlock the account"),
        MUST_CHANGE_PASSWORD | PASSWORD_EXPIRED => Some("change the account's password, which has expired"),
        TLS_REQUIRED => Some("set ssl-mode=REQUIRED in the database's URL"),
        _ => Some("the server's log may say more"),
    }
}

/// Returns the number of an error that the server reported.
pub(crate) fn number(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    database
        .try_downcast_ref::<MySqlDatabaseError>()
        .map(MySqlDatabaseError::number)
}

/// Converts an error by its number. If the number is not listed, the class of the SQLSTATE decides: 42 means
/// a statement that the server cannot execute with this schema, and 22 and 23 mean rows that the server
/// refuses. Any other error leaves the outcome unknown. These are mainly statements that were killed (1053,
/// 1317, 1927) and errors around the commit (1026, 1180, 3100), where a replica or the log may have the
/// change.
fn of_number(number: u16, state: Option<&str>, why: String) -> StoreError {
    match number {
        DEADLOCK | LOCK_WAIT_TIMEOUT | CHECKREAD | DISK_FULL | TABLE_FULL | ROLLED_BACK_DURING_COMMIT => {
            StoreError::NotStored(why)
        }
        OPTION_PREVENTS_STATEMENT | READ_ONLY_MODE | READ_ONLY_TRANSACTION => StoreError::NotStored(why),
        TOO_MANY_CONNECTIONS
        | TOO_MANY_USER_CONNECTIONS
        | USER_LIMIT_REACHED
        | HOST_BLOCKED
        | HOST_NOT_PRIVILEGED => StoreError::NotStored(why),
        ACCESS_DENIED | ACCESS_DENIED_TO_DATABASE | TABLE_ACCESS_DENIED | COLUMN_ACCESS_DENIED => {
            StoreError::NotStored(why)
        }
        RIGHT_MISSING | TOO_MANY_STATEMENTS => StoreError::NotStored(why),
        UNKNOWN_COMMAND | CLOSED_FOR_INACTIVITY | PACKET_TOO_LARGE => StoreError::NotStored(why),
        // A retry cannot help: another row is in the place, or the row violates a constraint.
        DUPLICATE_ENTRY | DUPLICATE_KEY_NAME | DUPLICATE_ENTRY_WITH_KEY_NAME => StoreError::Clash(why),
        CHECK_VIOLATED | CHECK_VIOLATED_IN_MARIADB | NULL_NOT_ALLOWED => StoreError::Clash(why),
        OUT_OF_RANGE | DATA_TRUNCATED | WRONG_VALUE | DATA_TOO_LONG => StoreError::Clash(why),
        UNKNOWN_DATABASE | NO_SUCH_TABLE | UNKNOWN_COLUMN | UNKNOWN_INDEX | PARSE => {
            StoreError::Unreadable(why)
        }
        MIXED_COLLATIONS | MIXED_COLLATIONS_OF_THREE | MIXED_COLLATIONS_OF_MANY | VIEW_INVALID => {
            StoreError::Unreadable(why)
        }
        INDEX_FILE_CORRUPT | TABLE_CRASHED | INDEX_CORRUPT | TABLE_CORRUPT => StoreError::Unreadable(why),
        TABLESPACE_MISSING | TABLESPACE_DISCARDED => StoreError::Unreadable(why),
        _ => match state.and_then(|state| state.get(..2)) {
            Some("42") => StoreError::Unreadable(why),
            Some("22" | "23") => StoreError::Clash(why),
            _ => StoreError::Unknown(why),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(number: u16) -> &'static str {
        kind_with(number, "HY000")
    }

    fn kind_with(number: u16, state: &str) -> &'static str {
        match of_number(number, Some(state), String::new()) {
            StoreError::NotStored(_) => "not stored",
            StoreError::Unknown(_) => "unknown",
            StoreError::Clash(_) => "clash",
            StoreError::Unreadable(_) => "unreadable",
            StoreError::Fatal(_) => "fatal",
        }
    }

    #[test]
    fn a_lock_error_a_full_disk_and_a_demoted_server_mean_not_stored() {
        assert_eq!(
            [1205, 1213, 1021, 1114, 1290, 1836, 1792, 3101, 1040].map(kind),
            ["not stored"; 9]
        );
    }

    #[test]
    fn a_killed_statement_and_an_error_around_the_commit_mean_unknown() {
        assert_eq!(
            [1053, 1317, 1927, 1026, 1180, 3100, 3169].map(kind),
            ["unknown"; 7]
        );
    }

    #[test]
    fn a_row_in_the_way_means_clash_and_a_missing_table_means_unreadable() {
        assert_eq!([1062, 3819, 4025, 1406].map(kind), ["clash"; 4]);
        assert_eq!([1049, 1054, 1064, 1146, 1176].map(kind), ["unreadable"; 5]);
    }

    #[test]
    fn an_error_that_is_not_listed_counts_by_its_class() {
        assert_eq!(kind_with(1305, "42000"), "unreadable", "no such function");
        assert_eq!(kind_with(1690, "22003"), "clash", "a number out of range");
        assert_eq!(kind_with(1317, "70100"), "unknown", "killed");
        // Rights may be granted again, and statements become free.
        assert_eq!(kind_with(1143, "42000"), "not stored");
        assert_eq!(kind_with(1461, "42000"), "not stored");
    }

    #[test]
    fn a_node_waits_for_a_server_that_may_come_and_not_for_one_that_refuses_it() {
        let of_kind = |kind: io::ErrorKind| remedy(&sqlx::Error::Io(kind.into()));
        let passes = [
            of_kind(io::ErrorKind::ConnectionRefused),
            of_kind(io::ErrorKind::TimedOut),
            of_kind(io::ErrorKind::UnexpectedEof),
        ];
        assert_eq!(passes, [None; 3]);
        assert_eq!([1040, 1053, 2003, 9001].map(remedy_of_number), [None; 4]);
        // A certificate that does not fit.
        assert!(of_kind(io::ErrorKind::InvalidData).is_some_and(|remedy| remedy.contains("ssl-ca")));
        for (number, contains) in [
            (1045, "password"),
            (1049, "create"),
            (1044, "grant"),
            (3159, "ssl-mode"),
        ] {
            let remedy = remedy_of_number(number).unwrap();
            assert!(remedy.contains(contains), "{number}: {remedy}");
        }
        assert!(remedy_of_number(1105).is_some());
        let plugin = sqlx::Error::Protocol("unknown authentication plugin: client_ed25519".to_owned());
        assert!(remedy(&plugin).is_some_and(|remedy| remedy.contains("mysql_native_password")));
    }

    #[test]
    fn a_lost_connection_is_unknown_for_a_write_and_not_stored_for_a_read() {
        let lost = || sqlx::Error::Io(io::ErrorKind::UnexpectedEof.into());
        assert!(matches!(on_write(lost()), StoreError::Unknown(_)));
        assert!(matches!(on_read(lost()), StoreError::NotStored(_)));
    }
}
