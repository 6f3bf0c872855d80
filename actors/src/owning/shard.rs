//! The actor of one shard: it activates, passivates and drains the shard's owners, and supervises them. It is
//! a thin shell around [`driver::ShardDriver`] and [`lifecycle::ShardLifecycle`].
//!
//! Requests for an active owner bypass this actor: [`ShardHandle::deliver`] puts them straight into the
//! owner's queue. All other requests come to this actor, and wait until the owner is loaded.

mod compare_and_set;
pub mod driver;
mod handle;
pub mod lifecycle;
pub mod load;
pub mod moves;
pub mod status;

use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{Semaphore, oneshot};

use crate::admission::Admission;
use crate::cluster::ownership::Ownership;
use crate::cluster::peers::Peers;
use crate::ids::{Epoch, Fence, Incarnation, ShardId};
use crate::metrics::handles;
use crate::owning::kind::Kind;
use crate::owning::owner::actor::{self, OwnerContext};
use crate::owning::request::{OwnerCommand, Request};
use crate::owning::shard::driver::{NotDelivered, ShardDriver, ShardPort};
pub use crate::owning::shard::handle::ShardHandle;
use crate::owning::shard::handle::Shared;
use crate::owning::shard::lifecycle::{Raise, ServingState};
use crate::owning::shard::load::{AheadRows, LoadResult, OwnerParts};
use crate::owning::shard::moves::Moves;
use crate::store::Store;
use crate::time::{self, Moment};

/// Maximum number of owners of a node that are being loaded or wait to be loaded. It is more than can be
/// loaded while callers wait, with four loads at a time and a millisecond for each. Ids that were never
/// created count too, because only a read shows that they do not exist. Further requests are answered
/// `OVERLOADED`.
pub const LOADS_WAITING_MAX: usize = 16_384;

/// Pause before the epoch is raised again after a failure.
const RAISE_PAUSE: Duration = Duration::from_millis(100);

/// The commands to a shard.
#[derive(Debug)]
pub enum ShardCommand<K: Kind> {
    /// The shard was claimed for this node.
    Claimed(Fence),
    /// This node may not serve the shard any more.
    Lost,
    /// Deliver a request that no owner has admitted.
    Deliver(K::Id, Request<K>),
    /// Loading an owner's state ended.
    Loaded(K::Id, LoadResult<K>),
    /// An owner stopped.
    OwnerStopped {
        /// The id that it owned.
        id: K::Id,
        /// The actor of the owner, because an id may have had several owners.
        actor: ActorId,
        /// The epoch under which it wrote.
        epoch: Epoch,
        /// True if the outcome of one of its decisions is unknown.
        unsettled: bool,
    },
    /// An owner panicked.
    OwnerPanicked(K::Id),
    /// The store refused a portion that was sent under this epoch.
    Fenced(Epoch),
    /// The attempt to raise the epoch from this fence ended.
    Raised(Fence, Raise),
    /// Hand the shard off to this incarnation, or release it, if it is owned here under this fence.
    HandOff(Fence, Option<Incarnation>),
    /// The attempt to hand the shard off from this fence ended. True if the shard is certainly not owned here
    /// any more.
    HandedOff(Fence, bool),
    /// This peer is about to hand the shard to this node: load these ids ahead.
    LoadAhead(Incarnation, Vec<K::Id>),
    /// Loading an id ahead ended.
    LoadedAhead(K::Id, Option<AheadRows<K>>),
    /// Passivate idle owners.
    Passivate,
    /// Drop requests and answers whose callers no longer wait.
    Sweep,
    /// Store everything, stop all owners, release the shard, and then tell the sender of this command.
    Drain(oneshot::Sender<()>),
}

// With the library's cluster feature, every message type must say whether it can be serialized. This type
// cannot, because other nodes reach owners through links.
impl<K: Kind> ractor::Message for ShardCommand<K> {}

impl<K: Kind> ShardCommand<K> {
    /// Returns true if the command was counted as a change of ownership when it was sent.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::Claimed(_) | Self::Lost | Self::HandOff(..))
    }
}

/// What shards need of their node.
#[derive(Clone)]
pub struct ShardContext<K: Kind> {
    /// The store, for loading.
    pub store: Arc<dyn Store<K>>,
    /// The handle through which the rows of shards are changed.
    pub moves: Moves,
    /// What the owners of these shards need.
    pub owners: OwnerContext<K>,
    /// How many owners are loaded at the same time on this node. More loads would only wait for the same
    /// disk.
    pub loads: Arc<Semaphore>,
    /// Places for owners that are being loaded or wait to be loaded: [`LOADS_WAITING_MAX`].
    pub loads_waiting: Admission,
    /// How many owners are loaded ahead at the same time on this node. The limit is separate, so that loading
    /// ahead does not delay a load for which a request waits.
    pub loads_ahead: Arc<Semaphore>,
    /// How many owners there may be on this node.
    pub places: Admission,
    /// This node's table of owners, which learns of raised epochs and of hand-offs.
    pub ownership: Ownership,
    /// The peers, which are told of raised epochs and of hand-offs.
    pub peers: Arc<dyn Peers>,
}

struct ShardActor<K>(PhantomData<K>);

struct State<K: Kind> {
    driver: ShardDriver<K>,
    port: Port<K>,
}

impl<K: Kind> Actor for ShardActor<K> {
    type Msg = ShardCommand<K>;
    type State = State<K>;
    type Arguments = (ShardId, ShardContext<K>, Arc<Shared<K>>);

    async fn pre_start(
        &self,
        myself: ActorRef<ShardCommand<K>>,
        (id, context, shared): Self::Arguments,
    ) -> Result<State<K>, ActorProcessingErr> {
        let driver = ShardDriver::new(id, context.owners.requests_max);
        let port = Port {
            id,
            myself,
            context,
            shared,
        };
        Ok(State { driver, port })
    }

    async fn handle(
        &self,
        _myself: ActorRef<ShardCommand<K>>,
        command: ShardCommand<K>,
        state: &mut State<K>,
    ) -> Result<(), ActorProcessingErr> {
        if let ShardCommand::OwnerStopped { id, actor, .. } = &command
            && !state.port.forget(*id, *actor)
        {
            return Ok(());
        }
        state.driver.handle(command, &mut state.port).await;
        Ok(())
    }

    /// An owner that stops by itself reports its end. An owner that panicked cannot report it, and is noticed
    /// here. The shard survives both.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<ShardCommand<K>>,
        event: SupervisionEvent,
        state: &mut State<K>,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event
            && let Some(id) = state.port.forget_actor(cell.get_id())
        {
            let shard = state.port.id;
            tracing::error!(%id, %shard, %error, "owner panicked; it is reloaded under the next epoch");
            handles().owner_panics.increment(1);
            state.port.context.owners.board.withdraw(id);
            let panicked = ShardCommand::OwnerPanicked(id);
            state.driver.handle(panicked, &mut state.port).await;
        }
        Ok(())
    }
}

struct Port<K: Kind> {
    id: ShardId,
    myself: ActorRef<ShardCommand<K>>,
    context: ShardContext<K>,
    shared: Arc<Shared<K>>,
}

impl<K: Kind> Port<K> {
    /// Removes an owner that is gone from the table. Returns false if the table has another owner for this
    /// id, or no owner.
    fn forget(&self, id: K::Id, actor: ActorId) -> bool {
        self.shared.with_owners(|owners| {
            let is_there = owners.get(&id).is_some_and(|owner| owner.is(actor));
            if is_there {
                owners.remove(&id);
            }
            is_there
        })
    }

    fn forget_actor(&self, actor: ActorId) -> Option<K::Id> {
        self.shared.with_owners(|owners| {
            let id = owners
                .iter()
                .find(|(_, owner)| owner.is(actor))
                .map(|(id, _)| *id);
            id.inspect(|id| drop(owners.remove(id)))
        })
    }
}

impl<K: Kind> ShardPort<K> for Port<K> {
    fn moment(&self) -> Moment {
        time::moment()
    }

    fn load(&mut self, id: K::Id, ahead: Option<AheadRows<K>>) -> bool {
        // If rows were loaded ahead, the owner has waited already, and needs no place.
        let waiting = match &ahead {
            Some(_) => None,
            None => match self.context.loads_waiting.admit() {
                Ok(place) => Some(place),
                Err(_full) => return false,
            },
        };
        let context = &self.context;
        let (store, loads) = (Arc::clone(&context.store), Arc::clone(&context.loads));
        let (places, shard) = (context.places.clone(), self.myself.clone());
        tokio::spawn(async move {
            // The load has a task of its own, so that a panic in it becomes a failed load.
            let loading = tokio::spawn(async move { load::load(store, &loads, &places, id, ahead).await });
            let loaded = loading.await.unwrap_or(LoadResult::Failed);
            drop(waiting);
            let _ = shard.cast(ShardCommand::Loaded(id, loaded));
        });
        true
    }

    fn load_ahead(&mut self, id: K::Id) {
        let context = &self.context;
        let (store, loads) = (Arc::clone(&context.store), Arc::clone(&context.loads_ahead));
        let (places, shard) = (context.places.clone(), self.myself.clone());
        tokio::spawn(async move {
            let loading = tokio::spawn(async move { load::load_ahead(store, &loads, &places, id).await });
            let _ = shard.cast(ShardCommand::LoadedAhead(id, loading.await.unwrap_or(None)));
        });
    }

    fn report_loaded_ahead(&mut self, to: Incarnation) {
        self.context.peers.loaded_ahead(to, self.id);
    }

    async fn activate(&mut self, id: K::Id, fence: Fence, parts: OwnerParts<K>) -> Result<(), String> {
        let OwnerParts { state, place } = parts;
        let context = self.context.owners.clone();
        let started = actor::spawn(*state, place, fence, context, &self.myself).await;
        let owner = started.map_err(|error| error.to_string())?;
        self.shared.with_owners(|owners| owners.insert(id, owner));
        Ok(())
    }

    fn deliver(&mut self, id: K::Id, request: Request<K>) -> Result<(), (Request<K>, NotDelivered)> {
        match self.shared.owner(id) {
            Some(owner) => owner
                .admit(request)
                .map_err(|(request, reason)| (request, reason.into())),
            None => Err((request, NotDelivered::NoOwner)),
        }
    }

    fn command(&mut self, id: K::Id, command: OwnerCommand<K>) {
        if let Some(owner) = self.shared.owner(id) {
            owner.command(command);
        }
    }

    fn command_each(&mut self, busy: bool, command: fn() -> OwnerCommand<K>) {
        let owners = self.shared.owners.read().unwrap_or_else(PoisonError::into_inner);
        for owner in owners.values().filter(|owner| !busy || owner.is_busy()) {
            owner.command(command());
        }
    }

    fn raise(&mut self, from: Fence, pause: bool) {
        let (id, shard) = (self.id, self.myself.clone());
        let ShardContext {
            moves,
            ownership,
            peers,
            ..
        } = self.context.clone();
        tokio::spawn(async move {
            if pause {
                tokio::time::sleep(RAISE_PAUSE).await;
            }
            let raising = tokio::spawn(async move { compare_and_set::raise(&moves, id, from).await });
            let raised = raising.await.unwrap_or(Raise::Failed);
            let fence = match raised {
                Raise::Ours(fence) => Some(fence),
                Raise::Lost | Raise::Failed => None,
            };
            let _ = shard.cast(ShardCommand::Raised(from, raised));
            // The new epoch is published after that, so that requests in it find the shard served.
            if let Some(fence) = fence {
                peers.publish(id, fence);
                ownership.learn(id, fence);
            }
        });
    }

    fn hand_off(&mut self, from: Fence, to: Option<Incarnation>, closed_at: Option<Moment>) {
        let (id, shard) = (self.id, self.myself.clone());
        let ShardContext {
            moves,
            ownership,
            peers,
            ..
        } = self.context.clone();
        tokio::spawn(async move {
            let giving = tokio::spawn(async move { compare_and_set::hand_off(&moves, id, from, to).await });
            let row = giving.await.unwrap_or(None);
            if let Some(row) = row
                && let Some(owner) = row.owner
            {
                let fence = Fence {
                    epoch: row.epoch,
                    owner,
                };
                // Peers are told first, so that the next owner learns of the hand-off before the first
                // request reaches it.
                peers.publish(id, fence);
                ownership.learn(id, fence);
                if let Some(closed_at) = closed_at.filter(|_| Some(owner) == to) {
                    let seconds = time::moment().since(closed_at).as_secs_f64();
                    handles().hand_off_seconds.record(seconds);
                }
            }
            let _ = shard.cast(ShardCommand::HandedOff(from, row.is_some()));
        });
    }

    fn release(&mut self, fence: Option<Fence>, drained: Vec<oneshot::Sender<()>>) {
        let (id, moves) = (self.id, self.context.moves.clone());
        tokio::spawn(async move {
            if let Some(fence) = fence {
                compare_and_set::hand_off(&moves, id, fence, None).await;
            }
            for done in drained {
                let _ = done.send(());
            }
        });
    }

    fn show(&mut self, serving: ServingState) {
        match self.shared.status.show(serving) {
            (false, true) => handles().shards_owned.increment(1.0),
            (true, false) => handles().shards_owned.decrement(1.0),
            _ => {}
        }
    }

    fn end_change(&mut self) {
        self.shared.status.end_change();
    }
}
