//! The service without HTTP: the calls that the API and tests use.
//!
//! [`Service`] holds the engine and everything that a request passes before it. [`auth`] authenticates
//! principals. `issuances` issues coupons, `bulk` issues to many users, `uses` uses issuances, `exports`
//! reads all issuances of a coupon, [`codes`] makes and reads codes of issuances, `coupons` creates, changes
//! and reads coupons, `coupon_lists`, `issuance_lists` and `user_lists` read lists, and `statistics` counts.
//! What many clients read at once comes from short-lived [`copies`]. [`list`] cuts pages, [`user_limit`]
//! limits a user's rate, and `cluster` shows nodes and shards. [`store`] opens the database. Requests reach
//! the engine and its store only through [`engine`].

pub(crate) mod auth;
pub(crate) mod bulk;
mod change_log;
mod client_searches;
pub(crate) mod cluster;
pub(crate) mod codes;
pub(crate) mod copies;
mod coupon_lists;
pub(crate) mod coupons;
pub(crate) mod engine;
pub(crate) mod exports;
pub(crate) mod issuance_lists;
pub(crate) mod issuances;
mod kept_progress;
pub(crate) mod list;
mod search_progress;
mod search_snapshots;
pub(crate) mod statistics;
pub(crate) mod store;
pub(crate) mod store_calls;
pub(crate) mod user_limit;
mod user_lists;
mod uses;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::coupon::uses::decide::UseRefusal;
use actors::ids::NodeId;
use actors::log_limit::LogLimit;

use self::auth::{Authenticator, MissingCredentials, TokenRefusal};
use self::bulk::BulkCalls;
use self::codes::Codes;
use self::coupon_lists::CouponLists;
use self::coupons::CouponCopies;
use self::engine::{ChangeRefusal, CouponEngine, NotReady, Refusal, Setback};
use self::exports::Exports;
use self::issuance_lists::IssuanceProgress;
use self::statistics::Computations;
use self::store_calls::{StoreCallError, StoreCalls};
use self::user_limit::UserLimit;
use self::user_lists::UserProgress;
use crate::config::Config;
use crate::metrics;
use crate::telemetry::CouponFigures;

/// Time after which a client with too many searches in progress may send the next search. Most searches take
/// much less time.
const CLIENT_WAIT: Duration = Duration::from_secs(1);

/// Limits the log of failed reads: anyone may read, and every read fails while the store cannot be reached.
static FAILED_READS: LogLimit = LogLimit::new(1, Duration::from_secs(10), |suppressed| {
    tracing::warn!(suppressed, "further reads from the store failed");
});

/// Why a call of the service failed.
#[derive(Debug)]
pub(crate) enum Error {
    /// The request lacks these credentials.
    Unauthenticated(MissingCredentials),
    /// The token is unknown, expired or not valid.
    InvalidToken(TokenRefusal),
    /// The id of the user is not valid. Holds the reason.
    InvalidUser(String),
    /// The principal lacks a right. Holds which right.
    Forbidden(&'static str),
    /// The issuance does not exist, or the principal may not see it.
    UnknownIssuance,
    /// The key has been used to create another coupon.
    KeyReused,
    /// The owner refused to issue.
    Refused(Refusal),
    /// The owner refused a change.
    ChangeRefused(ChangeRefusal),
    /// The owner refused a use.
    UseRefused(UseRefusal),
    /// Another order redeemed the issuance, and the principal may not see which.
    RedeemedByAnother,
    /// There is no decision.
    Setback(Setback),
    /// The use may have been made.
    UseUnknown,
    /// The user or the client sends too many requests; the next is admitted after this time.
    RateLimited(Duration),
    /// A fault of the server. `applied` is `None` if something may have been changed.
    Internal {
        /// `Some(false)` if nothing was changed.
        applied: Option<bool>,
    },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ChangeRefusal> for Error {
    fn from(refusal: ChangeRefusal) -> Self {
        Self::ChangeRefused(refusal)
    }
}

impl From<Setback> for Error {
    fn from(setback: Setback) -> Self {
        Self::Setback(setback)
    }
}

/// The error of a request whose read failed.
impl From<StoreCallError> for Error {
    fn from(error: StoreCallError) -> Self {
        match error {
            StoreCallError::TooManyOfClient => Self::RateLimited(CLIENT_WAIT),
            StoreCallError::Full => Setback::Overloaded.into(),
            StoreCallError::Failed(error) => {
                if FAILED_READS.admits() {
                    tracing::warn!(%error, "failed to read from the store");
                }
                store_calls::read_error(&error)
            }
        }
    }
}

/// The service of one node.
#[derive(Debug)]
pub(crate) struct Service {
    node: NodeId,
    authenticator: Authenticator,
    user_limit: Option<UserLimit>,
    deadline: Duration,
    change_deadline: Duration,
    engine: OnceLock<CouponEngine>,
    /// True if the database cannot be used at present.
    store_is_unusable: AtomicBool,
    codes: Codes,
    copies: CouponCopies,
    lists: CouponLists,
    issuance_progress: Arc<IssuanceProgress>,
    user_progress: Arc<UserProgress>,
    computations: Arc<Computations>,
    store_calls: StoreCalls,
    bulk_calls: BulkCalls,
    exports: Arc<Exports>,
    coupon_metrics_max: usize,
    user_may_reserve: bool,
}

impl Service {
    /// Makes a service whose engine is not running yet.
    pub(crate) fn new(node: NodeId, authenticator: Authenticator, config: &Config) -> Self {
        Self {
            node,
            authenticator,
            user_limit: UserLimit::new(&config.limits),
            deadline: config.http.deadline,
            change_deadline: config.http.change_deadline,
            engine: OnceLock::new(),
            store_is_unusable: AtomicBool::new(false),
            codes: Codes::default(),
            copies: CouponCopies::default(),
            lists: CouponLists::new(config.limits.client_lists),
            issuance_progress: Arc::default(),
            user_progress: Arc::default(),
            computations: Arc::default(),
            store_calls: StoreCalls::default(),
            bulk_calls: BulkCalls::default(),
            exports: Exports::new(&config.limits),
            coupon_metrics_max: config.limits.coupon_metrics_max,
            user_may_reserve: config.coupon.user_may_reserve,
        }
    }

    /// Sends requests to this engine from now on. Only the first call counts.
    pub(crate) fn set_engine(&self, engine: CouponEngine) {
        let _ = self.engine.set(engine);
    }

    /// Makes and reads codes of issuances.
    pub(crate) fn codes(&self) -> &Codes {
        &self.codes
    }

    /// Authenticates principals.
    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.authenticator
    }

    /// Reloads keys and evicts idle users, for as long as the future is polled.
    pub(crate) async fn maintain(&self) {
        let evict_users = async {
            if let Some(limit) = &self.user_limit {
                limit.evict_idle().await;
            }
        };
        tokio::join!(self.authenticator.reload_keys(), evict_users);
    }

    /// Makes the node not ready for as long as the database cannot be used.
    pub(crate) fn set_store_is_unusable(&self, is_unusable: bool) {
        self.store_is_unusable.store(is_unusable, Ordering::Release);
    }

    /// Returns why the node is not ready; empty if it is ready.
    pub(crate) fn not_ready(&self) -> Vec<NotReady> {
        let engine = self.engine.get().map(CouponEngine::not_ready);
        let mut reasons = engine.unwrap_or_else(|| vec![NotReady::Starting]);
        if self.store_is_unusable.load(Ordering::Acquire) && !reasons.contains(&NotReady::NoStore) {
            reasons.push(NotReady::NoStore);
        }
        reasons
    }

    /// Sets the gauges that are collected on demand. Returns the figures of the busiest coupons.
    pub(crate) fn collect(&self) -> Vec<CouponFigures> {
        for (name, calls) in [
            ("store_calls", &self.store_calls.0),
            ("bulk_calls", &self.bulk_calls.0),
            ("exports", &self.exports.places),
        ] {
            metrics::queue(name, calls.places()).set(calls.taken() as f64);
        }
        let engine = self.engine.get();
        engine.map_or_else(Vec::new, |engine| engine.collect(self.coupon_metrics_max))
    }

    /// Returns the engine. Fails until the engine runs.
    fn engine(&self) -> Result<&CouponEngine, Error> {
        self.engine.get().ok_or(Error::Setback(Setback::StoreUnavailable))
    }

    /// Returns the engine. Until it runs, counts the refusal of a request that the engine would count.
    fn engine_or(&self, count: impl FnOnce()) -> Result<&CouponEngine, Error> {
        self.engine().inspect_err(|_| count())
    }

    /// Runs a read of the store within the deadline.
    async fn read<T: Send + 'static>(
        &self,
        reading: impl Future<Output = engine::StoreResult<T>> + Send + 'static,
    ) -> Result<T, Error> {
        self.await_read(self.store_calls.run(reading)).await
    }

    /// Waits for a read within the deadline. Several requests may share the read and its failure.
    async fn await_read<T>(
        &self,
        reading: impl Future<Output = Result<T, StoreCallError>>,
    ) -> Result<T, Error> {
        await_read(self.deadline, reading).await
    }
}

/// Waits for a read within this time. Several requests may share the read and its failure.
async fn await_read<T>(
    deadline: Duration,
    reading: impl Future<Output = Result<T, StoreCallError>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, reading).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Setback::StoreUnavailable.into()),
    }
}

#[cfg(test)]
mod tests;
