//! Conversions between columns and values.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::error::on_read;
use crate::store::{Result, StoreError};
use crate::time::Timestamp;

/// Returns a number in SQLite's integer type. Every number here is below 2^53.
pub fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns a column of a row.
pub fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(on_read)
}

/// Returns a column that holds a number that is not negative.
pub fn number(row: &SqliteRow, column: &str) -> Result<u64> {
    readable(u64::try_from(get::<i64>(row, column)?).ok(), column)
}

/// Returns the value, or an error that names the column if there is none.
pub fn readable<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| StoreError::Unreadable(format!("{what} holds an invalid value")))
}

/// Returns a column that holds a number or NULL.
pub fn numeric<T: TryFrom<i64>>(row: &SqliteRow, column: &str) -> Result<Option<T>> {
    get::<Option<i64>>(row, column)?
        .map(|value| readable(T::try_from(value).ok(), column))
        .transpose()
}

/// Returns a column that holds a time.
pub fn time(row: &SqliteRow, column: &str) -> Result<Timestamp> {
    readable(Timestamp::from_micros(get(row, column)?), column)
}

/// Returns a column that holds a time or NULL.
pub fn optional_time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>> {
    get::<Option<i64>>(row, column)?
        .map(|micros| readable(Timestamp::from_micros(micros), column))
        .transpose()
}
