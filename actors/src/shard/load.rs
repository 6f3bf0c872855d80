//! Reading a coupon from the store into a ledger.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::admission::{Admission, Permit};
use crate::coupon::issued::Issued;
use crate::coupon::ledger::Ledger;
use crate::ids::{CouponId, Sequence};
use crate::metrics::handles;
use crate::shard::life::Load;
use crate::store::{Store, StoreError};

/// How reading ended.
#[derive(Debug)]
pub enum Loaded {
    /// With what an owner is made of.
    Read(Readied),
    /// There is no such coupon.
    NoSuchCoupon,
    /// The store did not answer, or what it holds makes no sense; said in the log.
    Failed,
    /// The node has as many owners as it takes.
    NoPlace,
}

/// What an owner is made of.
#[derive(Debug)]
pub struct Readied {
    /// The coupon and its issuances.
    pub ledger: Box<Ledger>,
    /// A place among the owners of the node.
    pub place: Permit,
}

impl Loaded {
    /// The event for the shard's life, and beside it what was read.
    pub(super) fn split(self) -> (Load, Option<Readied>) {
        match self {
            Self::Read(readied) => (Load::Read, Some(readied)),
            Self::NoSuchCoupon => (Load::NoSuchCoupon, None),
            Self::Failed => (Load::Failed, None),
            Self::NoPlace => (Load::NoPlace, None),
        }
    }
}

/// Reads a coupon, once one of `loads` is free, if the node has a place for one more owner.
pub(super) async fn load(store: Arc<dyn Store>, loads: &Semaphore, places: &Admission, coupon: CouponId) -> Loaded {
    let Ok(_free) = loads.acquire().await else { return Loaded::Failed };
    let Ok(place) = places.admit() else { return Loaded::NoPlace };
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
            Loaded::Read(Readied { ledger: Box::new(Ledger::new(row, issued)), place })
        }
        Ok(None) => Loaded::NoSuchCoupon,
        Err(error) => {
            tracing::error!(%coupon, %error, "a coupon was not loaded");
            Loaded::Failed
        }
    }
}
