//! Gathers the compare-and-sets of a node's shards on their own rows, so that many shards share a commit:
//! what is requested while statements are under way goes together into the next one.
//!
//! A shard that waits for another one's locked row waits no longer than the store's limit for locks.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::critical::critical;
use crate::ids::{Fence, SHARDS, ShardId};
use crate::store::{Claim, ClusterStore, HandOff, Result, ShardRow, StoreError};

/// Maximum number of moves that wait. A shard has one at a time, and may have begun another after a time-out.
const WAITING_MAX: usize = 2 * SHARDS as usize;

/// Maximum number of moves that are sent together.
const TOGETHER_MAX: usize = 64;

/// Number of calls that may be under way, so that one that waits for a lock does not hold up all others.
const CALLS_MAX: usize = 2;

/// A compare-and-set on the row of one shard.
#[derive(Debug, Clone, Copy)]
enum Move {
    Raise(Claim),
    HandOff(HandOff),
    Release(ShardId, Fence),
}

type Done = oneshot::Sender<Result<Option<ShardRow>>>;

/// The handle by which shards change their rows; cheap to clone. The task ends with the last handle.
#[derive(Debug, Clone)]
pub struct Moves {
    waiting: mpsc::Sender<(Move, Done)>,
}

impl Moves {
    /// Starts the task that gathers moves and sends them to this store.
    pub fn start(store: Arc<dyn ClusterStore>) -> Self {
        let (waiting, moves) = mpsc::channel(WAITING_MAX);
        tokio::spawn(critical("the moves of shards", run(store, moves)));
        Self { waiting }
    }

    /// Raises the epoch of a shard that this node owns. Returns the shard's row after that; see
    /// [`ClusterStore::claim`]. Cancel safe: the epoch may be raised even if this future is dropped.
    pub(super) async fn raise(&self, claim: Claim) -> Result<Option<ShardRow>> {
        self.request(Move::Raise(claim)).await
    }

    /// Hands a shard off. Returns the shard's row after that; see [`ClusterStore::hand_off`]. Cancel safe:
    /// the shard may be handed off even if this future is dropped.
    pub(super) async fn hand_off(&self, hand_off: HandOff) -> Result<Option<ShardRow>> {
        self.request(Move::HandOff(hand_off)).await
    }

    /// Releases a shard; see [`ClusterStore::release`]. Cancel safe: the shard may be released even if this
    /// future is dropped.
    pub(super) async fn release(&self, shard: ShardId, fence: Fence) -> Result<()> {
        self.request(Move::Release(shard, fence)).await.map(drop)
    }

    async fn request(&self, wanted: Move) -> Result<Option<ShardRow>> {
        let (done, is_done) = oneshot::channel();
        if self.waiting.send((wanted, done)).await.is_err() {
            return Err(StoreError::NotStored("the node is stopping".to_owned()));
        }
        is_done
            .await
            .unwrap_or_else(|_| Err(StoreError::Unknown("the call panicked".to_owned())))
    }
}

async fn run(store: Arc<dyn ClusterStore>, mut waiting: mpsc::Receiver<(Move, Done)>) {
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    while let Some(first) = waiting.recv().await {
        // Further moves arrive during this wait.
        let Ok(turn) = Arc::clone(&calls).acquire_owned().await else {
            return;
        };
        let mut together = vec![first];
        while together.len() < TOGETHER_MAX
            && let Ok(next) = waiting.try_recv()
        {
            together.push(next);
        }
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            send(store.as_ref(), together).await;
            drop(turn);
        });
    }
}

/// Sends moves of each kind by one call, and answers them.
async fn send(store: &dyn ClusterStore, moves: Vec<(Move, Done)>) {
    let (mut raises, mut hand_offs, mut releases) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = (Vec::new(), Vec::new(), Vec::new());
    for (wanted, answer) in moves {
        match wanted {
            Move::Raise(claim) => {
                raises.push(claim);
                done.0.push(answer);
            }
            Move::HandOff(hand_off) => {
                hand_offs.push(hand_off);
                done.1.push(answer);
            }
            Move::Release(shard, fence) => {
                releases.push((shard, fence));
                done.2.push(answer);
            }
        }
    }
    tokio::join!(
        async {
            if !raises.is_empty() {
                answer(done.0, store.claim(&raises).await);
            }
        },
        async {
            if !hand_offs.is_empty() {
                answer(done.1, store.hand_off(&hand_offs).await);
            }
        },
        async {
            if !releases.is_empty() {
                answer(done.2, store.release(&releases).await.map(|()| Vec::new()));
            }
        },
    );
}

/// Answers each move by its row, or all by the error. A caller that is gone needs no answer.
fn answer(done: Vec<Done>, rows: Result<Vec<ShardRow>>) {
    match rows {
        Ok(rows) => {
            let mut rows = rows.into_iter();
            for done in done {
                let _ = done.send(Ok(rows.next()));
            }
        }
        Err(error) => {
            for done in done {
                let _ = done.send(Err(error.clone()));
            }
        }
    }
}
