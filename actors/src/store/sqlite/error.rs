//! What SQLite's errors mean for a write or a read. This file has all error codes that this program knows.

use crate::store::{StoreError, end_process};

// Primary result codes, the low byte of an extended one: https://www.sqlite.org/rescode.html
const PERM: u32 = 3;
const ABORT: u32 = 4;
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const NOMEM: u32 = 7;
const READONLY: u32 = 8;
const INTERRUPT: u32 = 9;
const IOERR: u32 = 10;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const PROTOCOL: u32 = 15;
const CONSTRAINT: u32 = 19;

// Extended result codes.
const IOERR_FSYNC: u32 = IOERR | 4 << 8;
const IOERR_DIR_FSYNC: u32 = IOERR | 5 << 8;
const IOERR_SHMOPEN: u32 = IOERR | 18 << 8;
const IOERR_SHMSIZE: u32 = IOERR | 19 << 8;
const IOERR_SHMLOCK: u32 = IOERR | 20 << 8;
const IOERR_SHMMAP: u32 = IOERR | 21 << 8;
const IOERR_DATA: u32 = IOERR | 32 << 8;
const IOERR_CORRUPTFS: u32 = IOERR | 33 << 8;

/// Converts the error of a statement that changes something.
///
/// Does not return if the disk lost writes: the process ends here, while the caller still holds the
/// connection. So nothing is written after the error and then answered, whether or not a caller still waits
/// for this work.
pub fn on_write(error: sqlx::Error) -> StoreError {
    match meaning(&error) {
        StoreError::Fatal(why) => end_process(&why),
        other => other,
    }
}

fn meaning(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(database) => match database.code().and_then(|code| code.parse().ok()) {
            Some(code) => of_code(code, error.to_string()),
            None => StoreError::Unknown(error.to_string()),
        },
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => StoreError::NotStored(error.to_string()),
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::TypeNotFound { .. } => StoreError::Unreadable(error.to_string()),
        // This is mainly a connection whose thread ended: the thread may have committed.
        _ => StoreError::Unknown(error.to_string()),
    }
}

/// Converts the error of a statement that only reads.
pub fn on_read(error: sqlx::Error) -> StoreError {
    changed_nothing(on_write(error))
}

/// Converts the error of work that changes nothing: its outcome cannot be unknown.
pub(crate) fn changed_nothing(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown(why) => StoreError::NotStored(why),
        other => other,
    }
}

fn of_code(code: u32, why: String) -> StoreError {
    match code {
        // The kernel drops the pages that it could not write, and reports that once. No write since the last
        // successful sync can be trusted.
        IOERR_FSYNC | IOERR_DIR_FSYNC => StoreError::Fatal(why),
        // The log's index is written after the log is synced. This process rolls the commit back, but
        // recovery after a crash would find the commit in the log.
        IOERR_SHMOPEN | IOERR_SHMSIZE | IOERR_SHMLOCK | IOERR_SHMMAP => StoreError::Unknown(why),
        IOERR_DATA | IOERR_CORRUPTFS => StoreError::Unreadable(why),
        extended => match extended & 0xff {
            // Memory can also run out while the log's index is written.
            NOMEM => StoreError::Unknown(why),
            // A write error occurs before the commit's last page is complete, and SQLite rolls back.
            BUSY | LOCKED | FULL | IOERR | CANTOPEN | PROTOCOL | PERM | READONLY | INTERRUPT | ABORT => {
                StoreError::NotStored(why)
            }
            // A retry cannot help: another row is in the place, or the row violates a CHECK.
            CONSTRAINT => StoreError::Clash(why),
            // CORRUPT, NOTADB, SCHEMA, MISMATCH, and ERROR, which a missing table causes.
            _ => StoreError::Unreadable(why),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: u32) -> &'static str {
        match of_code(code, String::new()) {
            StoreError::NotStored(_) => "not stored",
            StoreError::Unknown(_) => "unknown",
            StoreError::Clash(_) => "clash",
            StoreError::Unreadable(_) => "unreadable",
            StoreError::Fatal(_) => "fatal",
        }
    }

    #[test]
    fn only_a_failed_sync_is_fatal() {
        let kinds = [1034, 1290, 266, 522, 778, 1546].map(kind);
        assert_eq!(
            kinds,
            [
                "fatal",
                "fatal",
                "not stored",
                "not stored",
                "not stored",
                "not stored"
            ]
        );
    }

    #[test]
    fn a_commit_that_a_crash_may_bring_back_is_unknown() {
        assert_eq!([7, 4618, 4874, 5130, 5386].map(kind), ["unknown"; 5]);
    }

    #[test]
    fn a_lock_error_and_a_full_disk_mean_not_stored_and_a_violated_constraint_means_clash() {
        // BUSY, BUSY_SNAPSHOT, LOCKED, FULL, CANTOPEN
        assert_eq!([5, 517, 6, 13, 14].map(kind), ["not stored"; 5]);
        // PRIMARYKEY, UNIQUE, CHECK, NOTNULL
        assert_eq!([1555, 2067, 275, 1299].map(kind), ["clash"; 4]);
        // ERROR, CORRUPT, SCHEMA, NOTADB
        assert_eq!([1, 11, 17, 26].map(kind), ["unreadable"; 4]);
    }
}
