//! A kind under test, with what the contract needs to store entries of it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use actors::coupon::CouponKind;
use actors::coupon::entry::CouponRun;
use actors::coupon::ids::CouponId;
use actors::coupon::ledger::LedgerRows;
use actors::ids::{Fence, RequestKey};
use actors::owning::kind::Kind;
use actors::store::batch::Portion;
use actors::store::{ClusterStore, Loaded, Store};
use async_trait::async_trait;

use crate::support::{CouponStore, Database, Owned, after_noon, batch, claim, user};

/// The loaded entries of a subject: the `Rows` of its kind.
pub type Rows<S, T> = <<T as Subject<S>>::Kind as Kind>::Rows;

/// Something in a store `S` that has an owner, together with the right to write to it.
///
/// To run another kind through the contract, implement this trait for a thing of that kind, and name the type
/// in `kind_contract!`.
#[async_trait]
pub trait Subject<S>: Sized + Send + Sync {
    /// The kind of the subject.
    type Kind: Kind;

    /// Makes a new subject that takes at most this many entries, and claims its shard.
    async fn make(store: &S, entries_max: Option<u64>) -> Self;

    /// Returns the subject's id.
    fn id(&self) -> <Self::Kind as Kind>::Id;

    /// Returns the right to write to the subject.
    fn fence(&self) -> Fence;

    /// Replaces the right to write to the subject.
    fn set_fence(&mut self, fence: Fence);

    /// Returns the subject's entries at these positions, which begin with 1. Every call returns the same
    /// entries.
    fn run(&self, positions: RangeInclusive<u64>) -> <Self::Kind as Kind>::Run;

    /// Returns runs, each of which clashes with the entries at the positions 1 to 3.
    fn clashing(&self) -> Vec<<Self::Kind as Kind>::Run>;

    /// Returns runs that each differ from the entries at the positions 1 and 2. The difference is in one
    /// field of the second entry.
    fn differing(&self) -> Vec<<Self::Kind as Kind>::Run>;

    /// Returns how many entries were loaded.
    fn entries(rows: &Rows<S, Self>) -> u64;

    /// Returns a portion of this run.
    fn portion_of(&self, run: <Self::Kind as Kind>::Run) -> Portion<Self::Kind> {
        Portion {
            id: self.id(),
            shard: Self::Kind::shard(self.id()),
            fence: self.fence(),
            run,
        }
    }

    /// Returns a portion of the subject's entries at these positions.
    fn at(&self, positions: RangeInclusive<u64>) -> Portion<Self::Kind> {
        self.portion_of(self.run(positions))
    }
}

#[async_trait]
impl<S: CouponStore> Subject<S> for Owned {
    type Kind = CouponKind;

    async fn make(store: &S, entries_max: Option<u64>) -> Self {
        Self::make(store, entries_max, 2).await
    }

    fn id(&self) -> CouponId {
        self.coupon.id
    }

    fn fence(&self) -> Fence {
        self.fence
    }

    fn set_fence(&mut self, fence: Fence) {
        self.fence = fence;
    }

    fn run(&self, positions: RangeInclusive<u64>) -> CouponRun {
        self.strangers(positions).run
    }

    fn clashing(&self) -> Vec<CouponRun> {
        // The first run repeats a sequence that is stored already, the second run the `nth` of a user.
        [self.run(3, &["dan", "eve"]), self.run(4, &["dan", "user-2"])]
            .map(|portion| portion.run)
            .into()
    }

    fn differing(&self) -> Vec<CouponRun> {
        let rows = [self.issuance(1, "user-1", 1), self.issuance(2, "user-2", 1)];
        let mut others = vec![rows; 5];
        others[0][1].user = user("another");
        others[1][1].nth = 2;
        others[2][1].key = RequestKey::random();
        others[3][1].issued_at = after_noon(3);
        others[4][1].expires_at = None;
        others
            .into_iter()
            .map(|rows| CouponRun::Issuances(rows.into()))
            .collect()
    }

    fn entries(rows: &LedgerRows) -> u64 {
        rows.issued.last().get()
    }
}

/// Makes a subject that takes at most `entries_max` entries, and stores its first entries. Returns the
/// database's store and the subject.
pub async fn with_entries<D, T>(database: &D, entries_max: Option<u64>, stored: u64) -> (Arc<D::Store>, T)
where
    D: Database<Store: Store<T::Kind>>,
    T: Subject<D::Store>,
{
    let store = database.store();
    let subject = T::make(&store, entries_max).await;
    if stored > 0 {
        assert_eq!(write(&*store, &subject, 1..=stored).await, stored);
    }
    (store, subject)
}

/// Stores the subject's entries at these positions, in one batch. Returns the number of stored rows.
pub async fn write<S, T>(store: &S, subject: &T, positions: RangeInclusive<u64>) -> u64
where
    S: Store<T::Kind>,
    T: Subject<S>,
{
    store.write(&batch([subject.at(positions)])).await.unwrap()
}

/// Loads a subject: whole, or, given rows that were loaded ahead, only what follows them. Returns all its
/// rows.
pub async fn load<S, T>(store: &S, subject: &T, ahead: Option<Rows<S, T>>) -> Rows<S, T>
where
    S: Store<T::Kind>,
    T: Subject<S>,
{
    match store.load(subject.id(), ahead).await.unwrap() {
        Loaded::Read(_, rows) => rows,
        other => panic!("{other:?}"),
    }
}

/// Loads a subject whole. Returns the number of its entries.
pub async fn loaded<S, T>(store: &S, subject: &T) -> u64
where
    S: Store<T::Kind>,
    T: Subject<S>,
{
    T::entries(&load(store, subject, None).await)
}

/// Makes this many subjects on different shards.
pub async fn on_different_shards<S: Sync, T: Subject<S>>(store: &S, count: usize) -> Vec<T> {
    let mut made: Vec<T> = Vec::new();
    while made.len() < count {
        let next = T::make(store, None).await;
        let shard = T::Kind::shard(next.id());
        // A claim changes the fence of the whole shard.
        match made.iter_mut().find(|other| T::Kind::shard(other.id()) == shard) {
            Some(other) => other.set_fence(next.fence()),
            None => made.push(next),
        }
    }
    made
}

/// Claims the shard of this subject, as another node would.
pub async fn take_over<S: ClusterStore, T: Subject<S>>(store: &S, subject: &T) -> Fence {
    claim(store, T::Kind::shard(subject.id())).await
}
