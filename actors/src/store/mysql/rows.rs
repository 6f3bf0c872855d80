//! What MySQL and MariaDB need of a kind: how its rows are written under the fence, read back and loaded.

use sqlx::MySqlConnection;
use sqlx::migrate::Migration;

use crate::owning::kind::Kind;
use crate::store::Result;
use crate::store::batch::{FoundRows, Portion};
use crate::store::mysql::Dialect;

/// The rows of a kind in MySQL and MariaDB. Each call does one piece of work on one connection; the store
/// sets the limit in time and never cuts it off halfway.
pub trait MySqlRows: Kind {
    /// Where a page of rows begins.
    type MySqlCursor: Copy + Send + 'static;
    /// Rows that were read together.
    type MySqlPage: Send + 'static;

    /// Returns the migrations of this kind's tables, with versions that no other migration has.
    fn mysql_migrations() -> Vec<Migration> {
        Vec::new()
    }

    /// Stores portions that join, by one autocommit statement. It must find its rows by whole keys, lock the
    /// rows of `shards` that it names before any other and no others, store nothing of a portion whose shard
    /// has another epoch or owner than the portion's fence, and all of the others or fail. Returns how many
    /// rows it stored.
    fn mysql_write(
        connection: &mut MySqlConnection,
        dialect: Dialect,
        portions: Vec<Portion<Self>>,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// Returns how the rows of each portion stand, in their order, by a number of statements that does not
    /// grow with the portions.
    fn mysql_read_back(
        connection: &mut MySqlConnection,
        dialect: Dialect,
        portions: &[Portion<Self>],
    ) -> impl Future<Output = Result<Vec<FoundRows>>> + Send;

    /// Reads the thing itself.
    fn mysql_head(
        connection: &mut MySqlConnection,
        id: Self::Id,
    ) -> impl Future<Output = Result<Option<Self::Head>>> + Send;

    /// Returns where the first page begins.
    fn mysql_cursor(reading: &Self::Reading) -> Self::MySqlCursor;

    /// Reads a page of rows, oldest first.
    fn mysql_page(
        connection: &mut MySqlConnection,
        id: Self::Id,
        from: Self::MySqlCursor,
    ) -> impl Future<Output = Result<Self::MySqlPage>> + Send;

    /// Returns where the next page begins, if there may be one.
    ///
    /// # Errors
    ///
    /// If the page's last row cannot be read.
    fn mysql_next(page: &Self::MySqlPage) -> Result<Option<Self::MySqlCursor>>;

    /// Takes the rows of a page.
    ///
    /// # Errors
    ///
    /// If a row cannot be read, or does not follow those before it.
    fn mysql_take(reading: &mut Self::Reading, page: Self::MySqlPage) -> Result<()>;
}
