//! Issues coupons.

use std::time::Duration;

use actors::coupon::client::count_issue;
use actors::coupon::ids::CouponId;
use actors::ids::{RequestKey, UserId};
use actors::trace::Span;

use super::engine::{IssueResponse, Setback};
use super::{Error, Service};

impl Service {
    /// Issues the coupon to the user, within the user's rate. A replay does not count for the rate.
    pub(crate) async fn issue(
        &self,
        coupon: CouponId,
        user: UserId,
        key: RequestKey,
        span: &Span,
    ) -> Result<IssueResponse, Error> {
        let limit = self.user_limit.as_ref();
        let admitted = limit
            .map(|limit| Ok::<_, Error>((limit, limit.admit(&user)?)))
            .transpose()?;
        let issued = self.issue_within(self.deadline, coupon, user, key, span).await?;
        match admitted {
            Some((limit, admitted)) if issued.replayed => limit.restore(admitted),
            _ => {}
        }
        Ok(issued)
    }

    /// Issues the coupon to the user within this time, whatever the user's rate is.
    pub(super) async fn issue_within(
        &self,
        deadline: Duration,
        coupon: CouponId,
        user: UserId,
        key: RequestKey,
        span: &Span,
    ) -> Result<IssueResponse, Error> {
        let engine = self.engine_or(|| count_issue(&Err(Setback::StoreUnavailable), Duration::ZERO))?;
        let issued = engine.issue(coupon, user, key, deadline, span).await?;
        if !issued.replayed {
            self.copies.raise_issued(issued.used.issuance.id);
        }
        Ok(issued)
    }
}
