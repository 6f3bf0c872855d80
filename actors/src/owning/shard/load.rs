//! Reading a coupon from the store into a ledger: whole, or its issuances ahead and the rest when its shard
//! is ours.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::coupon::issued::{Issued, OutOfLine};
use crate::coupon::ledger::Ledger;
use crate::coupon::offer::Coupon;
use crate::coupon::tail::Tail;
use crate::ids::{CouponId, Sequence};
use crate::metrics::handles;
use crate::owning::admission::{Admission, Permit};
use crate::owning::shard::lifecycle::Load;
use crate::store::{LoadedIssuance, Result, Store, StoreError};

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

/// Issuances that were read under no fence; see [`Tail`].
#[derive(Debug)]
pub struct Ahead {
    issued: Issued,
    place: Permit,
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
pub(super) async fn load(
    store: Arc<dyn Store>,
    loads: &Semaphore,
    places: &Admission,
    coupon: CouponId,
) -> Loaded {
    let Ok(_free) = loads.acquire().await else {
        return Loaded::Failed;
    };
    let Ok(place) = places.admit() else {
        return Loaded::NoPlace;
    };
    let begun = Instant::now();
    let read = whole(store.as_ref(), coupon).await;
    ended(coupon, read, place, begun)
}

/// Reads a coupon's issuances ahead of its shard, once one of `loads` is free. `None` where that does not
/// work: it is read whole when it is asked for.
pub(super) async fn preload(
    store: Arc<dyn Store>,
    loads: &Semaphore,
    places: &Admission,
    coupon: CouponId,
) -> Option<Ahead> {
    let _free = loads.acquire().await.ok()?;
    let place = places.admit().ok()?;
    match whole(store.as_ref(), coupon).await {
        Ok(read) => read.map(|(_, issued)| Ahead { issued, place }),
        Err(error) => {
            tracing::warn!(%coupon, %error, "a coupon was not loaded ahead");
            None
        }
    }
}

/// Reads the coupon itself, and the issuances that are missing to those read ahead. Only once the fence is
/// committed.
pub(super) async fn load_tail(
    store: Arc<dyn Store>,
    loads: &Semaphore,
    coupon: CouponId,
    ahead: Ahead,
) -> Loaded {
    let Ok(_free) = loads.acquire().await else {
        return Loaded::Failed;
    };
    let (begun, Ahead { issued, place }) = (Instant::now(), ahead);
    let mut tail = Tail::of(issued);
    let found = store
        .load(coupon, tail.after(), &mut |issuance| {
            tail.take(&issuance).map_err(|error| unreadable(coupon, &error))
        })
        .await;
    let read = match (found, tail.complete()) {
        (Ok(Some(row)), Some(issued)) => Ok(Some((row, issued))),
        (Ok(Some(_)), None) => {
            tracing::error!(%coupon, "the database went back behind what was read ahead; reading the coupon whole");
            whole(store.as_ref(), coupon).await
        }
        (Ok(None), _) => Ok(None),
        (Err(error), _) => Err(error),
    };
    ended(coupon, read, place, begun)
}

async fn whole(store: &dyn Store, coupon: CouponId) -> Result<Option<(Coupon, Issued)>> {
    let mut issued = Issued::new(coupon);
    let mut take =
        |issuance: LoadedIssuance<'_>| issued.push(&issuance).map_err(|error| unreadable(coupon, &error));
    let found = store.load(coupon, Sequence::NONE, &mut take).await?;
    Ok(found.map(|row| (row, issued)))
}

fn unreadable(coupon: CouponId, error: &OutOfLine) -> StoreError {
    StoreError::Unreadable(format!("coupon {coupon}: {error}"))
}

fn ended(coupon: CouponId, read: Result<Option<(Coupon, Issued)>>, place: Permit, begun: Instant) -> Loaded {
    match read {
        Ok(Some((row, issued))) => {
            let seconds = begun.elapsed().as_secs_f64();
            handles().owner_activation_seconds.record(seconds);
            tracing::debug!(%coupon, issued = %issued.last(), seconds, "loaded");
            Loaded::Read(Readied {
                ledger: Box::new(Ledger::new(row, issued)),
                place,
            })
        }
        Ok(None) => Loaded::NoSuchCoupon,
        Err(error) => {
            tracing::error!(%coupon, %error, "a coupon was not loaded");
            Loaded::Failed
        }
    }
}
