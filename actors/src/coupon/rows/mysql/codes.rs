//! The secrets of codes.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::MySqlConnection;
use tokio::time::timeout;

use crate::coupon::code::{CodeSecret, SECRETS_MAX};
use crate::coupon::rows::codes::{self, AddSecretError, CodeRows};
use crate::store::columns::number;
use crate::store::mysql::error::{on_read, on_write};
use crate::store::mysql::{MySqlStore, READ, WRITE, framed};
use crate::store::{Result, StoreError};

const SECRETS: &str = "
SELECT number, secret, CAST(UNIX_TIMESTAMP() AS SIGNED) - made_at AS age FROM code_secrets ORDER BY number LIMIT ?";

const MAKE_FIRST: &str = "
INSERT INTO code_secrets (number, secret, made_at) VALUES (1, ?, UNIX_TIMESTAMP())
    ON DUPLICATE KEY UPDATE code_secrets.number = code_secrets.number";

/// The time is so late that the secret has no age, and so is not used.
const ADD: &str = "
INSERT INTO code_secrets (number, secret, made_at)
SELECT next.number, ?, 253402300799
  FROM (SELECT COALESCE(MAX(former.number), 0) + 1 AS number FROM code_secrets AS former) AS next
 WHERE next.number <= ?";

/// Finds the number by the secret, because another command may have added one meanwhile.
const ADDED: &str = "SELECT number FROM code_secrets WHERE secret = ?";

/// Gives a secret that is stored its age. [`ADD`] cannot: the server takes the time when the statement
/// begins, and may commit it much later.
const BEGIN_AGE: &str = "UPDATE code_secrets SET made_at = UNIX_TIMESTAMP() WHERE number = ?";

/// Limit of adding a secret on a connection.
const ADD_LIMIT: Duration = Duration::from_secs(10);

#[async_trait]
impl CodeRows for MySqlStore {
    async fn code_secrets(&self) -> Result<Vec<CodeSecret>> {
        framed!(READ, others, self, secrets)
    }

    async fn make_first_code_secret(&self) -> Result<()> {
        framed!(WRITE, others, self, make_first)
    }
}

impl MySqlStore {
    /// Adds a secret of codes to the database at this URL. Running nodes will learn of it. Returns its
    /// number.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached, does not answer in time (the secret may be stored then, and may
    /// never be used), or has [`SECRETS_MAX`] secrets.
    pub async fn add_code_secret(url: &str) -> std::result::Result<u32, AddSecretError> {
        let opened = Self::connect_once(url).await;
        let mut connection = opened.map_err(|error| AddSecretError::Open(Box::new(error)))?;
        let added = timeout(ADD_LIMIT, add(&mut connection)).await;
        let unknown = |_| StoreError::Unknown(format!("the database did not answer within {ADD_LIMIT:?}"));
        added
            .map_err(unknown)??
            .ok_or(AddSecretError::TooMany(SECRETS_MAX))
    }
}

async fn secrets(connection: &mut MySqlConnection) -> Result<Vec<CodeSecret>> {
    let rows = sqlx::query(SECRETS)
        .bind(SECRETS_MAX)
        .fetch_all(connection)
        .await
        .map_err(on_read)?;
    rows.iter().map(codes::secret).collect()
}

async fn make_first(connection: &mut MySqlConnection) -> Result<()> {
    let made = sqlx::query(MAKE_FIRST)
        .bind(CodeSecret::random_text())
        .execute(connection)
        .await;
    made.map(drop).map_err(on_write)
}

/// Adds a secret, and returns its number. `None` if there are [`SECRETS_MAX`] already.
async fn add(connection: &mut MySqlConnection) -> Result<Option<u32>> {
    let secret = CodeSecret::random_text();
    let added = sqlx::query(ADD)
        .bind(&secret)
        .bind(SECRETS_MAX)
        .execute(&mut *connection)
        .await
        .map_err(on_write)?;
    if added.rows_affected() == 0 {
        return Ok(None);
    }
    let added = sqlx::query(ADDED)
        .bind(&secret)
        .fetch_one(&mut *connection)
        .await
        .map_err(on_read)?;
    let added: u32 = number(&added, "number")?;
    let begun = sqlx::query(BEGIN_AGE).bind(added).execute(connection).await;
    begun.map_err(on_write)?;
    Ok(Some(added))
}
