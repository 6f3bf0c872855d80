//! Membership: joining, beating, and with every beat the rows of nodes and shards: ending who is dead,
//! claiming what is ours, dropping what is not, handing over what others should have.
//!
//! All of ownership lives in the database; this task only keeps pace with it. The shell around
//! [`member::MemberLifecycle`], [`crate::cluster::group::Group`] and [`crate::cluster::claim::ClaimPlanner`].

mod join;
pub mod member;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::backoff::backoff;
use crate::cluster::claim::{ClaimPlanner, HandOffPlan, Placed, ShardSteps};
use crate::cluster::group::Group;
use crate::cluster::lease::Lease;
use crate::cluster::local::LocalShards;
pub use crate::cluster::membership::join::Predecessor;
use crate::cluster::membership::member::{Beaten, MemberLifecycle};
use crate::cluster::ownership::{Ownership, ShardLocation};
use crate::cluster::peers::Peers;
use crate::critical::critical;
use crate::ids::{Fence, Incarnation, NodeId, PeerAddress, SHARDS, ShardId};
use crate::metrics::{handles, shard_moved};
use crate::store::{Claim, ClusterStore, NodeRow, NodeState, Result};
use crate::time::{self, Moment};

/// For how long it is remembered when a node that died was heard last: its shards are taken over long before.
const SILENT_KEPT: Duration = Duration::from_secs(60);

/// Most shards that are claimed by one call, and served before the next are claimed. All of a cluster at once
/// would take a slow database longer than a beat may wait for it; then none would be served, and all be
/// claimed again.
const CLAIMS_MAX: usize = 32;

/// How a node is a member.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name.
    pub node: NodeId,
    /// Where its HTTP is reached.
    pub http: String,
    /// Where its links are reached; empty where it has none.
    pub cluster: String,
    /// How long it may decide after its last successful beat was sent.
    pub lease: Duration,
    /// Time between beats.
    pub beat: Duration,
}

/// What membership needs of its node.
#[derive(Clone)]
pub struct MembershipContext {
    /// Where all of it lives.
    pub store: Arc<dyn ClusterStore>,
    /// The node's leave to decide.
    pub lease: Lease,
    /// What this node serves.
    pub local: Arc<dyn LocalShards>,
    /// Where it publishes who owns what.
    pub ownership: Ownership,
    /// The node's links.
    pub peers: Arc<dyn Peers>,
}

/// The membership task, as others hold it.
#[derive(Clone)]
pub struct Membership {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    store: Arc<dyn ClusterStore>,
    lease: Lease,
    local: Arc<dyn LocalShards>,
    ownership: Ownership,
    peers: Arc<dyn Peers>,
    /// It has once claimed, in this life, all that was its to claim, and as of the last beat the group has
    /// it.
    ready: AtomicBool,
    /// That was once so.
    was_ready: AtomicBool,
    /// As of the last beat the group was without this node.
    outside: AtomicBool,
    /// As of the last beat another lives that is not leaving.
    others_stay: AtomicBool,
    leaving: AtomicBool,
    stopping: AtomicBool,
    stop: Notify,
    stopped: watch::Sender<bool>,
}

impl Membership {
    /// Joins, and begins to beat and to claim.
    pub async fn start(options: Options, context: MembershipContext) -> Result<Self> {
        let MembershipContext {
            store,
            lease,
            local,
            ownership,
            peers,
        } = context;
        let shared = Arc::new(Shared {
            options,
            store,
            lease,
            local,
            ownership,
            peers,
            ready: AtomicBool::new(false),
            was_ready: AtomicBool::new(false),
            outside: AtomicBool::new(false),
            others_stay: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            stopped: watch::Sender::new(false),
        });
        let living = shared.join().await?;
        tokio::spawn(critical("membership", Arc::clone(&shared).run(living)));
        Ok(Self { shared })
    }

    /// Whether it has claimed, in this life, all that was its to claim, and, as of the last beat, the group
    /// has it.
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Whether that has ever been so.
    pub fn was_ready(&self) -> bool {
        self.shared.was_ready.load(Ordering::Acquire)
    }

    /// Whether, as of the last beat, the group was without this node: it does not reach all others of it, or
    /// they do not reach it.
    pub fn is_outside(&self) -> bool {
        self.shared.outside.load(Ordering::Acquire)
    }

    /// Whether, as of the last beat, another node lives that is not leaving, and so has the shards of this
    /// one or may yet get them.
    pub fn do_others_stay(&self) -> bool {
        self.shared.others_stay.load(Ordering::Acquire)
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

/// One incarnation: its life, and what it makes of the rows.
struct Living {
    lifecycle: MemberLifecycle,
    planner: ClaimPlanner,
    /// Others who died lately, and when their last beat was seen.
    silent: HashMap<Incarnation, Moment>,
    /// Pauses before joining anew, the longer the sooner lives end.
    backoff: ExponentialBackoff,
    /// Not to be tried before.
    rejoin_at: Moment,
    joined_at: Moment,
}

impl Shared {
    async fn run(self: Arc<Self>, mut living: Living) {
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
            if living.lifecycle.is_over() {
                self.join_anew(&mut living).await;
            } else {
                self.beat(&mut living).await;
            }
            let remaining = self.lease.remaining(time::moment());
            handles().lease_seconds.set(remaining.as_secs_f64());
        }
        self.lease.end();
        if let Err(error) = self
            .store
            .beat(
                &self.options.node,
                living.lifecycle.incarnation(),
                NodeState::Ended,
                &[],
            )
            .await
        {
            tracing::warn!(%error, "the row of this node was not ended; its next start ends it");
        }
        self.stopped.send_replace(true);
    }

    /// One beat, and what follows from its answer.
    async fn beat(&self, living: &mut Living) {
        let sent_at = time::moment();
        let lifecycle = &mut living.lifecycle;
        let state = lifecycle.state(self.leaving.load(Ordering::Acquire));
        let counted = self
            .store
            .beat(
                &self.options.node,
                lifecycle.incarnation(),
                state,
                &self.peers.linked(),
            )
            .await;
        match counted.map(|counted| lifecycle.beaten(sent_at, counted)) {
            Ok(Beaten::Alive(until)) => {
                handles().beats_ok.increment(1);
                self.lease.set(lifecycle.incarnation(), until);
                // Bounded, so that the next beat is in time whatever becomes of this.
                match tokio::time::timeout(self.options.lease / 3, self.keep_pace(living, sent_at)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "the rows of nodes and shards were not read or not claimed");
                    }
                    Err(_limit) => tracing::warn!("reading the rows of nodes and shards took too long"),
                }
            }
            Ok(Beaten::Ended) => {
                tracing::error!(incarnation = %lifecycle.incarnation(), "this incarnation was ended; joining anew");
                // Its row may also be gone because the database is as it was before it joined.
                self.forget();
                self.end(living);
            }
            Ok(Beaten::WentBackwards { confirmed, counted }) => {
                tracing::error!(
                    confirmed,
                    counted,
                    "the database went backwards: it was restored, or failed over without all that it had confirmed"
                );
                handles().went_backwards.increment(1);
                self.forget();
                self.end(living);
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

    /// Forgets what board and door were told, as the database may know nothing of it any more.
    fn forget(&self) {
        self.lease.end();
        self.local.forget_notices();
    }

    /// Brings what is served here in line with the rows.
    async fn keep_pace(&self, living: &mut Living, sent_at: Moment) -> Result<()> {
        let me = living.lifecycle.incarnation();
        let changes: Vec<u64> = ShardId::all().map(|id| self.local.changes(id)).collect();
        // The shards first: then an owner that is not among the nodes is one that was ended, and not one that
        // joined in between.
        let rows = self.store.shards().await?;
        let asked_at = time::moment();
        let mut nodes = self.store.nodes().await?;
        living.silent.extend(living.lifecycle.silenced(&nodes));
        let dead = living
            .lifecycle
            .observed(sent_at, time::moment(), &nodes, |peer| self.peers.refuses(peer));
        for dead in dead {
            if self.store.end(me, &dead).await? {
                tracing::warn!(node = %dead.id, incarnation = %dead.incarnation, "ended: it has not beaten over a lease, or nobody listens there");
                nodes
                    .iter_mut()
                    .filter(|node| node.incarnation == dead.incarnation)
                    .for_each(|node| node.state = NodeState::Ended);
            }
        }
        living.silent.extend(living.lifecycle.silenced(&nodes));
        living
            .silent
            .retain(|_, since| sent_at.since(*since) < SILENT_KEPT);
        self.peers.know(asked_at, self.others(me, &nodes));
        let inside = Group::of(&nodes).has(me);
        living.lifecycle.grouped(sent_at, inside);
        self.outside.store(!inside, Ordering::Release);
        let stays = |node: &NodeRow| {
            node.incarnation != me && matches!(node.state, NodeState::Joining | NodeState::Ready)
        };
        self.others_stay.store(nodes.iter().any(stays), Ordering::Release);
        self.ownership.publish(me, &nodes, &rows);
        let member = Placed {
            id: &self.options.node,
            incarnation: me,
            ready: living.lifecycle.is_ready(),
            leaving: self.leaving.load(Ordering::Acquire),
        };
        let state = |id: ShardId| self.local.state(id, changes[usize::from(id.get())]);
        let has_loaded = |id: ShardId, to: Incarnation| self.local.is_loaded_ahead(id, to);
        let steps = living
            .planner
            .steps(member, sent_at, &nodes, &rows, state, has_loaded);
        let missing = self.carry_out(me, sent_at, steps, &living.silent).await?;
        // Once it has claimed all, it stays ready while it claims what others left: a load balancer that
        // drops nodes while they take over would have no node left.
        let ready = (missing == 0 || self.ready.load(Ordering::Acquire)) && living.lifecycle.is_inside();
        self.ready.store(ready, Ordering::Release);
        self.was_ready.fetch_or(ready, Ordering::AcqRel);
        Ok(())
    }

    /// How many shards were to be claimed and were not.
    async fn carry_out(
        &self,
        me: Incarnation,
        sent_at: Moment,
        steps: ShardSteps,
        silent: &HashMap<Incarnation, Moment>,
    ) -> Result<usize> {
        let ShardSteps {
            claim,
            drop,
            load_ahead,
            hand_off,
        } = steps;
        for id in drop {
            let ShardLocation { epoch, holder } = self.ownership.location(id);
            shard_moved("lost");
            tracing::warn!(shard = %id, %epoch, ?holder, "another node owns this shard now");
            self.local.lost(id);
        }
        for (id, to) in load_ahead {
            self.local.ask_to_load_ahead(id, to);
        }
        for HandOffPlan { shard, from, to } in hand_off {
            self.local.hand_off(shard, from, to);
        }
        let mut missing = claim.len();
        // A node alone claims all: that is one event, and one line of the log for each call.
        let is_first = claim.len() == usize::from(SHARDS);
        for claims in claim.chunks(CLAIMS_MAX) {
            missing -= self.claim(me, claims, is_first, silent).await?;
            // The rest is claimed with the next beat, which is not to be more than two after this one: what
            // far-apart beats see of others proves nothing.
            if time::moment().since(sent_at) >= self.options.beat * 3 / 2 {
                break;
            }
        }
        Ok(missing)
    }

    /// The other nodes that live.
    fn others(&self, me: Incarnation, nodes: &[NodeRow]) -> Vec<PeerAddress> {
        let others = nodes
            .iter()
            .filter(|node| node.state != NodeState::Ended && node.incarnation != me);
        let peer = |node: &NodeRow| PeerAddress {
            node: node.id.clone(),
            incarnation: node.incarnation,
            address: node.cluster.clone(),
        };
        others.map(peer).collect()
    }

    /// Claims these shards and serves those that it got. Returns their number. Their mailboxes keep the
    /// order: requests that arrive from now on are served.
    async fn claim(
        &self,
        me: Incarnation,
        claims: &[Claim],
        is_first: bool,
        silent: &HashMap<Incarnation, Moment>,
    ) -> Result<usize> {
        let rows = self.store.claim(claims).await?;
        let mut claimed = 0;
        for (claim, row) in claims.iter().zip(rows) {
            if row.owner == Some(me) && row.epoch > claim.seen.epoch {
                claimed += 1;
                let fence = Fence {
                    epoch: row.epoch,
                    owner: me,
                };
                shard_moved("claimed");
                if !is_first {
                    tracing::info!(shard = %row.id, epoch = %row.epoch, before = claim.seen.owner.map(tracing::field::display), "claimed a shard");
                }
                if let Some(since) = claim.seen.owner.and_then(|owner| silent.get(&owner)) {
                    handles()
                        .take_over_seconds
                        .record(time::moment().since(*since).as_secs_f64());
                }
                // In this order, so that a request routed here is served.
                self.local.claimed(row.id, fence);
                self.peers.publish(row.id, fence);
                self.ownership.learn(row.id, fence);
            }
        }
        handles().shard_claims.increment(claimed as u64);
        tracing::info!(claimed, wanted = claims.len(), "claimed shards");
        Ok(claimed)
    }

    /// Joins as a fresh incarnation.
    async fn join(&self) -> Result<Living> {
        let Options { lease, beat, .. } = self.options;
        let begun = time::moment();
        let (incarnation, nodes) = join::join(&self.options, self.store.as_ref()).await?;
        let now = time::moment();
        let mut lifecycle = MemberLifecycle::new(incarnation, lease, beat);
        // Its first beat says so, if it is in the group already: a node alone is ready at once.
        lifecycle.grouped(now, Group::of(&nodes).has(incarnation));
        self.ownership.live_as(incarnation);
        self.peers.live_as(incarnation);
        self.peers.know(begun, self.others(incarnation, &nodes));
        Ok(Living {
            lifecycle,
            planner: ClaimPlanner::new(lease, beat),
            silent: HashMap::new(),
            backoff: self.backoff(),
            rejoin_at: now,
            joined_at: now,
        })
    }

    fn backoff(&self) -> ExponentialBackoff {
        let Options { lease, beat, .. } = self.options;
        backoff(beat, lease.max(beat))
    }

    /// This incarnation is over: everything is dropped, and joined anew after a pause. Two that keep ending
    /// each other come apart that way.
    fn end(&self, living: &mut Living) {
        living.lifecycle.end();
        self.lease.end();
        self.drop_everything();
        let now = time::moment();
        if now.since(living.joined_at) > 2 * self.options.lease {
            living.backoff = self.backoff();
        }
        living.rejoin_at = now + living.backoff.next().unwrap_or(self.options.lease);
    }

    async fn join_anew(&self, living: &mut Living) {
        if time::moment() < living.rejoin_at {
            return;
        }
        let joined = tokio::select! {
            joined = self.join() => joined,
            // Nothing of ours is in the rows that would have to be ended, or it is ended by our next start.
            () = self.stop.notified() => return self.stop.notify_one(),
        };
        match joined {
            Ok(joined) => {
                let backoff = std::mem::replace(&mut living.backoff, self.backoff());
                *living = Living { backoff, ..joined };
            }
            Err(error) => {
                tracing::error!(%error, "not joined");
                living.rejoin_at = time::moment() + living.backoff.next().unwrap_or(self.options.lease);
            }
        }
    }

    fn drop_everything(&self) {
        self.ready.store(false, Ordering::Release);
        self.outside.store(false, Ordering::Release);
        // All of them: one may have been claimed and not know it yet.
        ShardId::all().for_each(|id| self.local.lost(id));
    }
}
