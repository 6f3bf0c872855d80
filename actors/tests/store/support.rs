//! A database under test, and short ways to say what is stored in it.

use std::sync::Arc;

use actors::coupon::offer::{Coupon, Discount, Issuance, Offer, Status};
use actors::ids::{CouponId, Fence, Incarnation, IssuanceId, RequestKey, Sequence, ShardId, UserId};
use actors::store::batch::{Batch, CouponChange, Entries, Found, FoundRows, Portion};
use actors::store::{Claim, Created, NewCoupon, ShardRow, Store};
use actors::time::Timestamp;
use async_trait::async_trait;

/// An empty database of one kind, of its own for each test.
#[async_trait]
pub trait Database: Send + Sync {
    /// True if this machine has what it takes; else its tests are skipped visibly.
    fn is_available() -> bool
    where
        Self: Sized,
    {
        true
    }

    /// Makes it, with the cluster's rows.
    async fn new() -> Self
    where
        Self: Sized;

    /// A store on it.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes the store and opens another on the same database.
    async fn reopen(&mut self);
}

/// The time at which everything here begins.
pub fn noon() -> Timestamp {
    Timestamp::parse("2026-11-27T12:00:00.000001Z").unwrap()
}

/// So many microseconds after noon.
pub fn after_noon(micros: i64) -> Timestamp {
    Timestamp::from_micros(noon().as_micros() + micros).unwrap()
}

pub fn key(text: &str) -> RequestKey {
    RequestKey::parse(text).unwrap()
}

pub fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

pub fn offer(total_quantity: Option<u64>, per_user_limit: u8) -> Offer {
    Offer {
        title: "Black Friday – ブラックフライデー 🎉".to_owned(),
        discount: Some(Discount::Amount(10_000)),
        min_order_amount: Some(30_000),
        total_quantity,
        per_user_limit,
        starts_at: None,
        ends_at: None,
        use_within_days: Some(30),
    }
}

pub async fn create(store: &dyn Store, offer: Offer) -> Coupon {
    let new = NewCoupon {
        key: RequestKey::random(),
        offer,
        status: Status::Open,
        created_at: noon(),
    };
    match store.create_coupon(&new).await.unwrap() {
        Created::New(coupon) => coupon,
        other => panic!("a fresh key gave {other:?}"),
    }
}

pub async fn shard_row(store: &dyn Store, shard: ShardId) -> ShardRow {
    store.shards().await.unwrap()[usize::from(shard.get())]
}

/// Takes a shard, whoever has it.
pub async fn claim(store: &dyn Store, shard: ShardId) -> Fence {
    claim_by(store, shard, Incarnation::random()).await
}

/// The same by this claimant.
pub async fn claim_by(store: &dyn Store, shard: ShardId, claimant: Incarnation) -> Fence {
    let seen = shard_row(store, shard).await;
    let rows = store.claim(&[Claim { seen, claimant }]).await.unwrap();
    assert_eq!(
        rows,
        [ShardRow {
            id: shard,
            epoch: seen.epoch.next(),
            owner: Some(claimant)
        }]
    );
    Fence {
        epoch: rows[0].epoch,
        owner: claimant,
    }
}

/// A coupon, and the right to write to it.
pub struct Owned {
    pub coupon: Coupon,
    pub fence: Fence,
}

impl Owned {
    pub async fn make(store: &dyn Store, total_quantity: Option<u64>, per_user_limit: u8) -> Self {
        let coupon = create(store, offer(total_quantity, per_user_limit)).await;
        let fence = claim(store, coupon.id.shard()).await;
        Self { coupon, fence }
    }

    pub fn id(&self) -> CouponId {
        self.coupon.id
    }

    pub fn issuance(&self, sequence: u64, user_id: &str, nth: u8) -> Issuance {
        let issued_at = after_noon(sequence as i64);
        Issuance {
            id: IssuanceId {
                coupon: self.id(),
                sequence: Sequence::new(sequence),
            },
            user: user(user_id),
            nth,
            key: key(&format!("key-{sequence}")),
            issued_at,
            expires_at: Some(issued_at.plus_days(30)),
        }
    }

    /// Issuances to these users, a first one each, from this sequence on.
    pub fn run(&self, first: u64, users: &[&str]) -> Portion {
        self.portion(
            (first..)
                .zip(users)
                .map(|(sequence, user)| self.issuance(sequence, user, 1))
                .collect(),
        )
    }

    /// Issuances to users nobody else has, of these sequences.
    pub fn strangers(&self, sequences: std::ops::RangeInclusive<u64>) -> Portion {
        self.portion(
            sequences
                .map(|sequence| self.issuance(sequence, &format!("user-{sequence}"), 1))
                .collect(),
        )
    }

    pub fn portion(&self, issuances: Vec<Issuance>) -> Portion {
        self.of(Entries::Issuances(issuances.into()))
    }

    /// The coupon's next version, changed; decided when so many were issued.
    pub fn change(&self, issued: u64, edit: impl FnOnce(&mut Coupon)) -> Portion {
        let mut coupon = self.coupon.clone();
        coupon.version += 1;
        coupon.updated_at = after_noon(77);
        edit(&mut coupon);
        self.of(Entries::Change(Arc::new(CouponChange {
            coupon,
            issued: Sequence::new(issued),
        })))
    }

    fn of(&self, entries: Entries) -> Portion {
        Portion {
            coupon: self.id(),
            shard: self.id().shard(),
            fence: self.fence,
            entries,
        }
    }
}

/// Coupons on so many different shards.
pub async fn on_different_shards(store: &dyn Store, count: usize) -> Vec<Owned> {
    let mut coupons: Vec<Owned> = Vec::new();
    while coupons.len() < count {
        let coupon = create(store, offer(None, 1)).await;
        if coupons
            .iter()
            .all(|other| other.id().shard() != coupon.id.shard())
        {
            let fence = claim(store, coupon.id.shard()).await;
            coupons.push(Owned { coupon, fence });
        }
    }
    coupons
}

pub fn batch(portions: impl Into<Vec<Portion>>) -> Batch {
    Batch {
        portions: portions.into(),
    }
}

pub fn issuances(portion: &Portion) -> Vec<Issuance> {
    match &portion.entries {
        Entries::Issuances(issuances) => issuances.to_vec(),
        Entries::Change(_) => Vec::new(),
    }
}

/// All issuances of a coupon, as an owner would load them.
pub async fn loaded(store: &dyn Store, coupon: CouponId, after: u64) -> Vec<Issuance> {
    let mut all = Vec::new();
    let found = store
        .load(coupon, Sequence::new(after), &mut |loaded| {
            all.push(Issuance {
                id: IssuanceId {
                    coupon,
                    sequence: loaded.sequence,
                },
                user: user(loaded.user),
                nth: loaded.nth,
                key: key(loaded.key),
                issued_at: loaded.issued_at,
                expires_at: loaded.expires_at,
            });
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(found.map(|coupon| coupon.id), Some(coupon));
    all
}

/// How the only portion of a batch stands.
pub async fn found(store: &dyn Store, batch: &Batch) -> (bool, FoundRows) {
    match store.read_back(batch).await.unwrap().as_slice() {
        [Found { fence_holds, rows }] => (*fence_holds, *rows),
        other => panic!("one portion, but {other:?}"),
    }
}
