//! What a kind must provide for SQLite: how its rows are written under the fence, read back and loaded.

use sqlx::SqliteConnection;
use sqlx::migrate::Migration;

use crate::owning::kind::Kind;
use crate::store::Result;
use crate::store::batch::{FoundRows, Portion};

/// The rows of a kind in SQLite. Each call does one piece of work on one connection. The store limits how
/// long a caller waits, and lets the work run to its end.
pub trait SqliteRows: Kind {
    /// The place where a page of rows begins.
    type SqliteCursor: Copy + Send + 'static;
    /// Rows that were read together.
    type SqlitePage: Send + 'static;

    /// Returns the migrations of this kind's tables, with versions that no other migration has.
    fn sqlite_migrations() -> Vec<Migration> {
        Vec::new()
    }

    /// Stores the portions of one batch in a single statement, which is its own transaction. Returns how many
    /// rows it stored.
    ///
    /// It must store nothing of a portion whose guards do not hold. One guard is that the shard has the epoch
    /// and owner of the portion's fence. It must store every other portion whole, or fail.
    fn sqlite_write(
        connection: &mut SqliteConnection,
        portions: Vec<Portion<Self>>,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// Returns what is stored of this portion's rows.
    fn sqlite_read_back(
        connection: &mut SqliteConnection,
        portion: &Portion<Self>,
    ) -> impl Future<Output = Result<FoundRows>> + Send;

    /// Reads the thing itself.
    fn sqlite_head(
        connection: &mut SqliteConnection,
        id: Self::Id,
    ) -> impl Future<Output = Result<Option<Self::Head>>> + Send;

    /// Returns where the first page begins.
    fn sqlite_cursor(reading: &Self::PartialRows) -> Self::SqliteCursor;

    /// Reads a page of rows, oldest first. The read must be short: while it runs, a checkpoint cannot
    /// complete.
    fn sqlite_page(
        connection: &mut SqliteConnection,
        id: Self::Id,
        from: Self::SqliteCursor,
    ) -> impl Future<Output = Result<Self::SqlitePage>> + Send;

    /// Takes the rows of a page. If there may be another page, returns where it begins.
    ///
    /// # Errors
    ///
    /// If a row cannot be read, or does not follow the rows before it.
    fn sqlite_take(
        reading: &mut Self::PartialRows,
        page: Self::SqlitePage,
    ) -> Result<Option<Self::SqliteCursor>>;
}
