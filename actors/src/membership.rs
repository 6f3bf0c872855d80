//! Membership: joining, beating, and with every beat the rows of nodes and shards: ending who is dead, claiming what is ours, dropping what is not.
//!
//! All of ownership lives in the database; this task only keeps pace with it. The shell around [`life::Life`] and [`crate::placement::claim::steps`].

pub mod life;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::critical::critical;
use crate::ids::{Fence, Incarnation, NodeId, ShardId};
use crate::lease::Lease;
use crate::membership::life::{Beaten, Life};
use crate::metrics::handles;
use crate::placement::claim::{Steps, steps};
use crate::shard::ShardHandle;
use crate::store::{Claim, NodeRow, NodeState, Result, Store, StoreError};
use crate::time::{self, Moment};

/// How often joining is tried against others who write the same row, before it is given up.
const JOIN_ATTEMPTS: u32 = 5;

/// How a node is a member.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub node: NodeId,
    /// Where its HTTP is reached.
    pub http: String,
    /// How long it may decide after its last successful beat was sent.
    pub lease: Duration,
    /// Time between beats.
    pub beat: Duration,
}

/// The membership task, as others hold it.
#[derive(Clone)]
pub struct Membership {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    store: Arc<dyn Store>,
    lease: Lease,
    shards: Arc<[ShardHandle]>,
    /// As of the last beat every shard is served here or has another living owner.
    ready: AtomicBool,
    /// They once were.
    was_ready: AtomicBool,
    leaving: AtomicBool,
    stopping: AtomicBool,
    stop: Notify,
    stopped: watch::Sender<bool>,
}

impl Membership {
    /// Joins, and begins to beat and to claim.
    pub async fn start(options: Options, store: Arc<dyn Store>, lease: Lease, shards: Arc<[ShardHandle]>) -> Result<Self> {
        let incarnation = join(&options, store.as_ref()).await?;
        let shared = Arc::new(Shared {
            options,
            store,
            lease,
            shards,
            ready: AtomicBool::new(false),
            was_ready: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            stopped: watch::Sender::new(false),
        });
        tokio::spawn(critical("membership", Arc::clone(&shared).run(incarnation)));
        Ok(Self { shared })
    }

    /// Whether, as of the last beat, every shard was served here or had another living owner.
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Whether that has ever been so.
    pub fn was_ready(&self) -> bool {
        self.shared.was_ready.load(Ordering::Acquire)
    }

    /// Says in the row that this node is leaving, from the next beat on.
    pub fn begin_leaving(&self) {
        self.shared.leaving.store(true, Ordering::Release);
    }

    /// Whether this node is leaving.
    pub fn is_leaving(&self) -> bool {
        self.shared.leaving.load(Ordering::Acquire)
    }

    /// Stops beating, and ends this incarnation's row. Cancel safe: it stops all the same.
    pub async fn leave(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.stop.notify_one();
        // The sender lives as long as this handle: there is no error to wait for.
        let _ = self.shared.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }
}

/// Puts this node's row in place with a fresh incarnation, and so ends a predecessor of the same name.
async fn join(options: &Options, store: &dyn Store) -> Result<Incarnation> {
    for _ in 0..JOIN_ATTEMPTS {
        let predecessor = store.nodes().await?.into_iter().find(|node| node.id == options.node);
        let incarnation = Incarnation::random();
        let row = NodeRow {
            id: options.node.clone(),
            incarnation,
            beat: 0,
            state: NodeState::Joining,
            http: options.http.clone(),
            cluster: String::new(),
            links: Vec::new(),
        };
        if store.join(&row, predecessor.map(|row| row.incarnation)).await? {
            end_the_dead(incarnation, store).await?;
            tracing::info!(node = %options.node, %incarnation, "joined");
            return Ok(incarnation);
        }
    }
    Err(StoreError::NotStored(format!("another node keeps joining as {}", options.node)))
}

/// Where nobody else can have the store open, all other rows are those of nodes that died: none needs to be watched for a lease.
async fn end_the_dead(me: Incarnation, store: &dyn Store) -> Result<()> {
    if !store.is_exclusive() {
        return Ok(());
    }
    for row in store.nodes().await? {
        if row.incarnation != me && row.state != NodeState::Ended && store.end(me, &row).await? {
            tracing::info!(node = %row.id, incarnation = %row.incarnation, "ended: nobody else can have this store open");
        }
    }
    Ok(())
}

impl Shared {
    async fn run(self: Arc<Self>, incarnation: Incarnation) {
        let mut life = Life::new(incarnation, self.options.lease, self.options.beat);
        let mut ticks = tokio::time::interval(self.options.beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stop.notified() => {}
            }
            if self.stopping.load(Ordering::Acquire) {
                break;
            }
            if life.is_over() {
                self.join_anew(&mut life).await;
            } else {
                self.beat(&mut life).await;
            }
            let remaining = self.lease.remaining(time::moment());
            handles().lease_seconds.set(remaining.as_secs_f64());
        }
        self.lease.end();
        if let Err(error) = self.store.beat(&self.options.node, life.incarnation(), NodeState::Ended, &[]).await {
            tracing::warn!(%error, "the row of this node was not ended; its next start ends it");
        }
        self.stopped.send_replace(true);
    }

    /// One beat, and what follows from its answer.
    async fn beat(&self, life: &mut Life) {
        let sent_at = time::moment();
        let state = if self.leaving.load(Ordering::Acquire) { NodeState::Leaving } else { NodeState::Ready };
        let counted = self.store.beat(&self.options.node, life.incarnation(), state, &[]).await;
        match counted.map(|counted| life.beaten(sent_at, counted)) {
            Ok(Beaten::Alive(until)) => {
                handles().beats_ok.increment(1);
                self.lease.set(life.incarnation(), until);
                // Bounded, so that the next beat is in time whatever becomes of this.
                match tokio::time::timeout(self.options.lease / 3, self.keep_pace(life, sent_at)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "the rows of nodes and shards were not read or not claimed"),
                    Err(_limit) => tracing::warn!("reading the rows of nodes and shards took too long"),
                }
            }
            Ok(Beaten::Ended) => {
                tracing::error!(incarnation = %life.incarnation(), "this incarnation was ended; joining anew");
                self.join_anew(life).await;
            }
            Ok(Beaten::WentBackwards { confirmed, counted }) => {
                tracing::error!(
                    confirmed,
                    counted,
                    "the database went backwards: it was restored, or failed over without all that it had confirmed"
                );
                self.join_anew(life).await;
            }
            Err(error) => {
                handles().beats_failed.increment(1);
                let remaining = self.lease.remaining(time::moment());
                tracing::warn!(%error, ?remaining, "a beat failed");
                if remaining.is_zero() {
                    self.drop_everything();
                }
            }
        }
    }

    /// Brings what is served here in line with the rows.
    async fn keep_pace(&self, life: &mut Life, sent_at: Moment) -> Result<()> {
        let nodes = self.store.nodes().await?;
        for dead in life.observed(sent_at, &nodes) {
            if self.store.end(life.incarnation(), dead).await? {
                tracing::warn!(node = %dead.id, incarnation = %dead.incarnation, "ended: it has not beaten over a lease");
            }
        }
        let rows = self.store.shards().await?;
        let serving = |id: ShardId| self.shard(id).serving();
        let Steps { claim, drop } = steps(&self.options.node, life.incarnation(), &nodes, &rows, serving);
        for id in drop {
            tracing::warn!(shard = %id, "another node owns this shard now");
            self.shard(id).lost();
        }
        // Whatever is not served after this beat, and is nobody else's, is missing.
        let mut missing = claim.len();
        if missing > 0 && !self.leaving.load(Ordering::Acquire) {
            missing -= self.claim(life.incarnation(), &claim).await?;
        }
        self.ready.store(missing == 0, Ordering::Release);
        self.was_ready.fetch_or(missing == 0, Ordering::AcqRel);
        Ok(())
    }

    fn shard(&self, id: ShardId) -> &ShardHandle {
        &self.shards[usize::from(id.get())]
    }

    /// Claims these shards and serves what it got; how many that were. Their mailboxes keep the order: whoever asks from now on is served.
    async fn claim(&self, me: Incarnation, claims: &[Claim]) -> Result<usize> {
        let rows = self.store.claim(claims).await?;
        let mut claimed = 0;
        for (claim, row) in claims.iter().zip(rows) {
            if row.owner == Some(me) && row.epoch > claim.seen.epoch {
                claimed += 1;
                self.shard(row.id).claimed(Fence { epoch: row.epoch, owner: me });
            }
        }
        handles().shard_claims.increment(claimed as u64);
        tracing::info!(claimed, wanted = claims.len(), "claimed shards");
        Ok(claimed)
    }

    async fn join_anew(&self, life: &mut Life) {
        life.end();
        self.lease.end();
        self.drop_everything();
        match join(&self.options, self.store.as_ref()).await {
            Ok(incarnation) => *life = Life::new(incarnation, self.options.lease, self.options.beat),
            // Tried again in place of the next beat.
            Err(error) => tracing::error!(%error, "not joined"),
        }
    }

    fn drop_everything(&self) {
        self.ready.store(false, Ordering::Release);
        // All of them: one may have been claimed and not know it yet.
        self.shards.iter().for_each(ShardHandle::lost);
    }
}
