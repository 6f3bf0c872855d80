//! Lists of a user's issuances, newest first.
//!
//! Every page rests on all issuances of the user, because no index has them by time. Usually they are few, and
//! one statement reads and sorts them. The list of a user who has more than [`SORTED_MAX`] is a search: steps
//! go through the issuances, in turn with other searches and within the same bounds, and the newest ones that
//! belong to the page are kept.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Instant;

use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::rows::{UserPlace, UserStep};
use actors::coupon::uses::UsedIssuance;
use actors::ids::UserId;
use actors::time::Timestamp;

use super::coupon_lists::FRUITLESS_TIME_MAX;
use super::engine::{IssuancePage, IssuanceQuery, IssuancesOf, StoreResult, UserCursor};
use super::issuance_lists::{IssuanceList, IssuanceListOptions};
use super::list::{Page, Row};
use super::search_snapshots::{SearchSnapshot, too_long};
use super::{Error, Service};

/// Maximum number of issuances that one statement reads and sorts, within some milliseconds.
const SORTED_MAX: u32 = 10_000;

/// Number of issuances that one step reads.
const STEP: u32 = 2_000;

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
        let step = UserStep {
            user: user.clone(),
            coupon,
            place: UserPlace::After(None),
            examine: STEP,
        };
        let query = options.query(IssuancesOf::User { user, coupon, after }, limit);
        let now = query.now;
        let (reading, reads, asked) = (engine.clone(), query.clone(), step.clone());
        let read = self.read(async move {
            if reading
                .user_has_more_than(&asked.user, coupon, SORTED_MAX)
                .await?
            {
                return Ok(None);
            }
            reading
                .issuances(&reads)
                .await
                .map(|page| Some(page.unwrap_or_default()))
        });
        let (found, now) = match read.await? {
            Some(found) => (found, now),
            None => {
                let (places, snapshots) = (self.lists.admit(client, true)?, self.lists.snapshots());
                let found = self.read(async move {
                    let (_places, begun) = (places, Instant::now());
                    let snapshot = snapshots.join(&engine).await?;
                    let newest = Newest::new(query, after, snapshot.now());
                    let found = search(&snapshot, step, newest, begun).await?;
                    Ok((found, snapshot.now()))
                });
                found.await?
            }
        };
        let page = Page::cut(found.issuances, limit);
        Ok(IssuanceList::new(page, now, found.coupons, options))
    }
}

/// Goes through all issuances of a user. Fails if that takes too long.
async fn search(
    snapshot: &SearchSnapshot,
    mut step: UserStep,
    mut newest: Newest,
    begun: Instant,
) -> StoreResult<IssuancePage> {
    loop {
        let page = snapshot.turn().await?.user_step(&step).await?;
        newest.add(page.issuances);
        let Some(next) = page.next else { break };
        if begun.elapsed() >= FRUITLESS_TIME_MAX {
            return Err(too_long());
        }
        step.place = next;
    }
    let mut found = IssuancePage {
        issuances: newest.issuances,
        ..IssuancePage::default()
    };
    if newest.query.with_coupons {
        let mut ids: Vec<CouponId> = found
            .issuances
            .iter()
            .map(|used| used.issuance.id.coupon)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        found.coupons = snapshot.turn().await?.coupons_of(&ids).await?;
    }
    Ok(found)
}

/// The newest issuances that belong to a page.
struct Newest {
    query: IssuanceQuery,
    after: Option<UserCursor>,
    /// Newest first; at most as many as the query asks for.
    issuances: Vec<UsedIssuance>,
}

impl Newest {
    /// The page begins after this place, and shows states of this time.
    fn new(query: IssuanceQuery, after: Option<UserCursor>, now: Timestamp) -> Self {
        Self {
            query: IssuanceQuery { now, ..query },
            after,
            issuances: Vec::new(),
        }
    }

    /// Takes the issuances of a step into account.
    fn add(&mut self, issuances: Vec<UsedIssuance>) {
        let IssuanceQuery {
            state, now, limit, ..
        } = self.query;
        let after = self.after.as_ref().map(place);
        let belongs = |used: &UsedIssuance| {
            let is_after = after.is_none_or(|after| place(&used.cursor()) < after);
            is_after && state.is_none_or(|state| used.state(now) == state)
        };
        self.issuances.extend(issuances.into_iter().filter(belongs));
        self.issuances
            .sort_unstable_by_key(|used| Reverse(place(&used.cursor())));
        self.issuances.truncate(limit as usize);
    }
}

/// Returns the place of an issuance in a user's list, of which newer ones are greater.
fn place(cursor: &UserCursor) -> (Timestamp, CouponId, Sequence) {
    (cursor.issued_at, cursor.id.coupon, cursor.id.sequence)
}

#[cfg(test)]
mod tests;
