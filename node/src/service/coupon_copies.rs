//! What anybody may look at, from copies: one coupon, and the first page of each list. Later pages are read
//! for each who turns to them.

use std::sync::Arc;

use actors::coupon::offer::{CouponView, Phase};
use actors::ids::{CouponId, IssuanceId, Sequence};
use actors::store::{self, CouponQuery, Store};
use actors::time::{self, Timestamp};

use super::copies;
use crate::api::coupons::CouponBody;
use crate::api::{App, taking_a_place};
use crate::http::json::Page;
use crate::http::problem::Problem;
use crate::http::query::{Cursor, LIMIT_MAX};

/// Most coupons of which copies are kept: more than a crowd looks at within a second. The longest title makes
/// one about 1 KiB, so 10 MiB. Beyond them a coupon is read for each who asks.
const COUPONS_MAX: usize = 10_000;

/// One for each phase, and one for all of them.
const LISTS_MAX: usize = Phase::ALL.len() + 1;

/// Most coupons that one request goes through in search of a phase; what it has by then is a page, even an
/// empty one, that leads on.
const LOOKED_AT_MAX: u32 = 2_000;

/// How many of them are read at a time: lists that are mostly of the phase need one statement, and no
/// statement takes long.
const STEP: u32 = 500;

/// What is kept.
pub(crate) struct Copies {
    coupons: copies::Copies<CouponId, Arc<CouponView>>,
    lists: copies::Copies<Option<Phase>, Arc<Listed>>,
}

impl std::fmt::Debug for Copies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Copies")
    }
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            coupons: copies::Copies::new("coupon", COUPONS_MAX),
            lists: copies::Copies::new("list", LISTS_MAX),
        }
    }
}

impl Copies {
    /// One coupon, as it was at most [`copies::AGE_MAX`] before.
    pub(crate) async fn coupon(&self, app: &App, id: CouponId) -> Result<Option<CouponView>, Problem> {
        let store = app.engine()?.store();
        let read = || {
            let (store, places) = (Arc::clone(store), app.store_calls.clone());
            taking_a_place(places, async move { Ok(store.coupon(id).await?.map(Arc::new)) })
        };
        let seen = app.read_with_others(self.coupons.get(id, read)).await?;
        Ok(seen.map(|seen| CouponView {
            coupon: seen.value.coupon.clone(),
            issued: seen.value.issued.max(Sequence::new(seen.issued)),
        }))
    }

    /// Coupons of a phase, or all, from the newest or from before one.
    pub(crate) async fn list(
        &self,
        app: &App,
        phase: Option<Phase>,
        before: Option<CouponId>,
        limit: u32,
    ) -> Result<Arc<Listed>, Problem> {
        let store = app.engine()?.store();
        if before.is_some() {
            let store = Arc::clone(store);
            return app
                .read(async move { look_through(&*store, phase, before, limit).await })
                .await
                .map(Arc::new);
        }
        // As long as a page can be, so that all limits share it.
        let read = || {
            let (store, places) = (Arc::clone(store), app.store_calls.clone());
            taking_a_place(places, async move {
                look_through(&*store, phase, None, LIMIT_MAX)
                    .await
                    .map(|listed| Some(Arc::new(listed)))
            })
        };
        let seen = app.read_with_others(self.lists.get(phase, read)).await?;
        // A list is always there, if empty.
        seen.map(|seen| seen.value)
            .ok_or(Problem::Internal { applied: Some(false) })
    }

    /// A coupon was changed: nobody sees it as it was before.
    pub(crate) fn forget(&self, coupon: CouponId) {
        self.coupons.forget(coupon);
        self.lists.forget_all();
    }

    /// A coupon was made: nobody sees lists without it.
    pub(crate) fn forget_lists(&self) {
        self.lists.forget_all();
    }

    /// This was issued: nobody is shown that less is.
    pub(crate) fn raise(&self, issuance: IssuanceId) {
        self.coupons.raise(issuance.coupon, issuance.sequence.get());
    }
}

/// What a search came to.
pub(crate) struct Listed {
    /// One more than asked for, if there are more.
    rows: Vec<CouponView>,
    /// Where it was given up, if there may be more beyond.
    given_up_at: Option<CouponId>,
    /// The moment for which phases were told.
    now: Timestamp,
}

impl Listed {
    /// The first so many.
    pub(crate) fn page(&self, limit: u32) -> Page<CouponBody<'_>> {
        let shown = &self.rows[..self.rows.len().min(limit as usize)];
        let more = shown
            .last()
            .filter(|_| self.rows.len() > shown.len())
            .map(|view| view.coupon.id);
        let items = shown
            .iter()
            .map(|view| CouponBody::new(&view.coupon, view.issued, self.now))
            .collect();
        Page {
            items,
            next_cursor: more.or(self.given_up_at).map(|place| place.lead_on()),
        }
    }
}

/// Reads on and on until there are one more than `limit`, until there are no more coupons, or until it looked
/// at [`LOOKED_AT_MAX`]. Phases are told here and nowhere else: a phase depends on the clock and on what is
/// issued, so that no index could keep it.
async fn look_through(
    store: &dyn Store,
    phase: Option<Phase>,
    mut before: Option<CouponId>,
    limit: u32,
) -> store::Result<Listed> {
    let now = time::timestamp();
    let wanted = limit as usize + 1;
    let (mut rows, mut looked_at) = (Vec::new(), 0);
    loop {
        let step = if phase.is_none() { limit + 1 } else { STEP };
        let read = store.coupons(&CouponQuery { before, limit: step }).await?;
        let is_end = read.len() < step as usize;
        before = read.last().map(|view| view.coupon.id);
        looked_at += step;
        rows.extend(
            read.into_iter()
                .filter(|view| phase.is_none_or(|phase| view.coupon.phase(now, view.issued) == phase)),
        );
        if rows.len() >= wanted || is_end || looked_at >= LOOKED_AT_MAX {
            let given_up_at = before.filter(|_| rows.len() < wanted && !is_end);
            rows.truncate(wanted);
            return Ok(Listed {
                rows,
                given_up_at,
                now,
            });
        }
    }
}
