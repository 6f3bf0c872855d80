//! Wires owners, shards, lanes, membership and door into one engine, and starts and stops it. What a gateway
//! holds.

pub(crate) mod exchange;
pub mod links;
mod widening;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::cluster::lease::Lease;
use crate::cluster::membership::{self, Membership};
use crate::cluster::ownership::Ownership;
use crate::cluster::peers::{NoPeers, Peers};
use crate::critical::critical;
use crate::engine::exchange::Talk;
use crate::engine::links::Lives;
pub use crate::engine::links::Options as ClusterOptions;
use crate::ids::{CouponId, NodeId, RequestKey, SHARDS, ShardId, UserId};
use crate::link::LinksError;
use crate::metrics::{self, handles};
use crate::owning::admission::Admission;
use crate::owning::door::peers::Acquaintances;
use crate::owning::door::{Board, Door, LEASE_MAX};
use crate::owning::message::{
    Change, ChangeAnswer, ChangeOutcome, ChangeRefusal, ChangeRequest, IssueAnswer, IssueOutcome,
    IssueRequest, Refusal, Setback,
};
use crate::owning::owner::actor as coupon;
use crate::owning::router::{NoRemote, Remote, Router};
use crate::owning::shard::{LOADS_WAITING_MAX, ShardHandle, ShardSurroundings};
use crate::owning::write_back::Lanes;
use crate::store::{NodeRow, Result, ShardRow, Store, StoreError};
use crate::time;

/// Owners read from the store at the same time.
const LOADS_MAX: usize = 4;
/// Of those read ahead of their shard: fewer, as nobody waits for them yet.
const LOADS_AHEAD_MAX: usize = 2;
/// Most owners in memory on a node, however little each holds. A coupon asked for beyond it is told
/// `OVERLOADED` until others are idle.
const OWNERS_MAX: usize = 131_072;
/// How often requests and answers that nobody waits for are forgotten: at the least once in the time that
/// people wait.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether shards are handed over.
const HAND_OVER_POLL: Duration = Duration::from_millis(10);
/// How long leaving may take beyond the limit for stopping, so that others need not wait for a lease to end.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// How an engine is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// This node's name.
    pub node: NodeId,
    /// Where its HTTP is reached.
    pub http: String,
    /// How long a node may decide after its last successful beat was sent.
    pub lease: Duration,
    /// Time between beats; the door asks owners what is sold out as often, at the least.
    pub beat: Duration,
    /// An owner without requests for so long is unloaded.
    pub idle: Duration,
    /// Most requests in the node's queues together; [`crate::owning::router::REQUESTS_MAX`] is a good number.
    pub requests_max: usize,
    /// Most requests in one owner's queue; [`crate::owning::owner::actor::OWNER_PLACES`] is a good number.
    pub coupon_requests_max: usize,
    /// Lanes, each writing one batch at a time. A store with one writer has no use for more than one.
    pub lanes: usize,
    /// How it is one of several nodes; `None`: it has the store for itself, and no links.
    pub cluster: Option<ClusterOptions>,
}

/// Why an engine is not ready, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// It has not claimed its shards yet.
    Starting,
    /// It is stopping.
    Draining,
    /// Its lease ran out.
    NoLease,
    /// The other nodes go on without it: it does not reach all of them, or they do not reach it.
    NoGroup,
    /// The store does not take what is decided.
    NoStore,
}

/// The nodes and shards as the store has them.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// All nodes.
    pub nodes: Vec<NodeRow>,
    /// All shards.
    pub shards: Vec<ShardRow>,
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It does not get on with the store.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// There can be no links to other nodes.
    #[error("the links to other nodes: {0}")]
    Links(#[from] LinksError),
    /// Several nodes were wished over a store that only one can have open.
    #[error("the store is one node's alone: a cluster needs MySQL or MariaDB")]
    Exclusive,
    /// Others would have to wait too long for a node that is gone.
    #[error("a lease in a cluster is at most {LEASE_MAX:?}")]
    Lease,
}

/// The engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    /// The links to other nodes, where there may be any.
    lives: Option<Lives>,
    store: Arc<dyn Store>,
    lease: Lease,
    lanes: Lanes,
    door: Arc<Door>,
    shards: Arc<[ShardHandle]>,
    router: Router,
    membership: Membership,
    housekeeping: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.housekeeping.abort();
    }
}

impl Engine {
    /// Joins the cluster, claims shards and serves. Ready once [`Self::not_ready`] is empty.
    pub async fn start(options: Options, store: Arc<dyn Store>) -> std::result::Result<Self, StartError> {
        if options.cluster.is_some() {
            check_cluster(&options, store.as_ref())?;
        }
        store.check().await?;
        let lease = Lease::default();
        let lanes = Lanes::start(options.lanes, OWNERS_MAX, &store, &lease);
        let (door, board) = (Arc::new(Door::default()), Arc::new(Board::default()));
        let (ownership, places) = (Ownership::default(), Admission::new(options.requests_max));
        let lives = options
            .cluster
            .map(|cluster| Lives::new(options.node.clone(), cluster, places.clone()))
            .transpose();
        let lives = lives?;
        let peers: Arc<dyn Peers> = lives.clone().map_or_else(
            || Arc::new(NoPeers) as Arc<dyn Peers>,
            |lives| Arc::new(lives) as Arc<dyn Peers>,
        );
        let surroundings = ShardSurroundings {
            store: Arc::clone(&store),
            owners: coupon::Surroundings {
                lease: lease.clone(),
                lanes: lanes.clone(),
                board: Arc::clone(&board),
                door: Arc::clone(&door),
                idle: options.idle,
                requests_max: options.coupon_requests_max,
            },
            loads: Arc::new(Semaphore::new(LOADS_MAX)),
            loads_waiting: Admission::new(LOADS_WAITING_MAX),
            loads_ahead: Arc::new(Semaphore::new(LOADS_AHEAD_MAX)),
            places: Admission::new(OWNERS_MAX),
            ownership: ownership.clone(),
            peers: Arc::clone(&peers),
        };
        let mut shards = Vec::with_capacity(usize::from(SHARDS));
        for id in ShardId::all() {
            let started = ShardHandle::start(id, surroundings.clone()).await;
            shards.push(
                started
                    .map_err(|error| StoreError::NotStored(format!("shard {id} did not start: {error}")))?,
            );
        }
        let shards: Arc<[ShardHandle]> = shards.into();
        let remote: Arc<dyn Remote> = lives.clone().map_or_else(
            || Arc::new(NoRemote) as Arc<dyn Remote>,
            |lives| Arc::new(lives) as Arc<dyn Remote>,
        );
        let router = Router::new(
            Arc::clone(&shards),
            ownership.clone(),
            remote,
            lease.clone(),
            places,
        );
        if let Some(lives) = &lives {
            let doors = (Arc::clone(&door), Arc::clone(&board));
            let acquaintances = Acquaintances::new(options.lease);
            lives.start(Arc::new(Talk::new(
                Arc::clone(&shards),
                ownership.clone(),
                doors,
                lease.clone(),
                acquaintances,
            )));
        }
        let member = membership::Options {
            node: options.node,
            http: options.http,
            cluster: lives
                .as_ref()
                .map(|lives| lives.advertised().to_owned())
                .unwrap_or_default(),
            lease: options.lease,
            beat: options.beat,
        };
        let around = membership::Surroundings {
            store: Arc::clone(&store),
            lease: lease.clone(),
            shards: Arc::clone(&shards),
            ownership,
            peers,
            door: Arc::clone(&door),
            board: Arc::clone(&board),
        };
        let membership = Membership::start(member, around).await?;
        let house = Housekeeping {
            door: Arc::clone(&door),
            board,
            lease: lease.clone(),
            shards: Arc::clone(&shards),
            router: router.clone(),
            beat: options.beat,
            idle: options.idle,
        };
        let housekeeping = tokio::spawn(critical("housekeeping", house.run())).abort_handle();
        Ok(Self {
            inner: Arc::new(Inner {
                lives,
                store,
                lease,
                lanes,
                door,
                shards,
                router,
                membership,
                housekeeping,
            }),
        })
    }

    /// Asks the coupon's owner to give it to the user. Answers within `deadline`.
    ///
    /// Cancel safety: a dropped future may leave the request decided; asking again with the same key finds
    /// it.
    pub async fn issue(
        &self,
        coupon: CouponId,
        user: UserId,
        key: RequestKey,
        deadline: Duration,
    ) -> IssueAnswer {
        if let Some(refusal) = self.inner.door.answer(coupon, &user, time::now) {
            handles().door_answers.increment(1);
            let answer = Ok(IssueOutcome::Refused(refusal));
            show_issue(&answer);
            return answer;
        }
        let request = IssueRequest {
            user,
            key,
            expires: time::moment() + deadline,
        };
        let answer = self
            .inner
            .router
            .issue(coupon, request, Instant::now() + deadline)
            .await;
        show_issue(&answer);
        answer
    }

    /// Asks the coupon's owner for a change. Answers within `deadline`.
    ///
    /// Cancel safety: a dropped future may leave the change made.
    pub async fn change(
        &self,
        coupon: CouponId,
        change: Change,
        if_version: Option<u64>,
        deadline: Duration,
    ) -> ChangeAnswer {
        let may_widen = !matches!(change, Change::Pause | Change::Close);
        let until = Instant::now() + deadline;
        let request = ChangeRequest {
            change,
            if_version,
            expires: time::moment() + deadline,
        };
        let mut answer = self.inner.router.change(coupon, request, until).await;
        if let Ok(ChangeOutcome::Done(done)) = &answer {
            let version = done.coupon.version;
            // Before the administrator hears of it, no door may know less: neither the owner's, which has
            // heard, nor the asker's, nor any other.
            self.inner.door.raise_floor(coupon, version, time::moment());
            if let (true, Some(lives)) = (may_widen, &self.inner.lives) {
                let widening = widening::spread(lives, self.inner.store.as_ref(), coupon, version);
                if tokio::time::timeout_at(until, widening).await.is_err() {
                    // It is made; that nobody refuses by what was before cannot be promised.
                    answer = Err(Setback::Unknown);
                }
            }
        }
        show_change(&answer);
        answer
    }

    /// Why this node is not ready; empty if it is.
    pub fn not_ready(&self) -> Vec<NotReady> {
        let mut reasons = Vec::new();
        let membership = &self.inner.membership;
        if membership.is_leaving() {
            reasons.push(NotReady::Draining);
        }
        let (was_ready, outside) = (membership.was_ready(), membership.is_outside());
        if !self.inner.lease.holds(time::moment()) && was_ready {
            reasons.push(NotReady::NoLease);
        } else if !membership.is_ready() {
            if !was_ready || !outside {
                reasons.push(NotReady::Starting);
            }
            if outside {
                reasons.push(NotReady::NoGroup);
            }
        }
        if self.inner.lanes.are_delayed() {
            reasons.push(NotReady::NoStore);
        }
        reasons
    }

    /// The nodes and shards as the store has them.
    pub async fn cluster(&self) -> Result<ClusterView> {
        // The shards first: then an owner that is not among the nodes is one that lives no more, and not one
        // that joined in between.
        let shards = self.inner.store.shards().await?;
        Ok(ClusterView {
            nodes: self.inner.store.nodes().await?,
            shards,
        })
    }

    /// The row of one shard.
    pub async fn shard(&self, shard: ShardId) -> Result<ShardRow> {
        let row = self
            .inner
            .store
            .shards()
            .await?
            .into_iter()
            .find(|row| row.id == shard);
        row.ok_or_else(|| StoreError::Unreadable(format!("shard {shard} has no row")))
    }

    /// The row of one shard, and the nodes of which one may own it.
    pub async fn place(&self, shard: ShardId) -> Result<(ShardRow, Vec<NodeRow>)> {
        // In this order, as in [`Self::cluster`].
        let row = self.shard(shard).await?;
        Ok((row, self.inner.store.nodes().await?))
    }

    /// The store, for reads and for making coupons.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// How many sold-out coupons this node's door knows.
    pub fn door_notices(&self) -> usize {
        self.inner.door.notices()
    }

    /// How many requests are in this node's queues or wait for their answer.
    pub fn admitted(&self) -> usize {
        self.inner.router.admitted()
    }

    /// How many owners are loaded on this node.
    pub fn owners_active(&self) -> usize {
        self.inner.shards.iter().map(ShardHandle::owners).sum()
    }

    /// Is not ready any more from now on, but serves as before, and begins to hand its shards over.
    pub fn begin_leaving(&self) {
        self.inner.membership.begin_leaving();
    }

    /// Leaves as [`Self::begin_leaving`] does, and waits until others have all shards of this node; false if
    /// some are here still after `limit`. Requests go on to where the shards are. A node that has the cluster
    /// for itself, or whose peers all leave too, keeps them until [`Self::stop`].
    ///
    /// Cancel safe: it leaves all the same.
    pub async fn hand_over(&self, limit: Duration) -> bool {
        self.begin_leaving();
        let until = Instant::now() + limit;
        while self.has_shards() {
            let is_alone = self
                .inner
                .lives
                .as_ref()
                .is_none_or(|lives| lives.linked().is_empty());
            // Nodes that are all stopped at once would wait for each other.
            if Instant::now() >= until || is_alone || !self.inner.membership.do_others_stay() {
                return false;
            }
            tokio::time::sleep(HAND_OVER_POLL).await;
        }
        true
    }

    fn has_shards(&self) -> bool {
        self.inner.shards.iter().any(ShardHandle::is_here)
    }

    /// Stops: hands its shards over for half of `limit`, stores everything decided, answers everybody, gives
    /// up the shards that are left, leaves. False if that was not done within `limit`; what was told holds
    /// all the same.
    pub async fn stop(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.hand_over(limit / 2).await;
        let drained = futures_util::future::join_all(self.inner.shards.iter().map(ShardHandle::drain));
        let drained = tokio::time::timeout_at(until, drained).await.is_ok();
        let left = tokio::time::timeout(LEAVE_LIMIT, self.inner.membership.leave())
            .await
            .is_ok();
        if let Some(lives) = &self.inner.lives {
            lives.stop().await;
        }
        self.inner.housekeeping.abort();
        self.inner.shards.iter().for_each(ShardHandle::stop);
        drained && left
    }
}

/// Whether this can be a node among others.
fn check_cluster(options: &Options, store: &dyn Store) -> std::result::Result<(), StartError> {
    if store.is_exclusive() {
        return Err(StartError::Exclusive);
    }
    check_lease(options)
}

fn check_lease(options: &Options) -> std::result::Result<(), StartError> {
    if options.lease <= LEASE_MAX {
        Ok(())
    } else {
        Err(StartError::Lease)
    }
}

/// What is done at every beat and is nobody else's: owners tell the door, idle owners are let go, gauges are
/// set.
struct Housekeeping {
    door: Arc<Door>,
    board: Arc<Board>,
    lease: Lease,
    shards: Arc<[ShardHandle]>,
    router: Router,
    beat: Duration,
    idle: Duration,
}

impl Housekeeping {
    async fn run(self) {
        let mut beats = tokio::time::interval(self.beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut swept_at, mut passivated_at) = (time::moment(), time::moment());
        loop {
            tokio::select! {
                _ = beats.tick() => {}
                () = self.board.changed() => {}
            }
            let asked_at = time::moment();
            if let Some(incarnation) = self.lease.holder(asked_at) {
                self.door.hear(asked_at, self.board.read(incarnation));
            }
            handles().door_notices.set(self.door.notices() as f64);
            handles().admitted.set(self.router.admitted() as f64);
            handles().moving_waiting.set(self.router.waiting() as f64);
            if asked_at.since(swept_at) >= SWEEP_EVERY {
                swept_at = asked_at;
                self.shards.iter().for_each(ShardHandle::sweep);
            }
            if asked_at.since(passivated_at) >= self.idle / 4 {
                passivated_at = asked_at;
                self.shards.iter().for_each(ShardHandle::passivate);
            }
        }
    }
}

fn show_issue(answer: &IssueAnswer) {
    let metrics = handles();
    let counter = match answer {
        Ok(IssueOutcome::Issued(_)) => &metrics.issued,
        Ok(IssueOutcome::Replayed(_)) => &metrics.replayed,
        Ok(IssueOutcome::Refused(refusal)) => match refusal {
            Refusal::UnknownCoupon => &metrics.unknown_coupon,
            Refusal::AlreadyIssued(_) => &metrics.already_issued,
            Refusal::Closed => &metrics.closed,
            Refusal::Paused => &metrics.paused,
            Refusal::NotStarted { .. } => &metrics.not_started,
            Refusal::Ended { .. } => &metrics.ended,
            Refusal::SoldOut { .. } => &metrics.sold_out,
        },
        // Expired: its turn came too late, as too many were before it.
        Err(Setback::Overloaded | Setback::Expired) => &metrics.overloaded,
        Err(Setback::Moved) => &metrics.owner_moving,
        Err(Setback::StoreUnavailable) => &metrics.store_unavailable,
        Err(Setback::Unknown) => &metrics.outcome_unknown,
    };
    counter.increment(1);
}

fn show_change(answer: &ChangeAnswer) {
    let outcome = match answer {
        Ok(ChangeOutcome::Done(_)) => "done",
        Ok(ChangeOutcome::Refused(refusal)) => match refusal {
            ChangeRefusal::UnknownCoupon => "unknown_coupon",
            ChangeRefusal::VersionMismatch { .. } => "version_mismatch",
            ChangeRefusal::Closed => "closed",
            ChangeRefusal::QuantityBelowIssued { .. } => "quantity_below_issued",
            ChangeRefusal::Invalid(_) => "invalid",
        },
        Err(Setback::Overloaded | Setback::Expired) => "overloaded",
        Err(Setback::Moved) => "owner_moving",
        Err(Setback::StoreUnavailable) => "store_unavailable",
        Err(Setback::Unknown) => "outcome_unknown",
    };
    ::metrics::counter!(metrics::CHANGES, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests;
