//! The shard's actor: it activates, passivates and drains the owners of one shard, and is their supervisor. The shell around [`life::Life`].
//!
//! Requests for an active owner go past it, straight into the owner's mailbox ([`ShardHandle::ask`]); all others come here and wait for the owner.

pub mod life;
mod load;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{Semaphore, oneshot};

use crate::admission::{Admission, NotAdmitted};
use crate::coupon::message::{OwnerCommand, Request, Setback};
use crate::coupon::{self, OwnerHandle, Surroundings};
use crate::critical;
use crate::ids::{CouponId, Epoch, Fence, ShardId};
use crate::metrics::{Handles, handles};
use crate::shard::life::{Effect, Event, Life, Load, Raise};
use crate::shard::load::{Loaded, Readied};
use crate::store::{Claim, ShardRow, Store};

/// Most coupons of a node that are read or wait to be: more than are read in the time that people wait, four at a time at a millisecond each. Ids
/// that nobody ever made count too, as only reading tells. More are told `OVERLOADED`.
pub const LOADS_WAITING_MAX: usize = 16_384;

/// Pause before the epoch is raised again after a failure.
const RAISE_PAUSE: Duration = Duration::from_millis(100);

/// Everything a shard's mailbox takes.
#[derive(Debug)]
pub enum ShardCommand {
    /// It was claimed for this node.
    Claimed(Fence),
    /// This node may not serve it any more.
    Lost,
    /// A request that found no owner taking it.
    Ask(CouponId, Request),
    /// Reading a coupon ended.
    Loaded(CouponId, Loaded),
    /// An owner stopped.
    OwnerStopped {
        /// Whose.
        coupon: CouponId,
        /// Which of that coupon's.
        actor: ActorId,
        /// The epoch it wrote under.
        epoch: Epoch,
        /// Whether something it decided may yet be stored or not.
        unsettled: bool,
    },
    /// The store refused a portion of this epoch.
    Fenced(Epoch),
    /// Raising the epoch from a fence ended.
    Raised(Fence, Raise),
    /// Unload owners that are idle.
    Passivate,
    /// Forget requests and answers that nobody waits for any more.
    Sweep,
    /// Store everything, stop all owners, give the shard up and tell when it is done.
    Drain(oneshot::Sender<()>),
}

/// What shards need of their node.
#[derive(Clone)]
pub struct ShardSurroundings {
    /// For loading and claiming.
    pub store: Arc<dyn Store>,
    /// What their owners need.
    pub owners: Surroundings,
    /// How many owners are loaded at the same time on this node: more would only wait for the same disk.
    pub loads: Arc<Semaphore>,
    /// Places for those being loaded and those waiting for it: [`LOADS_WAITING_MAX`].
    pub loads_waiting: Admission,
    /// How many owners there may be on this node.
    pub places: Admission,
}

/// A shard, as others hold it; cheap to clone.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    actor: ActorRef<ShardCommand>,
    shared: Arc<Shared>,
}

/// What the shard's actor shows to the outside without being asked.
#[derive(Debug, Default)]
struct Shared {
    owners: RwLock<HashMap<CouponId, OwnerHandle>>,
    /// The epoch under which it is served; 0: it is not.
    serving: AtomicU64,
    /// The actor is told to end, and may.
    stopping: AtomicBool,
}

impl Shared {
    fn owner(&self, coupon: CouponId) -> Option<OwnerHandle> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).get(&coupon).cloned()
    }

    fn with_owners<T>(&self, change: impl FnOnce(&mut HashMap<CouponId, OwnerHandle>) -> T) -> T {
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

    /// Brings a request to the coupon's owner, which is loaded if it is not there. The answer comes by the request's own way back.
    pub fn ask(&self, coupon: CouponId, request: Request) {
        let request = match self.shared.owner(coupon) {
            Some(owner) => match owner.decide(request) {
                Ok(()) => return,
                Err((request, NotAdmitted::Full)) => return request.set_back(Setback::Overloaded),
                Err((request, NotAdmitted::Closed)) => request,
            },
            None => request,
        };
        if let Err(ractor::MessagingErr::SendErr(ShardCommand::Ask(_, request))) = self.actor.cast(ShardCommand::Ask(coupon, request)) {
            request.set_back(Setback::Moved);
        }
    }

    /// It was claimed for this node, under this fence.
    pub fn claimed(&self, fence: Fence) {
        let _ = self.actor.cast(ShardCommand::Claimed(fence));
    }

    /// This node may not serve it any more.
    pub fn lost(&self) {
        let _ = self.actor.cast(ShardCommand::Lost);
    }

    /// Lets it unload owners that are idle.
    pub fn passivate(&self) {
        let _ = self.actor.cast(ShardCommand::Passivate);
    }

    /// Lets it forget whom nobody waits for.
    pub fn sweep(&self) {
        let _ = self.actor.cast(ShardCommand::Sweep);
    }

    /// The epoch under which it is served, if it is.
    pub fn serving(&self) -> Option<Epoch> {
        let epoch = self.shared.serving.load(Ordering::Acquire);
        (epoch != 0).then(|| Epoch::new(epoch))
    }

    /// Tells the coupon's owner something, if it is loaded.
    #[cfg(test)]
    pub(crate) fn tell_owner(&self, coupon: CouponId, command: OwnerCommand) -> bool {
        self.shared.owner(coupon).map(|owner| owner.tell(command)).is_some()
    }

    /// How many owners are loaded.
    pub fn owners(&self) -> usize {
        self.shared.owners.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Stores everything, stops all owners, and gives the shard up. Without a limit of its own: the caller sets one.
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

struct ShardActor;

struct State {
    id: ShardId,
    surroundings: ShardSurroundings,
    shared: Arc<Shared>,
    life: Life,
    drained: Vec<oneshot::Sender<()>>,
    /// The owner that could not be made just now.
    not_made: Option<CouponId>,
    metrics: &'static Handles,
}

impl Actor for ShardActor {
    type Msg = ShardCommand;
    type State = State;
    type Arguments = (ShardId, ShardSurroundings, Arc<Shared>);

    async fn pre_start(&self, _myself: ActorRef<ShardCommand>, arguments: Self::Arguments) -> Result<State, ActorProcessingErr> {
        let (id, surroundings, shared) = arguments;
        Ok(State { id, surroundings, shared, life: Life::default(), drained: Vec::new(), not_made: None, metrics: handles() })
    }

    async fn handle(&self, myself: ActorRef<ShardCommand>, command: ShardCommand, state: &mut State) -> Result<(), ActorProcessingErr> {
        let mut read = None;
        let event = match command {
            ShardCommand::Claimed(fence) => Event::Claimed(fence),
            ShardCommand::Lost => Event::Lost,
            ShardCommand::Ask(coupon, request) => Event::Asked(coupon, request),
            ShardCommand::Loaded(coupon, loaded) => {
                let (load, made) = loaded.split();
                read = made;
                Event::Loaded(coupon, load)
            }
            ShardCommand::OwnerStopped { coupon, actor, epoch, unsettled } => {
                if !state.forget(coupon, actor) {
                    return Ok(());
                }
                Event::Stopped { coupon, epoch, unsettled }
            }
            ShardCommand::Fenced(epoch) => Event::Fenced(epoch),
            ShardCommand::Raised(from, raise) => Event::Raised { from, raise },
            ShardCommand::Passivate => {
                state.tell_active(|_| true, || OwnerCommand::Passivate);
                return Ok(());
            }
            ShardCommand::Sweep => {
                state.tell_active(OwnerHandle::is_busy, || OwnerCommand::Sweep);
                Event::Sweep
            }
            ShardCommand::Drain(done) => {
                state.drained.push(done);
                Event::Drain
            }
        };
        state.take(event, read, &myself).await;
        Ok(())
    }

    /// Owners that stop by themselves say so; one that panicked cannot, and is noticed here. The shard outlives both.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ShardCommand>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            let panicked = state.shared.with_owners(|owners| {
                let coupon = owners.iter().find(|(_, owner)| owner.is(cell.get_id())).map(|(coupon, _)| *coupon);
                coupon.inspect(|coupon| {
                    owners.remove(coupon);
                })
            });
            if let Some(coupon) = panicked {
                tracing::error!(%coupon, shard = %state.id, %error, "an owner panicked; loading it anew under the next epoch");
                state.metrics.owner_panics.increment(1);
                state.surroundings.owners.board.withdraw(coupon);
                state.take(Event::Panicked(coupon), None, &myself).await;
            }
        }
        Ok(())
    }
}

impl State {
    /// Feeds an event and all that follows from it.
    async fn take(&mut self, event: Event, mut read: Option<Readied>, myself: &ActorRef<ShardCommand>) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.life.handle(event, &mut effects);
            for effect in effects {
                events.extend(self.carry_out(effect, &mut read, myself).await);
            }
        }
        self.show();
    }

    async fn carry_out(&mut self, effect: Effect, read: &mut Option<Readied>, myself: &ActorRef<ShardCommand>) -> Option<Event> {
        match effect {
            Effect::Load(coupon) => return self.load(coupon, myself),
            Effect::Activate(coupon, fence) => return self.activate(coupon, fence, read.take(), myself).await,
            Effect::Deliver(coupon, request) => return self.deliver(coupon, request),
            Effect::SetBack(request, setback) => {
                // The queues that a life knows: places for owners, and who waits for one to be loaded.
                if setback == Setback::Overloaded {
                    self.metrics.refused_by_owners.increment(1);
                }
                request.set_back(setback);
            }
            Effect::UnknownCoupon(request) => request.unknown_coupon(),
            Effect::Refence(coupon, epoch) => self.tell(coupon, OwnerCommand::Refence(epoch)),
            Effect::Stop(coupon) => self.tell(coupon, OwnerCommand::Stop),
            Effect::Drain(coupon) => self.tell(coupon, OwnerCommand::Drain),
            Effect::Raise { from, pause } => self.raise(from, pause, myself),
            Effect::Drained(fence) => self.release(fence),
        }
        None
    }

    fn load(&self, coupon: CouponId, myself: &ActorRef<ShardCommand>) -> Option<Event> {
        let Ok(waiting) = self.surroundings.loads_waiting.admit() else { return Some(Event::Loaded(coupon, Load::NoPlace)) };
        let (store, loads, shard) = (Arc::clone(&self.surroundings.store), Arc::clone(&self.surroundings.loads), myself.clone());
        let places = self.surroundings.places.clone();
        tokio::spawn(async move {
            // A task of its own, so that its panic is an answer too.
            let loading = tokio::spawn(async move { load::load(store, &loads, &places, coupon).await });
            let loaded = loading.await.unwrap_or(Loaded::Failed);
            drop(waiting);
            let _ = shard.cast(ShardCommand::Loaded(coupon, loaded));
        });
        None
    }

    async fn activate(&mut self, coupon: CouponId, fence: Fence, read: Option<Readied>, myself: &ActorRef<ShardCommand>) -> Option<Event> {
        let spawned = match read {
            Some(Readied { ledger, place }) => {
                coupon::spawn(*ledger, place, fence, self.surroundings.owners.clone(), myself).await.map_err(|error| error.to_string())
            }
            None => Err("nothing was read".to_owned()),
        };
        match spawned {
            Ok(owner) => {
                self.shared.with_owners(|owners| owners.insert(coupon, owner));
                self.not_made = None;
                self.metrics.owner_activations.increment(1);
                None
            }
            Err(error) => {
                tracing::error!(%coupon, shard = %self.id, %error, "an owner did not start");
                self.not_made = Some(coupon);
                Some(Event::Stopped { coupon, epoch: fence.epoch, unsettled: false })
            }
        }
    }

    fn deliver(&self, coupon: CouponId, request: Request) -> Option<Event> {
        let Some(owner) = self.shared.owner(coupon) else {
            if self.not_made != Some(coupon) {
                return Some(Event::Bounced(coupon, request));
            }
            request.set_back(Setback::StoreUnavailable);
            return None;
        };
        match owner.decide(request) {
            Ok(()) => None,
            Err((request, NotAdmitted::Closed)) => Some(Event::Bounced(coupon, request)),
            Err((request, NotAdmitted::Full)) => {
                request.set_back(Setback::Overloaded);
                None
            }
        }
    }

    fn tell(&self, coupon: CouponId, command: OwnerCommand) {
        if let Some(owner) = self.shared.owner(coupon) {
            owner.tell(command);
        }
    }

    fn tell_active(&self, whom: impl Fn(&OwnerHandle) -> bool, command: impl Fn() -> OwnerCommand) {
        for owner in self.shared.owners.read().unwrap_or_else(PoisonError::into_inner).values().filter(|owner| whom(owner)) {
            owner.tell(command());
        }
    }

    /// Takes an owner that is gone out of the table; false if it is not the one that is there.
    fn forget(&self, coupon: CouponId, actor: ActorId) -> bool {
        self.shared.with_owners(|owners| {
            let is_there = owners.get(&coupon).is_some_and(|owner| owner.is(actor));
            if is_there {
                owners.remove(&coupon);
            }
            is_there
        })
    }

    fn raise(&self, from: Fence, pause: bool, myself: &ActorRef<ShardCommand>) {
        let (id, store, shard) = (self.id, Arc::clone(&self.surroundings.store), myself.clone());
        let claims = self.metrics.shard_claims.clone();
        tokio::spawn(async move {
            if pause {
                tokio::time::sleep(RAISE_PAUSE).await;
            }
            let raising = tokio::spawn(async move { raise_epoch(store.as_ref(), id, from).await });
            let raise = raising.await.unwrap_or(Raise::Failed);
            if let Raise::Ours(fence) = raise {
                claims.increment(1);
                tracing::info!(shard = %id, epoch = %fence.epoch, "raised the epoch of a shard of ours");
            }
            let _ = shard.cast(ShardCommand::Raised(from, raise));
        });
    }

    fn release(&mut self, fence: Option<Fence>) {
        let (id, store, drained) = (self.id, Arc::clone(&self.surroundings.store), std::mem::take(&mut self.drained));
        tokio::spawn(async move {
            if let Some(fence) = fence
                && let Err(error) = store.release(&[(id, fence)]).await
            {
                tracing::warn!(shard = %id, %error, "a drained shard was not released; whoever comes next claims it from us");
            }
            for done in drained {
                let _ = done.send(());
            }
        });
    }

    /// Shows the outside what changed.
    fn show(&self) {
        let epoch = self.life.fence().map_or(0, |fence| fence.epoch.get());
        let before = self.shared.serving.swap(epoch, Ordering::AcqRel);
        match (before, epoch) {
            (0, 1..) => self.metrics.shards_owned.increment(1.0),
            (1.., 0) => self.metrics.shards_owned.decrement(1.0),
            _ => {}
        }
    }
}

/// Raises a shard's epoch from the fence under which it is ours, and commits. Asked again after an unknown outcome, it finds its own earlier success.
async fn raise_epoch(store: &dyn Store, id: ShardId, from: Fence) -> Raise {
    let seen = ShardRow { id, epoch: from.epoch, owner: Some(from.owner) };
    match store.claim(&[Claim { seen, claimant: from.owner }]).await {
        Ok(rows) => match rows.first() {
            Some(row) if row.owner == Some(from.owner) && row.epoch > from.epoch => {
                Raise::Ours(Fence { epoch: row.epoch, owner: from.owner })
            }
            Some(_) => Raise::Lost,
            None => Raise::Failed,
        },
        Err(error) => {
            tracing::warn!(shard = %id, %error, "the epoch was not raised yet");
            Raise::Failed
        }
    }
}
