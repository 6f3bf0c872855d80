//! A store that passes each call on to a real one, and fails where a test says so.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::coupon::CouponKind;
use actors::coupon::ids::CouponId;
use actors::coupon::ledger::LedgerRows;
use actors::ids::{Fence, Incarnation, NodeId, ShardId};
use actors::store::batch::{Batch, Found};
use actors::store::sqlite::SqliteStore;
use actors::store::{
    Claim, ClusterStore, EntryStore, HandOff, Loaded, NodeRow, NodeState, Result, ShardRow, StoreError,
};
use async_trait::async_trait;
use tokio::sync::watch;

/// How a write fails.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    NotStored,
    LostBeforeCommit,
    LostAfterCommit,
}

/// The failures and delays that a test asks for.
#[derive(Default)]
pub struct Faults {
    next_writes: Mutex<VecDeque<Fault>>,
    writes: AtomicUsize,
    no_writes: AtomicBool,
    no_beats: AtomicBool,
    shared: AtomicBool,
    writes_held: watch::Sender<bool>,
    writes_waiting: AtomicUsize,
    claims_held: watch::Sender<bool>,
    claims_waiting: AtomicUsize,
    claim_delay: Mutex<Duration>,
    moves: AtomicUsize,
    move_delay: Mutex<Duration>,
    beat_delay: Mutex<Duration>,
    rows_held: watch::Sender<bool>,
    rows_waiting: AtomicUsize,
    loads: AtomicUsize,
    loads_held: watch::Sender<bool>,
    unreadable: Mutex<Option<CouponId>>,
}

impl Faults {
    pub fn next_writes(&self, faults: impl IntoIterator<Item = Fault>) {
        self.next_writes.lock().unwrap().extend(faults);
    }

    pub fn are_used_up(&self) -> bool {
        self.next_writes.lock().unwrap().is_empty()
    }

    pub fn refuse_writes(&self, refuse: bool) {
        self.no_writes.store(refuse, Ordering::SeqCst);
    }

    pub fn refuse_beats(&self, refuse: bool) {
        self.no_beats.store(refuse, Ordering::SeqCst);
    }

    /// Returns how many writes of a batch were tried, including those that failed.
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    /// While `hold` is true, writes wait before they reach the store.
    pub fn hold_writes(&self, hold: bool) {
        self.writes_held.send_replace(hold);
    }

    /// Returns how many writes have been held so far.
    pub fn writes_waiting(&self) -> usize {
        self.writes_waiting.load(Ordering::SeqCst)
    }

    /// While `hold` is true, claims wait before they reach the store.
    pub fn hold_claims(&self, hold: bool) {
        self.claims_held.send_replace(hold);
    }

    /// Returns how many claims have been held so far.
    pub fn claims_waiting(&self) -> usize {
        self.claims_waiting.load(Ordering::SeqCst)
    }

    /// Delays the answer to a claim by this time for each of its shards.
    pub fn delay_claims(&self, each: Duration) {
        *self.claim_delay.lock().unwrap() = each;
    }

    /// Delays the answers to hand-offs and releases by this time.
    pub fn delay_moves(&self, delay: Duration) {
        *self.move_delay.lock().unwrap() = delay;
    }

    /// Returns how many calls handed shards off or released them.
    pub fn moves(&self) -> usize {
        self.moves.load(Ordering::SeqCst)
    }

    async fn pass_move(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
        let delay = *self.move_delay.lock().unwrap();
        tokio::time::sleep(delay).await;
    }

    /// Delays the answers to beats by this time.
    pub fn delay_beats(&self, delay: Duration) {
        *self.beat_delay.lock().unwrap() = delay;
    }

    /// While `hold` is true, reads of the nodes' and the shards' rows do not return their results.
    pub fn hold_rows(&self, hold: bool) {
        self.rows_held.send_replace(hold);
    }

    /// Returns how many reads of rows have been held so far.
    pub fn rows_waiting(&self) -> usize {
        self.rows_waiting.load(Ordering::SeqCst)
    }

    async fn pass_rows(&self) {
        if *self.rows_held.borrow() {
            self.rows_waiting.fetch_add(1, Ordering::SeqCst);
            self.rows_held.subscribe().wait_for(|held| !held).await.unwrap();
        }
    }

    /// From now on, answers all writes and reads of this coupon as if its rows were unreadable. `None` makes
    /// every coupon readable again.
    pub fn spoil(&self, coupon: Option<CouponId>) {
        *self.unreadable.lock().unwrap() = coupon;
    }

    fn spoils(&self, batch: &Batch<CouponKind>) -> bool {
        let unreadable = *self.unreadable.lock().unwrap();
        batch
            .portions
            .iter()
            .any(|portion| Some(portion.id) == unreadable)
    }

    /// While `hold` is true, loads of coupons wait before they reach the store.
    pub fn hold_loads(&self, hold: bool) {
        self.loads_held.send_replace(hold);
    }

    /// From now on, the store reports that other nodes may use it too.
    pub fn share(&self) {
        self.shared.store(true, Ordering::SeqCst);
    }

    /// Returns how many times a coupon was loaded for its owner.
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

pub struct Faulty {
    store: Arc<SqliteStore>,
    faults: Arc<Faults>,
}

impl Faulty {
    pub fn new(store: Arc<SqliteStore>, faults: Arc<Faults>) -> Self {
        Self { store, faults }
    }
}

fn refused<T>() -> Result<T> {
    Err(StoreError::NotStored("refused by the test".to_owned()))
}

fn unreadable<T>() -> Result<T> {
    Err(StoreError::Unreadable("made unreadable by the test".to_owned()))
}

#[async_trait]
impl ClusterStore for Faulty {
    fn is_exclusive(&self) -> bool {
        self.store.is_exclusive() && !self.faults.shared.load(Ordering::SeqCst)
    }

    async fn check(&self) -> Result<()> {
        self.store.check().await
    }

    async fn join(&self, node: &NodeRow, replaces: Option<Incarnation>) -> Result<bool> {
        self.store.join(node, replaces).await
    }

    async fn beat(
        &self,
        id: &NodeId,
        incarnation: Incarnation,
        state: NodeState,
        links: &[Incarnation],
    ) -> Result<Option<u64>> {
        if self.faults.no_beats.load(Ordering::SeqCst) {
            return refused();
        }
        let counted = self.store.beat(id, incarnation, state, links).await;
        let delay = *self.faults.beat_delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        counted
    }

    async fn end(&self, by: Incarnation, dead: &NodeRow) -> Result<bool> {
        self.store.end(by, dead).await
    }

    async fn sweep_nodes(&self) -> Result<usize> {
        self.store.sweep_nodes().await
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>> {
        let nodes = self.store.nodes().await;
        self.faults.pass_rows().await;
        nodes
    }

    async fn shards(&self) -> Result<Vec<ShardRow>> {
        let shards = self.store.shards().await;
        self.faults.pass_rows().await;
        shards
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Vec<ShardRow>> {
        if *self.faults.claims_held.borrow() {
            self.faults.claims_waiting.fetch_add(1, Ordering::SeqCst);
            self.faults
                .claims_held
                .subscribe()
                .wait_for(|held| !held)
                .await
                .unwrap();
        }
        let claimed = self.store.claim(claims).await;
        let each = *self.faults.claim_delay.lock().unwrap();
        tokio::time::sleep(each * u32::try_from(claims.len()).unwrap()).await;
        claimed
    }

    async fn hand_off(&self, hand_offs: &[HandOff]) -> Result<Vec<ShardRow>> {
        let given = self.store.hand_off(hand_offs).await;
        self.faults.pass_move().await;
        given
    }

    async fn release(&self, shards: &[(ShardId, Fence)]) -> Result<()> {
        let released = self.store.release(shards).await;
        self.faults.pass_move().await;
        released
    }
}

#[async_trait]
impl EntryStore<CouponKind> for Faulty {
    async fn write(&self, batch: &Batch<CouponKind>) -> Result<u64> {
        self.faults.writes.fetch_add(1, Ordering::SeqCst);
        if self.faults.no_writes.load(Ordering::SeqCst) {
            return refused();
        }
        if *self.faults.writes_held.borrow() {
            self.faults.writes_waiting.fetch_add(1, Ordering::SeqCst);
        }
        self.faults
            .writes_held
            .subscribe()
            .wait_for(|held| !held)
            .await
            .unwrap();
        if self.faults.spoils(batch) {
            return unreadable();
        }
        let fault = self.faults.next_writes.lock().unwrap().pop_front();
        match fault {
            None => self.store.write(batch).await,
            Some(Fault::NotStored) => refused(),
            Some(Fault::LostBeforeCommit) => Err(StoreError::Unknown("cut off before the commit".to_owned())),
            Some(Fault::LostAfterCommit) => {
                drop(self.store.write(batch).await);
                Err(StoreError::Unknown("cut off after the commit".to_owned()))
            }
        }
    }

    async fn read_back(&self, batch: &Batch<CouponKind>) -> Result<Vec<Found>> {
        if self.faults.spoils(batch) {
            unreadable()
        } else {
            self.store.read_back(batch).await
        }
    }

    async fn load(&self, coupon: CouponId, ahead: Option<LedgerRows>) -> Result<Loaded<CouponKind>> {
        self.faults.loads.fetch_add(1, Ordering::SeqCst);
        self.faults
            .loads_held
            .subscribe()
            .wait_for(|held| !held)
            .await
            .unwrap();
        if *self.faults.unreadable.lock().unwrap() == Some(coupon) {
            return unreadable();
        }
        self.store.load(coupon, ahead).await
    }
}
