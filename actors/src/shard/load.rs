//! Reading a coupon from the store into a ledger.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::coupon::issued::Issued;
use crate::coupon::ledger::Ledger;
use crate::ids::{CouponId, Sequence};
use crate::metrics::handles;
use crate::shard::life::Load;
use crate::store::{Store, StoreError};

/// How reading ended.
#[derive(Debug)]
pub enum Loaded {
    /// With the ledger.
    Read(Box<Ledger>),
    /// There is no such coupon.
    NoSuchCoupon,
    /// The store did not answer, or what it holds makes no sense; said in the log.
    Failed,
}

impl Loaded {
    /// The event for the shard's life, and the ledger beside it.
    pub(super) fn split(self) -> (Load, Option<Ledger>) {
        match self {
            Self::Read(ledger) => (Load::Read, Some(*ledger)),
            Self::NoSuchCoupon => (Load::NoSuchCoupon, None),
            Self::Failed => (Load::Failed, None),
        }
    }
}

/// Reads a coupon, once one of `loads` is free.
pub(super) async fn load(store: Arc<dyn Store>, loads: &Semaphore, coupon: CouponId) -> Loaded {
    let Ok(_free) = loads.acquire().await else { return Loaded::Failed };
    let begun = Instant::now();
    let mut issued = Issued::new(coupon);
    let mut take = |issuance: crate::store::LoadedIssuance<'_>| {
        issued.push(&issuance).map_err(|error| StoreError::Unreadable(format!("coupon {coupon}: {error}")))
    };
    match store.load(coupon, Sequence::NONE, &mut take).await {
        Ok(Some(row)) => {
            let seconds = begun.elapsed().as_secs_f64();
            handles().owner_activation_seconds.record(seconds);
            tracing::debug!(%coupon, issued = %issued.last(), seconds, "loaded");
            Loaded::Read(Box::new(Ledger::new(row, issued)))
        }
        Ok(None) => Loaded::NoSuchCoupon,
        Err(error) => {
            tracing::error!(%coupon, %error, "a coupon was not loaded");
            Loaded::Failed
        }
    }
}
