//! Lists of issuances: of a user, and of a coupon, by state, with quotes and with the coupon. Everything that
//! one page shows is of one moment, after the request.
//!
//! A list of a whole coupon by state is a search, as a list of coupons is: it takes steps until its page is
//! full, in turn with other searches and within the same bounds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::uses::decide::{Quote, Terms};
use actors::coupon::uses::{UseState, UsedIssuance};
use actors::ids::UserId;
use actors::time::{self, Timestamp};

use super::coupon_lists::{FRUITLESS_TIME_MAX, SEARCH_TIME_MAX};
use super::engine::{
    CouponEngine, CouponView, IssuancePage, IssuanceQuery, IssuancesOf, Refusal, StoreResult, UserCursor,
};
use super::issuance_progress::{Examined, IssuanceProgress, ListKey};
use super::list::Page;
use super::search_snapshots::{SearchSnapshot, SearchSnapshots, too_long};
use super::{Error, Service};

/// Number of sequences that one step examines: few enough that no step takes longer than some milliseconds.
const STEP: u32 = 4_000;

/// Maximum number of issuances used since an earlier search that are examined again. If there are more, the
/// search begins anew.
const USED_MAX: u32 = 256;

/// What a list of issuances shows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IssuanceListOptions {
    /// Only issuances in this state.
    pub(crate) state: Option<UseState>,
    /// The amount of an order, for which each issuance has a quote.
    pub(crate) order_amount: Option<u64>,
    /// True if each issuance has its coupon.
    pub(crate) with_coupons: bool,
}

/// A page of issuances.
#[derive(Debug)]
pub(crate) struct IssuanceList<C> {
    /// The issuances.
    pub(crate) page: Page<UsedIssuance, C>,
    /// The time for which states and quotes were computed.
    pub(crate) now: Timestamp,
    coupons: HashMap<CouponId, CouponView>,
    options: IssuanceListOptions,
}

impl<C> IssuanceList<C> {
    /// Returns the coupon of an issuance, if coupons were asked for.
    pub(crate) fn coupon(&self, used: &UsedIssuance) -> Option<&CouponView> {
        let coupon = self.coupons.get(&used.issuance.id.coupon);
        coupon.filter(|_| self.options.with_coupons)
    }

    /// Returns the quote of an issuance, if quotes were asked for.
    pub(crate) fn quote(&self, used: &UsedIssuance) -> Option<Quote> {
        let amount = self.options.order_amount?;
        let view = self.coupons.get(&used.issuance.id.coupon)?;
        Some(quote(view, used, self.now, amount))
    }
}

/// Returns what a reservation of this amount would fix.
pub(super) fn quote(view: &CouponView, used: &UsedIssuance, now: Timestamp, amount: u64) -> Quote {
    let terms = Terms {
        offer: &view.coupon.offer,
        expires_at: used.issuance.expires_at,
    };
    terms.quote(used.latest.as_ref(), now, amount)
}

impl IssuanceListOptions {
    fn query(self, of: IssuancesOf, limit: u32) -> IssuanceQuery {
        IssuanceQuery {
            of,
            state: self.state,
            now: time::timestamp(),
            limit: limit + 1,
            examine: STEP,
            with_coupons: self.with_coupons || self.order_amount.is_some(),
        }
    }
}

impl Service {
    /// Reads a page of a coupon's issuances, by sequence. If `user` is given, reads only that user's
    /// issuances.
    pub(crate) async fn issuances_of_coupon(
        &self,
        client: IpAddr,
        (coupon, user): (CouponId, Option<UserId>),
        options: IssuanceListOptions,
        after: Sequence,
        limit: u32,
    ) -> Result<IssuanceList<Sequence>, Error> {
        let engine = self.engine()?.clone();
        let query = options.query(IssuancesOf::Coupon { coupon, user, after }, limit);
        let (found, now) = if query.is_search() {
            let places = self.lists.admit(client, true)?;
            let search = Search {
                engine,
                snapshots: self.lists.snapshots(),
                progress: Arc::clone(&self.issuance_progress),
                query,
            };
            let found = self.read(async move {
                let _places = places;
                search.run().await
            });
            found.await?.ok_or(Refusal::UnknownCoupon)?
        } else {
            let now = query.now;
            let read = async move { engine.issuances(&query).await };
            (self.read(read).await?.ok_or(Refusal::UnknownCoupon)?, now)
        };
        let mut page = Page::cut(found.issuances, limit);
        page.next = page.next.or(found.next);
        Ok(IssuanceList {
            page,
            now,
            coupons: found.coupons,
            options,
        })
    }

    /// Reads a page of a user's issuances, newest first. If `coupon` is given, reads only issuances of that
    /// coupon.
    pub(crate) async fn issuances_of_user(
        &self,
        (user, coupon): (UserId, Option<CouponId>),
        options: IssuanceListOptions,
        after: Option<UserCursor>,
        limit: u32,
    ) -> Result<IssuanceList<UserCursor>, Error> {
        let engine = self.engine()?.clone();
        let query = options.query(IssuancesOf::User { user, coupon, after }, limit);
        let now = query.now;
        let found = self.read(async move { engine.issuances(&query).await }).await?;
        let found = found.unwrap_or_default();
        Ok(IssuanceList {
            page: Page::cut(found.issuances, limit),
            now,
            coupons: found.coupons,
            options,
        })
    }
}

/// A search through a coupon's issuances.
struct Search {
    engine: CouponEngine,
    snapshots: Arc<SearchSnapshots>,
    progress: Arc<IssuanceProgress>,
    query: IssuanceQuery,
}

impl Search {
    /// Searches until the page is full, the list ends, or the search has taken too long. Returns what was
    /// found, and the time of the snapshot; `None` if the coupon does not exist.
    async fn run(mut self) -> StoreResult<Option<(IssuancePage, Timestamp)>> {
        let (IssuancesOf::Coupon { coupon, after, .. }, Some(state)) =
            (self.query.of.clone(), self.query.state)
        else {
            return Ok(self
                .engine
                .issuances(&self.query)
                .await?
                .map(|page| (page, self.query.now)));
        };
        let (key, begun) = ((coupon, state, after), Instant::now());
        let snapshot = self.snapshots.join(&self.engine).await?;
        self.query.now = snapshot.now();
        let (mut found, mut examined) = self.begin(&snapshot, &key).await?;
        let wanted = self.query.limit as usize;
        loop {
            self.query.of = IssuancesOf::Coupon {
                coupon,
                user: None,
                after: examined.up_to,
            };
            // This is at most `wanted`, which fits into 32 bits.
            self.query.limit = wanted.saturating_sub(found.issuances.len()) as u32;
            let step = snapshot.turn().await?.issuances(&self.query).await?;
            let Some(step) = step else { return Ok(None) };
            found.issuances.extend(step.issuances);
            found.coupons.extend(step.coupons);
            found.next = step.next;
            let (is_empty, took) = (found.issuances.is_empty(), begun.elapsed());
            let is_late = took >= SEARCH_TIME_MAX && !is_empty;
            let Some(next) = step.next.filter(|_| found.issuances.len() < wanted && !is_late) else {
                self.progress.end(&key);
                return Ok(Some((found, snapshot.now())));
            };
            examined.up_to = next;
            if is_empty {
                self.progress.advance(key, examined);
                if took >= FRUITLESS_TIME_MAX {
                    return Err(too_long());
                }
            }
        }
    }

    /// Returns where the search goes on. Also returns what it finds among issuances that did not match in an
    /// earlier search and were used since.
    async fn begin(&self, snapshot: &SearchSnapshot, key: &ListKey) -> StoreResult<(IssuancePage, Examined)> {
        let (coupon, _, after) = *key;
        let mut found = IssuancePage::default();
        let now = time::moment();
        if let Some(examined) = self.progress.find(key, now) {
            let turn = snapshot.turn().await?;
            let mut since = turn.used_since(coupon, examined.used, USED_MAX + 1).await?;
            drop(turn);
            if since.len() <= USED_MAX as usize {
                since.retain(|sequence| (after < *sequence) && (*sequence <= examined.up_to));
                since.sort_unstable();
                since.dedup();
                for sequence in since {
                    let query = IssuanceQuery {
                        of: IssuancesOf::Coupon {
                            coupon,
                            user: None,
                            after: sequence.previous(),
                        },
                        examine: 1,
                        ..self.query.clone()
                    };
                    let one = snapshot.turn().await?.issuances(&query).await?;
                    let one = one.unwrap_or_default();
                    found.issuances.extend(one.issuances);
                    found.coupons.extend(one.coupons);
                }
                return Ok((found, examined));
            }
        }
        let used = snapshot.turn().await?.last_use(coupon).await?;
        let examined = Examined {
            up_to: after,
            used,
            begun: now,
        };
        Ok((found, examined))
    }
}
