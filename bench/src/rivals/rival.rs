//! What every rival implements, and what it may answer.

use async_trait::async_trait;
use testkit::ids::{CouponId, RequestKey, UserId};
use testkit::rows::IssuanceRow;

/// A way to issue limited coupons.
#[async_trait]
pub(super) trait Rival: Send + Sync + 'static {
    /// Makes what this way keeps of a coupon besides the coupon's row. Called before the coupon's id is known
    /// to clients.
    async fn prepare(&self, _coupon: CouponId, _total_quantity: Option<u64>) -> Result<(), Failure> {
        Ok(())
    }

    /// Decides a request. A coupon is issued to a user at most once.
    ///
    /// Not cancel safe: a caller must await the answer.
    async fn issue(&self, request: &IssueRequest) -> Result<Outcome, Failure>;
}

/// A user's request for a coupon.
#[derive(Debug, Clone)]
pub(super) struct IssueRequest {
    pub(super) coupon: CouponId,
    pub(super) user: UserId,
    pub(super) key: RequestKey,
}

/// An issuance, with the key of the request that obtained it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Issuance {
    pub(super) row: IssuanceRow,
    pub(super) key: String,
}

/// A decision.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The coupon was issued now.
    Issued(IssuanceRow),
    /// The user has the coupon already. The request is a replay if it has the same key.
    Exists(Issuance),
    /// All of the quantity is issued.
    SoldOut {
        /// The quantity.
        total_quantity: u64,
    },
    /// There is no such coupon.
    UnknownCoupon,
}

/// Why a request has no decision.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// A limit was reached before anything was changed.
    #[error("{0}")]
    Overloaded(&'static str),
    /// The database failed, so the outcome is unknown.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// Redis failed, so the outcome is unknown.
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
    /// Something stored cannot be read.
    #[error("{0}")]
    Unreadable(String),
}
