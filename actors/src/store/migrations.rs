//! Migrations of the engine, and those that kinds add.
//!
//! For historical reasons, the first two also create the tables of coupons and issuances. No two migrations
//! have the same version, and the text of a released migration never changes.

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A migration as a file: its version, its name, and its text. A database keeps all three.
type File = (i64, &'static str, &'static str);

const MYSQL: [File; 2] = [
    (1, "first", include_str!("migrations/mysql/0001_first.sql")),
    (2, "links", include_str!("migrations/mysql/0002_links.sql")),
];

const SQLITE: [File; 2] = [
    (1, "first", include_str!("migrations/sqlite/0001_first.sql")),
    (2, "links", include_str!("migrations/sqlite/0002_links.sql")),
];

/// Returns the migrations for MySQL and MariaDB, with those that kinds add.
pub(crate) fn mysql(of_kinds: &[Migration]) -> Migrator {
    with(&MYSQL, of_kinds)
}

/// Returns the migrations for SQLite, with those that kinds add.
pub(crate) fn sqlite(of_kinds: &[Migration]) -> Migrator {
    with(&SQLITE, of_kinds)
}

/// Returns the highest version.
pub(crate) fn highest(migrator: &Migrator) -> i64 {
    let versions = migrator.iter().map(|migration| migration.version);
    versions.max().unwrap_or(0)
}

fn with(engine: &[File], of_kinds: &[Migration]) -> Migrator {
    let engine = engine.iter().map(|(version, name, sql)| {
        Migration::new(
            *version,
            Cow::Borrowed(*name),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(engine.chain(of_kinds.iter().cloned()).collect())
}
