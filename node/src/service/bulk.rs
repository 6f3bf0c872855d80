//! Issues a coupon to many users by one call.
//!
//! Each user's request goes the way of a single request. A call keeps at most [`WINDOW`] of them under way,
//! and a node admits at most [`CALLS_MAX`] calls. So all calls of a node have about a thousand requests in
//! the owners' queues, which hold 65,536 each, and a single request waits for at most one more batch. A call
//! keeps its place until its response is sent, so that there are never more responses than places.

use actors::admission::{Admission, Permit};
use actors::coupon::ids::CouponId;
use actors::ids::{RequestKey, UserId};
use actors::trace::Span;
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::engine::{IssueResponse, Refusal, Setback};
use super::{Error, Service};

/// Maximum number of users of a call. Their results take from about 450 KB up to 1 MiB.
pub(crate) const USERS_MAX: usize = 1_000;

/// Maximum number of calls on a node that are in progress or whose responses are not sent; further calls are
/// refused at once. Their responses may exceed `limits.unsent_bytes_max`, by at most about 16 MiB.
const CALLS_MAX: usize = 16;

/// Maximum number of requests of a call that are under way at the same time. An owner stores them in one
/// batch, which takes little longer than storing a single one.
const WINDOW: usize = 64;

/// Admits calls.
#[derive(Debug)]
pub(super) struct BulkCalls(pub(super) Admission);

impl Default for BulkCalls {
    fn default() -> Self {
        Self(Admission::new(CALLS_MAX))
    }
}

/// The results of a call.
#[derive(Debug)]
pub(crate) struct BulkResults {
    /// The results, in the order of the users.
    pub(crate) results: Vec<BulkResult>,
    /// The place of the call. It must be kept until the response is sent.
    pub(crate) place: Permit,
}

/// The result of one user's request.
#[derive(Debug)]
pub(crate) struct BulkResult {
    /// The user.
    pub(crate) user: UserId,
    /// The issuance, or the reason why there is none.
    pub(crate) issued: Result<IssueResponse, Error>,
}

impl Service {
    /// Issues the coupon to these users, whatever their rates are. The results are in the order of the users.
    /// The requests reach the owner in this order too, unless the coupon moves to another node meanwhile. The
    /// key belongs to each user's request. Fails only if nothing was issued.
    ///
    /// Cancel safety: a dropped future may leave requests decided. Another call with the same key gets those
    /// decisions.
    pub(crate) async fn issue_to_all(
        &self,
        coupon: CouponId,
        users: Vec<UserId>,
        key: &RequestKey,
        span: &Span,
    ) -> Result<BulkResults, Error> {
        let place = self
            .bulk_calls
            .0
            .admit()
            .map_err(|_full| Error::from(Setback::Overloaded))?;
        self.engine()?;
        let until = Instant::now() + self.deadline;
        let untraced = Span::default();
        let issue = |user: UserId, span| self.issue_to_one(until, coupon, user, key, span);
        let mut results = Vec::with_capacity(users.len());
        let mut users = users.into_iter();
        // The first request is answered before others are sent, so that the owner is loaded and takes them in
        // the order in which they are sent. If there is no such coupon, that is the answer to the call. Only
        // this request is traced, because a thousand would fill a trace.
        if let Some(user) = users.next() {
            let first = issue(user, span).await;
            if let Err(Error::Refused(Refusal::UnknownCoupon)) = first.issued {
                return Err(Refusal::UnknownCoupon.into());
            }
            results.push(first);
        }
        // The window polls requests in the order in which they enter it, and a request is sent when it is
        // first polled.
        let mut rest = stream::iter(users.map(|user| issue(user, &untraced))).buffered(WINDOW);
        while let Some(result) = rest.next().await {
            results.push(result);
        }
        Ok(BulkResults { results, place })
    }

    /// Issues the coupon to one of the users, at the latest by `until`.
    async fn issue_to_one(
        &self,
        until: Instant,
        coupon: CouponId,
        user: UserId,
        key: &RequestKey,
        span: &Span,
    ) -> BulkResult {
        let left = until.saturating_duration_since(Instant::now());
        let issued = if left.is_zero() {
            // This request was never sent.
            Err(Setback::Overloaded.into())
        } else {
            self.issue_within(left, coupon, user.clone(), key.clone(), span)
                .await
        };
        BulkResult { user, issued }
    }
}
