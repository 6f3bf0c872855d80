//! A coupon with issuances that this program stores itself, in batches like an owner's but without a node.
//! Measurements use it to find out what many stored issuances cost.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::coupon::CouponKind;
use actors::coupon::entry::CouponRun;
use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::offer::{Issuance, Offer, Status};
use actors::coupon::rows::{CouponRows, Created, NewCoupon};
use actors::ids::{Fence, Incarnation, InvalidId, RequestKey, UserId};
use actors::store::batch::{Batch, Portion};
use actors::store::{Claim, ClusterStore, EntryStore, StoreError};
use actors::time::timestamp;

/// The reason why a coupon could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum PrefillError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A text is not a user id or a request key.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// Another program uses the database.
    #[error("another program uses the database: {0}")]
    Shared(&'static str),
}

/// The user of an issuance, and the key of the request for it.
pub type Requester = Result<(UserId, RequestKey), InvalidId>;

/// A coupon without a total quantity, with a limit of one per user. If a node serves the coupon later, it
/// claims the shard from an incarnation that never ran.
#[derive(Debug, Clone, Copy)]
pub struct PrefilledCoupon {
    /// The id.
    pub id: CouponId,
    fence: Fence,
}

impl PrefilledCoupon {
    /// Makes the coupon in a database that no node has open, and claims its shard.
    pub async fn make(store: &(impl ClusterStore + CouponRows)) -> Result<Self, PrefillError> {
        store.check().await?;
        let offer = Offer::titled("prefilled");
        let new = NewCoupon {
            key: RequestKey::random(),
            offer,
            status: Status::Open,
            created_at: timestamp(),
            record: None,
        };
        let Created::New(coupon) = store.create_coupon(&new).await? else {
            return Err(PrefillError::Shared("a new coupon existed before"));
        };
        let shard = coupon.id.shard();
        let seen = store
            .shards()
            .await?
            .into_iter()
            .find(|row| row.id == shard)
            .ok_or(PrefillError::Shared("a shard has no row"))?;
        let claimant = Incarnation::random();
        let claimed = store.claim(&[Claim { seen, claimant }]).await?;
        let epoch = claimed
            .first()
            .ok_or(PrefillError::Shared("a shard was not claimed"))?
            .epoch;
        Ok(Self {
            id: coupon.id,
            fence: Fence {
                epoch,
                owner: claimant,
            },
        })
    }

    /// Returns one batch that stores these sequences, each with the user and the key that `requester`
    /// returns.
    pub fn batch(
        &self,
        sequences: RangeInclusive<u64>,
        mut requester: impl FnMut(u64) -> Requester,
    ) -> Result<Batch<CouponKind>, PrefillError> {
        let issued_at = timestamp();
        let issuance = |sequence: u64| -> Result<Issuance, InvalidId> {
            let (user, key) = requester(sequence)?;
            let id = IssuanceId {
                coupon: self.id,
                sequence: Sequence::new(sequence),
            };
            Ok(Issuance {
                id,
                user,
                nth: 1,
                key,
                issued_at,
                expires_at: None,
            })
        };
        let run = CouponRun::Issuances(sequences.map(issuance).collect::<Result<Arc<[Issuance]>, _>>()?);
        Ok(Batch {
            portions: vec![Portion {
                id: self.id,
                shard: self.id.shard(),
                fence: self.fence,
                run,
            }],
        })
    }

    /// Stores the first `issued` issuances in batches of `rows`.
    pub async fn fill(
        &self,
        store: &dyn EntryStore<CouponKind>,
        issued: u64,
        rows: usize,
        mut requester: impl FnMut(u64) -> Requester,
    ) -> Result<(), PrefillError> {
        for first in (1..=issued).step_by(rows) {
            let last = issued.min(first + rows as u64 - 1);
            self.write(store, &self.batch(first..=last, &mut requester)?)
                .await?;
        }
        Ok(())
    }

    /// Stores issuances from the first one on, in batches of `rows`, until `is_over` is true of the number of
    /// batches. Returns how long each batch took to store. Making its text from the issuances counts, making
    /// the issuances does not.
    pub async fn timed(
        &self,
        store: &dyn EntryStore<CouponKind>,
        rows: u64,
        mut is_over: impl FnMut(u64) -> bool,
        mut requester: impl FnMut(u64) -> Requester,
    ) -> Result<Vec<Duration>, PrefillError> {
        let mut times = Vec::new();
        while !is_over(times.len() as u64) {
            let first = times.len() as u64 * rows + 1;
            let batch = self.batch(first..=first + rows - 1, &mut requester)?;
            let begun = Instant::now();
            self.write(store, &batch).await?;
            times.push(begun.elapsed());
        }
        Ok(times)
    }

    /// Stores a batch of this coupon. It is an error if a row was not stored.
    pub async fn write(
        &self,
        store: &dyn EntryStore<CouponKind>,
        batch: &Batch<CouponKind>,
    ) -> Result<(), PrefillError> {
        match store.write(batch).await? == batch.rows() as u64 {
            true => Ok(()),
            false => Err(PrefillError::Shared("rows were not stored")),
        }
    }
}
