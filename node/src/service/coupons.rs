//! Creates, changes and reads coupons. Single coupons and the first page of each list are read from copies;
//! later pages are read for each request.

use std::sync::Arc;
use std::time::Duration;

use actors::coupon::offer::Phase;
use actors::ids::{CouponId, IssuanceId, Sequence};
use actors::log_limit::LogLimit;
use actors::time::{self, Timestamp};

use super::copies::Copies;
use super::engine::{
    ChangeRequest, CouponEngine, CouponView, Created, NewCoupon, Refusal, Setback, StoreResult,
};
use super::list::{LIMIT_MAX, Page};
use super::store_calls::{StoreCallError, write_error};
use super::{Error, Service};

/// Maximum number of coupons with a copy: more than a crowd reads within a second. With the longest title, a
/// copy takes about 1 KiB, so all copies take 10 MiB. Each request for a further coupon reads the store.
const COUPONS_MAX: usize = 10_000;

/// One list for each phase, and one for all coupons.
const LISTS_MAX: usize = Phase::ALL.len() + 1;

/// Maximum number of coupons that one request examines in search of a phase. The page then has the coupons
/// that were found so far, perhaps none, and its cursor continues the search.
const EXAMINED_MAX: u32 = 2_000;

/// Number of coupons that one statement of a search reads. It is large enough for a page if most coupons are
/// in the phase, and small enough that no statement takes long.
const SEARCH_STEP: u32 = 500;

static FAILED_CREATIONS: LogLimit = LogLimit::new(5, Duration::from_secs(10), |suppressed| {
    tracing::warn!(suppressed, "failed to create further coupons");
});

/// Copies of coupons and of lists.
pub(super) struct CouponCopies {
    coupons: Copies<CouponId, Arc<CouponView>>,
    lists: Copies<Option<Phase>, Arc<CouponList>>,
}

impl std::fmt::Debug for CouponCopies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CouponCopies")
    }
}

impl Default for CouponCopies {
    fn default() -> Self {
        Self {
            coupons: Copies::new("coupon", COUPONS_MAX),
            lists: Copies::new("list", LISTS_MAX),
        }
    }
}

impl CouponCopies {
    /// Makes later reads of the coupon show at least this sequence as issued.
    pub(super) fn raise_issued(&self, issuance: IssuanceId) {
        self.coupons
            .raise_issued(issuance.coupon, issuance.sequence.get());
    }

    /// Forgets a coupon that was changed, and all lists.
    fn forget(&self, coupon: CouponId) {
        self.coupons.forget(coupon);
        self.lists.forget_all();
    }
}

impl Service {
    /// Creates a coupon. Returns the coupon, and true if an earlier request with the same key created it.
    pub(crate) async fn create_coupon(&self, new: NewCoupon) -> Result<(CouponView, bool), Error> {
        let creating = self.store_calls.run(self.engine()?.clone().create_coupon(new));
        let created = tokio::time::timeout(self.change_deadline, creating).await;
        let created = match created.map_err(|_late| Setback::Unknown)? {
            Ok(created) => created,
            Err(StoreCallError::Full) => return Err(Setback::Overloaded.into()),
            Err(StoreCallError::Failed(error)) => {
                if FAILED_CREATIONS.admits() {
                    tracing::warn!(%error, "failed to create a coupon");
                }
                return Err(write_error(&error));
            }
        };
        let result = match created {
            Created::New(coupon) => (
                CouponView {
                    coupon,
                    issued: Sequence::NONE,
                },
                false,
            ),
            Created::Before(view) => (view, true),
            Created::KeyReused => return Err(Error::KeyReused),
        };
        self.copies.lists.forget_all();
        Ok(result)
    }

    /// Changes a coupon. Returns the coupon, and true if an earlier request with the same key was executed.
    pub(crate) async fn change_coupon(
        &self,
        coupon: CouponId,
        request: ChangeRequest,
    ) -> Result<(CouponView, bool), Error> {
        let changed = self.engine()?.change(coupon, request, self.change_deadline).await;
        // This is done whatever the outcome, because no read after the response may show an older coupon.
        self.copies.forget(coupon);
        changed
    }

    /// Reads a coupon, at most [`super::copies::AGE_MAX`] old.
    pub(crate) async fn coupon(&self, id: CouponId) -> Result<CouponView, Error> {
        let engine = self.engine()?;
        let read = || {
            let reading = engine.clone().coupon(id);
            self.store_calls
                .run(async move { Ok(reading.await?.map(Arc::new)) })
        };
        let (view, issued) = self
            .await_read(self.copies.coupons.get(id, read))
            .await?
            .ok_or(Refusal::UnknownCoupon)?;
        Ok(CouponView {
            coupon: view.coupon.clone(),
            issued: view.issued.max(Sequence::new(issued)),
        })
    }

    /// Reads coupons of a phase, or of all phases: the newest coupons, or the coupons before `before`.
    pub(crate) async fn coupons(
        &self,
        phase: Option<Phase>,
        before: Option<CouponId>,
        limit: u32,
    ) -> Result<Arc<CouponList>, Error> {
        let engine = self.engine()?;
        if before.is_some() {
            let engine = engine.clone();
            return self
                .read(async move { search(&engine, phase, before, limit).await })
                .await
                .map(Arc::new);
        }
        // This reads the longest page, so that requests with any limit share it.
        let read = || {
            let engine = engine.clone();
            self.store_calls.run(async move {
                let list = search(&engine, phase, None, LIMIT_MAX).await?;
                Ok(Some(Arc::new(list)))
            })
        };
        let list = self.await_read(self.copies.lists.get(phase, read)).await?;
        // A list always exists, even if it is empty.
        list.map(|(list, _)| list)
            .ok_or(Error::Internal { applied: Some(false) })
    }
}

/// The result of a search.
pub(crate) struct CouponList {
    /// One row more than requested, if there are so many.
    rows: Vec<CouponView>,
    /// The last coupon examined, if the search ended at [`EXAMINED_MAX`].
    examined_up_to: Option<CouponId>,
    /// The moment at which the phases in this list were true.
    now: Timestamp,
}

impl CouponList {
    /// Returns a page with the first `limit` rows.
    pub(crate) fn page(&self, limit: u32) -> Page<&CouponView> {
        let rows = &self.rows[..self.rows.len().min(limit as usize)];
        let last = rows.last().filter(|_| self.rows.len() > rows.len());
        let next = last.map(|view| view.coupon.id).or(self.examined_up_to);
        Page::new(rows.iter().collect(), next)
    }

    /// Returns the moment at which the phases in this list were true.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }
}

/// Reads coupons until one more than `limit` is found, all are read, or [`EXAMINED_MAX`] are examined. The
/// database cannot search for a phase, because a phase depends on the clock and on what is issued. So this
/// function determines the phase of each coupon.
async fn search(
    engine: &CouponEngine,
    phase: Option<Phase>,
    mut before: Option<CouponId>,
    limit: u32,
) -> StoreResult<CouponList> {
    let now = time::timestamp();
    let wanted = limit as usize + 1;
    let (mut rows, mut examined) = (Vec::new(), 0);
    loop {
        let step = if phase.is_none() { limit + 1 } else { SEARCH_STEP };
        let read = engine.coupons(before, step).await?;
        let is_end = read.len() < step as usize;
        before = read.last().map(|view| view.coupon.id);
        examined += step;
        rows.extend(
            read.into_iter()
                .filter(|view| phase.is_none_or(|phase| view.coupon.phase(now, view.issued) == phase)),
        );
        if rows.len() >= wanted || is_end || examined >= EXAMINED_MAX {
            let examined_up_to = before.filter(|_| rows.len() < wanted && !is_end);
            rows.truncate(wanted);
            return Ok(CouponList {
                rows,
                examined_up_to,
                now,
            });
        }
    }
}
