//! The rows of a pair of kinds. Each call is passed on to the kind that it is for.

use sqlx::migrate::Migration;
use sqlx::{MySqlConnection, SqliteConnection};

use crate::owning::kind::Kind;
use crate::owning::pair::Either::{self, First, Second};
use crate::owning::pair::Pair;
use crate::store::batch::{FoundRows, Portion};
use crate::store::mysql::{Dialect, MySqlRows};
use crate::store::sqlite::SqliteRows;
use crate::store::{Result, StoreError};

/// The portions of a pair's batch. All of them are of the same kind.
type Split<A, B> = Either<Vec<Portion<A>>, Vec<Portion<B>>>;

fn portion<A: Kind, B: Kind>(portion: &Portion<Pair<A, B>>) -> Option<Either<Portion<A>, Portion<B>>> {
    let (shard, fence) = (portion.shard, portion.fence);
    match (portion.id, portion.run.clone()) {
        (First(id), First(run)) => Some(First(Portion {
            id,
            shard,
            fence,
            run,
        })),
        (Second(id), Second(run)) => Some(Second(Portion {
            id,
            shard,
            fence,
            run,
        })),
        (First(_), Second(_)) | (Second(_), First(_)) => None,
    }
}

/// Returns the portions as portions of one kind. A batch that has portions of both kinds is a mistake.
fn split<A: Kind, B: Kind>(portions: &[Portion<Pair<A, B>>]) -> Result<Split<A, B>> {
    let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
    for mixed in portions {
        match portion(mixed) {
            Some(First(portion)) => of_first.push(portion),
            Some(Second(portion)) => of_second.push(portion),
            None => return Err(mixed_up()),
        }
    }
    match (of_first.is_empty(), of_second.is_empty()) {
        (_, true) => Ok(First(of_first)),
        (true, false) => Ok(Second(of_second)),
        (false, false) => Err(mixed_up()),
    }
}

fn mixed_up() -> StoreError {
    StoreError::Unreadable("a batch holds rows of two kinds".to_owned())
}

impl<A: SqliteRows, B: SqliteRows> SqliteRows for Pair<A, B> {
    type SqliteCursor = Either<A::SqliteCursor, B::SqliteCursor>;
    type SqlitePage = Either<A::SqlitePage, B::SqlitePage>;

    fn sqlite_migrations() -> Vec<Migration> {
        [A::sqlite_migrations(), B::sqlite_migrations()].concat()
    }

    async fn sqlite_write(connection: &mut SqliteConnection, portions: Vec<Portion<Self>>) -> Result<u64> {
        match split(&portions)? {
            First(portions) => A::sqlite_write(connection, portions).await,
            Second(portions) => B::sqlite_write(connection, portions).await,
        }
    }

    async fn sqlite_read_back(connection: &mut SqliteConnection, mixed: &Portion<Self>) -> Result<FoundRows> {
        match portion(mixed).ok_or_else(mixed_up)? {
            First(portion) => A::sqlite_read_back(connection, &portion).await,
            Second(portion) => B::sqlite_read_back(connection, &portion).await,
        }
    }

    async fn sqlite_head(connection: &mut SqliteConnection, id: Self::Id) -> Result<Option<Self::Head>> {
        Ok(match id {
            First(id) => A::sqlite_head(connection, id).await?.map(First),
            Second(id) => B::sqlite_head(connection, id).await?.map(Second),
        })
    }

    fn sqlite_cursor(reading: &Self::PartialRows) -> Self::SqliteCursor {
        match reading {
            First(reading) => First(A::sqlite_cursor(reading)),
            Second(reading) => Second(B::sqlite_cursor(reading)),
        }
    }

    async fn sqlite_page(
        connection: &mut SqliteConnection,
        id: Self::Id,
        from: Self::SqliteCursor,
    ) -> Result<Self::SqlitePage> {
        match (id, from) {
            (First(id), First(from)) => Ok(First(A::sqlite_page(connection, id, from).await?)),
            (Second(id), Second(from)) => Ok(Second(B::sqlite_page(connection, id, from).await?)),
            (First(_), Second(_)) | (Second(_), First(_)) => Err(mixed_up()),
        }
    }

    fn sqlite_take(
        reading: &mut Self::PartialRows,
        page: Self::SqlitePage,
    ) -> Result<Option<Self::SqliteCursor>> {
        match (reading, page) {
            (First(reading), First(page)) => Ok(A::sqlite_take(reading, page)?.map(First)),
            (Second(reading), Second(page)) => Ok(B::sqlite_take(reading, page)?.map(Second)),
            (First(_), Second(_)) | (Second(_), First(_)) => Err(mixed_up()),
        }
    }
}

impl<A: MySqlRows, B: MySqlRows> MySqlRows for Pair<A, B> {
    type MySqlCursor = Either<A::MySqlCursor, B::MySqlCursor>;
    type MySqlPage = Either<A::MySqlPage, B::MySqlPage>;

    fn mysql_migrations() -> Vec<Migration> {
        [A::mysql_migrations(), B::mysql_migrations()].concat()
    }

    async fn mysql_write(
        connection: &mut MySqlConnection,
        dialect: Dialect,
        portions: Vec<Portion<Self>>,
    ) -> Result<u64> {
        match split(&portions)? {
            First(portions) => A::mysql_write(connection, dialect, portions).await,
            Second(portions) => B::mysql_write(connection, dialect, portions).await,
        }
    }

    async fn mysql_read_back(
        connection: &mut MySqlConnection,
        dialect: Dialect,
        portions: &[Portion<Self>],
    ) -> Result<Vec<FoundRows>> {
        match split(portions)? {
            First(portions) => A::mysql_read_back(connection, dialect, &portions).await,
            Second(portions) => B::mysql_read_back(connection, dialect, &portions).await,
        }
    }

    async fn mysql_head(connection: &mut MySqlConnection, id: Self::Id) -> Result<Option<Self::Head>> {
        Ok(match id {
            First(id) => A::mysql_head(connection, id).await?.map(First),
            Second(id) => B::mysql_head(connection, id).await?.map(Second),
        })
    }

    fn mysql_cursor(reading: &Self::PartialRows) -> Self::MySqlCursor {
        match reading {
            First(reading) => First(A::mysql_cursor(reading)),
            Second(reading) => Second(B::mysql_cursor(reading)),
        }
    }

    async fn mysql_page(
        connection: &mut MySqlConnection,
        id: Self::Id,
        from: Self::MySqlCursor,
    ) -> Result<Self::MySqlPage> {
        match (id, from) {
            (First(id), First(from)) => Ok(First(A::mysql_page(connection, id, from).await?)),
            (Second(id), Second(from)) => Ok(Second(B::mysql_page(connection, id, from).await?)),
            (First(_), Second(_)) | (Second(_), First(_)) => Err(mixed_up()),
        }
    }

    fn mysql_next(page: &Self::MySqlPage) -> Result<Option<Self::MySqlCursor>> {
        Ok(match page {
            First(page) => A::mysql_next(page)?.map(First),
            Second(page) => B::mysql_next(page)?.map(Second),
        })
    }

    fn mysql_take(reading: &mut Self::PartialRows, page: Self::MySqlPage) -> Result<()> {
        match (reading, page) {
            (First(reading), First(page)) => A::mysql_take(reading, page),
            (Second(reading), Second(page)) => B::mysql_take(reading, page),
            (First(_), Second(_)) | (Second(_), First(_)) => Err(mixed_up()),
        }
    }
}
