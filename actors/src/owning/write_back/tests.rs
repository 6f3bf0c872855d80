//! What the tasks of lanes do with portions that wait. Coupons are the sample kind.

use async_trait::async_trait;
use ractor::{Actor, ActorProcessingErr};
use tokio::sync::oneshot;

use super::*;
use crate::coupon::CouponKind;
use crate::coupon::entry::CouponRun;
use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::ledger::LedgerRows;
use crate::coupon::offer::Issuance;
use crate::ids::{Epoch, Fence, Incarnation, NodeId, RequestKey, ShardId, UserId};
use crate::store::batch::Found;
use crate::store::{Claim, ClusterStore, EntryStore, HandOff, Loaded, NodeRow, NodeState, ShardRow};
use crate::time::timestamp;

type Mailbox = super::Mailbox<CouponKind>;
type Lanes = super::Lanes<CouponKind>;

/// Less than a call to the store may take, after which another lane writes it in any case.
const LIMIT: Duration = Duration::from_secs(4);

/// A write that waits until the test answers it.
struct Write {
    coupons: Vec<u64>,
    answer: oneshot::Sender<Result<u64>>,
}

/// A store that passes its writes on to a test, and has no other calls.
struct HeldStore(mpsc::UnboundedSender<Write>);

#[async_trait]
impl EntryStore<CouponKind> for HeldStore {
    async fn write(&self, batch: &Batch<CouponKind>) -> Result<u64> {
        let (answer, answered) = oneshot::channel();
        let coupons = batch.portions.iter().map(|portion| portion.id.get()).collect();
        let _ = self.0.send(Write { coupons, answer });
        let is_over = |_| Err(StoreError::NotStored("the test is over".to_owned()));
        answered.await.unwrap_or_else(is_over)
    }

    async fn read_back(&self, _: &Batch<CouponKind>) -> Result<Vec<Found>> {
        unreachable!("no write clashes")
    }

    async fn load(&self, _: CouponId, _: Option<LedgerRows>) -> Result<Loaded<CouponKind>> {
        unreachable!("lanes load nothing")
    }
}

#[async_trait]
impl ClusterStore for HeldStore {
    async fn check(&self) -> Result<()> {
        unreachable!("lanes use no rows of the cluster")
    }

    async fn join(&self, _: &NodeRow, _: Option<Incarnation>) -> Result<bool> {
        unreachable!("lanes use no rows of the cluster")
    }

    async fn beat(&self, _: &NodeId, _: Incarnation, _: NodeState, _: &[Incarnation]) -> Result<Option<u64>> {
        unreachable!("lanes use no rows of the cluster")
    }

    async fn end(&self, _: Incarnation, _: &NodeRow) -> Result<bool> {
        unreachable!("lanes use no rows of the cluster")
    }

    async fn sweep_nodes(&self) -> Result<usize> {
        unreachable!("lanes use no rows of the cluster")
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>> {
        unreachable!("lanes use no rows of the cluster")
    }

    async fn shards(&self) -> Result<Vec<ShardRow>> {
        unreachable!("lanes use no rows of the cluster")
    }

    async fn claim(&self, _: &[Claim]) -> Result<Vec<ShardRow>> {
        unreachable!("lanes use no rows of the cluster")
    }

    async fn hand_off(&self, _: &[HandOff]) -> Result<Vec<ShardRow>> {
        unreachable!("lanes use no rows of the cluster")
    }

    async fn release(&self, _: &[(ShardId, Fence)]) -> Result<()> {
        unreachable!("lanes use no rows of the cluster")
    }
}

/// An actor in place of an owner, which ignores its mail.
struct Sink;

impl Actor for Sink {
    type Msg = OwnerMail<CouponKind>;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: Mailbox, (): ()) -> std::result::Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// Starts this many lanes.
fn start(count: usize) -> (Lanes, mpsc::UnboundedReceiver<Write>) {
    let (writes, written) = mpsc::unbounded_channel();
    let store: Arc<dyn Store<CouponKind>> = Arc::new(HeldStore(writes));
    let lanes = Lanes::start(count, 16, &store, &Lease::default(), &Spans::default());
    (lanes, written)
}

/// Returns an issuance of this coupon, to be stored.
fn submission(coupon: u64, mailbox: &Mailbox) -> Submission<CouponKind, Mailbox> {
    let coupon = CouponId::new(coupon).unwrap();
    let issuance = Issuance {
        id: IssuanceId {
            coupon,
            sequence: Sequence::new(1),
        },
        user: UserId::parse("alice").unwrap(),
        nth: 1,
        key: RequestKey::random(),
        issued_at: timestamp(),
        expires_at: None,
    };
    Submission {
        portion: Portion {
            id: coupon,
            shard: coupon.shard(),
            fence: Fence {
                epoch: Epoch::new(1),
                owner: Incarnation::new(1).unwrap(),
            },
            run: CouponRun::Issuances(Arc::new([issuance])),
        },
        traces: Vec::new(),
        mailbox: mailbox.clone(),
    }
}

/// Puts a submission into the queue of a lane. Returns false if it is full.
fn submit(lanes: &Lanes, lane: usize, submission: Submission<CouponKind, Mailbox>) -> bool {
    lanes.lanes[lane].queue.try_send(submission).is_ok()
}

/// Lets all tasks do what they can do without waiting.
async fn all_wait() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// No time passes between the refusal and the move, so no timer can be the reason for it.
#[tokio::test]
async fn what_waits_behind_a_batch_that_is_refused_is_moved_at_once() {
    let (lanes, mut writes) = start(2);
    let (mailbox, _task) = Sink::spawn(None, Sink, ()).await.unwrap();
    let submit = |lane, coupon| submit(&lanes, lane, submission(coupon, &mailbox));
    assert!(submit(0, 1));
    let refused = writes.recv().await.unwrap();
    assert!(submit(0, 2));
    all_wait().await;
    assert!(writes.try_recv().is_err(), "it waits behind the batch");
    let refusal = Err(StoreError::NotStored("locked".to_owned()));
    refused.answer.send(refusal).unwrap();
    all_wait().await;
    let moved = writes.try_recv().expect("another lane writes it");
    assert_eq!((refused.coupons, moved.coupons), (vec![1], vec![2]));
}

/// The batches of the other lane are young, and each is followed by the next one until the test ends that.
#[tokio::test]
async fn what_waits_behind_a_batch_that_takes_long_is_moved_only_once_a_lane_is_idle() {
    let (lanes, mut writes) = start(2);
    let (mailbox, _task) = Sink::spawn(None, Sink, ()).await.unwrap();
    let submit = |lane, coupon| submit(&lanes, lane, submission(coupon, &mailbox));
    assert!(submit(0, 1));
    let _long = writes.recv().await.unwrap();
    assert!(submit(0, 2));
    assert!(submit(1, 3));
    let mut other = writes.recv().await.unwrap();
    let begun = Instant::now();
    for next in 4.. {
        assert!(submit(1, next));
        all_wait().await;
        other.answer.send(Ok(1)).unwrap();
        other = writes.recv().await.unwrap();
        assert_eq!(other.coupons, [next]);
        if begun.elapsed() > 3 * HELD_UP_MAX {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    other.answer.send(Ok(1)).unwrap();
    let moved = tokio::time::timeout(LIMIT, writes.recv()).await;
    assert_eq!(moved.expect("it is moved").unwrap().coupons, [2]);
}
