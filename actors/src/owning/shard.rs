//! The shard's actor: it activates, passivates and drains the owners of one shard, and is their supervisor.
//! The shell around [`lifecycle::Life`].
//!
//! Requests for an active owner go past it, straight into the owner's mailbox ([`ShardHandle::ask`]); all
//! others come here and wait for the owner.

mod handle;
pub mod lifecycle;
mod load;
mod statements;
mod status;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{Semaphore, oneshot};

use crate::cluster::ownership::Ownership;
use crate::cluster::peers::Peers;
use crate::ids::{CouponId, Epoch, Fence, Incarnation, ShardId};
use crate::metrics::{Handles, handles};
use crate::owning::admission::{Admission, NotAdmitted};
use crate::owning::message::{OwnerCommand, Request, Setback};
use crate::owning::owner::actor::{self as coupon, OwnerHandle, Surroundings};
pub use crate::owning::shard::handle::ShardHandle;
use crate::owning::shard::handle::Shared;
use crate::owning::shard::lifecycle::{Effect, Event, Life, Load, Raise, Shown};
use crate::owning::shard::load::{Ahead, Loaded, Readied};
use crate::store::Store;
use crate::time::{self, Moment};

/// Most coupons of a node that are read or wait to be: more than are read in the time that people wait, four
/// at a time at a millisecond each. Ids that nobody ever made count too, as only reading tells. More are told
/// `OVERLOADED`.
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
    /// Give it to this node, or to nobody, if it is ours under this fence.
    GiveUp(Fence, Option<Incarnation>),
    /// Giving it up from a fence ended; true: it surely is ours no more.
    Given(Fence, bool),
    /// This node is about to hand it to us: load these coupons ahead.
    Expect(Incarnation, Vec<CouponId>),
    /// Loading ahead ended.
    Preloaded(CouponId, Option<Ahead>),
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
    /// The same for what is loaded ahead, so that it keeps nobody waiting who asks.
    pub loads_ahead: Arc<Semaphore>,
    /// How many owners there may be on this node.
    pub places: Admission,
    /// Learns who has a shard that was handed over.
    pub ownership: Ownership,
    /// Hear of it too.
    pub peers: Arc<dyn Peers>,
}

struct ShardActor;

/// What came with an event.
#[derive(Default)]
enum Read {
    #[default]
    Nothing,
    /// What an owner is made of.
    Whole(Readied),
    /// What is kept until its shard comes.
    Ahead(Ahead),
}

struct State {
    id: ShardId,
    surroundings: ShardSurroundings,
    shared: Arc<Shared>,
    life: Life,
    /// What was read ahead.
    ahead: HashMap<CouponId, Ahead>,
    drained: Vec<oneshot::Sender<()>>,
    /// Who is about to hand it to us, and has not heard yet that we are prepared.
    announced_by: Option<Incarnation>,
    /// Since when it takes nobody, as it is given up.
    closed_at: Option<Moment>,
    /// The owner that could not be made just now.
    not_made: Option<CouponId>,
    metrics: &'static Handles,
}

impl Actor for ShardActor {
    type Msg = ShardCommand;
    type State = State;
    type Arguments = (ShardId, ShardSurroundings, Arc<Shared>);

    async fn pre_start(
        &self,
        _myself: ActorRef<ShardCommand>,
        arguments: Self::Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let (id, surroundings, shared) = arguments;
        let (life, ahead, drained) = (Life::default(), HashMap::new(), Vec::new());
        let (announced_by, closed_at, not_made) = (None, None, None);
        Ok(State {
            id,
            surroundings,
            shared,
            life,
            ahead,
            drained,
            announced_by,
            closed_at,
            not_made,
            metrics: handles(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ShardCommand>,
        command: ShardCommand,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let mut read = Read::Nothing;
        let turns = command.turns();
        let event = match command {
            ShardCommand::Claimed(fence) => Event::Claimed(fence),
            ShardCommand::Lost => Event::Lost,
            ShardCommand::Ask(coupon, request) => Event::Asked(coupon, request),
            ShardCommand::Loaded(coupon, loaded) => {
                let (load, made) = loaded.split();
                read = made.map_or(Read::Nothing, Read::Whole);
                Event::Loaded(coupon, load)
            }
            ShardCommand::OwnerStopped {
                coupon,
                actor,
                epoch,
                unsettled,
            } => {
                if !state.forget(coupon, actor) {
                    return Ok(());
                }
                Event::Stopped {
                    coupon,
                    epoch,
                    unsettled,
                }
            }
            ShardCommand::Fenced(epoch) => Event::Fenced(epoch),
            ShardCommand::Raised(from, raise) => Event::Raised { from, raise },
            ShardCommand::GiveUp(from, to) => Event::GiveUp { from, to },
            ShardCommand::Given(from, given) => Event::Given { from, given },
            ShardCommand::Expect(from, coupons) => {
                state.announced_by = Some(from);
                Event::Expect(coupons)
            }
            ShardCommand::Preloaded(coupon, ahead) => {
                let is_read = ahead.is_some();
                read = ahead.map_or(Read::Nothing, Read::Ahead);
                Event::Preloaded(coupon, is_read)
            }
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
        if turns {
            state.shared.standing.end_change();
        }
        Ok(())
    }

    /// Owners that stop by themselves say so; one that panicked cannot, and is noticed here. The shard
    /// outlives both.
    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ShardCommand>,
        event: SupervisionEvent,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            let panicked = state.shared.with_owners(|owners| {
                let coupon = owners
                    .iter()
                    .find(|(_, owner)| owner.is(cell.get_id()))
                    .map(|(coupon, _)| *coupon);
                coupon.inspect(|coupon| {
                    owners.remove(coupon);
                })
            });
            if let Some(coupon) = panicked {
                tracing::error!(%coupon, shard = %state.id, %error, "an owner panicked; loading it anew under the next epoch");
                state.metrics.owner_panics.increment(1);
                state.surroundings.owners.board.withdraw(coupon);
                state.take(Event::Panicked(coupon), Read::Nothing, &myself).await;
            }
        }
        Ok(())
    }
}

impl State {
    /// Feeds an event and all that follows from it.
    async fn take(&mut self, event: Event, mut read: Read, myself: &ActorRef<ShardCommand>) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.life.handle(event, &mut effects);
            self.closed_at = match self.life.shown() {
                Shown::Moving => self.closed_at.or_else(|| Some(time::moment())),
                Shown::Unserved | Shown::Serving(_) | Shown::Drained => None,
            };
            for effect in effects {
                events.extend(self.carry_out(effect, &mut read, myself).await);
            }
        }
        self.show();
    }

    async fn carry_out(
        &mut self,
        effect: Effect,
        read: &mut Read,
        myself: &ActorRef<ShardCommand>,
    ) -> Option<Event> {
        match effect {
            Effect::Load(coupon) => return self.load(coupon, myself),
            Effect::Preload(coupon) => self.preload(coupon, myself),
            Effect::Keep(coupon) => {
                if let Read::Ahead(ahead) = std::mem::take(read) {
                    self.ahead.insert(coupon, ahead);
                }
            }
            Effect::LoadedAhead => {
                if let Some(by) = self.announced_by.take() {
                    self.surroundings.peers.loaded_ahead(by, self.id);
                }
            }
            Effect::LoadTail(coupon) => return self.load_tail(coupon, myself),
            Effect::Forget(coupon) => drop(self.ahead.remove(&coupon)),
            Effect::Activate(coupon, fence) => {
                return self.activate(coupon, fence, std::mem::take(read), myself).await;
            }
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
            Effect::Give { from, to } => self.give(from, to, myself),
            Effect::Drained(fence) => self.release(fence),
        }
        None
    }

    fn load(&self, coupon: CouponId, myself: &ActorRef<ShardCommand>) -> Option<Event> {
        let Ok(waiting) = self.surroundings.loads_waiting.admit() else {
            return Some(Event::Loaded(coupon, Load::NoPlace));
        };
        let (store, loads, shard) = (
            Arc::clone(&self.surroundings.store),
            Arc::clone(&self.surroundings.loads),
            myself.clone(),
        );
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

    fn preload(&self, coupon: CouponId, myself: &ActorRef<ShardCommand>) {
        let (store, loads, shard) = (
            Arc::clone(&self.surroundings.store),
            Arc::clone(&self.surroundings.loads_ahead),
            myself.clone(),
        );
        let places = self.surroundings.places.clone();
        tokio::spawn(async move {
            let loading = tokio::spawn(async move { load::preload(store, &loads, &places, coupon).await });
            let _ = shard.cast(ShardCommand::Preloaded(coupon, loading.await.unwrap_or(None)));
        });
    }

    fn load_tail(&mut self, coupon: CouponId, myself: &ActorRef<ShardCommand>) -> Option<Event> {
        let Some(ahead) = self.ahead.remove(&coupon) else {
            return self.load(coupon, myself);
        };
        let (store, loads, shard) = (
            Arc::clone(&self.surroundings.store),
            Arc::clone(&self.surroundings.loads),
            myself.clone(),
        );
        tokio::spawn(async move {
            let loading = tokio::spawn(async move { load::load_tail(store, &loads, coupon, ahead).await });
            let _ = shard.cast(ShardCommand::Loaded(
                coupon,
                loading.await.unwrap_or(Loaded::Failed),
            ));
        });
        None
    }

    async fn activate(
        &mut self,
        coupon: CouponId,
        fence: Fence,
        read: Read,
        myself: &ActorRef<ShardCommand>,
    ) -> Option<Event> {
        let spawned = match read {
            Read::Whole(Readied { ledger, place }) => {
                coupon::spawn(*ledger, place, fence, self.surroundings.owners.clone(), myself)
                    .await
                    .map_err(|error| error.to_string())
            }
            Read::Nothing | Read::Ahead(_) => Err("nothing was read".to_owned()),
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
                Some(Event::Stopped {
                    coupon,
                    epoch: fence.epoch,
                    unsettled: false,
                })
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
        for owner in self
            .shared
            .owners
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .filter(|owner| whom(owner))
        {
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
        let (ownership, peers) = (
            self.surroundings.ownership.clone(),
            Arc::clone(&self.surroundings.peers),
        );
        tokio::spawn(async move {
            if pause {
                tokio::time::sleep(RAISE_PAUSE).await;
            }
            let raising = tokio::spawn(async move { statements::raise(store.as_ref(), id, from).await });
            let raised = raising.await.unwrap_or(Raise::Failed);
            let fence = if let Raise::Ours(fence) = &raised {
                Some(*fence)
            } else {
                None
            };
            let _ = shard.cast(ShardCommand::Raised(from, raised));
            // After that, so that whoever asks in the new epoch finds it served.
            if let Some(fence) = fence {
                peers.moved(id, fence);
                ownership.learn(id, fence);
            }
        });
    }

    fn give(&self, from: Fence, to: Option<Incarnation>, myself: &ActorRef<ShardCommand>) {
        let (id, store, shard) = (self.id, Arc::clone(&self.surroundings.store), myself.clone());
        let (ownership, peers) = (
            self.surroundings.ownership.clone(),
            Arc::clone(&self.surroundings.peers),
        );
        let closed_at = self.closed_at;
        tokio::spawn(async move {
            let giving = tokio::spawn(async move { statements::give(store.as_ref(), id, from, to).await });
            let given = giving.await.unwrap_or(None);
            if let Some(row) = given
                && let Some(owner) = row.owner
            {
                let fence = Fence {
                    epoch: row.epoch,
                    owner,
                };
                // In this order: the next owner hears of it before the first request that follows.
                peers.moved(id, fence);
                ownership.learn(id, fence);
                if let Some(closed_at) = closed_at.filter(|_| Some(owner) == to) {
                    handles()
                        .hand_over_seconds
                        .record(time::moment().since(closed_at).as_secs_f64());
                }
            }
            let _ = shard.cast(ShardCommand::Given(from, given.is_some()));
        });
    }

    fn release(&mut self, fence: Option<Fence>) {
        let (id, store, drained) = (
            self.id,
            Arc::clone(&self.surroundings.store),
            std::mem::take(&mut self.drained),
        );
        tokio::spawn(async move {
            if let Some(fence) = fence {
                statements::give(store.as_ref(), id, fence, None).await;
            }
            for done in drained {
                let _ = done.send(());
            }
        });
    }

    /// Shows the outside what changed.
    fn show(&self) {
        let (before, after) = self.shared.standing.show(self.life.shown());
        match (before, after) {
            (false, true) => self.metrics.shards_owned.increment(1.0),
            (true, false) => self.metrics.shards_owned.decrement(1.0),
            _ => {}
        }
    }
}

impl ShardCommand {
    /// Whether it was counted as a change when it was sent.
    fn turns(&self) -> bool {
        matches!(self, Self::Claimed(_) | Self::Lost | Self::GiveUp(..))
    }
}
