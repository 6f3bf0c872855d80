//! Migrations of the engine, and migrations that kinds add.
//!
//! The first two also create the tables of coupons and issuances, because there are databases that these two
//! created. No two migrations have the same version, and the text of a migration that may have been executed
//! somewhere never changes.

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

/// Returns the migrations for MySQL and MariaDB, including those that kinds add.
pub(crate) fn mysql(of_kinds: &[Migration]) -> Migrator {
    with(&MYSQL, of_kinds)
}

/// Returns the migrations for SQLite, including those that kinds add.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A database refuses a program whose migrations have other checksums than those that it executed.
    #[test]
    fn released_migrations_keep_their_checksums() {
        let checksums = |migrator: Migrator| -> Vec<String> {
            let hex = |migration: &Migration| {
                migration.checksum[..8]
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect()
            };
            migrator.iter().map(hex).collect()
        };
        assert_eq!(checksums(mysql(&[])), ["6c3db9ade0f85d05", "483856ffc3dbc42b"]);
        assert_eq!(checksums(sqlite(&[])), ["a6ec7f9d8b9f379b", "1b2d95785c13048a"]);
    }
}
