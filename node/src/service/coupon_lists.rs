//! Lists of coupons. A list is searched step by step, newest first, until its page is full or the list ends.
//!
//! A search may examine all coupons, so searches must not hold up other reads. They take turns, one short
//! step at a time, in snapshots that they share (`search_snapshots`), so that a page is of one moment.
//! Requests for the same list share one search, and its result is used for a second. The number of searches
//! in progress is bounded for each client and for the node. A search that finds nothing in the time of a
//! request fails, and the next request for the same list goes on where it ended (`search_progress`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::admission::{Admission, Permit};
use actors::coupon::ids::CouponId;
use actors::time::{self, Timestamp};
use metrics::Counter;

use super::client_searches::{ClientSearch, ClientSearches};
use super::copies::{Bounds, Copies};
use super::coupons::coupon_bytes;
use super::engine::{CouponEngine, CouponFilter, CouponPage, CouponQuery, CouponView, StoreResult};
use super::list::{LIMIT_MAX, PAGE_BYTES_MAX, Page};
use super::search_progress::SearchProgress;
use super::search_snapshots::{SearchSnapshot, SearchSnapshots, too_long};
use super::store_calls::StoreCallError;
use super::{Error, Service};
use crate::metrics::LISTS_REFUSED;

/// Maximum number of lists with a copy.
const LISTS_MAX: usize = 64;

/// Maximum number of bytes of all copies. With the longest titles, a copy takes about 250 KiB, and all copies
/// about 16 MiB. A list of coupons with long descriptions and metadata ends at [`PAGE_BYTES_MAX`].
const LISTS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Maximum number of searches in progress. A step takes some milliseconds, so each search gets at least one
/// turn within the deadline of a request. Further searches are refused at once.
const SEARCHES_MAX: usize = 256;

/// Number of coupons that one step examines: few enough that no step takes longer than some milliseconds.
const STEP: u32 = 4_000;

/// Number of changed coupons that are read again in one turn: no more than a few mebibytes with the longest
/// texts.
const READ_AGAIN: usize = 64;

/// A search that takes longer ends with the coupons found so far, if there are any. This time is shorter than
/// the deadline of a request, so that they reach the client.
pub(super) const SEARCH_TIME_MAX: Duration = Duration::from_secs(1);

/// A search that has found nothing within this time ends with an error, and a retry goes on. This time is
/// shorter than the usual deadline of a request, after which no client waits for the result.
pub(super) const FRUITLESS_TIME_MAX: Duration = Duration::from_secs(2);

/// Searches in progress, and copies of lists.
pub(super) struct CouponLists {
    copies: Copies<ListKey, Arc<CouponList>>,
    progress: Arc<SearchProgress>,
    searches: Admission,
    clients: ClientSearches,
    snapshots: Arc<SearchSnapshots>,
    refused_client: Counter,
    refused_full: Counter,
}

/// The filter of a list, and the coupon before which its page begins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ListKey {
    pub(super) filter: CouponFilter,
    pub(super) before: Option<CouponId>,
}

/// The places that a search takes while it is in progress.
pub(super) struct Places {
    /// `None` for a list without a filter, which ends after one step.
    _search: Option<Permit>,
    _client: ClientSearch,
}

impl std::fmt::Debug for CouponLists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CouponLists")
    }
}

impl CouponLists {
    /// Allows each client this many searches at the same time.
    pub(super) fn new(client_searches_max: usize) -> Self {
        let refused = |reason: &'static str| metrics::counter!(LISTS_REFUSED, "reason" => reason);
        Self {
            copies: Copies::new(
                "list",
                Bounds {
                    slots_max: LISTS_MAX,
                    bytes_max: LISTS_BYTES_MAX,
                    bytes_of: |list| list.bytes(),
                },
            ),
            progress: Arc::default(),
            searches: Admission::new(SEARCHES_MAX),
            clients: ClientSearches::new(client_searches_max),
            snapshots: Arc::default(),
            refused_client: refused("client"),
            refused_full: refused("full"),
        }
    }

    /// Drops all copies, because this coupon was created or changed.
    pub(super) fn changed(&self, coupon: CouponId) {
        self.progress.changed(coupon);
        self.copies.forget_all();
    }

    /// Returns the snapshots of searches.
    pub(super) fn snapshots(&self) -> Arc<SearchSnapshots> {
        Arc::clone(&self.snapshots)
    }

    /// Admits a list, which is a search unless it ends after one step.
    pub(super) fn admit(&self, client: IpAddr, is_search: bool) -> Result<Places, StoreCallError> {
        let client = self.clients.begin(client).ok_or_else(|| {
            self.refused_client.increment(1);
            StoreCallError::TooManyOfClient
        })?;
        let search = is_search.then(|| self.searches.admit()).transpose();
        let search = search.map_err(|_full| {
            self.refused_full.increment(1);
            StoreCallError::Full
        })?;
        Ok(Places {
            _search: search,
            _client: client,
        })
    }
}

impl Service {
    /// Reads a list of coupons, at most [`super::copies::AGE_MAX`] old: the newest coupons that the filter
    /// admits, or those before `before`.
    pub(crate) async fn coupons(
        &self,
        client: IpAddr,
        filter: CouponFilter,
        before: Option<CouponId>,
    ) -> Result<Arc<CouponList>, Error> {
        let engine = self.engine()?;
        let key = ListKey { filter, before };
        // This reads the longest page, so that requests with any limit share it.
        let search = || {
            let places = self.lists.admit(client, !key.filter.is_empty())?;
            let search = Search {
                engine: engine.clone(),
                key: key.clone(),
                snapshots: self.lists.snapshots(),
                progress: Arc::clone(&self.lists.progress),
            };
            Ok(self.store_calls.run(async move {
                let _places = places;
                search.run().await.map(|list| Some(Arc::new(list)))
            }))
        };
        let list = self
            .await_read(self.lists.copies.get_if_admitted(key.clone(), search))
            .await?;
        // A list always exists, even if it is empty.
        list.map(|(list, _)| list)
            .ok_or(Error::Internal { applied: Some(false) })
    }
}

/// The result of a search.
pub(crate) struct CouponList {
    /// One row more than the longest page has, if there are so many and they fit into [`PAGE_BYTES_MAX`].
    rows: Vec<CouponView>,
    /// Where the search ended, if the rows do not fill the longest page and there may be more.
    ended_at: Option<CouponId>,
    /// The time for which the phases in this list were computed.
    now: Timestamp,
}

impl CouponList {
    /// Returns a page with the first `limit` rows.
    pub(crate) fn page(&self, limit: u32) -> Page<&CouponView> {
        let rows = &self.rows[..self.rows.len().min(limit as usize)];
        let last = rows.last().filter(|_| self.rows.len() > rows.len());
        let next = last.map(|view| view.coupon.id).or(self.ended_at);
        Page::new(rows.iter().collect(), next)
    }

    /// Returns the time for which the phases in this list were computed.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns about how many bytes the list takes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.rows.iter().map(coupon_bytes).sum::<usize>()
    }
}

/// Drops the coupons that do not fit into so many bytes, but not the first one. Returns the last coupon that
/// is left if others were dropped: the list goes on after it.
fn cut(rows: &mut Vec<CouponView>, bytes_max: usize) -> Option<CouponId> {
    let mut bytes = 0;
    let fits = rows.iter().take_while(|view| {
        bytes += coupon_bytes(view);
        bytes <= bytes_max
    });
    let count = fits.count().max(1);
    if count >= rows.len() {
        return None;
    }
    rows.truncate(count);
    // The rest of the memory would be kept as long as the list.
    rows.shrink_to_fit();
    rows.last().map(|view| view.coupon.id)
}

/// Number of coupons that a search looks for: one more than the longest page has.
const WANTED: usize = LIMIT_MAX as usize + 1;

/// A search in progress.
struct Search {
    engine: CouponEngine,
    key: ListKey,
    snapshots: Arc<SearchSnapshots>,
    progress: Arc<SearchProgress>,
}

impl Search {
    /// Searches until [`WANTED`] coupons or as many as fit on a page are found, the list ends, or the search
    /// has taken too long.
    async fn run(self) -> StoreResult<CouponList> {
        let began = Instant::now();
        let is_search = !self.key.filter.is_empty();
        let progress = is_search.then(|| self.progress.begin(&self.key, time::moment()));
        let (progress, skip) = progress.unzip();
        let mut skip = skip.flatten();
        // The snapshot begins after the progress was read, so it shows every change that the progress does
        // not know.
        let snapshot = match is_search {
            true => Some(self.snapshots.join(&self.engine).await?),
            false => None,
        };
        let now = snapshot
            .as_deref()
            .map_or_else(time::timestamp, SearchSnapshot::now);
        let mut rows = Vec::new();
        let mut query = CouponQuery {
            filter: self.key.filter.clone(),
            now,
            before: self.key.before,
            limit: 0,
            examine: STEP,
        };
        loop {
            // This is at most `WANTED`, which fits into 32 bits.
            query.limit = (WANTED - rows.len()) as u32;
            let page = self.step(snapshot.as_deref(), &query).await?;
            rows.extend(page.coupons);
            query.before = page.next;
            if let Some(next) = page.next {
                if let Some(progress) = progress.filter(|_| rows.is_empty()) {
                    self.progress.advance(&self.key, progress, next, time::moment());
                }
                if let Some((down_to, changed)) = skip.as_ref().and_then(|skip| skip.after(next)) {
                    skip = None;
                    if let Some(snapshot) = &snapshot {
                        rows.extend(self.admitted(snapshot, changed).await?);
                    }
                    rows.truncate(WANTED);
                    query.before = Some(down_to);
                }
            }
            let cut_after = cut(&mut rows, PAGE_BYTES_MAX);
            query.before = cut_after.or(query.before);
            let (is_full, took) = (rows.len() >= WANTED, began.elapsed());
            if rows.is_empty() && page.next.is_some() && took >= FRUITLESS_TIME_MAX {
                return Err(too_long());
            }
            let is_late = took >= SEARCH_TIME_MAX && !rows.is_empty();
            if is_full || cut_after.is_some() || is_late || page.next.is_none() {
                // A client that waited so long may be gone, and retry.
                if took < SEARCH_TIME_MAX {
                    self.progress.end(&self.key);
                } else {
                    self.progress.found(&self.key);
                }
                return Ok(CouponList {
                    ended_at: query.before.filter(|_| !is_full),
                    rows,
                    now,
                });
            }
        }
    }

    /// Takes one step, in the snapshot if there is one.
    async fn step(&self, snapshot: Option<&SearchSnapshot>, query: &CouponQuery) -> StoreResult<CouponPage> {
        match snapshot {
            Some(snapshot) => snapshot.turn().await?.coupons(query).await,
            None => self.engine.coupons(query).await,
        }
    }

    /// Returns those of these coupons that the filter admits, in the same order.
    async fn admitted(
        &self,
        snapshot: &SearchSnapshot,
        coupons: Vec<CouponId>,
    ) -> StoreResult<Vec<CouponView>> {
        let mut admitted = Vec::new();
        for some in coupons.chunks(READ_AGAIN) {
            let mut views = snapshot.turn().await?.coupons_of(some).await?;
            let views = some.iter().filter_map(|coupon| views.remove(coupon));
            admitted.extend(views.filter(|view| self.key.filter.admits(view, snapshot.now())));
        }
        Ok(admitted)
    }
}

#[cfg(test)]
mod tests {
    use actors::coupon::ids::Sequence;
    use actors::coupon::offer::{Coupon, Offer, Status};
    use actors::coupon::uses::UseCounts;

    use super::*;

    /// Returns coupons with ids from this one down, each with a title of this length.
    fn views(newest: u64, titles: &[usize]) -> Vec<CouponView> {
        let view = |(id, bytes): (u64, &usize)| CouponView {
            coupon: Coupon {
                id: CouponId::new(id).unwrap(),
                offer: Offer::titled("x".repeat(*bytes)),
                status: Status::Open,
                version: 1,
                created_at: time::timestamp(),
                updated_at: time::timestamp(),
            },
            issued: Sequence::NONE,
            uses: UseCounts::default(),
        };
        (1..=newest).rev().zip(titles).map(view).collect()
    }

    #[test]
    fn a_list_ends_with_the_last_coupon_that_fits_and_has_at_least_one() {
        let bytes_max = 2 * size_of::<CouponView>() + 100;
        for (titles, left, next) in [
            (&[50, 50, 1][..], 2, Some(8)),
            (&[50, 51], 1, Some(9)),
            (&[50, 50], 2, None),
            (&[5_000, 1], 1, Some(9)),
            (&[5_000], 1, None),
            (&[], 0, None),
        ] {
            let mut rows = views(9, titles);
            let cut = cut(&mut rows, bytes_max).map(CouponId::get);
            assert_eq!((rows.len(), cut), (left, next), "{titles:?}");
            assert!(cut.is_none() || rows.capacity() == left, "{titles:?}");
        }
        let rows = views(9, &[50, 50]);
        let list = CouponList {
            rows,
            ended_at: None,
            now: time::timestamp(),
        };
        assert_eq!(list.bytes(), size_of::<CouponList>() + bytes_max);
    }

    #[test]
    fn searches_leave_room_for_lists_without_a_filter() {
        let lists = CouponLists::new(1);
        let client = |number: usize| IpAddr::from([10, 0, (number / 256) as u8, (number % 256) as u8]);
        let places: Vec<_> = (0..SEARCHES_MAX)
            .map(|number| lists.admit(client(number), true).ok())
            .collect();
        assert!(places.iter().all(Option::is_some));
        let next = client(SEARCHES_MAX);
        assert!(matches!(lists.admit(next, true), Err(StoreCallError::Full)));
        assert!(lists.admit(next, false).is_ok());
    }
}
