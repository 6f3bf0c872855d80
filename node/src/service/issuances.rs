//! Issues coupons, and reads issuances.

use std::time::Duration;

use actors::coupon::client::count_issue;
use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::uses::UsedIssuance;
use actors::ids::{RequestKey, UserId};
use actors::trace::Span;

use super::engine::{IssueResponse, Refusal, Setback, UserCursor};
use super::list::Page;
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

    /// Reads a page of a coupon's issuances, by sequence. If `user` is given, reads only that user's
    /// issuances.
    pub(crate) async fn issuances_of_coupon(
        &self,
        coupon: CouponId,
        user: Option<UserId>,
        after: Sequence,
        limit: u32,
    ) -> Result<Page<UsedIssuance, Sequence>, Error> {
        let engine = self.engine()?.clone();
        let rows = self
            .read_used(engine.issuances_of_coupon(coupon, user, after, limit + 1))
            .await?
            .ok_or(Refusal::UnknownCoupon)?;
        Ok(Page::cut(rows, limit, |row| row.issuance.id.sequence))
    }

    /// Reads a page of a user's issuances, newest first. If `coupon` is given, reads only issuances of that
    /// coupon.
    pub(crate) async fn issuances_of_user(
        &self,
        user: UserId,
        coupon: Option<CouponId>,
        after: Option<UserCursor>,
        limit: u32,
    ) -> Result<Page<UsedIssuance, UserCursor>, Error> {
        let engine = self.engine()?.clone();
        let reading = engine.issuances_of_user(user, coupon, after, limit + 1);
        let rows = self.read_used(async move { reading.await.map(Some) }).await?;
        let rows = rows.unwrap_or_default();
        Ok(Page::cut(rows, limit, |row| UserCursor {
            issued_at: row.issuance.issued_at,
            id: row.issuance.id,
        }))
    }
}
