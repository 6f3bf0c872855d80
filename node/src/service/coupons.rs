//! Creates, changes and reads coupons. Many clients read the same coupon at once, from a copy.

use std::sync::Arc;
use std::time::Duration;

use actors::coupon::client::count_change;
use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::record::ChangeRow;
use actors::coupon::uses::UseCounts;
use actors::log_limit::LogLimit;
use actors::trace::Span;

use super::copies::{Bounds, Copies};
use super::engine::{ChangeRequest, CouponView, Created, NewCoupon, Refusal, Setback};
use super::list::{ChangeCursor, Page};
use super::store_calls::{StoreCallError, write_error};
use super::{Error, Service, change_log};

/// Maximum number of coupons with a copy: more than a crowd reads within a second. A copy takes about 1 KiB,
/// so all copies take 10 MiB. If no copy is old, each request for a further coupon reads the store.
const COUPONS_MAX: usize = 10_000;

/// Maximum number of bytes of all copies of coupons: room for [`COUPONS_MAX`] with usual texts, or for 600
/// with the longest description and metadata.
const COUPONS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// About how many bytes one pair of a coupon's metadata takes in its map, besides its texts.
const PAIR_BYTES: usize = 64;

/// Maximum number of times that one request reads a coupon. It reads again if this node has issued more than
/// the quantity in the copy, which is then older than a change of the quantity.
const READS_MAX: usize = 4;

static FAILED_CREATIONS: LogLimit = LogLimit::new(5, Duration::from_secs(10), |suppressed| {
    tracing::warn!(suppressed, "failed to create further coupons");
});

/// Copies of coupons.
pub(super) struct CouponCopies {
    coupons: Copies<CouponId, Arc<CouponView>>,
}

impl std::fmt::Debug for CouponCopies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CouponCopies")
    }
}

impl Default for CouponCopies {
    fn default() -> Self {
        Self {
            coupons: Copies::new(
                "coupon",
                Bounds {
                    slots_max: COUPONS_MAX,
                    bytes_max: COUPONS_BYTES_MAX,
                    bytes_of: |view| coupon_bytes(view),
                },
            ),
        }
    }
}

/// Returns about how many bytes a coupon takes in memory.
pub(super) fn coupon_bytes(view: &CouponView) -> usize {
    let offer = &view.coupon.offer;
    let texts = [
        Some(&offer.title),
        offer.description.as_ref(),
        offer.time_zone.as_ref(),
    ];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let pairs = offer.metadata.iter();
    let pairs: usize = pairs
        .map(|(key, value)| PAIR_BYTES + key.len() + value.len())
        .sum();
    size_of::<CouponView>() + texts + pairs
}

impl CouponCopies {
    /// Makes later reads of the coupon show at least this sequence as issued.
    pub(super) fn raise_issued(&self, issuance: IssuanceId) {
        self.coupons
            .raise_issued(issuance.coupon, issuance.sequence.get());
    }

    /// Forgets a coupon that was changed.
    pub(super) fn forget(&self, coupon: CouponId) {
        self.coupons.forget(coupon);
    }
}

impl Service {
    /// Creates a coupon for this administrator. Returns the coupon, and true if an earlier request with the
    /// same key created it.
    pub(crate) async fn create_coupon(&self, new: NewCoupon, by: &str) -> Result<(CouponView, bool), Error> {
        let creating = self.store_calls.run(self.engine()?.clone().create_coupon(new));
        let created = tokio::time::timeout(self.change_deadline, creating).await;
        let created = match created.map_err(|_late| Setback::Unknown)? {
            Ok(created) => created,
            Err(StoreCallError::Full | StoreCallError::TooManyOfClient) => {
                return Err(Setback::Overloaded.into());
            }
            Err(StoreCallError::Failed(error)) => {
                if FAILED_CREATIONS.admits() {
                    tracing::warn!(%error, "failed to create a coupon");
                }
                return Err(write_error(&error));
            }
        };
        let result = match created {
            Created::New(coupon) => {
                change_log::created(by, coupon.id);
                let view = CouponView {
                    coupon,
                    issued: Sequence::NONE,
                    uses: UseCounts::default(),
                };
                (view, false)
            }
            Created::Before(view) => (view, true),
            Created::KeyReused => return Err(Error::KeyReused),
        };
        self.lists.changed(result.0.coupon.id);
        Ok(result)
    }

    /// Changes a coupon for this administrator. Returns the coupon, and true if an earlier request with the
    /// same key was executed.
    pub(crate) async fn change_coupon(
        &self,
        coupon: CouponId,
        request: ChangeRequest,
        by: &str,
        span: &Span,
    ) -> Result<(CouponView, bool), Error> {
        let engine = self.engine_or(|| count_change(&Err(Setback::StoreUnavailable)))?;
        let change = request.change.clone();
        let changed = engine.change(coupon, request, self.change_deadline, span).await;
        // The copies are dropped whatever the outcome is, because no read after the response may show an
        // older coupon.
        self.copies.forget(coupon);
        self.lists.changed(coupon);
        match &changed {
            Ok(done) if !done.replayed => {
                let version = done.view.coupon.version;
                change_log::changed(by, coupon, &change, done.from_version, version);
            }
            Err(Error::Setback(Setback::Unknown)) => change_log::unknown(by, coupon, &change),
            Ok(_) | Err(_) => {}
        }
        changed.map(|done| (done.view, done.replayed))
    }

    /// Reads a page of a coupon's changes, by version.
    pub(crate) async fn changes(
        &self,
        coupon: CouponId,
        after: Option<ChangeCursor>,
        limit: u32,
    ) -> Result<Page<ChangeRow, ChangeCursor>, Error> {
        let engine = self.engine()?.clone();
        let after = after.map_or(0, |ChangeCursor(version)| version);
        let rows = self.read(engine.changes(coupon, after, limit + 1)).await?;
        let rows = rows.ok_or(Refusal::UnknownCoupon)?;
        Ok(Page::cut(rows, limit))
    }

    /// Reads a coupon, at most [`super::copies::AGE_MAX`] old. While the copy shows no use, the answer shows at
    /// least what this node has issued, and never more than its quantity. A copy with a quantity below what is
    /// issued is older than a change that another node has answered, so it is read again. Once issuances were
    /// used, the copy is shown as it is, because all counts must be of one moment.
    pub(crate) async fn coupon(&self, id: CouponId) -> Result<CouponView, Error> {
        let engine = self.engine()?;
        let read = || {
            let reading = engine.clone().coupon(id);
            self.store_calls
                .run(async move { Ok(reading.await?.map(Arc::new)) })
        };
        let mut reads = 0;
        loop {
            let (view, issued) = self
                .await_read(self.copies.coupons.get(id, read))
                .await?
                .ok_or(Refusal::UnknownCoupon)?;
            reads += 1;
            let issued = view.issued.max(Sequence::new(issued));
            if view.uses != UseCounts::default() {
                return Ok(CouponView::clone(&view));
            }
            let total = view.coupon.offer.total_quantity;
            let seen = CouponView {
                coupon: view.coupon.clone(),
                issued,
                uses: view.uses,
            };
            if total.is_none_or(|total| seen.taken().get() <= total) {
                return Ok(seen);
            }
            self.copies.coupons.forget(id);
            if reads == READS_MAX {
                // The store read quantity and `issued` at the same moment, so they are consistent.
                return Ok(CouponView::clone(&view));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use actors::coupon::offer::{Coupon, Offer, Status};
    use actors::time;

    use super::*;

    #[test]
    fn all_texts_of_a_coupon_count() {
        let bytes = |offer: Offer| {
            coupon_bytes(&CouponView {
                coupon: Coupon {
                    id: CouponId::new(1).unwrap(),
                    offer,
                    status: Status::Open,
                    version: 1,
                    created_at: time::timestamp(),
                    updated_at: time::timestamp(),
                },
                issued: Sequence::NONE,
                uses: UseCounts::default(),
            })
        };
        let empty = bytes(Offer::titled(String::new()));
        assert_eq!(bytes(Offer::titled("four".to_owned())), empty + 4);
        let offer = Offer {
            description: Some("x".repeat(100)),
            time_zone: Some("Asia/Seoul".to_owned()),
            ..Offer::titled(String::new())
        };
        assert_eq!(bytes(offer), empty + 110);
        let pairs = [("a", "bc"), ("def", "ghij")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let offer = Offer {
            metadata: pairs.into_iter().collect(),
            ..Offer::titled(String::new())
        };
        assert_eq!(bytes(offer), empty + 2 * PAIR_BYTES + 10);
    }
}
