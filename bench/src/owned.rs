//! A coupon that this program itself owns, so that issuances can be stored as owners store them, but without
//! the way there: for tests and measurements of what comes after.

use std::ops::RangeInclusive;
use std::sync::Arc;

use actors::coupon::offer::{Issuance, Offer, Status};
use actors::ids::{CouponId, Fence, Incarnation, InvalidId, IssuanceId, RequestKey, Sequence, UserId};
use actors::store::batch::{Batch, Entries, Portion};
use actors::store::{Claim, Created, NewCoupon, Store, StoreError};
use actors::time::timestamp;

/// Why a database of our own does not do as it should.
#[derive(Debug, thiserror::Error)]
pub enum OwnedError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A user or a key is none.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// Something was in the way that only another program can have put there.
    #[error("the database is not this program's alone: {0}")]
    Shared(&'static str),
}

/// The user of an issuance, and the key of the request for it.
pub type Asker = Result<(UserId, RequestKey), InvalidId>;

/// A coupon without a limit of quantity, one for each user. Whoever serves it later claims its shard from an
/// owner that never lived.
#[derive(Debug, Clone, Copy)]
pub struct OwnedCoupon {
    /// Which one.
    pub id: CouponId,
    fence: Fence,
}

impl OwnedCoupon {
    /// Makes it, in a database that no node has open, and claims its shard.
    pub async fn make(store: &dyn Store) -> Result<Self, OwnedError> {
        store.check().await?;
        let offer = Offer::titled("owned");
        let new = NewCoupon {
            key: RequestKey::random(),
            offer,
            status: Status::Open,
            created_at: timestamp(),
        };
        let Created::New(coupon) = store.create_coupon(&new).await? else {
            return Err(OwnedError::Shared("a new coupon was there before"));
        };
        let shard = coupon.id.shard();
        let seen = store
            .shards()
            .await?
            .into_iter()
            .find(|row| row.id == shard)
            .ok_or(OwnedError::Shared("a shard has no row"))?;
        let claimant = Incarnation::random();
        let claimed = store.claim(&[Claim { seen, claimant }]).await?;
        let epoch = claimed
            .first()
            .ok_or(OwnedError::Shared("a shard was not claimed"))?
            .epoch;
        Ok(Self {
            id: coupon.id,
            fence: Fence {
                epoch,
                owner: claimant,
            },
        })
    }

    /// What stores these sequences, each for the user and with the key that `who` gives it: one batch.
    pub fn batch(
        &self,
        sequences: RangeInclusive<u64>,
        mut who: impl FnMut(u64) -> Asker,
    ) -> Result<Batch, OwnedError> {
        let issued_at = timestamp();
        let issuance = |sequence: u64| -> Result<Issuance, InvalidId> {
            let (user, key) = who(sequence)?;
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
        let entries = Entries::Issuances(sequences.map(issuance).collect::<Result<Arc<[Issuance]>, _>>()?);
        Ok(Batch {
            portions: vec![Portion {
                coupon: self.id,
                shard: self.id.shard(),
                fence: self.fence,
                entries,
            }],
        })
    }

    /// Stores so many issuances, by batches of `rows`.
    pub async fn fill(
        &self,
        store: &dyn Store,
        issued: u64,
        rows: usize,
        mut who: impl FnMut(u64) -> Asker,
    ) -> Result<(), OwnedError> {
        for first in (1..=issued).step_by(rows) {
            let last = issued.min(first + rows as u64 - 1);
            self.write(store, &self.batch(first..=last, &mut who)?).await?;
        }
        Ok(())
    }

    /// Stores a batch of this coupon, whole.
    pub async fn write(&self, store: &dyn Store, batch: &Batch) -> Result<(), OwnedError> {
        match store.write(batch).await? == batch.rows() as u64 {
            true => Ok(()),
            false => Err(OwnedError::Shared("rows were not stored")),
        }
    }
}
