//! Copies of what many clients read at once, so that a crowd of readers does not slow down issuing.
//!
//! Requests for the same key at the same time share one read of the store. The result of the read is used for
//! [`AGE_MAX`]. A missing value is never cached: only requests that came before the read began get the answer
//! "not found". Before this node answers a change, it drops the copy, and later requests do not get the
//! result of a read in progress. So a request that comes after that answer never gets an older value.
//!
//! The number of copies is bounded, and so are the bytes that all of them take: for a new copy, the oldest
//! ones are evicted.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
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
    slots: Arc<Slots<K, V>>,
    slots_max: usize,
    evicted_at: AtomicU64,
    from_copy: Counter,
    from_store: Counter,
}

/// How many copies there may be, and how much memory they may take together.
pub(crate) struct Bounds<V> {
    /// Maximum number of slots.
    pub(crate) slots_max: usize,
    /// Maximum number of bytes of all copies.
    pub(crate) bytes_max: usize,
    /// Returns about how many bytes a copy takes.
    pub(crate) bytes_of: fn(&V) -> usize,
}

/// The slots by key, and what their copies take.
struct Slots<K, V> {
    by_key: RwLock<HashMap<K, Arc<Slot<V>>>>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    bytes_of: fn(&V) -> usize,
}

/// The place of one copy. A slot is forgotten by removing it from the map. If a read for this slot is still
/// in progress, later requests do not get its result.
struct Slot<V> {
    state: Mutex<State<V>>,
    issued: AtomicU64,
}

struct State<V> {
    copy: Option<KeptCopy<V>>,
    pending: Option<PendingRead<V>>,
}

/// A value that was read. Its bytes count until this is dropped.
struct KeptCopy<V> {
    value: V,
    /// When its read began.
    began: Moment,
    bytes: usize,
    all_bytes: Arc<AtomicUsize>,
}

impl<V> Drop for KeptCopy<V> {
    fn drop(&mut self) {
        self.all_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
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
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Makes an empty set of copies within these bounds. `what` is their label in metrics.
    pub(crate) fn new(what: &'static str, bounds: Bounds<V>) -> Self {
        let counter = |from: &'static str| metrics::counter!(READS, "what" => what, "from" => from);
        Self {
            slots: Arc::new(Slots {
                by_key: RwLock::default(),
                bytes: Arc::default(),
                bytes_max: bounds.bytes_max,
                bytes_of: bounds.bytes_of,
            }),
            slots_max: bounds.slots_max,
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
        self.get_if_admitted(key, || Ok(read())).await
    }

    /// Like [`Self::get`], but `read` may refuse to start a read. This fails only the request that would have
    /// started it.
    pub(crate) async fn get_if_admitted<R>(
        &self,
        key: K,
        read: impl Fn() -> Result<R, StoreCallError>,
    ) -> Result<Option<(V, u64)>, StoreCallError>
    where
        R: Future<Output = ReadResult<V>> + Send + 'static,
    {
        let now = moment();
        loop {
            let Some(slot) = self.slot(&key) else {
                // All slots hold recent copies, so this request reads for itself.
                let reading = read()?;
                self.from_store.increment(1);
                return reading.await.map(|value| value.map(|value| (value, 0)));
            };
            let looked_up = slot.lookup(now, || Ok(self.start_read(&slot, read()?)));
            let pending = match looked_up {
                Ok(Lookup::Copy(value)) => {
                    self.from_copy.increment(1);
                    return Ok(Some((value, slot.issued.load(Ordering::Relaxed))));
                }
                Ok(Lookup::Pending(pending)) => pending,
                Err(refused) => {
                    self.remove_unused(&key, &slot);
                    return Err(refused);
                }
            };
            match pending.result.await {
                Ok(Some(value)) if now.since(pending.began) <= AGE_MAX => {
                    return Ok(Some((value, slot.issued.load(Ordering::Relaxed))));
                }
                Ok(None) if pending.began >= now => {
                    self.remove_unused(&key, &slot);
                    return Ok(None);
                }
                // That read began too early for this request. The next read begins after the request.
                Ok(_) => self.remove_unused(&key, &slot),
                Err(error) => {
                    self.remove_unused(&key, &slot);
                    return Err(error);
                }
            }
        }
    }

    /// Drops the copy of this key. Later requests do not get the result of a read in progress.
    pub(crate) fn forget(&self, key: K) {
        self.slots.write().remove(&key);
    }

    /// Drops all copies. Later requests do not get the results of reads in progress.
    pub(crate) fn forget_all(&self) {
        self.slots.write().clear();
    }

    /// Makes [`Self::get`] return at least this sequence for the key from now on, if the key has a slot. If
    /// it has none, the next read of the store shows the sequence anyway.
    pub(crate) fn raise_issued(&self, key: K, issued: u64) {
        if let Some(slot) = self.slots.read().get(&key) {
            slot.issued.fetch_max(issued, Ordering::Relaxed);
        }
    }

    /// Returns the slot of this key, and creates it if there is room.
    fn slot(&self, key: &K) -> Option<Arc<Slot<V>>> {
        if let Some(slot) = self.slots.read().get(key) {
            return Some(Arc::clone(slot));
        }
        let mut slots = self.slots.write();
        if slots.len() >= self.slots_max && !slots.contains_key(key) && !self.evict(&mut slots) {
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
        Some(Arc::clone(slots.entry(key.clone()).or_insert_with(new)))
    }

    /// Evicts unused slots, unless the last eviction was less than [`EVICT_INTERVAL`] ago. Returns true if
    /// this made room.
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
    fn remove_unused(&self, key: &K, slot: &Arc<Slot<V>>) {
        let mut slots = self.slots.write();
        if slots.get(key).is_some_and(|held| Arc::ptr_eq(held, slot)) && !slot.is_used(moment()) {
            slots.remove(key);
        }
    }

    /// Starts a task that runs the read and puts its result into the slot.
    fn start_read<R>(&self, slot: &Arc<Slot<V>>, read: R) -> PendingRead<V>
    where
        R: Future<Output = ReadResult<V>> + Send + 'static,
    {
        self.from_store.increment(1);
        let (began, slot, slots) = (moment(), Arc::clone(slot), Arc::clone(&self.slots));
        let task = tokio::spawn(async move {
            let outcome = read.await;
            let copy = match &outcome {
                Ok(Some(value)) => slots.copy(value, began),
                Ok(None) | Err(_) => None,
            };
            let mut state = slot.state();
            state.pending = None;
            state.copy = copy;
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

impl<K: Clone + Eq + Hash, V: Clone> Slots<K, V> {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<K, Arc<Slot<V>>>> {
        self.by_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<K, Arc<Slot<V>>>> {
        self.by_key.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a copy of a value whose read began at this moment. Evicts the oldest copies if there is no room.
    /// `None` if there is no room even then.
    fn copy(&self, value: &V, began: Moment) -> Option<KeptCopy<V>> {
        let bytes = (self.bytes_of)(value);
        if !self.take(bytes) {
            self.evict_oldest(bytes);
            if !self.take(bytes) {
                return None;
            }
        }
        Some(KeptCopy {
            value: value.clone(),
            began,
            bytes,
            all_bytes: Arc::clone(&self.bytes),
        })
    }

    /// Counts the bytes of a copy. Returns false if they exceed the bound.
    fn take(&self, bytes: usize) -> bool {
        let added = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        let result = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
        result.is_ok()
    }

    /// Evicts the oldest copies until there is room for this many bytes. Also makes a quarter of all room, so
    /// that evictions are rare, because each visits all slots.
    fn evict_oldest(&self, bytes: usize) {
        let Some(left_max) = self.bytes_max.checked_sub(bytes) else {
            return;
        };
        let left_max = left_max.min(self.bytes_max / 4 * 3);
        let mut slots = self.write();
        let began = |slot: &Slot<V>| slot.state().copy.as_ref().map(|copy| copy.began);
        let copies = slots.iter();
        let mut copies: Vec<(Moment, K)> = copies
            .filter_map(|(key, slot)| Some((began(slot)?, key.clone())))
            .collect();
        copies.sort_by_key(|(began, _)| *began);
        for (_, key) in copies {
            if self.bytes.load(Ordering::Relaxed) <= left_max {
                return;
            }
            if let Some(slot) = slots.remove(&key) {
                // A request may still hold the slot.
                slot.state().copy = None;
            }
        }
    }
}

impl<V: Clone> Slot<V> {
    fn state(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the copy if it is recent. Otherwise returns the read in progress, or starts a read. Fails if
    /// no read may be started.
    fn lookup(
        &self,
        now: Moment,
        start_read: impl FnOnce() -> Result<PendingRead<V>, StoreCallError>,
    ) -> Result<Lookup<V>, StoreCallError> {
        let mut state = self.state();
        match &state.copy {
            Some(copy) if now.since(copy.began) <= AGE_MAX => return Ok(Lookup::Copy(copy.value.clone())),
            _ => state.copy = None,
        }
        // If a read has ended and is still in the slot, it has panicked.
        let in_progress = state
            .pending
            .take()
            .filter(|pending| pending.result.peek().is_none());
        let pending = in_progress.map_or_else(start_read, Ok)?;
        Ok(Lookup::Pending(state.pending.insert(pending).clone()))
    }

    fn is_used(&self, now: Moment) -> bool {
        let state = self.state();
        state
            .copy
            .as_ref()
            .is_some_and(|copy| now.since(copy.began) <= AGE_MAX)
            || state
                .pending
                .as_ref()
                .is_some_and(|pending| pending.result.peek().is_none())
    }
}

#[cfg(test)]
mod tests;
