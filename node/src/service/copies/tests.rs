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
    bounded(slots_max, usize::MAX)
}

/// Each copy takes as many bytes as its value says.
fn bounded(slots_max: usize, bytes_max: usize) -> Arc<Copies<u32, u64>> {
    let bounds = Bounds {
        slots_max,
        bytes_max,
        bytes_of: |value| usize::try_from(*value).unwrap(),
    };
    Arc::new(Copies::new("test", bounds))
}

impl Copies<u32, u64> {
    /// Returns the keys of all copies, and their bytes.
    fn kept(&self) -> (Vec<u32>, usize) {
        let slots = self.slots.by_key.read().unwrap();
        let copies = slots.iter().filter(|(_, slot)| slot.state().copy.is_some());
        let mut keys: Vec<u32> = copies.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        (keys, self.slots.bytes.load(Ordering::Relaxed))
    }
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
    assert!(copies.slots.by_key.read().unwrap().is_empty());
    assert!(matches!(
        copies.get(7, panics).await,
        Err(StoreCallError::Failed(_))
    ));
    assert!(copies.slots.by_key.read().unwrap().is_empty());
    assert_eq!(copies.get(7, || source.read()).await.unwrap().unwrap().0, 1);
}

#[tokio::test]
async fn a_read_that_is_not_admitted_fails_only_its_own_request() {
    let (copies, source) = (copies(10), Source::gated());
    let refused = || Err::<BoxFuture<'static, _>, _>(StoreCallError::TooManyOfClient);
    assert!(matches!(
        copies.get_if_admitted(7, refused).await,
        Err(StoreCallError::TooManyOfClient)
    ));
    assert!(copies.slots.by_key.read().unwrap().is_empty());
    // A request that finds a read in progress, or a copy, needs no admission.
    let first = request(&copies, &source).await;
    let joined = copies.get_if_admitted(7, refused);
    source.release(1);
    assert_eq!(joined.await.unwrap().unwrap().0, 1);
    assert_eq!(value(first).await, Some(1));
    assert_eq!(copies.get_if_admitted(7, refused).await.unwrap().unwrap().0, 1);
    assert_eq!(source.reads(), 1);
}

#[tokio::test]
async fn a_missing_value_takes_no_slot() {
    let (copies, source) = (copies(1), Source::open());
    source.value.store(0, Ordering::SeqCst);
    for key in 0..100 {
        assert!(copies.get(key, || source.read()).await.unwrap().is_none());
    }
    assert!(copies.slots.by_key.read().unwrap().is_empty());
}

#[tokio::test]
async fn the_number_of_slots_is_bounded() {
    let (copies, source) = (copies(3), Source::open());
    for key in 0..100 {
        assert_eq!(copies.get(key, || source.read()).await.unwrap().unwrap().0, 1);
        assert!(copies.slots.by_key.read().unwrap().len() <= 3);
    }
}

#[tokio::test]
async fn a_copy_that_does_not_fit_evicts_a_quarter_of_all() {
    let (copies, source) = (bounded(100, 8), Source::open());
    for key in 1..=9 {
        assert_eq!(copies.get(key, || source.read()).await.unwrap().unwrap().0, 1);
    }
    assert_eq!(copies.kept(), (vec![3, 4, 5, 6, 7, 8, 9], 7));
}

#[tokio::test]
async fn the_bytes_of_copies_are_bounded_and_the_oldest_are_evicted_first() {
    let (copies, source) = (bounded(100, 8), Source::open());
    let read = async |key: u32, bytes: u64| {
        source.value.store(bytes, Ordering::SeqCst);
        let value = copies.get(key, || source.read()).await.unwrap();
        assert_eq!(value.unwrap().0, bytes, "a value without a copy is an answer too");
    };
    for key in 1..=4 {
        read(key, 2).await;
    }
    assert_eq!(copies.kept(), (vec![1, 2, 3, 4], 8));
    // What is evicted takes nothing any more, also if a request still has its slot.
    let slot = copies.slot(&1);
    read(5, 1).await;
    assert_eq!(copies.kept(), (vec![2, 3, 4, 5], 7));
    drop(slot);
    read(6, 5).await;
    assert_eq!(copies.kept(), (vec![4, 5, 6], 8));
    // What never fits evicts nothing.
    read(7, 9).await;
    assert_eq!(copies.kept(), (vec![4, 5, 6], 8));
    read(8, 8).await;
    assert_eq!(copies.kept(), (vec![8], 8));
    copies.forget(8);
    assert_eq!(copies.kept(), (vec![], 0));
    read(9, 3).await;
    copies.forget_all();
    assert_eq!(copies.kept(), (vec![], 0));
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
