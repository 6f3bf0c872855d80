//! The secrets of codes.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection};
use tokio::time::timeout;

use crate::coupon::code::{CodeSecret, SECRETS_MAX};
use crate::coupon::rows::codes::{self, AddSecretError, CodeRows};
use crate::store::columns::number;
use crate::store::sqlite::error::{on_read, on_write};
use crate::store::sqlite::{SqliteStore, framed, read_limited, write_limited};
use crate::store::{Result, StoreError};

const SECRETS: &str =
    "SELECT number, secret, unixepoch() - made_at AS age FROM code_secrets ORDER BY number LIMIT ?1";

const MAKE_FIRST: &str =
    "INSERT INTO code_secrets (number, secret, made_at) VALUES (1, ?1, unixepoch()) ON CONFLICT DO NOTHING";

/// The age counts from the statement, and not from its commit as on a server: no other node shares the file.
const ADD: &str = "
INSERT INTO code_secrets (number, secret, made_at)
SELECT next.number, ?1, unixepoch()
  FROM (SELECT coalesce(max(number), 0) + 1 AS number FROM code_secrets) AS next
 WHERE next.number <= ?2
RETURNING number";

/// Limit of adding a secret beside the process that uses the file.
const ADD_LIMIT: Duration = Duration::from_secs(10);

#[async_trait]
impl CodeRows for SqliteStore {
    async fn code_secrets(&self) -> Result<Vec<CodeSecret>> {
        framed!(read_limited, cluster_reader, self, secrets)
    }

    async fn make_first_code_secret(&self) -> Result<()> {
        framed!(write_limited, writer, self, make_first)
    }
}

impl SqliteStore {
    /// Adds a secret of codes to this database file, even while a node uses it. The node will learn of it.
    /// Returns its number.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened, the disk does not answer in time (the secret may be stored then), or
    /// there are [`SECRETS_MAX`] secrets.
    pub async fn add_code_secret(path: &Path) -> std::result::Result<u32, AddSecretError> {
        let opened = Self::connect_beside(path).await;
        let mut connection = opened.map_err(|error| AddSecretError::Open(Box::new(error)))?;
        let added = timeout(ADD_LIMIT, add(&mut connection)).await;
        let unknown = |_| StoreError::Unknown(format!("the disk did not answer within {ADD_LIMIT:?}"));
        let added = added.map_err(unknown)?;
        // What was added is stored. An error of closing means only that the log stays for the next process.
        let _ = connection.close().await;
        added?.ok_or(AddSecretError::TooMany(SECRETS_MAX))
    }
}

async fn secrets(connection: &mut SqliteConnection) -> Result<Vec<CodeSecret>> {
    let rows = sqlx::query(SECRETS)
        .bind(SECRETS_MAX)
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    rows.iter().map(codes::secret).collect()
}

async fn make_first(connection: &mut SqliteConnection) -> Result<()> {
    let made = sqlx::query(MAKE_FIRST)
        .bind(CodeSecret::random_text())
        .execute(connection)
        .await;
    made.map(drop).map_err(on_write)
}

/// Adds a secret, and returns its number. `None` if there are [`SECRETS_MAX`] already.
async fn add(connection: &mut SqliteConnection) -> Result<Option<u32>> {
    let added = sqlx::query(ADD)
        .bind(CodeSecret::random_text())
        .bind(SECRETS_MAX)
        .fetch_all(connection)
        .await
        .map_err(on_write)?;
    added.first().map(|added| number(added, "number")).transpose()
}
