//! The secrets of codes. The first is made with the database, by the first node, and further ones by an
//! operator's command. None is ever changed. On a server the age of a further one begins once it is stored.
//! So a node that reads the secrets while it has any age sees it.

use std::time::Duration;

use async_trait::async_trait;

use crate::coupon::code::CodeSecret;
use crate::store::Result;
use crate::store::columns::{StoredRow, number, readable};

/// Reads the secrets of codes, and makes the first one.
///
/// Cancel safety: as [`super::CouponRows`].
#[async_trait]
pub trait CodeRows: Send + Sync + 'static {
    /// Returns all secrets, in order of their numbers.
    async fn code_secrets(&self) -> Result<Vec<CodeSecret>>;

    /// Makes the first secret, unless another node made it.
    async fn make_first_code_secret(&self) -> Result<()>;
}

/// Why no secret was added.
#[derive(Debug, thiserror::Error)]
pub enum AddSecretError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] Box<dyn std::error::Error + Send + Sync>),
    /// The database did not store it.
    #[error("{0}; if the schema is of an earlier version, run `firstcome migrate` first")]
    Store(#[from] crate::store::StoreError),
    /// There are [`SECRETS_MAX`](crate::coupon::code::SECRETS_MAX) already.
    #[error("there are {0} secrets, and there may be no more")]
    TooMany(u32),
}

/// Returns the secret in a row.
pub(super) fn secret(row: &impl StoredRow) -> Result<CodeSecret> {
    // The clock of the database may have been set back.
    let age = Duration::from_secs(u64::try_from(row.integer("age")?).unwrap_or(0));
    readable(
        CodeSecret::new(number(row, "number")?, age, row.text("secret")?),
        "secret",
    )
}
