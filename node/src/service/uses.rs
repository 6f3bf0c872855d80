//! Uses issuances: reserves, redeems, gives back and revokes them, quotes what an order would get, and reads
//! what became of them.

use actors::coupon::client::count_use;
use actors::coupon::ids::IssuanceId;
use actors::coupon::uses::decide::{Quote, Step, UseRefusal};
use actors::coupon::uses::{Use, UseNumber, UseRequest, UsedIssuance};
use actors::ids::UserId;
use actors::time;
use actors::trace::Span;

use super::auth::Principal;
use super::engine::{CouponView, Issuance, IssuanceQuery, IssuancesOf, Setback};
use super::list::Page;
use super::{Error, Service, issuance_lists};

impl Service {
    /// Asks the owner to take a step with an issuance. If `of_user` is given, the issuance must belong to
    /// that user. Returns the issuance, and true if the step had been taken before.
    pub(crate) async fn use_issuance(
        &self,
        id: IssuanceId,
        of_user: Option<UserId>,
        principal: &Principal,
        step: Step,
        span: &Span,
    ) -> Result<(UsedIssuance, bool), Error> {
        let name = step.name();
        let is_revocation = matches!(step, Step::Revoke { .. });
        let request = UseRequest {
            sequence: id.sequence,
            of_user,
            author: principal.author()?,
            step,
        };
        let deadline = if is_revocation {
            self.change_deadline
        } else {
            self.deadline
        };
        let used = self
            .engine_or(|| count_use(name, &Err(Setback::StoreUnavailable)))?
            .use_issuance(id.coupon, request, deadline, span)
            .await;
        if is_revocation {
            // Quantity that was given back may be issued again.
            self.copies.forget(id.coupon);
            self.lists.changed(id.coupon);
        }
        used.map_err(|error| match error {
            Error::UseRefused(UseRefusal::Redeemed(_)) if !principal.may_use() => Error::RedeemedByAnother,
            Error::Setback(Setback::Unknown) => Error::UseUnknown,
            error => error,
        })
    }

    /// True if users may reserve and release their own issuances.
    pub(crate) fn user_may_reserve(&self) -> bool {
        self.user_may_reserve
    }

    /// Checks that the principal may reserve and release issuances. Returns the user to whose issuances this
    /// is limited; `None` if it may use all.
    pub(crate) fn may_reserve(&self, principal: &Principal) -> Result<Option<UserId>, Error> {
        if self.user_may_reserve && !principal.may_use() {
            return principal.require_user().cloned().map(Some);
        }
        principal.require_use().map(|()| None)
    }

    /// Returns what a reservation of this amount would fix now, if the principal may see the issuance.
    pub(crate) async fn quote(
        &self,
        id: IssuanceId,
        principal: &Principal,
        amount: u64,
    ) -> Result<Quote, Error> {
        let is_visible = |issuance: &Issuance| principal.may_see(&issuance.user);
        let (used, coupon) = self.issuance_if(id, true, is_visible).await?;
        let view = coupon.ok_or(Error::UnknownIssuance)?;
        Ok(issuance_lists::quote(&view, &used, time::timestamp(), amount))
    }

    /// Reads a page of what became of an issuance, oldest first.
    pub(crate) async fn uses_of(
        &self,
        id: IssuanceId,
        after: UseNumber,
        limit: u32,
    ) -> Result<Page<Use, UseNumber>, Error> {
        let engine = self.engine()?.clone();
        let rows = self.read(engine.uses_of(id, after, limit + 1)).await?;
        let rows = rows.ok_or(Error::UnknownIssuance)?;
        Ok(Page::cut(rows, limit))
    }

    /// Reads an issuance that the principal may see.
    pub(crate) async fn issuance(
        &self,
        id: IssuanceId,
        principal: &Principal,
    ) -> Result<UsedIssuance, Error> {
        let (used, _) = self
            .issuance_if(id, false, |issuance| principal.may_see(&issuance.user))
            .await?;
        Ok(used)
    }

    /// Reads an issuance, and its coupon if `with_coupon` says so, as of one moment.
    async fn issuance_if(
        &self,
        id: IssuanceId,
        with_coupon: bool,
        is_visible: impl Fn(&Issuance) -> bool,
    ) -> Result<(UsedIssuance, Option<CouponView>), Error> {
        let engine = self.engine()?.clone();
        let query = IssuanceQuery {
            with_coupons: with_coupon,
            ..IssuanceQuery::all(IssuancesOf::Id(id), 1)
        };
        let read = self.read(async move { engine.issuances(&query).await }).await?;
        let mut read = read.unwrap_or_default();
        let used = read.issuances.pop();
        let used = used
            .filter(|used| is_visible(&used.issuance))
            .ok_or(Error::UnknownIssuance)?;
        Ok((used, read.coupons.remove(&id.coupon)))
    }
}
