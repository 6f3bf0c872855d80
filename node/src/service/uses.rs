//! Uses issuances: reserves, redeems, gives back and revokes them, quotes what an order would get, and reads
//! what became of them.

use actors::coupon::client::count_use;
use actors::coupon::ids::IssuanceId;
use actors::coupon::uses::decide::{Quote, Step, Terms, UseRefusal};
use actors::coupon::uses::{Use, UseNumber, UseRequest, UsedIssuance};
use actors::ids::UserId;
use actors::time;
use actors::trace::Span;

use super::auth::Principal;
use super::engine::{Issuance, Setback, StoreResult};
use super::list::Page;
use super::{Error, Service};

impl Service {
    /// Asks the owner to take a step with an issuance, which must belong to `of_user` if that is given. Returns
    /// the issuance, and true if the step had been taken before.
    pub(crate) async fn use_issuance(
        &self,
        id: IssuanceId,
        of_user: Option<UserId>,
        principal: &Principal,
        step: Step,
        span: &Span,
    ) -> Result<(UsedIssuance, bool), Error> {
        let name = step.name();
        let is_change = matches!(step, Step::Revoke { .. });
        let request = UseRequest {
            sequence: id.sequence,
            of_user,
            author: principal.author()?,
            step,
        };
        let deadline = if is_change {
            self.change_deadline
        } else {
            self.deadline
        };
        let used = self
            .engine_or(|| count_use(name, &Err(Setback::StoreUnavailable)))?
            .use_issuance(id.coupon, request, deadline, span)
            .await;
        if is_change {
            // What was given back may be issued again.
            self.copies.forget(id.coupon);
            self.lists.changed(id.coupon);
        }
        used.map_err(|error| match error {
            Error::UseRefused(UseRefusal::Redeemed(_)) if !principal.may_use() => Error::RedeemedByAnother,
            Error::Setback(Setback::Unknown) => Error::UseUnknown,
            error => error,
        })
    }

    /// Returns the user whose issuances alone the principal may reserve and release; `None` if it may do so
    /// with all.
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
        let is_visible = |issuance: &Issuance| principal.may_see(&issuance.user) || principal.may_use();
        let used = self.issuance_if(id, is_visible).await?;
        let engine = self.engine()?.clone();
        let view = self.read(engine.coupon(id.coupon)).await?;
        let view = view.ok_or(Error::UnknownIssuance)?;
        let terms = Terms {
            offer: &view.coupon.offer,
            expires_at: used.issuance.expires_at,
        };
        Ok(terms.quote(used.latest.as_ref(), time::timestamp(), amount))
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
        Ok(Page::cut(rows, limit, |row| row.number))
    }

    /// Reads an issuance that the principal may see.
    pub(crate) async fn issuance(
        &self,
        id: IssuanceId,
        principal: &Principal,
    ) -> Result<UsedIssuance, Error> {
        self.issuance_if(id, |issuance| principal.may_see(&issuance.user))
            .await
    }

    async fn issuance_if(
        &self,
        id: IssuanceId,
        is_visible: impl Fn(&Issuance) -> bool,
    ) -> Result<UsedIssuance, Error> {
        let engine = self.engine()?.clone();
        let read = async move {
            let issuance = engine.clone().issuance(id).await?;
            engine.with_uses(issuance.into_iter().collect()).await
        };
        self.read(read)
            .await?
            .pop()
            .filter(|used| is_visible(&used.issuance))
            .ok_or(Error::UnknownIssuance)
    }

    /// Runs a read of issuances, and adds their latest uses.
    pub(super) async fn read_used(
        &self,
        reading: impl Future<Output = StoreResult<Option<Vec<Issuance>>>> + Send + 'static,
    ) -> Result<Option<Vec<UsedIssuance>>, Error> {
        let engine = self.engine()?.clone();
        let read = async move {
            match reading.await? {
                Some(issuances) => engine.with_uses(issuances).await.map(Some),
                None => Ok(None),
            }
        };
        self.read(read).await
    }
}
