//! Migrations: those of the engine, and those that a kind adds.
//!
//! The first two also create the tables of coupons and issuances, which are older than the separation of
//! engine and kinds. Versions are unique over all; a migration that was ever run keeps its text.

use sqlx::migrate::{Migration, Migrator};

static MYSQL: Migrator = sqlx::migrate!("src/store/migrations/mysql");
static SQLITE: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// Returns the migrations for MySQL and MariaDB, with those that kinds add.
pub(crate) fn mysql(of_kinds: &[Migration]) -> Migrator {
    with(&MYSQL, of_kinds)
}

/// Returns the migrations for SQLite, with those that kinds add.
pub(crate) fn sqlite(of_kinds: &[Migration]) -> Migrator {
    with(&SQLITE, of_kinds)
}

/// Returns the highest version among them.
pub(crate) fn highest(migrator: &Migrator) -> i64 {
    let versions = migrator.iter().map(|migration| migration.version);
    versions.max().unwrap_or(0)
}

fn with(engine: &Migrator, of_kinds: &[Migration]) -> Migrator {
    let all = engine.iter().chain(of_kinds).cloned();
    Migrator::with_migrations(all.collect())
}
