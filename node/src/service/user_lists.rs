//! Lists of a user's issuances, newest first.
//!
//! Every page rests on all issuances of the user, because no index has them by time. Usually they are few,
//! and one statement reads and sorts them. The list of a user who has more than [`ONE_STATEMENT_MAX`] is a
//! search: steps go through the issuances, in turn with other searches and within the same bounds, and the
//! newest ones that belong to the page are kept.
//!
//! A search that takes longer than a request fails, and the next request of the same principal for the same
//! page goes on where it ended. It reads the newest issuances so far again. Issuances are only added, so it
//! counts those of the coupons that were examined before, and examines the coupons again of which the user has
//! more now. What came into the state of the list, among the issuances that were examined before, is missed
//! until the progress is forgotten: no index finds it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::rows::{UserPlace, UserStep};
use actors::coupon::uses::{UseState, UsedIssuance};
use actors::ids::{Author, UserId};
use actors::time::{self, Moment, Timestamp};

use super::coupon_lists::FRUITLESS_TIME_MAX;
use super::engine::{
    CouponEngine, CouponView, IssuancePage, IssuanceQuery, IssuancesOf, StoreResult, UserCursor,
};
use super::issuance_lists::{IssuanceList, IssuanceListOptions, ONE_STATEMENT_MAX, Requester};
use super::kept_progress::KeptProgress;
use super::list::{Page, Row};
use super::search_snapshots::{SearchSnapshot, SearchSnapshots, Turn, too_long};
use super::store_calls::StoreCallError;
use super::{Error, Service};

/// Number of issuances that one step examines. For each of them it reads the table and, if the list is of one
/// state, an index and another table.
const STEP: u32 = 2_000;

/// Maximum number of parts that are counted each for itself. In 200 parts are usually 400,000 issuances.
const PARTS_MAX: usize = 200;

/// Number of parts that are counted in one turn. A count goes through an index only.
const COUNTED: usize = 20;

/// Number of steps that a part needs at most, unless it is the last one of too many. It was one step, and has
/// grown since.
const PART_STEPS: u32 = 10;

/// The progress of searches, by their pages.
pub(super) type UserProgress = KeptProgress<PageKey, Reached>;

/// A page of a user's list, and the principal that asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PageKey {
    pub(super) author: Author,
    pub(super) user: UserId,
    pub(super) coupon: Option<CouponId>,
    pub(super) state: Option<UseState>,
    pub(super) after: Option<UserCursor>,
    pub(super) limit: u32,
}

/// How far a search has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// What was examined of whole coupons, in their order.
    pub(super) parts: Vec<Part>,
    /// Where the next step begins; `None` if all issuances were examined.
    pub(super) next: Option<UserPlace>,
    /// The newest of the issuances that were examined and belong to the page.
    pub(super) newest: Vec<UserCursor>,
    /// The oldest one of them, if older ones may belong to the list that are not known any more.
    pub(super) floor: Option<UserCursor>,
}

/// The coupons with higher ids than the first one, up to the second one. Without the first one they begin with
/// the lowest id, and without the second one they end with the highest id.
type Coupons = (Option<CouponId>, Option<CouponId>);

/// Coupons of which all issuances of the user were examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The coupons have higher ids than this.
    after: Option<CouponId>,
    /// The last of them; `None` if it is the user's last one.
    last: Option<CouponId>,
    /// How many issuances the user had of them.
    count: u64,
    /// Where the steps begin that find what was issued since.
    from: UserPlace,
}

impl Part {
    /// True if a step that begins there examines coupons of the part.
    fn has(&self, place: UserPlace) -> bool {
        self.last.is_none_or(|last| match place {
            UserPlace::After(after) => after < Some(last),
            UserPlace::Within(coupon, _) => coupon <= last,
        })
    }
}

impl Service {
    /// Reads a page of a user's issuances, newest first. If `coupon` is given, reads only issuances of that
    /// coupon.
    pub(crate) async fn issuances_of_user(
        &self,
        requester: Requester,
        (user, coupon): (UserId, Option<CouponId>),
        options: IssuanceListOptions,
        after: Option<UserCursor>,
        limit: u32,
    ) -> Result<IssuanceList<UserCursor>, Error> {
        let engine = self.engine()?.clone();
        let key = PageKey {
            author: requester.author,
            user: user.clone(),
            coupon,
            state: options.state,
            after,
            limit,
        };
        let query = options.query(IssuancesOf::User { user, coupon, after }, limit);
        // All reads share the deadline of the request.
        let reading = self.page_of_user(requester.address, engine, key, query);
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
        let of_few = async move { reader.issuances_of_few(&reads, ONE_STATEMENT_MAX).await };
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
        let (mut parts, mut next) = (Vec::new(), Some(UserPlace::After(None)));
        if let Some(reached) = reached {
            newest.floor = reached.floor;
            newest.add(self.read_again(&reached.newest).await?);
            (parts, next) = (reached.parts, reached.next);
        }
        let known = parts.len();
        while let Some(place) = next {
            let turn = self.snapshot.turn().await?;
            let page = turn.user_step(&self.step(place)).await?;
            newest.add(page.issuances);
            next = page.next;
            self.add_parts(&turn, &mut parts, place, next).await?;
            drop(turn);
            self.keep(&newest, &parts, next);
            if next.is_some() && self.begun.elapsed() >= FRUITLESS_TIME_MAX {
                return Err(too_long());
            }
        }
        self.examine_again(&mut newest, &mut parts, known).await?;
        if newest.issuances.is_empty() && newest.floor.is_some() {
            // All that earlier searches found has left the state. What else they examined is not known.
            self.progress.end(&self.key, time::moment());
            return Err(too_long());
        }
        self.found(newest).await
    }

    /// Keeps how far the search has come, if its client may not wait for it.
    fn keep(&self, newest: &Newest, parts: &[Part], next: Option<UserPlace>) {
        if self.asked.elapsed() >= FRUITLESS_TIME_MAX {
            let reached = newest.reached(parts.to_vec(), next);
            self.progress
                .keep(&self.key, reached, self.asked_at, time::moment());
        }
    }

    /// Adds the coupons that a step has examined to the end.
    async fn add_parts(
        &self,
        turn: &Turn<'_>,
        parts: &mut Vec<Part>,
        place: UserPlace,
        next: Option<UserPlace>,
    ) -> StoreResult<()> {
        let last = match next {
            Some(UserPlace::Within(..)) => return Ok(()),
            Some(UserPlace::After(last)) => last,
            None => None,
        };
        let mut after = parts.last().and_then(|part| part.last);
        if let UserPlace::Within(coupon, _) = place {
            // Steps within a coupon do not find what is issued of a coupon before it.
            let before = CouponId::new(coupon.get() - 1)
                .filter(|before| self.key.coupon.is_none() && Some(*before) > after);
            if before.is_some() {
                self.add_part(turn, parts, (after, before), UserPlace::After(after))
                    .await?;
                after = before;
            }
        }
        self.add_part(turn, parts, (after, last), place).await
    }

    /// Adds a part, or lets the last one grow if there are too many.
    async fn add_part(
        &self,
        turn: &Turn<'_>,
        parts: &mut Vec<Part>,
        coupons: Coupons,
        from: UserPlace,
    ) -> StoreResult<()> {
        let count = self.count(turn, coupons).await?;
        let is_full = parts.len() >= PARTS_MAX;
        if let Some(grown) = parts.last_mut().filter(|_| is_full) {
            (grown.last, grown.count) = (coupons.1, grown.count + count);
        } else {
            let (after, last) = coupons;
            parts.push(Part {
                after,
                last,
                count,
                from,
            });
        }
        Ok(())
    }

    /// Counts the issuances of some of the coupons.
    async fn count(&self, turn: &Turn<'_>, coupons: Coupons) -> StoreResult<u64> {
        let of_one = |coupon: CouponId| (CouponId::new(coupon.get() - 1), Some(coupon));
        let coupons = self.key.coupon.map_or(coupons, of_one);
        turn.count_of_user(&self.key.user, coupons).await
    }

    /// Examines the parts again that have grown since earlier requests examined them: the first `known` ones.
    /// However late it is, one of them is examined, so that a retry comes further.
    async fn examine_again(&self, newest: &mut Newest, parts: &mut [Part], known: usize) -> StoreResult<()> {
        let mut is_first = true;
        for first in (0..known).step_by(COUNTED) {
            let turn = self.snapshot.turn().await?;
            let mut grown = Vec::new();
            for (index, part) in parts[..known].iter().enumerate().skip(first).take(COUNTED) {
                let count = self.count(&turn, (part.after, part.last)).await?;
                grown.extend((count != part.count).then_some((index, count)));
            }
            drop(turn);
            for (index, count) in grown {
                if !is_first && self.begun.elapsed() >= FRUITLESS_TIME_MAX {
                    return Err(too_long());
                }
                is_first = false;
                self.examine_part(newest, &parts[index]).await?;
                parts[index].count = count;
                self.keep(newest, parts, None);
            }
        }
        Ok(())
    }

    /// Finds what was issued of a part since it was examined. Fails if that takes too long, but not before it
    /// has taken as many steps as a part usually needs.
    async fn examine_part(&self, newest: &mut Newest, part: &Part) -> StoreResult<()> {
        let mut place = part.from;
        for step in 1.. {
            let page = self.snapshot.turn().await?.user_step(&self.step(place)).await?;
            newest.add(page.issuances);
            let Some(next) = page.next.filter(|next| part.has(*next)) else {
                return Ok(());
            };
            place = next;
            if step >= PART_STEPS && self.begun.elapsed() >= FRUITLESS_TIME_MAX {
                break;
            }
        }
        Err(too_long())
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

    /// Reads issuances that an earlier search found, by one statement: they are no more than a page. Returns
    /// those that are in the state now.
    async fn read_again(&self, known: &[UserCursor]) -> StoreResult<Vec<UsedIssuance>> {
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.snapshot.now();
        let ids: Vec<IssuanceId> = known.iter().map(|cursor| cursor.id).collect();
        let mut found = self.snapshot.turn().await?.issuances_with_ids(&ids).await?;
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
        // What is examined again is found again.
        self.issuances.dedup_by_key(|used| used.issuance.id);
        self.issuances.truncate(self.limit);
    }

    /// Returns what the next request goes on with.
    fn reached(&self, parts: Vec<Part>, next: Option<UserPlace>) -> Reached {
        let last = self.issuances.last().map(Row::cursor);
        let is_full = self.issuances.len() >= self.limit;
        Reached {
            parts,
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
