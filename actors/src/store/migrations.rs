//! Migrations of the engine, and migrations that kinds add.
//!
//! The first four also create the tables of coupons and issuances: there are databases that were created by
//! them. No two migrations have the same version, and the text of a migration that may have been executed
//! somewhere never changes.
//!
//! A new database records its migrations in `firstcome_migrations`. A database of an earlier build keeps
//! recording them in `_sqlx_migrations`, so that the earlier build can still use it. Other programs use that
//! name as well.

pub(crate) mod tables;

use std::borrow::Cow;

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A migration as a file: its version, its name, and its text. A database keeps all three.
type File = (i64, &'static str, &'static str);

/// The table of migrations that were applied.
pub(crate) const TABLE: &str = "firstcome_migrations";

/// Its former name, which every program that uses sqlx has by default.
pub(crate) const FORMER_TABLE: &str = "_sqlx_migrations";

const MYSQL: [File; 4] = [
    (1, "first", include_str!("migrations/mysql/0001_first.sql")),
    (2, "links", include_str!("migrations/mysql/0002_links.sql")),
    (
        3,
        "lists and leases",
        include_str!("migrations/mysql/0003_lists_and_leases.sql"),
    ),
    (
        4,
        "uses and changes",
        include_str!("migrations/mysql/0004_uses_and_changes.sql"),
    ),
];

const SQLITE: [File; 4] = [
    (1, "first", include_str!("migrations/sqlite/0001_first.sql")),
    (2, "links", include_str!("migrations/sqlite/0002_links.sql")),
    (
        3,
        "lists and leases",
        include_str!("migrations/sqlite/0003_lists_and_leases.sql"),
    ),
    (
        4,
        "uses and changes",
        include_str!("migrations/sqlite/0004_uses_and_changes.sql"),
    ),
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

/// A migration that a database has applied, or has begun to apply.
#[derive(Debug)]
pub(crate) struct Applied {
    version: i64,
    checksum: Vec<u8>,
    success: bool,
}

/// The migrations that a database has applied.
#[derive(Debug)]
pub(crate) struct History {
    /// The table that records them.
    pub(crate) table: &'static str,
    applied: Vec<Applied>,
}

/// What a schema needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    /// Migrations are missing.
    Migration,
    /// A migration was cut short.
    Repair(i64),
}

/// Why a schema cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It was migrated by a program more than one version newer.
    TooNew { found: i64, known: i64 },
    /// This migration was applied with another text.
    Differs(i64),
}

impl History {
    /// Returns the history in [`TABLE`] if that table exists, otherwise the one in [`FORMER_TABLE`] if this
    /// program wrote it, otherwise an empty one. The text of the first migration shows whether this program
    /// wrote it.
    pub(crate) fn of(
        migrator: &Migrator,
        recorded: Option<Vec<Applied>>,
        formerly: Option<Vec<Applied>>,
    ) -> Self {
        let is_ours = |applied: &Vec<Applied>| {
            let first = migrator.iter().next();
            let is_first = |other: &Applied| {
                first.is_some_and(|first| other.version == first.version && other.is_text_of(first))
            };
            applied.iter().any(is_first)
        };
        let (table, applied) = match (recorded, formerly.filter(is_ours)) {
            (Some(applied), _) => (TABLE, applied),
            (None, Some(applied)) => (FORMER_TABLE, applied),
            (None, None) => (TABLE, Vec::new()),
        };
        Self { table, applied }
    }

    /// Returns true if this migration was applied to its end.
    pub(crate) fn has(&self, migration: &Migration) -> bool {
        self.find(migration.version)
            .is_some_and(|applied| applied.success)
    }

    fn find(&self, version: i64) -> Option<&Applied> {
        self.applied.iter().find(|applied| applied.version == version)
    }

    /// Returns what the schema needs. A schema one version newer than this program knows is fine: this
    /// program works with it, so that an upgrade can be undone.
    pub(crate) fn need(&self, migrator: &Migrator) -> Result<Need, Unusable> {
        let known = highest(migrator);
        let found = self.applied.iter().map(|applied| applied.version).max();
        if let Some(found) = found.filter(|found| *found > known + 1) {
            return Err(Unusable::TooNew { found, known });
        }
        for migration in migrator.iter() {
            match self.find(migration.version) {
                None => return Ok(Need::Migration),
                Some(applied) if !applied.success => return Ok(Need::Repair(applied.version)),
                Some(applied) if !applied.is_text_of(migration) => {
                    return Err(Unusable::Differs(applied.version));
                }
                Some(_) => {}
            }
        }
        Ok(Need::Nothing)
    }
}

/// From the columns `version`, `checksum` and `success`.
impl From<(i64, Vec<u8>, bool)> for Applied {
    fn from((version, checksum, success): (i64, Vec<u8>, bool)) -> Self {
        Self {
            version,
            checksum,
            success,
        }
    }
}

impl Applied {
    fn is_text_of(&self, migration: &Migration) -> bool {
        self.checksum[..] == *migration.checksum
    }
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
        assert_eq!(
            checksums(mysql(&[])),
            [
                "6c3db9ade0f85d05",
                "483856ffc3dbc42b",
                "57067f00bcca5b31",
                "0dc7b4a575f36423"
            ]
        );
        assert_eq!(
            checksums(sqlite(&[])),
            [
                "a6ec7f9d8b9f379b",
                "1b2d95785c13048a",
                "36639514d54d5014",
                "f0f7b21ea944da19"
            ]
        );
    }
}
