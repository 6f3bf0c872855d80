//! Reads from the text of migrations which tables they make, and compares these with the tables of a
//! database.
//!
//! A database may have a table of another program under one of this program's names. Then nothing may be
//! created beside it, because every later statement would fail.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::SqlStr;
use sqlx::migrate::{Migration, Migrator};

/// The columns of tables, by name.
pub(crate) type Tables = BTreeMap<String, BTreeSet<String>>;

/// Returns the tables that exist after all migrations.
pub(crate) fn all(migrator: &Migrator) -> Tables {
    let mut tables = Tables::new();
    migrator
        .iter()
        .for_each(|migration| apply(&mut tables, &text(migration)));
    tables
}

/// Returns the names of all tables that some migration creates.
pub(crate) fn names(migrator: &Migrator) -> BTreeSet<String> {
    let created = migrator.iter().flat_map(|migration| created(&text(migration)));
    created.map(|(name, _)| name).collect()
}

/// Returns what is wrong with the tables of a database, if anything. `found` has the database's tables that
/// have one of the [`names`]. `is_applied` returns true for a migration that was applied.
pub(crate) fn mismatch(
    migrator: &Migrator,
    is_applied: impl Fn(&Migration) -> bool,
    found: &Tables,
) -> Option<String> {
    let (all, mut applied) = (all(migrator), Tables::new());
    for migration in migrator.iter() {
        let text = text(migration);
        if is_applied(migration) {
            apply(&mut applied, &text);
            continue;
        }
        for (name, columns) in created(&text) {
            let Some(present) = found.get(&name).filter(|_| !applied.contains_key(&name)) else {
                continue;
            };
            let (missing, extra) = (
                list(columns.difference(present)),
                list(present.difference(all.get(&name).unwrap_or(&columns))),
            );
            if let Some(difference) = difference(&missing, &extra) {
                return Some(format!(
                    "the database has a table {name} of another program ({difference}); \
                     this program needs a database of its own"
                ));
            }
        }
    }
    damage(&applied, found)
}

/// Returns which of the tables in `made`, or which of their columns, are missing, if any.
pub(crate) fn damage(made: &Tables, found: &Tables) -> Option<String> {
    made.iter().find_map(|(name, columns)| {
        let Some(present) = found.get(name) else {
            return Some(format!("the table {name} is missing; this program made it"));
        };
        let missing = list(columns.difference(present));
        let why = || format!("the table {name}, which this program made, has no column {missing}");
        (!missing.is_empty()).then(why)
    })
}

fn list<'a>(columns: impl Iterator<Item = &'a String>) -> String {
    columns.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn difference(missing: &str, extra: &str) -> Option<String> {
    match (missing, extra) {
        ("", "") => None,
        (missing, "") => Some(format!("it has no column {missing}")),
        ("", extra) => Some(format!("it has the column {extra}")),
        (missing, extra) => Some(format!("it has no column {missing}, but {extra}")),
    }
}

/// Returns a migration's text without comments.
fn text(migration: &Migration) -> String {
    let sql: &SqlStr = &migration.sql;
    let lines = sql.as_str().lines();
    let code = lines.map(|line| line.split_once("--").map_or(line, |(code, _)| code));
    code.collect::<Vec<_>>().join("\n")
}

/// Returns the tables that a text creates, with the columns that they begin with.
fn created(text: &str) -> Vec<(String, BTreeSet<String>)> {
    text.split(';').filter_map(create).collect()
}

/// Applies the statements of a text to these tables and columns.
fn apply(tables: &mut Tables, text: &str) {
    for statement in text.split(';') {
        if let Some((name, columns)) = create(statement) {
            tables.entry(name).or_default().extend(columns);
        } else if let Some(rest) = after(statement, "DROP TABLE") {
            for name in words(rest).filter(|word| is_name(word)) {
                tables.remove(name);
            }
        } else if let Some(rest) = after(statement, "ALTER TABLE") {
            alter(tables, &words(rest).collect::<Vec<_>>());
        }
    }
}

/// Returns the table of a `CREATE TABLE` and its columns.
fn create(statement: &str) -> Option<(String, BTreeSet<String>)> {
    let (head, body) = after(statement, "CREATE TABLE")?.split_once('(')?;
    let name = words(head).find(|word| is_name(word))?;
    let mut depth = 0_usize;
    let end = body.find(|character| {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => return true,
            ')' => depth -= 1,
            _ => {}
        }
        false
    });
    let mut depth = 0_usize;
    let items = body[..end?].split(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    });
    // A key or a constraint begins with a word in upper case.
    let columns = items.filter_map(|item| words(item).next().filter(|word| is_name(word)));
    Some((name.to_owned(), columns.map(str::to_owned).collect()))
}

/// Applies an `ALTER TABLE` to these tables. `words` are the words after it: the name of the table, and
/// clauses.
fn alter(tables: &mut Tables, words: &[&str]) {
    let Some((name, clauses)) = words.split_first() else {
        return;
    };
    let mut columns = tables.remove(*name).unwrap_or_default();
    let mut now = *name;
    match clauses {
        ["RENAME", "TO", renamed] => now = renamed,
        ["RENAME", "COLUMN", column, "TO", renamed] => {
            columns.remove(*column);
            columns.insert((*renamed).to_owned());
        }
        clauses => {
            for clause in clauses.windows(3) {
                match clause {
                    ["ADD", "COLUMN", column] => {
                        columns.insert((*column).to_owned());
                    }
                    ["DROP", "COLUMN", column] => {
                        columns.remove(*column);
                    }
                    _ => {}
                }
            }
        }
    }
    tables.insert(now.to_owned(), columns);
}

fn after<'a>(statement: &'a str, start: &str) -> Option<&'a str> {
    statement.split_once(start).map(|(_, rest)| rest)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    words.filter(|word| !word.is_empty())
}

/// Returns true if the word is a name. In migrations, names are in lower case, and keywords in upper case.
fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::{mysql, sqlite};
    use super::*;

    fn columns(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_text_of_migrations_says_which_columns_they_make() {
        let made = all(&mysql(&[]));
        assert_eq!(
            list(made.keys()),
            "cluster, code_secrets, coupon_changes, coupons, issuances, nodes, shards, uses",
            "{made:?}"
        );
        let nodes = [
            "beat",
            "cluster",
            "ended_at",
            "http",
            "incarnation",
            "lease",
            "lease_of",
            "links",
            "node_id",
            "state",
        ];
        assert_eq!(made["nodes"], columns(&nodes));
        assert_eq!(made["coupons"].len(), 25);
        assert_eq!(made, all(&sqlite(&[])), "the same for both kinds of database");
    }

    #[test]
    fn columns_and_tables_are_added_dropped_and_renamed() {
        let mut tables = Tables::new();
        apply(
            &mut tables,
            "CREATE TABLE a (b TEXT CHECK (b IN ('x', 'y')), c INTEGER, PRIMARY KEY (b, c));
             ALTER TABLE a ADD COLUMN d TEXT, ADD COLUMN e TEXT; ALTER TABLE a DROP COLUMN c;
             ALTER TABLE a RENAME COLUMN d TO f;
             CREATE TABLE a_new (b TEXT, g TEXT); DROP TABLE IF EXISTS old;
             CREATE TABLE h (i TEXT); DROP TABLE h; ALTER TABLE a RENAME TO j;
             ALTER TABLE a_new RENAME TO a;",
        );
        let expected = [
            ("a".to_owned(), columns(&["b", "g"])),
            ("j".to_owned(), columns(&["b", "e", "f"])),
        ];
        assert_eq!(tables, Tables::from(expected));
    }

    #[test]
    fn a_table_of_another_program_is_named_with_its_difference() {
        let migrator = mysql(&[]);
        let nothing_applied = |found: &Tables| mismatch(&migrator, |_| false, found);
        assert_eq!(nothing_applied(&Tables::new()), None);
        assert_eq!(
            nothing_applied(&all(&migrator)),
            None,
            "a first migration that was cut short"
        );
        let of_a_shop = Tables::from([("cluster".to_owned(), columns(&["id", "name"]))]);
        assert_eq!(
            nothing_applied(&of_a_shop).unwrap(),
            "the database has a table cluster of another program (it has no column hash, shards, but name); \
             this program needs a database of its own"
        );
        let mut more = all(&migrator);
        more.get_mut("shards").unwrap().insert("zone".to_owned());
        assert!(nothing_applied(&more).unwrap().contains("it has the column zone"));
        // A newer program adds columns.
        assert_eq!(mismatch(&migrator, |_| true, &more), None);
    }

    #[test]
    fn a_table_that_lost_something_is_named() {
        let migrator = mysql(&[]);
        let mut found = all(&migrator);
        found.get_mut("nodes").unwrap().remove("links");
        let second_is_missing = mismatch(&migrator, |migration| migration.version == 1, &found);
        assert_eq!(second_is_missing, None, "the second migration adds the column");
        let damaged = mismatch(&migrator, |_| true, &found).unwrap();
        assert!(
            damaged.contains("nodes, which this program made, has no column links"),
            "{damaged}"
        );
        found.remove("nodes");
        let damaged = mismatch(&migrator, |_| true, &found).unwrap();
        assert!(damaged.contains("the table nodes is missing"), "{damaged}");
    }
}
