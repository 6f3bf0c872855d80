//! Lists of issuances: of a coupon, and what they have in common with those of a user (`user_lists`): states,
//! quotes and coupons. Everything that one page shows is of one moment, after the request.
//!
//! A list of a coupon by state is a search, as a list of coupons is: it takes steps until its page is full,
//! in turn with other searches and within the same bounds. If it is also of one user, who usually has few of
//! the coupon, one statement reads it; only if the user has more than [`ONE_STATEMENT_MAX`], it is a search.
//!
//! A search that finds nothing in the time of a request fails, and the next request of the same principal for
//! the same list goes on where it ended. What happened to the examined issuances meanwhile is in the rows of
//! uses, which are only added: the issuances that were used since are examined again, whichever node decided
//! it. A change by time alone (a hold that lapsed, an end of use that passed) is missed until the search ends
//! or is forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::uses::decide::{Quote, Terms};
use actors::coupon::uses::{UseNumber, UseState, UsedIssuance};
use actors::ids::{Author, UserId};
use actors::time::{self, Moment, Timestamp};

use super::coupon_lists::{FRUITLESS_TIME_MAX, SEARCH_TIME_MAX};
use super::engine::{
    CouponEngine, CouponView, IssuancePage, IssuanceQuery, IssuancesOf, Refusal, StoreResult,
};
use super::kept_progress::KeptProgress;
use super::list::Page;
use super::search_snapshots::{SearchSnapshot, SearchSnapshots, too_long};
use super::store_calls::StoreCallError;
use super::{Error, Service};

/// Maximum number of issuances of a user that one statement goes through, within some milliseconds.
pub(super) const ONE_STATEMENT_MAX: u32 = 10_000;

/// Number of sequences that one step examines: few enough that no step takes longer than some milliseconds.
const STEP: u32 = 4_000;

/// Number of uses since an earlier search whose issuances one step examines again. For each of them it reads an
/// index once more than for a sequence.
const USES_STEP: u64 = 2_000;

/// The progress of searches that have found nothing so far, by their lists.
pub(super) type IssuanceProgress = KeptProgress<ListKey, Examined>;

/// A list of a coupon's issuances in a state, and the principal that asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ListKey {
    pub(super) author: Author,
    pub(super) coupon: CouponId,
    pub(super) user: Option<UserId>,
    pub(super) state: UseState,
    pub(super) after: Sequence,
}

/// The issuances that were examined, up to a sequence, and are not in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Examined {
    /// The last of them.
    pub(super) up_to: Sequence,
    /// The last use that was taken into account for all of them.
    pub(super) used: UseNumber,
}

/// The principal that asks for a list of issuances.
#[derive(Debug, Clone)]
pub(crate) struct Requester {
    /// The address of the client, whose searches are bounded.
    pub(crate) address: IpAddr,
    /// The principal. What its requests have searched is kept for its next ones, and for no others: a request
    /// that was not sent before finds all that was answered before it.
    pub(crate) author: Author,
}

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
    /// Makes a list of a page with these coupons.
    pub(super) fn new(
        page: Page<UsedIssuance, C>,
        now: Timestamp,
        coupons: HashMap<CouponId, CouponView>,
        options: IssuanceListOptions,
    ) -> Self {
        Self {
            page,
            now,
            coupons,
            options,
        }
    }

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
    /// Returns the query for a page with up to `limit` issuances, and one more that shows whether there is a
    /// next page.
    pub(super) fn query(self, of: IssuancesOf, limit: u32) -> IssuanceQuery {
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
        requester: Requester,
        (coupon, user): (CouponId, Option<UserId>),
        options: IssuanceListOptions,
        after: Sequence,
        limit: u32,
    ) -> Result<IssuanceList<Sequence>, Error> {
        let engine = self.engine()?.clone();
        let key = options.state.map(|state| ListKey {
            author: requester.author,
            coupon,
            user: user.clone(),
            state,
            after,
        });
        let query = options.query(IssuancesOf::Coupon { coupon, user, after }, limit);
        // All reads share the deadline of the request.
        let reading = async {
            match key {
                Some(key) => self.page_in_state(requester.address, engine, key, query).await,
                None => {
                    let now = query.now;
                    let read = async move { engine.issuances(&query).await };
                    let found = self.store_calls.run(read).await?;
                    Ok(found.map(|found| (found, now)))
                }
            }
        };
        let (found, now) = self.await_read(reading).await?.ok_or(Refusal::UnknownCoupon)?;
        let mut page = Page::cut(found.issuances, limit);
        page.next = page.next.or(found.next);
        Ok(IssuanceList::new(page, now, found.coupons, options))
    }

    /// Reads a page by state, by one statement if it is of a user with few issuances. Returns also the time
    /// for which its states were computed; `None` if the coupon does not exist.
    async fn page_in_state(
        &self,
        client: IpAddr,
        engine: CouponEngine,
        key: ListKey,
        query: IssuanceQuery,
    ) -> Result<Option<(IssuancePage, Timestamp)>, StoreCallError> {
        if key.user.is_some() {
            let (reader, reads) = (engine.clone(), query.clone());
            let of_few = async move { reader.issuances_of_few(&reads, ONE_STATEMENT_MAX).await };
            if let Some(found) = self.store_calls.run(of_few).await? {
                return Ok(Some((found, query.now)));
            }
        }
        let (places, snapshots) = (self.lists.admit(client, true)?, self.lists.snapshots());
        let (progress, searched) = (Arc::clone(&self.issuance_progress), key.clone());
        let searching = async move {
            let _places = places;
            search(&engine, &snapshots, &progress, searched, query).await
        };
        let found = self.store_calls.run(searching).await?;
        // If the request was not answered in time, its client may retry, and the search need not begin anew.
        self.issuance_progress.end(&key, time::moment());
        Ok(found)
    }
}

/// Searches a coupon's issuances in a new snapshot. Returns what was found, and the time of the snapshot; `None`
/// if the coupon does not exist.
async fn search(
    engine: &CouponEngine,
    snapshots: &SearchSnapshots,
    progress: &IssuanceProgress,
    key: ListKey,
    mut query: IssuanceQuery,
) -> StoreResult<Option<(IssuancePage, Timestamp)>> {
    let (begun, begun_at) = (Instant::now(), time::moment());
    // The snapshot begins after the progress was read, so it shows every use that the progress knows.
    let examined = progress.find(&key, begun_at);
    let snapshot = snapshots.join(engine).await?;
    query.now = snapshot.now();
    let search = Search {
        snapshot: &snapshot,
        progress,
        key,
        query,
        begun,
        begun_at,
    };
    let found = search.run(examined).await?;
    Ok(found.map(|found| (found, snapshot.now())))
}

/// A search through a coupon's issuances, in a snapshot.
struct Search<'s> {
    snapshot: &'s SearchSnapshot,
    progress: &'s IssuanceProgress,
    key: ListKey,
    /// What each step looks for.
    query: IssuanceQuery,
    /// When the request began.
    begun: Instant,
    /// The same by the clock of the progress.
    begun_at: Moment,
}

impl Search<'_> {
    /// Searches until the page is full, the list ends, or the search has taken too long. Goes on after what an
    /// earlier search has examined, if it is given. Returns what was found; `None` if the coupon does not
    /// exist.
    async fn run(&self, examined: Option<Examined>) -> StoreResult<Option<IssuancePage>> {
        let ListKey { coupon, after, .. } = self.key;
        let last_use = self.snapshot.turn().await?.last_use(coupon).await?;
        let mut examined = examined.unwrap_or(Examined {
            up_to: after,
            used: last_use,
        });
        let mut found = self.catch_up(&mut examined, last_use).await?;
        let wanted = self.query.limit as usize;
        while found.issuances.len() < wanted {
            let of = IssuancesOf::Coupon {
                coupon,
                user: self.key.user.clone(),
                after: examined.up_to,
            };
            let step = self.step(of, wanted - found.issuances.len()).await?;
            let Some(step) = step else { return Ok(None) };
            found.issuances.extend(step.issuances);
            found.coupons.extend(step.coupons);
            found.next = step.next;
            let (is_empty, took) = (found.issuances.is_empty(), self.begun.elapsed());
            let is_late = took >= SEARCH_TIME_MAX && !is_empty;
            let Some(next) = step.next.filter(|_| !is_late) else {
                break;
            };
            examined.up_to = next;
            if is_empty {
                self.keep(examined);
                if took >= FRUITLESS_TIME_MAX {
                    return Err(too_long());
                }
            }
        }
        Ok(Some(found))
    }

    fn keep(&self, examined: Examined) {
        self.progress
            .keep(&self.key, examined, self.begun_at, time::moment());
    }

    /// Examines again the issuances that were used since the earlier search, up to this use. Returns those
    /// that are in the state now: only the first ones, if there are more than the page has room for. Fails if
    /// that takes too long, and then keeps how far it came; if it has found some, up to the first of them.
    /// However late it is, one step is taken, so that a retry comes further.
    async fn catch_up(&self, examined: &mut Examined, last_use: UseNumber) -> StoreResult<IssuancePage> {
        let ListKey { coupon, after, .. } = self.key;
        let mut found = IssuancePage::default();
        while examined.used < last_use {
            let next = UseNumber::new(examined.used.get() + USES_STEP).min(last_use);
            let of = IssuancesOf::Used {
                coupon,
                user: self.key.user.clone(),
                uses: (examined.used, next),
                sequences: (after, examined.up_to),
            };
            let wanted = self.query.limit as usize;
            let step = self.step(of, wanted).await?.unwrap_or_default();
            examined.used = next;
            found.coupons.extend(step.coupons);
            let issuances = &mut found.issuances;
            issuances.extend(step.issuances);
            // An issuance is found in each step that has one of its uses.
            issuances.sort_by_key(|used| used.issuance.id.sequence);
            issuances.dedup_by_key(|used| used.issuance.id.sequence);
            issuances.truncate(wanted);
            if found.issuances.is_empty() {
                self.keep(*examined);
            }
            if examined.used < last_use && self.begun.elapsed() >= FRUITLESS_TIME_MAX {
                // What was examined before the first issuance that was found is not in the state, so that a
                // retry goes on there.
                if let Some(first) = found.issuances.first() {
                    examined.up_to = first.issuance.id.sequence.previous();
                    self.keep(*examined);
                }
                return Err(too_long());
            }
        }
        Ok(found)
    }

    /// Waits for a turn, and looks for so many issuances.
    async fn step(&self, of: IssuancesOf, wanted: usize) -> StoreResult<Option<IssuancePage>> {
        let query = IssuanceQuery {
            of,
            // A page has few issuances.
            limit: u32::try_from(wanted).unwrap_or(u32::MAX),
            ..self.query.clone()
        };
        self.snapshot.turn().await?.issuances(&query).await
    }
}

#[cfg(test)]
mod tests;
