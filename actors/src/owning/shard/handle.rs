//! A shard as others hold it, and what its actor shows them without being asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;

use crate::cluster::claim::Here;
use crate::critical;
use crate::ids::{CouponId, Fence, Incarnation, ShardId};
use crate::owning::admission::NotAdmitted;
#[cfg(test)]
use crate::owning::message::OwnerCommand;
use crate::owning::message::{Request, Setback};
use crate::owning::owner::actor::OwnerHandle;
use crate::owning::shard::lifecycle::EXPECTED_MAX;
use crate::owning::shard::status::Standing;
use crate::owning::shard::{ShardActor, ShardCommand, ShardSurroundings};

/// A shard, as others hold it; cheap to clone.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    actor: ActorRef<ShardCommand>,
    shared: Arc<Shared>,
}

/// What the shard's actor shows to the outside without being asked.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) owners: RwLock<HashMap<CouponId, OwnerHandle>>,
    pub(super) standing: Standing,
    /// Who said that it has loaded ahead what it was to, since that was announced; 0: nobody.
    loaded_ahead_by: AtomicU64,
    /// The actor is told to end, and may.
    stopping: AtomicBool,
}

impl Shared {
    pub(super) fn owner(&self, coupon: CouponId) -> Option<OwnerHandle> {
        self.owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&coupon)
            .cloned()
    }

    /// Puts a request into the mailbox of the coupon's owner; one that is not loaded takes nobody. Its handle
    /// is not copied: every request of a crowd would count the same references up and down.
    fn decide(&self, coupon: CouponId, request: Request) -> Result<(), (Request, NotAdmitted)> {
        match self
            .owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&coupon)
        {
            Some(owner) => owner.decide(request),
            None => Err((request, NotAdmitted::Closed)),
        }
    }

    pub(super) fn with_owners<T>(&self, change: impl FnOnce(&mut HashMap<CouponId, OwnerHandle>) -> T) -> T {
        change(&mut self.owners.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ShardHandle {
    /// Starts a shard that serves nothing yet.
    pub async fn start(id: ShardId, surroundings: ShardSurroundings) -> Result<Self, ractor::SpawnErr> {
        let shared = Arc::new(Shared::default());
        let arguments = (id, surroundings, Arc::clone(&shared));
        let stopping = Arc::clone(&shared);
        let (actor, task) = ShardActor::spawn(None, ShardActor, arguments).await?;
        tokio::spawn(async move {
            let _ = task.await;
            if !stopping.stopping.load(Ordering::Acquire) {
                critical::end_process("a shard");
            }
        });
        Ok(Self { actor, shared })
    }

    /// Brings a request to the coupon's owner, which is loaded if it is not there. The answer comes by the
    /// request's own way back.
    pub fn ask(&self, coupon: CouponId, request: Request) {
        let request = match self.shared.decide(coupon, request) {
            Ok(()) => return,
            Err((request, NotAdmitted::Full)) => return request.set_back(Setback::Overloaded),
            Err((request, NotAdmitted::Closed)) => request,
        };
        if let Err(ractor::MessagingErr::SendErr(ShardCommand::Ask(_, request))) =
            self.actor.cast(ShardCommand::Ask(coupon, request))
        {
            request.set_back(Setback::Moved);
        }
    }

    /// It was claimed for this node, under this fence.
    ///
    /// That another handed it to us may also be heard of late, or twice: a fence that is not news changes
    /// nothing.
    pub fn claimed(&self, fence: Fence) {
        self.turn(ShardCommand::Claimed(fence));
    }

    /// Gives it to this node, or to nobody, if it is ours under this fence: stops admitting, stores
    /// everything, stops its owners, names the next owner.
    pub fn give_up(&self, from: Fence, to: Option<Incarnation>) {
        self.turn(ShardCommand::GiveUp(from, to));
    }

    /// This node is about to hand it over: these coupons are loaded, as many as whoever gets it loads ahead.
    pub fn announced(&self) -> Vec<CouponId> {
        self.shared.loaded_ahead_by.store(0, Ordering::Release);
        self.shared
            .owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .take(EXPECTED_MAX)
            .collect()
    }

    /// This node has loaded ahead what was announced.
    pub fn was_loaded_ahead(&self, by: Incarnation) {
        self.shared.loaded_ahead_by.store(by.get(), Ordering::Release);
    }

    /// Whether this node has, or there is nothing to load.
    pub fn is_loaded_ahead(&self, by: Incarnation) -> bool {
        self.shared.loaded_ahead_by.load(Ordering::Acquire) == by.get() || self.owners() == 0
    }

    /// It is about to be handed to this node, by that one: loads these coupons ahead, the first so many, and
    /// says so. Nothing is decided upon them before it came.
    pub fn expect(&self, from: Incarnation, coupons: Vec<CouponId>) {
        let _ = self.actor.cast(ShardCommand::Expect(from, coupons));
    }

    /// This node may not serve it any more.
    pub fn lost(&self) {
        self.turn(ShardCommand::Lost);
    }

    /// Sends what changes how it stands; until that was done, rows say nothing about it.
    fn turn(&self, command: ShardCommand) {
        self.shared.standing.begin_change();
        if self.actor.cast(command).is_err() {
            self.shared.standing.end_change();
        }
    }

    /// Lets it unload owners that are idle.
    pub fn passivate(&self) {
        let _ = self.actor.cast(ShardCommand::Passivate);
    }

    /// Lets it forget whom nobody waits for.
    pub fn sweep(&self) {
        let _ = self.actor.cast(ShardCommand::Sweep);
    }

    /// How often it has changed how it stands. Taken before rows are read, it tells [`Self::here`] whether
    /// they may be older than what is so now.
    pub fn changes(&self) -> u64 {
        self.shared.standing.changes()
    }

    /// How it stands, if that has not changed since there were so many `changes`.
    pub fn here(&self, changes: u64) -> Here {
        self.shared.standing.here(changes)
    }

    /// Whether it is served here, or being given up.
    pub fn is_here(&self) -> bool {
        self.shared.standing.is_here()
    }

    /// Tells the coupon's owner something, if it is loaded.
    #[cfg(test)]
    pub(crate) fn tell_owner(&self, coupon: CouponId, command: OwnerCommand) -> bool {
        self.shared
            .owner(coupon)
            .map(|owner| owner.tell(command))
            .is_some()
    }

    /// How many owners are loaded.
    pub fn owners(&self) -> usize {
        self.shared
            .owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Stores everything, stops all owners, and gives the shard up. Without a limit of its own: the caller
    /// sets one.
    pub async fn drain(&self) {
        let (done, is_done) = oneshot::channel();
        if self.actor.cast(ShardCommand::Drain(done)).is_ok() {
            // An error means that the shard is gone, and so drained.
            let _ = is_done.await;
        }
    }

    /// Ends the actor. Whoever waits is told that the outcome is unknown.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.actor.stop(None);
    }
}
