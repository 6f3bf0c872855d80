//! The handle of a shard, and what its actor shares with all handles.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;

use crate::admission::NotAdmitted;
use crate::cluster::claim::LocalState;
use crate::critical;
use crate::ids::{Fence, Incarnation, ShardId};
use crate::owning::kind::Kind;
use crate::owning::owner::actor::OwnerHandle;
#[cfg(test)]
use crate::owning::request::OwnerCommand;
use crate::owning::request::{Request, Setback};
use crate::owning::shard::lifecycle::AHEAD_MAX;
use crate::owning::shard::status::ServingStatus;
use crate::owning::shard::{ShardActor, ShardCommand, ShardContext};

/// The handle of a shard; cheap to clone.
#[derive(Debug, Clone)]
pub struct ShardHandle<K: Kind> {
    actor: ActorRef<ShardCommand<K>>,
    shared: Arc<Shared<K>>,
}

/// What the shard's actor shares with its handles.
#[derive(Debug)]
pub(super) struct Shared<K: Kind> {
    pub(super) owners: RwLock<HashMap<K::Id, OwnerHandle<K>>>,
    pub(super) status: ServingStatus,
    /// The incarnation that reported that it has loaded ahead; 0 if there is no report since the last request
    /// to load ahead.
    loaded_ahead_by: AtomicU64,
    /// True once the actor is meant to end.
    stopping: AtomicBool,
}

impl<K: Kind> Default for Shared<K> {
    fn default() -> Self {
        Self {
            owners: RwLock::default(),
            status: ServingStatus::default(),
            loaded_ahead_by: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        }
    }
}

impl<K: Kind> Shared<K> {
    pub(super) fn owner(&self, id: K::Id) -> Option<OwnerHandle<K>> {
        self.owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// Puts a request into the mailbox of the id's owner, or gives the request back, with `Closed` if there
    /// is no owner. The owner's handle is not cloned, because all requests would then contend for one
    /// reference count.
    fn admit(&self, id: K::Id, request: Request<K>) -> Result<(), (Request<K>, NotAdmitted)> {
        match self
            .owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
        {
            Some(owner) => owner.admit(request),
            None => Err((request, NotAdmitted::Closed)),
        }
    }

    pub(super) fn with_owners<T>(&self, change: impl FnOnce(&mut HashMap<K::Id, OwnerHandle<K>>) -> T) -> T {
        change(&mut self.owners.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Kind> ShardHandle<K> {
    /// Starts a shard that is not served yet.
    ///
    /// # Errors
    ///
    /// If its actor does not start.
    pub async fn start(id: ShardId, context: ShardContext<K>) -> Result<Self, ractor::SpawnErr> {
        let shared = Arc::new(Shared::default());
        let arguments = (id, context, Arc::clone(&shared));
        let stopping = Arc::clone(&shared);
        let (actor, task) = ShardActor::spawn(None, ShardActor(PhantomData), arguments).await?;
        tokio::spawn(async move {
            let _ = task.await;
            if !stopping.stopping.load(Ordering::Acquire) {
                critical::end_process("a shard");
            }
        });
        Ok(Self { actor, shared })
    }

    /// Delivers a request to the id's owner, which is loaded if necessary. The answer goes to the request's
    /// reply.
    pub fn deliver(&self, id: K::Id, request: Request<K>) {
        let request = match self.shared.admit(id, request) {
            Ok(()) => return,
            Err((request, NotAdmitted::Full)) => return request.set_back(Setback::Overloaded),
            Err((request, NotAdmitted::Closed)) => request,
        };
        if let Err(ractor::MessagingErr::SendErr(ShardCommand::Deliver(_, request))) =
            self.actor.cast(ShardCommand::Deliver(id, request))
        {
            request.set_back(Setback::Moved);
        }
    }

    /// Tells the shard that it was claimed for this node, under this fence.
    ///
    /// A hand-off to this node may be reported late or twice. A fence that is not new changes nothing.
    pub fn claimed(&self, fence: Fence) {
        self.change(ShardCommand::Claimed(fence));
    }

    /// If the shard is served here under this fence, hands it off to this incarnation, or releases it if `to`
    /// is `None`. The shard then admits no requests, stores everything, stops its owners and names the next
    /// owner.
    pub fn hand_off(&self, from: Fence, to: Option<Incarnation>) {
        self.change(ShardCommand::HandOff(from, to));
    }

    /// Returns the ids that the next owner of the shard should load ahead, at most [`AHEAD_MAX`], and forgets
    /// which incarnation has loaded ahead.
    pub fn ids_to_load_ahead(&self) -> Vec<K::Id> {
        self.shared.loaded_ahead_by.store(0, Ordering::Release);
        self.shared
            .owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .take(AHEAD_MAX)
            .collect()
    }

    /// Notes that this incarnation has loaded ahead.
    pub fn was_loaded_ahead(&self, by: Incarnation) {
        self.shared.loaded_ahead_by.store(by.get(), Ordering::Release);
    }

    /// Returns true if this incarnation has loaded ahead, or there is nothing to load.
    pub fn is_loaded_ahead(&self, by: Incarnation) -> bool {
        self.shared.loaded_ahead_by.load(Ordering::Acquire) == by.get() || self.owners() == 0
    }

    /// Loads the first [`AHEAD_MAX`] of these ids ahead. When this is done, reports it to `from`, which is
    /// about to hand the shard to this node. Nothing is decided from the loaded rows before this node owns
    /// the shard.
    pub fn load_ahead(&self, from: Incarnation, ids: Vec<K::Id>) {
        let _ = self.actor.cast(ShardCommand::LoadAhead(from, ids));
    }

    /// Tells the shard that this node may not serve it any more.
    pub fn lost(&self) {
        self.change(ShardCommand::Lost);
    }

    /// Sends a command that changes the shard's serving state. Until the command is handled, nothing is
    /// concluded from the shard's row.
    fn change(&self, command: ShardCommand<K>) {
        self.shared.status.begin_change();
        if self.actor.cast(command).is_err() {
            self.shared.status.end_change();
        }
    }

    /// Passivates owners that are idle.
    pub fn passivate(&self) {
        let _ = self.actor.cast(ShardCommand::Passivate);
    }

    /// Drops requests whose callers do not wait any more.
    pub fn sweep(&self) {
        let _ = self.actor.cast(ShardCommand::Sweep);
    }

    /// Returns how often the shard's serving state has changed. The caller takes this number before it reads
    /// the rows. With it, [`Self::local_state`] tells whether the rows may be older than the state.
    pub fn changes(&self) -> u64 {
        self.shared.status.changes()
    }

    /// Returns the shard's local state; [`LocalState::Unsettled`] if the serving state may have changed since
    /// [`Self::changes`] returned `changes`.
    pub fn local_state(&self, changes: u64) -> LocalState {
        self.shared.status.local_state(changes)
    }

    /// Returns true if the shard is served here, or is being handed off from here.
    pub fn is_here(&self) -> bool {
        self.shared.status.is_here()
    }

    /// Sends a command to the id's owner. Returns false if the id has no owner.
    #[cfg(test)]
    pub(crate) fn tell_owner(&self, id: K::Id, command: OwnerCommand<K>) -> bool {
        self.shared
            .owner(id)
            .map(|owner| owner.command(command))
            .is_some()
    }

    /// Returns how many owners are active.
    pub fn owners(&self) -> usize {
        self.shared
            .owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Calls `visit` with each active owner.
    pub fn each_owner(&self, mut visit: impl FnMut(K::Id, &OwnerHandle<K>)) {
        let owners = self.shared.owners.read().unwrap_or_else(PoisonError::into_inner);
        owners.iter().for_each(|(id, owner)| visit(*id, owner));
    }

    /// Stores everything, stops all owners and releases the shard. This call has no time limit of its own:
    /// the caller sets one.
    ///
    /// Cancel safe: the shard drains even if this future is dropped.
    pub async fn drain(&self) {
        let (done, is_done) = oneshot::channel();
        if self.actor.cast(ShardCommand::Drain(done)).is_ok() {
            // An error means that the actor has ended, so there is nothing left to drain.
            let _ = is_done.await;
        }
    }

    /// Ends the actor. Waiting callers are told that the outcome is unknown.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.actor.stop(None);
    }
}
