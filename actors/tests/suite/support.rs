//! A database under test, and helpers that store in it and read it.

use std::sync::Arc;

use actors::coupon::CouponKind;
use actors::coupon::change_keys::ChangeKeys;
use actors::coupon::entry::{CouponChange, CouponRun};
use actors::coupon::ids::{CouponId, IssuanceId, Sequence};
use actors::coupon::issued::{InconsistentIssuance, Issued, LoadedIssuance};
use actors::coupon::ledger::LedgerRows;
use actors::coupon::offer::{Coupon, Discount, Issuance, Offer, Status, counted};
use actors::coupon::record::ChangeRecord;
use actors::coupon::rows::{CouponRows, Created, NewCoupon};
use actors::ids::{Fence, Incarnation, RequestKey, ShardId, UserId};
use actors::owning::kind::Kind;
use actors::store::batch::{self, Found, FoundRows};
use actors::store::{Claim, ClusterStore, EntryStore, Loaded, ShardRow, Store};
use actors::time::Timestamp;
use async_trait::async_trait;

/// Issuances of one coupon, or a change of it.
pub type Portion = batch::Portion<CouponKind>;

/// A store that holds coupons.
pub trait CouponStore: Store<CouponKind> + CouponRows {}

impl<T: Store<CouponKind> + CouponRows> CouponStore for T {}

/// An empty database of one kind, separate for each test.
#[async_trait]
pub trait Database: Send + Sync {
    /// The store under test.
    type Store: CouponStore;

    /// True if this machine has the database. If it does not, tests are skipped and say so.
    fn is_available() -> bool
    where
        Self: Sized,
    {
        true
    }

    /// Makes the database, with the cluster's rows.
    async fn new() -> Self
    where
        Self: Sized;

    /// Returns a store on the database.
    fn store(&self) -> Arc<Self::Store>;

    /// Closes the store and opens another store on the same database.
    async fn reopen(&mut self);
}

/// Returns the time at which these tests begin.
pub fn noon() -> Timestamp {
    Timestamp::parse("2026-11-27T12:00:00.000001Z").unwrap()
}

/// Returns the time this many microseconds after noon.
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
        discount: Some(Discount::Amount(10_000)),
        min_order_amount: Some(30_000),
        total_quantity,
        per_user_limit: Some(per_user_limit),
        use_within_days: Some(30),
        ..Offer::titled("Black Friday – ブラックフライデー 🎉")
    }
}

pub async fn create(store: &dyn CouponRows, offer: Offer) -> Coupon {
    let new = NewCoupon {
        key: RequestKey::random(),
        offer,
        status: Status::Open,
        created_at: noon(),
        record: None,
    };
    match store.create_coupon(&new).await.unwrap() {
        Created::New(coupon) => coupon,
        other => panic!("a fresh key gave {other:?}"),
    }
}

pub async fn shard_row(store: &dyn ClusterStore, shard: ShardId) -> ShardRow {
    store.shards().await.unwrap()[usize::from(shard.get())]
}

/// Claims a shard for a new claimant, whichever claimant owns it now.
pub async fn claim(store: &dyn ClusterStore, shard: ShardId) -> Fence {
    claim_by(store, shard, Incarnation::random()).await
}

/// Claims a shard for this claimant.
pub async fn claim_by(store: &dyn ClusterStore, shard: ShardId, claimant: Incarnation) -> Fence {
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
    pub async fn make(store: &dyn CouponStore, total_quantity: Option<u64>, per_user_limit: u8) -> Self {
        let coupon = create(store, offer(total_quantity, per_user_limit)).await;
        let fence = claim(store, coupon.id.shard()).await;
        Self { coupon, fence }
    }

    /// Makes a coupon of which a user may have any number.
    pub async fn unlimited(store: &dyn CouponStore) -> Self {
        let offer = Offer {
            per_user_limit: None,
            ..offer(None, 1)
        };
        let coupon = create(store, offer).await;
        let fence = claim(store, coupon.id.shard()).await;
        Self { coupon, fence }
    }

    pub fn id(&self) -> CouponId {
        self.coupon.id
    }

    pub fn issuance(&self, sequence: u64, user_id: &str, nth: u32) -> Issuance {
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

    /// Returns one issuance for each of these users, with sequences from `first` on. Each has `nth` 1.
    pub fn run(&self, first: u64, users: &[&str]) -> Portion {
        self.portion(
            (first..)
                .zip(users)
                .map(|(sequence, user)| self.issuance(sequence, user, 1))
                .collect(),
        )
    }

    /// Returns issuances with these sequences, to users that have no other issuance.
    pub fn strangers(&self, sequences: std::ops::RangeInclusive<u64>) -> Portion {
        self.portion(
            sequences
                .map(|sequence| self.issuance(sequence, &format!("user-{sequence}"), 1))
                .collect(),
        )
    }

    pub fn portion(&self, issuances: Vec<Issuance>) -> Portion {
        self.of(CouponRun::Issuances(issuances.into()))
    }

    /// Returns a change of the coupon to its next version. The change was decided when this many issuances
    /// existed.
    pub fn change(&self, issued: u64, edit: impl FnOnce(&mut Coupon)) -> Portion {
        self.keyed_change(issued, ChangeKeys::default(), edit)
    }

    /// Returns a change like [`Self::change`], with these keys.
    pub fn keyed_change(&self, issued: u64, keys: ChangeKeys, edit: impl FnOnce(&mut Coupon)) -> Portion {
        let mut coupon = self.coupon.clone();
        coupon.version += 1;
        coupon.updated_at = after_noon(77);
        edit(&mut coupon);
        self.of(CouponRun::Change(Arc::new(CouponChange {
            from_version: coupon.version - 1,
            coupon,
            issued: Sequence::new(issued),
            returned: 0,
            reserved: 0,
            keys,
            record: None,
        })))
    }

    /// Returns a change to the coupon's next version, with this record.
    pub fn recorded_change(&self, record: Option<ChangeRecord>) -> Portion {
        let mut coupon = self.coupon.clone();
        coupon.version += 1;
        coupon.updated_at = after_noon(77);
        self.of(CouponRun::Change(Arc::new(CouponChange {
            from_version: self.coupon.version,
            coupon,
            issued: Sequence::NONE,
            keys: ChangeKeys::default(),
            returned: 0,
            reserved: 0,
            record,
        })))
    }

    /// Returns the change that only adds a key.
    pub fn key_alone(&self, keys: ChangeKeys) -> Portion {
        self.of(CouponRun::Change(Arc::new(CouponChange {
            from_version: self.coupon.version,
            coupon: self.coupon.clone(),
            issued: Sequence::NONE,
            returned: 0,
            reserved: 0,
            keys,
            record: None,
        })))
    }

    fn of(&self, run: CouponRun) -> Portion {
        Portion {
            id: self.id(),
            shard: self.id().shard(),
            fence: self.fence,
            run,
        }
    }
}

pub fn batch<K: Kind>(portions: impl Into<Vec<batch::Portion<K>>>) -> batch::Batch<K> {
    batch::Batch {
        portions: portions.into(),
    }
}

pub fn issuances(portion: &Portion) -> Vec<Issuance> {
    match &portion.run {
        CouponRun::Issuances(issuances) => issuances.to_vec(),
        CouponRun::Uses(_) | CouponRun::Change(_) => Vec::new(),
    }
}

/// Returns all issuances of a coupon, as they are listed.
pub async fn listed(store: &dyn CouponRows, coupon: CouponId) -> Vec<Issuance> {
    store
        .issuances_of_coupon(coupon, None, Sequence::NONE, 1_000_000)
        .await
        .unwrap()
}

fn as_counted(issuance: &Issuance) -> Issuance {
    Issuance {
        nth: counted(issuance.nth),
        ..issuance.clone()
    }
}

/// Returns these issuances as an owner has them after loading.
pub fn issued(coupon: CouponId, rows: &[Issuance]) -> Result<Issued, InconsistentIssuance> {
    let mut issued = Issued::new(coupon);
    for row in rows {
        issued.push(&LoadedIssuance {
            sequence: row.id.sequence,
            user: row.user.as_str(),
            nth: row.nth,
            key: row.key.as_str(),
            issued_at: row.issued_at,
            expires_at: row.expires_at,
        })?;
    }
    Ok(issued)
}

/// Loads a coupon as its next owner would, after the first `ahead` issuances were loaded ahead. Checks that
/// exactly the listed issuances are loaded. Returns those that were not loaded ahead.
pub async fn loaded(store: &dyn CouponStore, coupon: CouponId, ahead: usize) -> Vec<Issuance> {
    let mut rows = listed(store, coupon).await;
    let rows_ahead = (ahead > 0).then(|| issued(coupon, &rows[..ahead]).unwrap().into());
    let Loaded::Read(head, LedgerRows { issued: all, .. }) = store.load(coupon, rows_ahead).await.unwrap()
    else {
        panic!("not loaded after {ahead}")
    };
    assert_eq!((head.coupon.id, all.coupon()), (coupon, coupon));
    assert_eq!(all.last(), Sequence::new(rows.len() as u64));
    for row in &rows {
        let known = all.answered(&row.user, &row.key);
        assert_eq!(known.as_ref().map(as_counted), Some(as_counted(row)));
    }
    rows.split_off(ahead)
}

/// Reads back a batch of one portion. Returns whether the portion's fence holds, and what is stored of its
/// rows.
pub async fn found<K: Kind>(store: &dyn EntryStore<K>, batch: &batch::Batch<K>) -> (bool, FoundRows) {
    match store.read_back(batch).await.unwrap().as_slice() {
        [Found { fence_holds, rows }] => (*fence_holds, *rows),
        other => panic!("one portion, but {other:?}"),
    }
}
