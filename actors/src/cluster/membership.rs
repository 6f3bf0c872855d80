//! The membership task joins the cluster and sends beats. After every beat it reads the rows of nodes and
//! shards, ends dead nodes, claims and drops shards, and hands off shards that other nodes should have.
//!
//! The database holds all ownership, and this task only follows the database. The task is the shell around
//! [`member::MemberLifecycle`], [`crate::cluster::group::Group`] and [`crate::cluster::claim::ClaimPlanner`].

pub mod claiming;
mod join;
pub mod life_record;
pub mod member;
pub mod round;
mod shards;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::ExponentialBackoff;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use crate::backoff::backoff;
use crate::cluster::claim::{ClaimPlanner, PlanningNode};
use crate::cluster::group::Group;
use crate::cluster::lease::Lease;
use crate::cluster::local::LocalShards;
pub use crate::cluster::membership::join::{JoinError, Predecessor};
use crate::cluster::membership::life_record::LifeRecord;
use crate::cluster::membership::member::{Beaten, MemberLifecycle};
use crate::cluster::membership::round::{Findings, Round, Statement};
use crate::cluster::membership::shards::Claims;
use crate::cluster::ownership::Ownership;
use crate::cluster::peers::Peers;
use crate::cluster::reach::Reach;
use crate::critical::critical;
use crate::ids::{Incarnation, NodeId, ShardId};
use crate::metrics::handles;
use crate::peer_names;
use crate::store::{ClusterStore, NodeRow, NodeState, Result};
use crate::time::{self, Moment};

/// How long the last beat of a dead node is remembered. The node's shards are taken over long before this
/// time is over.
const SILENT_KEPT: Duration = Duration::from_secs(60);

/// Interval at which rows of ended nodes are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Options of a node's membership.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's name.
    pub node: NodeId,
    /// The address at which its HTTP is reached.
    pub http: String,
    /// The address at which the node's links are reached; empty if it has no links.
    pub cluster: String,
    /// How long the node may decide after it sent its last successful beat.
    pub lease: Duration,
    /// Time between beats.
    pub beat: Duration,
    /// The node's own incarnations.
    pub record: LifeRecord,
}

/// What membership needs from its node.
#[derive(Clone)]
pub struct MembershipContext {
    /// The rows of nodes and shards.
    pub store: Arc<dyn ClusterStore>,
    /// The node's permission to decide.
    pub lease: Lease,
    /// The shards that this node serves.
    pub local: Arc<dyn LocalShards>,
    /// Where membership publishes which node owns which shard.
    pub ownership: Ownership,
    /// The node's links.
    pub peers: Arc<dyn Peers>,
}

/// A handle to the membership task.
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
    /// True if this incarnation has once claimed all shards that it should have, and the group contained it
    /// as of the last beat.
    ready: AtomicBool,
    /// True if `ready` was ever true.
    was_ready: AtomicBool,
    /// True if the group did not contain this node as of the last beat.
    outside: AtomicBool,
    /// True if another node was alive and not leaving as of the last beat.
    others_stay: AtomicBool,
    claims: Mutex<Claims>,
    leaving: AtomicBool,
    stopping: AtomicBool,
    stop: Notify,
    stopped: watch::Sender<bool>,
}

impl Membership {
    /// Joins, and begins to beat and to claim.
    ///
    /// # Errors
    ///
    /// If the store fails, or another process has joined as this node and beats.
    pub async fn start(options: Options, context: MembershipContext) -> std::result::Result<Self, JoinError> {
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
            claims: Mutex::default(),
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            stopped: watch::Sender::new(false),
        });
        let living = shared.join().await?;
        tokio::spawn(critical("membership", Arc::clone(&shared).run(living)));
        tokio::spawn(critical("removing rows of nodes", Arc::clone(&shared).sweep()));
        Ok(Self { shared })
    }

    /// Returns true if this incarnation has once claimed all shards that it should have, and the group
    /// contained it as of the last beat.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Returns true if the node has ever been ready.
    pub fn was_ready(&self) -> bool {
        self.shared.was_ready.load(Ordering::Acquire)
    }

    /// Returns true if the group did not contain this node as of the last beat: this node does not reach all
    /// members, or not all members reach this node.
    pub fn is_outside(&self) -> bool {
        self.shared.outside.load(Ordering::Acquire)
    }

    /// Returns true if another node was alive and not leaving as of the last beat. Such a node has this
    /// node's shards or may still get them.
    pub fn has_staying_peer(&self) -> bool {
        self.shared.others_stay.load(Ordering::Acquire)
    }

    /// Marks this node as leaving in its row, from the next beat on.
    pub fn begin_leaving(&self) {
        self.shared.leaving.store(true, Ordering::Release);
    }

    /// Returns true if this node is leaving.
    pub fn is_leaving(&self) -> bool {
        self.shared.leaving.load(Ordering::Acquire)
    }

    /// Stops beating, and ends this incarnation's row. Cancel safe: the task stops all the same.
    pub async fn leave(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.stop.notify_one();
        // The sender lives as long as this handle, so waiting cannot fail.
        let _ = self.shared.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }
}

/// One incarnation: its lifecycle, and what it has learned from the rows.
struct Living {
    lifecycle: MemberLifecycle,
    planner: ClaimPlanner,
    reach: Reach,
    /// Nodes that died recently, and when their last beat was first seen.
    silent: HashMap<Incarnation, Moment>,
    /// Pauses before rejoining. They grow while incarnations end early.
    backoff: ExponentialBackoff,
    /// The node does not rejoin before this moment.
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
                self.rejoin(&mut living).await;
            } else {
                self.beat(&mut living).await;
            }
        }
        self.claims().under_way.end();
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
            tracing::warn!(%error, "this node's row was not ended; the next start of this node ends it");
        }
        self.stopped.send_replace(true);
    }

    /// Removes rows of ended nodes from time to time, until the node leaves.
    async fn sweep(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        loop {
            let pause = match self.store.sweep_nodes().await {
                Ok(0) => SWEEP_EVERY,
                // There may be more of them.
                Ok(removed) => {
                    tracing::info!(removed, "removed rows of ended nodes");
                    self.options.beat
                }
                Err(error) => {
                    tracing::warn!(%error, "rows of ended nodes were not removed");
                    SWEEP_EVERY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// Sends one beat, and acts on its answer.
    async fn beat(self: &Arc<Self>, living: &mut Living) {
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
                // The reads have a time limit, so that a slow round does not cost the node its lease. Claims
                // are not limited by it, because they run beside the beats.
                match tokio::time::timeout(self.options.lease / 3, self.reconcile(living, sent_at)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "reading rows failed");
                    }
                    Err(_limit) => tracing::warn!("reading rows timed out"),
                }
            }
            Ok(Beaten::Ended) => {
                let incarnation = lifecycle.incarnation();
                let node = &self.options.node;
                tracing::error!(%node, %incarnation, "this incarnation was ended; rejoining");
                // The row may also be gone because the database went back to before this node joined.
                self.forget();
                self.end(living);
            }
            Ok(Beaten::WentBackwards { confirmed, counted }) => {
                tracing::error!(
                    confirmed,
                    counted,
                    "the database went backwards: it was restored, or a failover lost what it had confirmed"
                );
                handles().went_backwards.increment(1);
                self.forget();
                self.end(living);
            }
            Err(error) => {
                handles().beats_failed.increment(1);
                let remaining = self.lease.remaining(time::moment());
                tracing::warn!(%error, ?remaining, "beat failed");
                if remaining.is_zero() {
                    self.drop_everything();
                }
            }
        }
    }

    /// Ends the lease, and forgets the notices on the board and at the door, because the database may have
    /// lost what the notices are based on.
    fn forget(&self) {
        self.lease.end();
        self.local.forget_notices();
    }

    /// Brings what is served here in line with the rows.
    async fn reconcile(self: &Arc<Self>, living: &mut Living, sent_at: Moment) -> Result<()> {
        let me = living.lifecycle.incarnation();
        let (asked_at, findings) = self.read_rows(living, sent_at).await?;
        let Findings {
            changes,
            shards: rows,
            nodes,
            inside,
            silenced,
        } = findings;
        living.silent.extend(silenced);
        living
            .silent
            .retain(|_, since| sent_at.since(*since) < SILENT_KEPT);
        self.peers.know(asked_at, &others(me, &nodes));
        self.outside.store(!inside, Ordering::Release);
        let stays = |node: &NodeRow| {
            node.incarnation != me && matches!(node.state, NodeState::Joining | NodeState::Ready)
        };
        self.others_stay.store(nodes.iter().any(stays), Ordering::Release);
        self.ownership.publish(me, &nodes, &rows);
        shards::show(&nodes, &rows);
        let now = time::moment();
        let unreachable = living.reach.unreachable(now, me, &nodes, &self.peers.linked());
        self.ownership.know_unreachable(me, &unreachable);
        let member = PlanningNode {
            id: &self.options.node,
            incarnation: me,
            ready: living.lifecycle.is_ready(),
            leaving: self.leaving.load(Ordering::Acquire),
        };
        let state = |id: ShardId| {
            // The lock is held for both reads. A claim that is answered between them would be missed by both.
            let claims = self.claims();
            let state = self.local.state(id, changes[usize::from(id.get())]);
            claims.under_way.judged(id, state)
        };
        let has_loaded = |id: ShardId, to: Incarnation| self.local.is_loaded_ahead(id, to);
        let steps = living
            .planner
            .steps(member, sent_at, &nodes, &rows, state, has_loaded);
        self.carry_out(me, living.lifecycle.is_inside(), steps, &living.silent);
        Ok(())
    }

    /// Reads the rows of shards and nodes, and ends dead nodes. Returns when the nodes' rows were asked for,
    /// and what was found.
    async fn read_rows(&self, living: &mut Living, sent_at: Moment) -> Result<(Moment, Findings)> {
        let me = living.lifecycle.incarnation();
        let mut round = Round::new(sent_at);
        let mut asked_at = sent_at;
        while let Some(statement) = round.statement() {
            match statement {
                Statement::ReadShards => {
                    let changes = ShardId::all().map(|id| self.local.changes(id)).collect();
                    round.read_shards(changes, self.store.shards().await?);
                }
                Statement::ReadNodes => {
                    asked_at = time::moment();
                    let rows = self.store.nodes().await?;
                    let refuses = |peer| self.peers.refuses(peer);
                    let silenced = round.read_nodes(&mut living.lifecycle, time::moment(), rows, refuses);
                    living.silent.extend(silenced);
                }
                Statement::End(dead) => {
                    let ended = self.store.end(me, &dead).await?;
                    if ended {
                        tracing::warn!(
                            node = %dead.id, incarnation = %dead.incarnation,
                            "ended a node: no beat for over a lease, or its address refuses connections"
                        );
                    }
                    round.answered(ended);
                }
            }
        }
        Ok((asked_at, round.finish(&mut living.lifecycle)))
    }

    /// Joins as a fresh incarnation.
    async fn join(&self) -> std::result::Result<Living, JoinError> {
        let Options { lease, beat, .. } = self.options;
        let begun = time::moment();
        let (incarnation, nodes) = join::join(&self.options, self.store.as_ref()).await?;
        let now = time::moment();
        let mut lifecycle = MemberLifecycle::new(incarnation, lease, beat);
        // If the group already contains this node, its first beat says that it is ready. So a node that is
        // alone in its cluster is ready at once.
        lifecycle.grouped(now, Group::of(&nodes).has(incarnation));
        self.ownership.live_as(incarnation);
        self.peers.live_as(incarnation);
        self.peers.know(begun, &others(incarnation, &nodes));
        Ok(Living {
            lifecycle,
            planner: ClaimPlanner::new(lease, beat),
            reach: Reach::new(lease),
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

    /// Ends this incarnation: drops everything, and lets the node rejoin after a pause. If two nodes keep
    /// ending each other, growing pauses separate them.
    fn end(&self, living: &mut Living) {
        living.lifecycle.end();
        self.claims().under_way.end();
        self.lease.end();
        self.drop_everything();
        let now = time::moment();
        if now.since(living.joined_at) > 2 * self.options.lease {
            living.backoff = self.backoff();
        }
        living.rejoin_at = now + living.backoff.next().unwrap_or(self.options.lease);
    }

    async fn rejoin(&self, living: &mut Living) {
        if time::moment() < living.rejoin_at {
            return;
        }
        let joined = tokio::select! {
            joined = self.join() => joined,
            // If joining has already written a row, the next start of this node ends that row.
            () = self.stop.notified() => return self.stop.notify_one(),
        };
        match joined {
            Ok(joined) => {
                let backoff = std::mem::replace(&mut living.backoff, self.backoff());
                *living = Living { backoff, ..joined };
            }
            Err(error) => {
                tracing::error!(%error, "rejoining failed");
                living.rejoin_at = time::moment() + living.backoff.next().unwrap_or(self.options.lease);
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
        self.was_ready.fetch_or(ready, Ordering::AcqRel);
    }

    fn drop_everything(&self) {
        self.show_unready();
        self.outside.store(false, Ordering::Release);
        // All shards are dropped, because a claim may not have reached its shard yet.
        ShardId::all().for_each(|id| self.local.lost(id));
    }
}

/// Returns the rows of all other incarnations, and learns the names of those that are alive.
fn others(me: Incarnation, nodes: &[NodeRow]) -> Vec<NodeRow> {
    let others = nodes.iter().filter(|node| node.incarnation != me);
    let others: Vec<NodeRow> = others.cloned().collect();
    let living = others.iter().filter(|node| node.state != NodeState::Ended);
    living.for_each(|node| peer_names::learn(node.incarnation, &node.id));
    others
}
