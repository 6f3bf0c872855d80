//! Copies of what many clients read at once, so that a crowd of readers does not slow down issuing.
//!
//! Requests for the same key at the same time share one read of the store. The result of the read is used for
//! [`AGE_MAX`]. A missing value is never cached: only requests that came before the read began get the answer
//! "not found". Before this node answers a change, it forgets the copy and any read in progress. So a request
//! that comes after that answer never gets an older value.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use actors::store::StoreError;
use actors::time::{Moment, moment};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use metrics::Counter;

use super::store_calls::StoreCallError;
use crate::metrics::READS;

/// Maximum age of a copy, as the HTTP contract allows. The age counts from the beginning of the read that
/// made the copy.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(1);

/// Interval between evictions of old copies while all slots are taken. Evictions are rare, because each
/// visits all slots.
const EVICT_INTERVAL: Duration = Duration::from_millis(250);

/// The result of a read, shared by all requests that waited for it.
type ReadResult<V> = Result<Option<V>, StoreCallError>;

/// Copies by key, in a bounded number of slots.
pub(crate) struct Copies<K, V> {
    slots: RwLock<HashMap<K, Arc<Slot<V>>>>,
    slots_max: usize,
    evicted_at: AtomicU64,
    from_copy: Counter,
    from_store: Counter,
}

/// The place of one copy. A slot is forgotten by removing it from the map. If a read for this slot is still
/// in progress, later requests do not get its result.
struct Slot<V> {
    state: Mutex<State<V>>,
    issued: AtomicU64,
}

struct State<V> {
    copy: Option<(V, Moment)>,
    pending: Option<PendingRead<V>>,
}

/// A read in progress.
struct PendingRead<V> {
    began: Moment,
    result: Shared<BoxFuture<'static, ReadResult<V>>>,
}

impl<V> Clone for PendingRead<V> {
    fn clone(&self) -> Self {
        Self {
            began: self.began,
            result: self.result.clone(),
        }
    }
}

/// What a slot has for a request.
enum Lookup<V> {
    Copy(V),
    Pending(PendingRead<V>),
}

impl<K, V> Copies<K, V>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Makes an empty set of at most `slots_max` copies. `what` is their label in metrics.
    pub(crate) fn new(what: &'static str, slots_max: usize) -> Self {
        let counter = |from: &'static str| metrics::counter!(READS, "what" => what, "from" => from);
        Self {
            slots: RwLock::default(),
            slots_max,
            evicted_at: AtomicU64::new(0),
            from_copy: counter("copy"),
            from_store: counter("store"),
        }
    }

    /// Returns a copy that is recent enough, or the result of a read. Also returns the highest sequence that
    /// this node has issued for the key, because the copy may be older than the latest issuance.
    ///
    /// Cancel safety: a read that has begun continues for the other requests.
    pub(crate) async fn get<R>(
        &self,
        key: K,
        read: impl Fn() -> R,
    ) -> Result<Option<(V, u64)>, StoreCallError>
    where
        R: Future<Output = ReadResult<V>> + Send + 'static,
    {
        let now = moment();
        loop {
            let Some(slot) = self.slot(key) else {
                // All slots hold recent copies, so this request reads for itself.
                self.from_store.increment(1);
                return read().await.map(|value| value.map(|value| (value, 0)));
            };
            let pending = match slot.lookup(now, || self.start_read(&slot, read())) {
                Lookup::Copy(value) => {
                    self.from_copy.increment(1);
                    return Ok(Some((value, slot.issued.load(Ordering::Relaxed))));
                }
                Lookup::Pending(pending) => pending,
            };
            match pending.result.await {
                Ok(Some(value)) if now.since(pending.began) <= AGE_MAX => {
                    return Ok(Some((value, slot.issued.load(Ordering::Relaxed))));
                }
                Ok(None) if pending.began >= now => {
                    self.remove_unused(key, &slot);
                    return Ok(None);
                }
                // That read began too early for this request. The next read begins after the request.
                Ok(_) => self.remove_unused(key, &slot),
                Err(error) => {
                    self.remove_unused(key, &slot);
                    return Err(error);
                }
            }
        }
    }

    /// Drops the copy of this key, and the effect of a read in progress.
    pub(crate) fn forget(&self, key: K) {
        self.slots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }

    /// Drops all copies, and the effects of reads in progress.
    pub(crate) fn forget_all(&self) {
        self.slots.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Makes [`Self::get`] return at least this sequence for the key from now on.
    pub(crate) fn raise_issued(&self, key: K, issued: u64) {
        if let Some(slot) = self
            .slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            slot.issued.fetch_max(issued, Ordering::Relaxed);
        }
    }

    /// Returns the slot of this key, and creates it if there is room.
    fn slot(&self, key: K) -> Option<Arc<Slot<V>>> {
        if let Some(slot) = self
            .slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Some(Arc::clone(slot));
        }
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= self.slots_max && !slots.contains_key(&key) && !self.evict(&mut slots) {
            return None;
        }
        let new = || {
            Arc::new(Slot {
                state: Mutex::new(State {
                    copy: None,
                    pending: None,
                }),
                issued: AtomicU64::new(0),
            })
        };
        Some(Arc::clone(slots.entry(key).or_insert_with(new)))
    }

    /// Evicts unused slots if the last eviction is long enough ago. Returns true if this made room.
    fn evict(&self, slots: &mut HashMap<K, Arc<Slot<V>>>) -> bool {
        let now = moment();
        if now.since(Moment::from_nanos(self.evicted_at.load(Ordering::Relaxed))) < EVICT_INTERVAL {
            return false;
        }
        self.evicted_at.store(now.as_nanos(), Ordering::Relaxed);
        slots.retain(|_, slot| slot.is_used(now));
        slots.len() < self.slots_max
    }

    /// Removes a slot that holds nothing.
    fn remove_unused(&self, key: K, slot: &Arc<Slot<V>>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.get(&key).is_some_and(|held| Arc::ptr_eq(held, slot)) && !slot.is_used(moment()) {
            slots.remove(&key);
        }
    }

    /// Starts a task that runs the read and puts its result into the slot.
    fn start_read<R>(&self, slot: &Arc<Slot<V>>, read: R) -> PendingRead<V>
    where
        R: Future<Output = ReadResult<V>> + Send + 'static,
    {
        self.from_store.increment(1);
        let (began, slot) = (moment(), Arc::clone(slot));
        let task = tokio::spawn(async move {
            let outcome = read.await;
            let mut state = slot.state();
            state.pending = None;
            if let Ok(Some(value)) = &outcome {
                state.copy = Some((value.clone(), began));
            }
            drop(state);
            outcome
        });
        let result = task.map(|ended| match ended {
            Ok(outcome) => outcome,
            Err(panicked) => Err(StoreCallError::Failed(Arc::new(StoreError::Unknown(
                panicked.to_string(),
            )))),
        });
        PendingRead {
            began,
            result: result.boxed().shared(),
        }
    }
}

impl<V: Clone> Slot<V> {
    fn state(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the copy if it is recent. Otherwise returns the read in progress, or starts a read.
    fn lookup(&self, now: Moment, start_read: impl FnOnce() -> PendingRead<V>) -> Lookup<V> {
        let mut state = self.state();
        match &state.copy {
            Some((value, began)) if now.since(*began) <= AGE_MAX => return Lookup::Copy(value.clone()),
            _ => state.copy = None,
        }
        // If a read has ended and is still in the slot, it has panicked.
        let in_progress = state
            .pending
            .take()
            .filter(|pending| pending.result.peek().is_none());
        Lookup::Pending(
            state
                .pending
                .insert(in_progress.unwrap_or_else(start_read))
                .clone(),
        )
    }

    fn is_used(&self, now: Moment) -> bool {
        let state = self.state();
        state
            .copy
            .as_ref()
            .is_some_and(|(_, began)| now.since(*began) <= AGE_MAX)
            || state
                .pending
                .as_ref()
                .is_some_and(|pending| pending.result.peek().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{Semaphore, oneshot};

    /// A store that counts reads, and whose results a test can hold back.
    #[derive(Default)]
    struct Source {
        reads: AtomicU64,
        value: AtomicU64,
        gate: Option<Semaphore>,
    }

    impl Source {
        fn gated() -> Arc<Self> {
            Arc::new(Self {
                gate: Some(Semaphore::new(0)),
                value: AtomicU64::new(1),
                ..Self::default()
            })
        }

        fn open() -> Arc<Self> {
            Arc::new(Self {
                value: AtomicU64::new(1),
                ..Self::default()
            })
        }

        /// Reads the value as it is when the read begins. 0 stands for a missing value.
        fn read(self: &Arc<Self>) -> BoxFuture<'static, ReadResult<u64>> {
            let source = Arc::clone(self);
            async move {
                source.reads.fetch_add(1, Ordering::SeqCst);
                let value = source.value.load(Ordering::SeqCst);
                if let Some(gate) = &source.gate {
                    gate.acquire().await.unwrap().forget();
                }
                Ok(Some(value).filter(|value| *value != 0))
            }
            .boxed()
        }

        fn reads(&self) -> u64 {
            self.reads.load(Ordering::SeqCst)
        }

        fn release(&self, reads: usize) {
            self.gate.as_ref().unwrap().add_permits(reads);
        }
    }

    fn copies(slots_max: usize) -> Arc<Copies<u32, u64>> {
        Arc::new(Copies::new("test", slots_max))
    }

    type Response = oneshot::Receiver<Result<Option<(u64, u64)>, StoreCallError>>;

    /// Starts a task that sends a request. Returns once the request waits.
    async fn request(copies: &Arc<Copies<u32, u64>>, source: &Arc<Source>) -> Response {
        let (sender, response) = oneshot::channel();
        let (copies, source) = (Arc::clone(copies), Arc::clone(source));
        tokio::spawn(async move { sender.send(copies.get(7, || source.read()).await) });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        response
    }

    async fn value(response: Response) -> Option<u64> {
        let result = tokio::time::timeout(10 * AGE_MAX, response)
            .await
            .expect("a response in time");
        result.unwrap().unwrap().map(|(value, _)| value)
    }

    #[tokio::test]
    async fn simultaneous_requests_share_one_read() {
        let (copies, source) = (copies(10), Source::gated());
        let mut responses = Vec::new();
        for _ in 0..1_000 {
            responses.push(request(&copies, &source).await);
        }
        source.release(1);
        for response in responses {
            assert_eq!(value(response).await, Some(1));
        }
        assert_eq!(source.reads(), 1);
        assert_eq!(copies.get(7, || source.read()).await.unwrap().unwrap().0, 1);
        assert_eq!(source.reads(), 1, "the copy is recent");
    }

    #[tokio::test]
    async fn a_read_that_began_before_a_change_makes_no_copy() {
        let (copies, source) = (copies(10), Source::gated());
        let before = request(&copies, &source).await;
        source.value.store(2, Ordering::SeqCst);
        copies.forget(7);
        // The old read ends only now; no later request gets its result.
        source.release(1);
        assert_eq!(value(before).await, Some(1));
        let after = request(&copies, &source).await;
        source.release(1);
        assert_eq!(value(after).await, Some(2));
        assert_eq!(source.reads(), 2);
    }

    #[tokio::test]
    async fn only_requests_before_a_read_are_answered_not_found() {
        let (copies, source) = (copies(10), Source::gated());
        source.value.store(0, Ordering::SeqCst);
        let before = request(&copies, &source).await;
        // The value is created while that read is in progress, and a request that comes now must find the
        // value.
        source.value.store(1, Ordering::SeqCst);
        let after = request(&copies, &source).await;
        source.release(1);
        assert_eq!(value(before).await, None);
        source.release(1);
        assert_eq!(value(after).await, Some(1));
        assert_eq!(source.reads(), 2);
    }

    #[tokio::test]
    async fn a_request_ignores_a_read_that_began_too_long_before_the_request() {
        let (copies, source) = (copies(10), Source::gated());
        let began = moment();
        let before = request(&copies, &source).await;
        source.value.store(2, Ordering::SeqCst);
        while moment().since(began) <= AGE_MAX + Duration::from_millis(100) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let after = request(&copies, &source).await;
        assert_eq!(source.reads(), 1, "the request waits for the read in progress");
        source.release(1);
        assert_eq!(value(before).await, Some(1));
        source.release(1);
        assert_eq!(value(after).await, Some(2));
    }

    #[tokio::test]
    async fn a_failed_or_panicked_read_takes_no_slot_and_is_repeated() {
        async fn panics() -> ReadResult<u64> {
            panic!("on purpose")
        }
        let (copies, source) = (copies(1), Source::open());
        assert!(matches!(
            copies.get(7, || async { Err(StoreCallError::Full) }).await,
            Err(StoreCallError::Full)
        ));
        assert!(copies.slots.read().unwrap().is_empty());
        assert!(matches!(
            copies.get(7, panics).await,
            Err(StoreCallError::Failed(_))
        ));
        assert!(copies.slots.read().unwrap().is_empty());
        assert_eq!(copies.get(7, || source.read()).await.unwrap().unwrap().0, 1);
    }

    #[tokio::test]
    async fn a_missing_value_takes_no_slot() {
        let (copies, source) = (copies(1), Source::open());
        source.value.store(0, Ordering::SeqCst);
        for key in 0..100 {
            assert!(copies.get(key, || source.read()).await.unwrap().is_none());
        }
        assert!(copies.slots.read().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_number_of_slots_is_bounded() {
        let (copies, source) = (copies(3), Source::open());
        for key in 0..100 {
            assert_eq!(copies.get(key, || source.read()).await.unwrap().unwrap().0, 1);
            assert!(copies.slots.read().unwrap().len() <= 3);
        }
    }

    #[tokio::test]
    async fn an_old_copy_is_read_again() {
        let (copies, source) = (copies(10), Source::open());
        copies.get(7, || source.read()).await.unwrap();
        let made = moment();
        source.value.store(2, Ordering::SeqCst);
        let changed = loop {
            let seen = copies.get(7, || source.read()).await.unwrap().unwrap().0;
            let age = moment().since(made);
            assert!(age <= AGE_MAX * 20, "the copy is never read again");
            if seen == 2 {
                break age;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(
            changed >= AGE_MAX - Duration::from_millis(100),
            "{changed:?}: there was no copy"
        );
        assert_eq!(source.reads(), 2);
    }

    #[tokio::test]
    async fn every_copy_shows_what_this_node_has_issued() {
        let (copies, source) = (copies(10), Source::open());
        copies.raise_issued(7, 5);
        assert_eq!(
            copies.get(7, || source.read()).await.unwrap().unwrap().1,
            0,
            "without a slot, only the store has the sequence"
        );
        copies.raise_issued(7, 5);
        copies.raise_issued(7, 4);
        assert_eq!(copies.get(7, || source.read()).await.unwrap().unwrap().1, 5);
    }
}
