//! Bounds the calls of the store that do not go through an owner: reads, and the creation of coupons.

use std::sync::Arc;

use actors::admission::Admission;
use actors::store::StoreError;

use super::Error;
use super::engine::{Setback, StoreResult};

/// Maximum number of calls in progress. At two milliseconds per call, four connections complete this many
/// calls in about two seconds, within the default deadline of a request. Further calls are refused at once.
pub(super) const STORE_CALLS_MAX: usize = 4_096;

/// Admits up to [`STORE_CALLS_MAX`] calls.
#[derive(Debug, Clone)]
pub(super) struct StoreCalls(pub(super) Admission);

/// Why a call failed. Cloned for all requests that share the call.
#[derive(Debug, Clone)]
pub(crate) enum StoreCallError {
    /// [`STORE_CALLS_MAX`] calls are in progress, or as many searches for lists as a node may have.
    Full,
    /// The client has too many searches for lists in progress.
    TooManyOfClient,
    /// The store failed.
    Failed(Arc<StoreError>),
}

impl Default for StoreCalls {
    fn default() -> Self {
        Self(Admission::new(STORE_CALLS_MAX))
    }
}

impl StoreCalls {
    /// Runs a call in a task of its own.
    ///
    /// Cancel safety: if the returned future is dropped, the call still runs to its end, and counts until
    /// then. If it did not count, short deadlines would let any number of calls wait for a silent database.
    pub(super) fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = StoreResult<T>> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreCallError>> + Send + 'static {
        let admission = self.0.clone();
        async move {
            let permit = admission.admit().map_err(|_full| StoreCallError::Full)?;
            let task = tokio::spawn(async move {
                let _permit = permit;
                call.await
            });
            let result = task
                .await
                .unwrap_or_else(|panic| Err(StoreError::Unknown(panic.to_string())));
            result.map_err(|error| StoreCallError::Failed(Arc::new(error)))
        }
    }
}

/// Returns the error of a request whose read failed. A read changes nothing.
pub(crate) fn read_error(error: &StoreError) -> Error {
    match error {
        StoreError::NotStored(_) | StoreError::Unknown(_) => Error::Setback(Setback::StoreUnavailable),
        StoreError::Clash(_) | StoreError::Unreadable(_) | StoreError::Fatal(_) => {
            Error::Internal { applied: Some(false) }
        }
    }
}

/// Returns the error of a request whose write failed.
pub(crate) fn write_error(error: &StoreError) -> Error {
    match error {
        StoreError::NotStored(_) => Error::Setback(Setback::StoreUnavailable),
        StoreError::Unknown(_) => Error::Setback(Setback::Unknown),
        StoreError::Clash(_) => Error::Internal { applied: Some(false) },
        StoreError::Unreadable(_) | StoreError::Fatal(_) => Error::Internal { applied: None },
    }
}
