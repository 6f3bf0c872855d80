//! What a server's errors mean for a write or a read. This file has all error numbers that this program
//! knows.
//!
//! No error of a server is [`StoreError::Fatal`]. A server whose disk lost writes ends itself, and is
//! restarted or failed over.

use sqlx::mysql::MySqlDatabaseError;

use crate::store::StoreError;

// https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html and
// https://mariadb.com/kb/en/mariadb-error-codes/
const DISK_FULL: u16 = 1021;
const CHECKREAD: u16 = 1020;
const DUPLICATE_KEY_NAME: u16 = 1022;
const TOO_MANY_CONNECTIONS: u16 = 1040;
const ACCESS_DENIED_TO_DATABASE: u16 = 1044;
const ACCESS_DENIED: u16 = 1045;
const UNKNOWN_COMMAND: u16 = 1047; // and Galera's "not yet prepared"
const NULL_NOT_ALLOWED: u16 = 1048;
const UNKNOWN_DATABASE: u16 = 1049;
const UNKNOWN_COLUMN: u16 = 1054;
pub(crate) const DUPLICATE_ENTRY: u16 = 1062;
const PARSE: u16 = 1064;
const TABLE_FULL: u16 = 1114;
const HOST_BLOCKED: u16 = 1129;
const HOST_NOT_PRIVILEGED: u16 = 1130;
const TABLE_ACCESS_DENIED: u16 = 1142;
pub(crate) const NO_SUCH_TABLE: u16 = 1146;
const PACKET_TOO_LARGE: u16 = 1153;
const TOO_MANY_USER_CONNECTIONS: u16 = 1203;
const LOCK_WAIT_TIMEOUT: u16 = 1205;
const DEADLOCK: u16 = 1213;
const USER_LIMIT_REACHED: u16 = 1226;
const OUT_OF_RANGE: u16 = 1264;
const DATA_TRUNCATED: u16 = 1265;
const OPTION_PREVENTS_STATEMENT: u16 = 1290; // --read-only, --super-read-only
const WRONG_VALUE: u16 = 1366;
const DATA_TOO_LONG: u16 = 1406;
const DUPLICATE_ENTRY_WITH_KEY_NAME: u16 = 1586;
const READ_ONLY_TRANSACTION: u16 = 1792;
const READ_ONLY_MODE: u16 = 1836;
const ROLLED_BACK_DURING_COMMIT: u16 = 3101; // group replication's certification
const CHECK_VIOLATED: u16 = 3819;
const CHECK_VIOLATED_IN_MARIADB: u16 = 4025;
const CLOSED_FOR_INACTIVITY: u16 = 4031; // sent before the statement was read

/// Converts the error of a statement that changes something.
pub fn on_write(error: sqlx::Error) -> StoreError {
    let why = error.to_string();
    match &error {
        sqlx::Error::Database(_) => match number(&error) {
            Some(number) => of_number(number, why),
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

/// Returns the number of an error that the server reported.
pub(crate) fn number(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    database
        .try_downcast_ref::<MySqlDatabaseError>()
        .map(MySqlDatabaseError::number)
}

/// Converts an error by its number. An error that is not listed leaves the outcome unknown. Unlisted errors
/// are mainly statements that were killed (1053, 1317, 1927) and errors around the commit (1026, 1180, 3100),
/// after which a replica or the log may have the change.
fn of_number(number: u16, why: String) -> StoreError {
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
        ACCESS_DENIED | ACCESS_DENIED_TO_DATABASE | TABLE_ACCESS_DENIED => StoreError::NotStored(why),
        UNKNOWN_COMMAND | CLOSED_FOR_INACTIVITY | PACKET_TOO_LARGE => StoreError::NotStored(why),
        // A retry cannot help: another row is in the place, or the row violates a constraint.
        DUPLICATE_ENTRY | DUPLICATE_KEY_NAME | DUPLICATE_ENTRY_WITH_KEY_NAME => StoreError::Clash(why),
        CHECK_VIOLATED | CHECK_VIOLATED_IN_MARIADB | NULL_NOT_ALLOWED => StoreError::Clash(why),
        OUT_OF_RANGE | DATA_TRUNCATED | WRONG_VALUE | DATA_TOO_LONG => StoreError::Clash(why),
        UNKNOWN_DATABASE | NO_SUCH_TABLE | UNKNOWN_COLUMN | PARSE => StoreError::Unreadable(why),
        _ => StoreError::Unknown(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(number: u16) -> &'static str {
        match of_number(number, String::new()) {
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
        assert_eq!([1049, 1054, 1064, 1146].map(kind), ["unreadable"; 4]);
    }

    #[test]
    fn a_lost_connection_means_unknown_for_a_write_and_not_stored_for_a_read() {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        assert!(matches!(on_write(lost()), StoreError::Unknown(_)));
        assert!(matches!(on_read(lost()), StoreError::NotStored(_)));
    }
}
