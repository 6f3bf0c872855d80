//! Lists of a user's issuances, newest first.
//!
//! Every page rests on all issuances of the user, because no index has them by time. Usually they are few,
//! and one statement reads and sorts them. The list of a user who has more than [`SORTED_MAX`] is a search: steps
//! go through the issuances, in turn with other searches and within the same bounds, and the newest ones that
//! belong to the page are kept.
//!
//! A search that takes longer than a request fails, and the next request for the same page goes on where it
//! ended. It reads the newest issuances so far again. What was issued meanwhile or came into the state of the
//! list, among the issuances that were examined before, is missed until the progress is forgotten: no index
//! finds it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::rows::{UserPlace, UserStep};
use actors::coupon::uses::{UseState, UsedIssuance};
use actors::ids::UserId;
use actors::time::{self, Moment, Timestamp};

use super::coupon_lists::FRUITLESS_TIME_MAX;
use super::engine::{
    CouponEngine, CouponView, IssuancePage, IssuanceQuery, IssuancesOf, StoreResult, UserCursor,
};
use super::issuance_lists::{IssuanceList, IssuanceListOptions};
use super::kept_progress::KeptProgress;
use super::list::{Page, Row};
use super::search_snapshots::{SearchSnapshot, SearchSnapshots, too_long};
use super::store_calls::StoreCallError;
use super::{Error, Service};

/// Maximum number of issuances that one statement reads and sorts, within some milliseconds.
const SORTED_MAX: u32 = 10_000;

/// Number of issuances that one step examines. For each of them it reads the table and, if the list is of one
/// state, an index and another table.
const STEP: u32 = 2_000;

/// Number of issuances that are read again in one turn, one by one.
const READ_AGAIN: usize = 20;

/// The progress of searches, by their pages.
pub(super) type UserProgress = KeptProgress<PageKey, Reached>;

/// A page of a user's list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PageKey {
    pub(super) user: UserId,
    pub(super) coupon: Option<CouponId>,
    pub(super) state: Option<UseState>,
    pub(super) after: Option<UserCursor>,
    pub(super) limit: u32,
}

/// How far a search has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// Where the next step begins; `None` if all issuances were examined.
    pub(super) next: Option<UserPlace>,
    /// The newest of the issuances that were examined and belong to the page.
    pub(super) newest: Vec<UserCursor>,
    /// The oldest one of them, if older ones may belong to the list that are not known any more.
    pub(super) floor: Option<UserCursor>,
}

impl Service {
    /// Reads a page of a user's issuances, newest first. If `coupon` is given, reads only issuances of that
    /// coupon.
    pub(crate) async fn issuances_of_user(
        &self,
        client: IpAddr,
        (user, coupon): (UserId, Option<CouponId>),
        options: IssuanceListOptions,
        after: Option<UserCursor>,
        limit: u32,
    ) -> Result<IssuanceList<UserCursor>, Error> {
        let engine = self.engine()?.clone();
        let key = PageKey {
            user: user.clone(),
            coupon,
            state: options.state,
            after,
            limit,
        };
        let query = options.query(IssuancesOf::User { user, coupon, after }, limit);
        // All reads share the deadline of the request.
        let reading = self.page_of_user(client, engine, key, query);
        let (found, now) = self.await_read(reading).await?;
        let mut page = Page::cut(found.issuances, limit);
        page.next = page.next.or(found.next);
        Ok(IssuanceList::new(page, now, found.coupons, options))
    }

    /// Reads a page and its coupons, by one statement if the user has few issuances. Returns also the time
    /// for which its states were computed.
    async fn page_of_user(
        &self,
        client: IpAddr,
        engine: CouponEngine,
        key: PageKey,
        query: IssuanceQuery,
    ) -> Result<(Found, Timestamp), StoreCallError> {
        let (reader, reads) = (engine.clone(), query.clone());
        let of_few = async move { reader.issuances_of_few(&reads, SORTED_MAX).await };
        if let Some(IssuancePage {
            issuances, coupons, ..
        }) = self.store_calls.run(of_few).await?
        {
            let found = Found {
                issuances,
                coupons,
                next: None,
            };
            return Ok((found, query.now));
        }
        let (places, snapshots) = (self.lists.admit(client, true)?, self.lists.snapshots());
        let (progress, searched) = (Arc::clone(&self.user_progress), key.clone());
        let searching = async move {
            let _places = places;
            search(&engine, &snapshots, &progress, searched, &query).await
        };
        let found = self.store_calls.run(searching).await?;
        // If the request was not answered in time, its client may retry, and the search need not begin anew.
        self.user_progress.end(&key, time::moment());
        Ok(found)
    }
}

/// What a search has found.
#[derive(Debug)]
struct Found {
    /// One more than the page has, if there are so many.
    issuances: Vec<UsedIssuance>,
    coupons: HashMap<CouponId, CouponView>,
    /// Where the next page begins if this one is not full and the list does not end.
    next: Option<UserCursor>,
}

/// Searches a user's issuances in a new snapshot. Returns what was found, and the time of the snapshot.
async fn search(
    engine: &CouponEngine,
    snapshots: &SearchSnapshots,
    progress: &UserProgress,
    key: PageKey,
    query: &IssuanceQuery,
) -> StoreResult<(Found, Timestamp)> {
    let (asked, asked_at) = (Instant::now(), time::moment());
    // The snapshot begins after the progress was read, so it has every issuance that the progress knows.
    let reached = progress.find(&key, asked_at);
    let snapshot = snapshots.join(engine).await?;
    let search = Search {
        snapshot: &snapshot,
        progress,
        key,
        limit: query.limit,
        with_coupons: query.with_coupons,
        asked,
        asked_at,
        begun: Instant::now(),
    };
    Ok((search.run(reached).await?, snapshot.now()))
}

/// A search through a user's issuances, in a snapshot.
struct Search<'s> {
    snapshot: &'s SearchSnapshot,
    progress: &'s UserProgress,
    key: PageKey,
    /// Number of issuances to look for.
    limit: u32,
    with_coupons: bool,
    /// When the request for the page came.
    asked: Instant,
    /// The same by the clock of the progress.
    asked_at: Moment,
    /// When the search began, after it had waited for its snapshot.
    begun: Instant,
}

impl Search<'_> {
    /// Goes through all issuances of the user, or through those that an earlier search has not reached. Fails
    /// if that takes too long. However late it is, one step is taken, so that a retry comes further.
    async fn run(&self, reached: Option<Reached>) -> StoreResult<Found> {
        let mut newest = Newest::new(self.limit);
        let mut next = Some(UserPlace::After(None));
        if let Some(reached) = reached {
            newest.floor = reached.floor;
            newest.add(self.read_again(&reached.newest).await?);
            next = reached.next;
        }
        while let Some(place) = next {
            let page = self.snapshot.turn().await?.user_step(&self.step(place)).await?;
            newest.add(page.issuances);
            next = page.next;
            if self.asked.elapsed() >= FRUITLESS_TIME_MAX {
                self.progress
                    .keep(&self.key, newest.reached(next), self.asked_at, time::moment());
            }
            if next.is_some() && self.begun.elapsed() >= FRUITLESS_TIME_MAX {
                return Err(too_long());
            }
        }
        if newest.issuances.is_empty() && newest.floor.is_some() {
            // All that earlier searches found has left the state. What else they examined is not known.
            self.progress.end(&self.key, time::moment());
            return Err(too_long());
        }
        self.found(newest).await
    }

    fn step(&self, place: UserPlace) -> UserStep {
        UserStep {
            user: self.key.user.clone(),
            coupon: self.key.coupon,
            after: self.key.after,
            state: self.key.state,
            now: self.snapshot.now(),
            limit: self.limit,
            place,
            examine: STEP,
        }
    }

    /// Reads issuances that an earlier search found. Returns those that are in the state now.
    async fn read_again(&self, known: &[UserCursor]) -> StoreResult<Vec<UsedIssuance>> {
        let (mut found, now): (Vec<UsedIssuance>, _) = (Vec::new(), self.snapshot.now());
        for some in known.chunks(READ_AGAIN) {
            let turn = self.snapshot.turn().await?;
            for cursor in some {
                let query = IssuanceQuery::all(IssuancesOf::Id(cursor.id), 1);
                found.extend(turn.issuances(&query).await?.unwrap_or_default().issuances);
            }
        }
        if let Some(state) = self.key.state {
            found.retain(|used| used.state(now) == state);
        }
        Ok(found)
    }

    /// Reads the coupons of the newest issuances, if they are wanted.
    async fn found(&self, newest: Newest) -> StoreResult<Found> {
        let is_full = newest.issuances.len() >= self.limit as usize;
        let mut found = Found {
            issuances: newest.issuances,
            coupons: HashMap::new(),
            next: newest.floor.filter(|_| !is_full),
        };
        if self.with_coupons {
            let ids = found.issuances.iter().map(|used| used.issuance.id.coupon);
            let mut ids: Vec<CouponId> = ids.collect();
            ids.sort_unstable();
            ids.dedup();
            found.coupons = self.snapshot.turn().await?.coupons_of(&ids).await?;
        }
        Ok(found)
    }
}

/// The newest issuances of a page among those that were examined.
struct Newest {
    limit: usize,
    /// Newest first; at most `limit`.
    issuances: Vec<UsedIssuance>,
    /// Earlier searches dropped older issuances than this, so the page has none of these.
    floor: Option<UserCursor>,
}

impl Newest {
    fn new(limit: u32) -> Self {
        Self {
            limit: limit as usize,
            issuances: Vec::new(),
            floor: None,
        }
    }

    /// Takes the issuances of a step into account.
    fn add(&mut self, issuances: Vec<UsedIssuance>) {
        let floor = self.floor.as_ref().map(place);
        let belongs = |used: &UsedIssuance| floor.is_none_or(|floor| place(&used.cursor()) >= floor);
        self.issuances.extend(issuances.into_iter().filter(belongs));
        self.issuances
            .sort_unstable_by_key(|used| Reverse(place(&used.cursor())));
        self.issuances.truncate(self.limit);
    }

    /// Returns what the next request goes on with.
    fn reached(&self, next: Option<UserPlace>) -> Reached {
        let last = self.issuances.last().map(Row::cursor);
        let is_full = self.issuances.len() >= self.limit;
        Reached {
            next,
            newest: self.issuances.iter().map(Row::cursor).collect(),
            floor: last.filter(|_| is_full).or(self.floor),
        }
    }
}

/// Returns the place of an issuance in a user's list, of which newer ones are greater.
fn place(cursor: &UserCursor) -> (Timestamp, CouponId, Sequence) {
    (cursor.issued_at, cursor.id.coupon, cursor.id.sequence)
}

#[cfg(test)]
mod tests;
