//! Copies of what many read at once, so that a crowd that looks does not disturb the crowd that takes.
//!
//! What is asked for a thousand times at the same moment is read once, and what was read serves for
//! [`AGE_MAX`]. That something does not exist is never remembered: only those are told so who asked before
//! that read began. A change that this node answers makes it forget its copy first, and a read that began
//! before the change is forgotten with it, so nobody who asks after the answer sees anything older.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use actors::metrics::READS;
use actors::store::StoreError;
use actors::time::{Moment, moment};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use metrics::Counter;

use crate::api::NotDone;

/// How old a copy may be: what the contract allows. It counts from before its read began.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(1);

/// How often old copies are looked for once there are as many as there may be: each time costs a walk over
/// all of them.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// What a read came to. Shared by all who waited for it.
type Outcome<V> = Result<Option<V>, NotDone>;

/// Copies by key.
pub(crate) struct Copies<K, V> {
    slots: RwLock<HashMap<K, Arc<Slot<V>>>>,
    most: usize,
    swept_at: AtomicU64,
    from_copy: Counter,
    from_store: Counter,
}

/// The place of one copy. Forgotten, it leaves the map; whatever is still being read for it goes nowhere.
struct Slot<V> {
    state: Mutex<State<V>>,
    issued: AtomicU64,
}

struct State<V> {
    copy: Option<(V, Moment)>,
    flight: Option<Flight<V>>,
}

/// A read under way.
struct Flight<V> {
    began: Moment,
    landing: Shared<BoxFuture<'static, Outcome<V>>>,
}

impl<V> Clone for Flight<V> {
    fn clone(&self) -> Self {
        Self {
            began: self.began,
            landing: self.landing.clone(),
        }
    }
}

/// What was found for somebody who asked.
#[derive(Debug)]
pub(crate) struct Seen<V> {
    /// The copy.
    pub(crate) value: V,
    /// The highest sequence that this node is known to have answered for it; the copy may be older.
    pub(crate) issued: u64,
}

enum Look<V> {
    Found(V),
    Wait(Flight<V>),
}

impl<K, V> Copies<K, V>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// No copies yet, and never more than `most`. `what` is their name in the metrics.
    pub(crate) fn new(what: &'static str, most: usize) -> Self {
        let counter = |from: &'static str| metrics::counter!(READS, "what" => what, "from" => from);
        Self {
            slots: RwLock::default(),
            most,
            swept_at: AtomicU64::new(0),
            from_copy: counter("copy"),
            from_store: counter("store"),
        }
    }

    /// A copy that is young enough, or what a read gives.
    ///
    /// Cancel safety: a read that was begun goes on for the others.
    pub(crate) async fn get<R>(&self, key: K, read: impl Fn() -> R) -> Result<Option<Seen<V>>, NotDone>
    where
        R: Future<Output = Outcome<V>> + Send + 'static,
    {
        let asked = moment();
        loop {
            let Some(slot) = self.slot(key) else {
                // As many as there may be, all of them young: this one is read as if there were no copies.
                self.from_store.increment(1);
                return read()
                    .await
                    .map(|value| value.map(|value| Seen { value, issued: 0 }));
            };
            let flight = match slot.look(asked, || self.depart(&slot, read())) {
                Look::Found(value) => {
                    self.from_copy.increment(1);
                    return Ok(Some(Seen {
                        value,
                        issued: slot.issued.load(Ordering::Relaxed),
                    }));
                }
                Look::Wait(flight) => flight,
            };
            match flight.landing.await {
                Ok(Some(value)) if asked.since(flight.began) <= AGE_MAX => {
                    return Ok(Some(Seen {
                        value,
                        issued: slot.issued.load(Ordering::Relaxed),
                    }));
                }
                Ok(None) if flight.began >= asked => {
                    self.drop_empty(key, &slot);
                    return Ok(None);
                }
                // What began too long before we asked is read again; that read begins after it.
                Ok(_) => self.drop_empty(key, &slot),
                Err(error) => {
                    self.drop_empty(key, &slot);
                    return Err(error);
                }
            }
        }
    }

    /// From now on nobody is shown what was read, or is being read, for this key.
    pub(crate) fn forget(&self, key: K) {
        self.slots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }

    /// The same for all keys.
    pub(crate) fn forget_all(&self) {
        self.slots.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// This node answered that so many are issued: a copy that is shown from now on says no less.
    pub(crate) fn raise(&self, key: K, issued: u64) {
        if let Some(slot) = self
            .slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            slot.issued.fetch_max(issued, Ordering::Relaxed);
        }
    }

    /// The slot of this key, made if there is room for one.
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
        if slots.len() >= self.most && !slots.contains_key(&key) && !self.sweep(&mut slots) {
            return None;
        }
        let new = || {
            Arc::new(Slot {
                state: Mutex::new(State {
                    copy: None,
                    flight: None,
                }),
                issued: AtomicU64::new(0),
            })
        };
        Some(Arc::clone(slots.entry(key).or_insert_with(new)))
    }

    /// Makes room, if it is time to look for it. False if there is none.
    fn sweep(&self, slots: &mut HashMap<K, Arc<Slot<V>>>) -> bool {
        let now = moment();
        if now.since(Moment::from_nanos(self.swept_at.load(Ordering::Relaxed))) < SWEEP_EVERY {
            return false;
        }
        self.swept_at.store(now.as_nanos(), Ordering::Relaxed);
        slots.retain(|_, slot| slot.is_of_use(now));
        slots.len() < self.most
    }

    /// A slot that holds nothing takes no place.
    fn drop_empty(&self, key: K, slot: &Arc<Slot<V>>) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots.get(&key).is_some_and(|held| Arc::ptr_eq(held, slot)) && !slot.is_of_use(moment()) {
            slots.remove(&key);
        }
    }

    /// Begins a read, in a task of its own, which puts what it finds into the slot.
    fn depart<R>(&self, slot: &Arc<Slot<V>>, read: R) -> Flight<V>
    where
        R: Future<Output = Outcome<V>> + Send + 'static,
    {
        self.from_store.increment(1);
        let (began, slot) = (moment(), Arc::clone(slot));
        let task = tokio::spawn(async move {
            let outcome = read.await;
            let mut state = slot.state();
            state.flight = None;
            if let Ok(Some(value)) = &outcome {
                state.copy = Some((value.clone(), began));
            }
            drop(state);
            outcome
        });
        let landing = task.map(|ended| match ended {
            Ok(outcome) => outcome,
            Err(panicked) => Err(NotDone::Failed(Arc::new(StoreError::Unknown(
                panicked.to_string(),
            )))),
        });
        Flight {
            began,
            landing: landing.boxed().shared(),
        }
    }
}

impl<V: Clone> Slot<V> {
    fn state(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy, the read that is under way, or a new one.
    fn look(&self, asked: Moment, depart: impl FnOnce() -> Flight<V>) -> Look<V> {
        let mut state = self.state();
        match &state.copy {
            Some((value, began)) if asked.since(*began) <= AGE_MAX => return Look::Found(value.clone()),
            _ => state.copy = None,
        }
        // One that ended without landing in its slot panicked.
        let under_way = state
            .flight
            .take()
            .filter(|flight| flight.landing.peek().is_none());
        Look::Wait(state.flight.insert(under_way.unwrap_or_else(depart)).clone())
    }

    fn is_of_use(&self, now: Moment) -> bool {
        let state = self.state();
        state
            .copy
            .as_ref()
            .is_some_and(|(_, began)| now.since(*began) <= AGE_MAX)
            || state
                .flight
                .as_ref()
                .is_some_and(|flight| flight.landing.peek().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{Semaphore, oneshot};

    /// A store that holds back its answers and counts reads.
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

        /// The value as it is when the read begins; 0 is none.
        fn read(self: &Arc<Self>) -> BoxFuture<'static, Outcome<u64>> {
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

        fn let_through(&self, reads: usize) {
            self.gate.as_ref().unwrap().add_permits(reads);
        }
    }

    fn copies(most: usize) -> Arc<Copies<u32, u64>> {
        Arc::new(Copies::new("test", most))
    }

    type Asked = oneshot::Receiver<Result<Option<Seen<u64>>, NotDone>>;

    /// Asks in a task of its own, and returns once it waits.
    async fn ask(copies: &Arc<Copies<u32, u64>>, source: &Arc<Source>) -> Asked {
        let (answer, asked) = oneshot::channel();
        let (copies, source) = (Arc::clone(copies), Arc::clone(source));
        tokio::spawn(async move { answer.send(copies.get(7, || source.read()).await) });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        asked
    }

    async fn value(asked: Asked) -> Option<u64> {
        let answer = tokio::time::timeout(10 * AGE_MAX, asked)
            .await
            .expect("it is answered");
        answer.unwrap().unwrap().map(|seen| seen.value)
    }

    #[tokio::test]
    async fn a_thousand_who_ask_at_once_make_one_read() {
        let (copies, source) = (copies(10), Source::gated());
        let mut asked = Vec::new();
        for _ in 0..1_000 {
            asked.push(ask(&copies, &source).await);
        }
        source.let_through(1);
        for asked in asked {
            assert_eq!(value(asked).await, Some(1));
        }
        assert_eq!(source.reads(), 1);
        assert_eq!(copies.get(7, || source.read()).await.unwrap().unwrap().value, 1);
        assert_eq!(source.reads(), 1, "the copy is young");
    }

    #[tokio::test]
    async fn a_read_begun_before_a_change_puts_no_old_copy_in_after_it() {
        let (copies, source) = (copies(10), Source::gated());
        let before = ask(&copies, &source).await;
        source.value.store(2, Ordering::SeqCst);
        copies.forget(7);
        // The old read ends only now, and nobody who asks from here on sees it.
        source.let_through(1);
        assert_eq!(value(before).await, Some(1));
        let after = ask(&copies, &source).await;
        source.let_through(1);
        assert_eq!(value(after).await, Some(2));
        assert_eq!(source.reads(), 2);
    }

    #[tokio::test]
    async fn that_something_does_not_exist_is_told_only_to_those_who_asked_before_the_read() {
        let (copies, source) = (copies(10), Source::gated());
        source.value.store(0, Ordering::SeqCst);
        let before = ask(&copies, &source).await;
        // It is made while that read is under way, and whoever asks now must find it.
        source.value.store(1, Ordering::SeqCst);
        let after = ask(&copies, &source).await;
        source.let_through(1);
        assert_eq!(value(before).await, None);
        source.let_through(1);
        assert_eq!(value(after).await, Some(1));
        assert_eq!(source.reads(), 2);
    }

    #[tokio::test]
    async fn who_asks_when_a_read_has_taken_too_long_is_not_told_what_it_finds() {
        let (copies, source) = (copies(10), Source::gated());
        let begun = moment();
        let before = ask(&copies, &source).await;
        source.value.store(2, Ordering::SeqCst);
        while moment().since(begun) <= AGE_MAX + Duration::from_millis(100) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let after = ask(&copies, &source).await;
        assert_eq!(source.reads(), 1, "it waits for the read that is under way");
        source.let_through(1);
        assert_eq!(value(before).await, Some(1));
        source.let_through(1);
        assert_eq!(value(after).await, Some(2));
    }

    #[tokio::test]
    async fn a_read_that_fails_or_panics_takes_no_place_and_is_made_again() {
        async fn panics() -> Outcome<u64> {
            panic!("on purpose")
        }
        let (copies, source) = (copies(1), Source::open());
        assert!(matches!(
            copies.get(7, || async { Err(NotDone::NoPlace) }).await,
            Err(NotDone::NoPlace)
        ));
        assert!(copies.slots.read().unwrap().is_empty());
        assert!(matches!(copies.get(7, panics).await, Err(NotDone::Failed(_))));
        assert!(copies.slots.read().unwrap().is_empty());
        assert_eq!(copies.get(7, || source.read()).await.unwrap().unwrap().value, 1);
    }

    #[tokio::test]
    async fn what_does_not_exist_takes_no_place() {
        let (copies, source) = (copies(1), Source::open());
        source.value.store(0, Ordering::SeqCst);
        for key in 0..100 {
            assert!(copies.get(key, || source.read()).await.unwrap().is_none());
        }
        assert!(copies.slots.read().unwrap().is_empty());
    }

    #[tokio::test]
    async fn there_are_never_more_than_there_may_be() {
        let (copies, source) = (copies(3), Source::open());
        for key in 0..100 {
            assert_eq!(copies.get(key, || source.read()).await.unwrap().unwrap().value, 1);
            assert!(copies.slots.read().unwrap().len() <= 3);
        }
    }

    #[tokio::test]
    async fn an_old_copy_is_read_anew() {
        let (copies, source) = (copies(10), Source::open());
        copies.get(7, || source.read()).await.unwrap();
        let made = moment();
        source.value.store(2, Ordering::SeqCst);
        let changed = loop {
            let seen = copies.get(7, || source.read()).await.unwrap().unwrap().value;
            let age = moment().since(made);
            assert!(age <= AGE_MAX * 20, "the copy is never read anew");
            if seen == 2 {
                break age;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(
            changed >= AGE_MAX - Duration::from_millis(100),
            "{changed:?}: it was not kept"
        );
        assert_eq!(source.reads(), 2);
    }

    #[tokio::test]
    async fn what_this_node_answered_is_in_every_copy_after_it() {
        let (copies, source) = (copies(10), Source::open());
        copies.raise(7, 5);
        assert_eq!(
            copies.get(7, || source.read()).await.unwrap().unwrap().issued,
            0,
            "nobody looked yet, so the store knows"
        );
        copies.raise(7, 5);
        copies.raise(7, 4);
        assert_eq!(copies.get(7, || source.read()).await.unwrap().unwrap().issued, 5);
    }
}
