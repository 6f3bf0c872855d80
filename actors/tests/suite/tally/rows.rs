//! The rows of tallies, with a file for each database.

mod mysql;
mod sqlite;

use actors::ids::RequestKey;
use actors::store::StoreError;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType};

use super::{Addition, TallyId};

/// The version of the migration, above all versions of the engine's own migrations.
const VERSION: i64 = 1_000_000;

/// Number of tallies. The migration creates them, because no request does.
pub const TALLIES: u64 = 9_999;
/// The bound of a tally, by the remainder of its number.
pub const BOUNDS: [u64; 3] = [1_000_000_000, 1, 10];

/// Fills the table of tallies.
macro_rules! fill {
    () => {
        "
INSERT INTO tallies (id, bound)
SELECT id, CASE id % 3 WHEN 0 THEN 1000000000 WHEN 1 THEN 1 ELSE 10 END
  FROM (SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n AS id
          FROM (SELECT 0 AS n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION
                SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) AS a
         CROSS JOIN (SELECT 0 AS n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION
                SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) AS b
         CROSS JOIN (SELECT 0 AS n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION
                SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) AS c
         CROSS JOIN (SELECT 0 AS n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION
                SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) AS d) AS numbers
 WHERE id < 9999;"
    };
}
pub(super) use fill;

/// Maximum number of rows of a page.
const PAGE_ROWS: u32 = 100;

fn migration(sql: &'static str) -> Migration {
    let (description, kind) = ("tallies".into(), MigrationType::Simple);
    Migration::new(VERSION, description, kind, sql.into_sql_str(), false)
}

/// Returns the addition in the columns tally_id, number, amount, total, request_key.
fn addition(row: (i64, i64, i64, i64, String)) -> Result<Addition, StoreError> {
    let (tally, number, amount, total, key) = row;
    let natural = |value: i64| {
        let not_natural = |_| StoreError::Unreadable(format!("a tally holds {value}"));
        u64::try_from(value).map_err(not_natural)
    };
    Ok(Addition {
        tally: TallyId(natural(tally)?),
        number: natural(number)?,
        amount: natural(amount)?,
        total: natural(total)?,
        key: RequestKey::parse(&key).map_err(|error| StoreError::Unreadable(error.to_string()))?,
    })
}
