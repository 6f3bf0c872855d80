//! Conversions between columns and values. They are the same for the rows of every store.

use sqlx::Row;
use sqlx::mysql::MySqlRow;
use sqlx::sqlite::SqliteRow;

use super::{Result, StoreError, mysql, sqlite};
use crate::time::Timestamp;

/// A row of a store. Columns hold integers, texts, or NULL.
pub trait StoredRow {
    /// Returns a column that holds an integer.
    fn integer(&self, column: &str) -> Result<i64>;
    /// Returns a column that holds an integer or NULL.
    fn optional_integer(&self, column: &str) -> Result<Option<i64>>;
    /// Returns a column that holds a text.
    fn text(&self, column: &str) -> Result<&str>;
    /// Returns a column that holds a text or NULL.
    fn optional_text(&self, column: &str) -> Result<Option<&str>>;
}

macro_rules! stored_row {
    ($row:ty, $on_error:path) => {
        impl StoredRow for $row {
            fn integer(&self, column: &str) -> Result<i64> {
                self.try_get(column).map_err($on_error)
            }

            fn optional_integer(&self, column: &str) -> Result<Option<i64>> {
                self.try_get(column).map_err($on_error)
            }

            fn text(&self, column: &str) -> Result<&str> {
                self.try_get(column).map_err($on_error)
            }

            fn optional_text(&self, column: &str) -> Result<Option<&str>> {
                self.try_get(column).map_err($on_error)
            }
        }
    };
}

stored_row!(MySqlRow, mysql::error::on_read);
stored_row!(SqliteRow, sqlite::error::on_read);

/// Returns a number in the type of a column. Every number that is stored is below 2^53.
pub fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the value, or an error that names the column if there is no value.
pub fn readable<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| StoreError::Unreadable(format!("{what} holds an invalid value")))
}

/// Returns a column that holds a number in the range of its type.
pub fn number<T: TryFrom<i64>>(row: &impl StoredRow, column: &str) -> Result<T> {
    readable(T::try_from(row.integer(column)?).ok(), column)
}

/// Returns a column that holds a number in the range of its type, or NULL.
pub fn optional_number<T: TryFrom<i64>>(row: &impl StoredRow, column: &str) -> Result<Option<T>> {
    let value = row.optional_integer(column)?;
    value
        .map(|value| readable(T::try_from(value).ok(), column))
        .transpose()
}

/// Returns a column that holds a time.
pub fn time(row: &impl StoredRow, column: &str) -> Result<Timestamp> {
    readable(Timestamp::from_micros(row.integer(column)?), column)
}

/// Returns a column that holds a time or NULL.
pub fn optional_time(row: &impl StoredRow, column: &str) -> Result<Option<Timestamp>> {
    let value = row.optional_integer(column)?;
    value
        .map(|micros| readable(Timestamp::from_micros(micros), column))
        .transpose()
}
