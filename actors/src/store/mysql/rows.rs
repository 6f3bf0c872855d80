//! What a kind must provide for MySQL and MariaDB: how its rows are written under the fence, read back and
//! loaded.

use sqlx::MySqlConnection;
use sqlx::migrate::Migration;

use crate::owning::kind::Kind;
use crate::store::Result;
use crate::store::batch::{FoundRows, Portion};
use crate::store::mysql::Dialect;

/// The rows of a kind in MySQL and MariaDB. Each call does one piece of work on one connection. The store
/// limits its time, and closes the connection of a call that times out.
pub trait MySqlRows: Kind {
    /// The place where a page of rows begins.
    type MySqlCursor: Copy + Send + 'static;
    /// Rows that were read together.
    type MySqlPage: Send + 'static;

    /// Returns the migrations of this kind's tables, with versions that no other migration has.
    fn mysql_migrations() -> Vec<Migration> {
        Vec::new()
    }

    /// Stores the portions of one batch in a single autocommit statement. Returns how many rows it stored.
    ///
    /// The statement must find its rows by whole keys. Of `shards`, it must lock only the rows that it names,
    /// and must lock them before all other rows. It must store nothing of a portion whose guards do not hold.
    /// One guard is that the shard has the epoch and owner of the portion's fence. It must store every other
    /// portion whole, or fail.
    fn mysql_write(
        connection: &mut MySqlConnection,
        dialect: Dialect,
        portions: Vec<Portion<Self>>,
    ) -> impl Future<Output = Result<u64>> + Send;

    /// Returns what is stored of the rows of each portion, in order of the portions. The number of statements
    /// must not grow with the number of portions.
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
    fn mysql_cursor(reading: &Self::PartialRows) -> Self::MySqlCursor;

    /// Reads a page of rows, oldest first.
    fn mysql_page(
        connection: &mut MySqlConnection,
        id: Self::Id,
        from: Self::MySqlCursor,
    ) -> impl Future<Output = Result<Self::MySqlPage>> + Send;

    /// If there may be another page, returns where it begins.
    ///
    /// # Errors
    ///
    /// If the page's last row cannot be read.
    fn mysql_next(page: &Self::MySqlPage) -> Result<Option<Self::MySqlCursor>>;

    /// Takes the rows of a page.
    ///
    /// # Errors
    ///
    /// If a row cannot be read, or does not follow the rows before it.
    fn mysql_take(reading: &mut Self::PartialRows, page: Self::MySqlPage) -> Result<()>;
}
