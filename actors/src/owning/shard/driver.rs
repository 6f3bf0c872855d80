//! What a shard's actor does with its mail and with the effects of [`ShardLifecycle`], without the actor
//! itself.
//!
//! The actor runs this code with real tasks, a store and owners. A simulation runs the same code with tasks,
//! a store and owners of its own.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::admission::NotAdmitted;
use crate::ids::{Fence, Incarnation, ShardId};
use crate::metrics::handles;
use crate::owning::kind::Kind;
use crate::owning::request::{OwnerCommand, Request, Setback};
use crate::owning::shard::ShardCommand;
use crate::owning::shard::lifecycle::{Effect, Event, Load, ServingState, ShardLifecycle};
use crate::owning::shard::load::{AheadRows, OwnerParts};
use crate::time::Moment;

/// Why an owner did not take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDelivered {
    /// The owner's queue is full.
    Full,
    /// The owner's queue is closed, because the owner is stopping.
    Closed,
    /// There is no owner of this id.
    NoOwner,
}

impl From<NotAdmitted> for NotDelivered {
    fn from(reason: NotAdmitted) -> Self {
        match reason {
            NotAdmitted::Full => Self::Full,
            NotAdmitted::Closed => Self::Closed,
        }
    }
}

/// What surrounds a shard: its owners, the store and its peers. No call may wait, except [`Self::activate`].
pub trait ShardPort<K: Kind> {
    /// Reads the clock.
    fn moment(&self) -> Moment;

    /// Begins to load an owner's state; [`ShardCommand::Loaded`] ends the load. Returns false if too many
    /// loads wait.
    fn load(&mut self, id: K::Id, ahead: Option<AheadRows<K>>) -> bool;

    /// Begins to load rows ahead; [`ShardCommand::LoadedAhead`] ends the load.
    fn load_ahead(&mut self, id: K::Id);

    /// Tells this peer that everything it asked for is loaded ahead.
    fn report_loaded_ahead(&mut self, to: Incarnation);

    /// Starts an owner.
    fn activate(
        &mut self,
        id: K::Id,
        fence: Fence,
        parts: OwnerParts<K>,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Puts a request into an owner's queue.
    ///
    /// # Errors
    ///
    /// The request, and why the owner did not take it.
    fn deliver(&mut self, id: K::Id, request: Request<K>) -> Result<(), (Request<K>, NotDelivered)>;

    /// Sends a command to the owner of this id, if the id has an owner.
    fn command(&mut self, id: K::Id, command: OwnerCommand<K>);

    /// Sends a command to each owner, or with `busy` only to owners that have requests.
    fn command_each(&mut self, busy: bool, command: fn() -> OwnerCommand<K>);

    /// Begins to raise the epoch from this fence, after a pause if `pause` is true. [`ShardCommand::Raised`]
    /// ends the attempt.
    fn raise(&mut self, from: Fence, pause: bool);

    /// Begins to hand the shard off to `to`, or to release it if `to` is `None`. [`ShardCommand::HandedOff`]
    /// ends the attempt. The shard has admitted nothing since `closed_at`.
    fn hand_off(&mut self, from: Fence, to: Option<Incarnation>, closed_at: Option<Moment>);

    /// Releases the shard from this fence, if there is a fence, and then notifies every sender in `drained`.
    fn release(&mut self, fence: Option<Fence>, drained: Vec<oneshot::Sender<()>>);

    /// Sets the serving state that the rest of the node sees.
    fn show(&mut self, serving: ServingState);

    /// Notes that a change of ownership is done. It was counted when its command was sent.
    fn end_change(&mut self);
}

/// The rows or the state that came with an event.
enum Read<K: Kind> {
    Nothing,
    Whole(OwnerParts<K>),
    Ahead(AheadRows<K>),
}

/// Drives one shard.
#[derive(Debug)]
pub struct ShardDriver<K: Kind> {
    id: ShardId,
    lifecycle: ShardLifecycle<K>,
    /// Rows that were loaded ahead.
    ahead: HashMap<K::Id, AheadRows<K>>,
    drained: Vec<oneshot::Sender<()>>,
    /// The peer that will hand the shard to this node and waits for the report that everything is loaded
    /// ahead.
    loading_ahead_for: Option<Incarnation>,
    /// Since when the shard admits nothing, because it is being handed off.
    closed_at: Option<Moment>,
    /// The id whose owner could not be started just now.
    not_started: Option<K::Id>,
    /// How many ids loaded ahead the metrics count for this shard.
    ahead_shown: usize,
}

impl<K: Kind> ShardDriver<K> {
    /// Makes the driver of a shard that is not served yet. At most `waiting_max` requests wait for one owner
    /// to be loaded.
    pub fn new(id: ShardId, waiting_max: usize) -> Self {
        Self {
            id,
            lifecycle: ShardLifecycle::new(waiting_max),
            ahead: HashMap::new(),
            drained: Vec::new(),
            loading_ahead_for: None,
            closed_at: None,
            not_started: None,
            ahead_shown: 0,
        }
    }

    /// Returns the shard's state machine.
    pub fn lifecycle(&self) -> &ShardLifecycle<K> {
        &self.lifecycle
    }

    /// Handles a command and carries out its effects. [`ShardCommand::OwnerStopped`] must be about the owner
    /// that the id has now.
    pub async fn handle(&mut self, command: ShardCommand<K>, port: &mut impl ShardPort<K>) {
        let mut read = Read::Nothing;
        let is_change = command.is_change();
        let event = match command {
            ShardCommand::Claimed(fence) => Event::Claimed(fence),
            ShardCommand::Lost => Event::Lost,
            ShardCommand::Deliver(id, request) => Event::Asked(id, request),
            ShardCommand::Loaded(id, result) => {
                let (load, parts) = result.split();
                read = parts.map_or(Read::Nothing, Read::Whole);
                Event::Loaded(id, load)
            }
            ShardCommand::OwnerStopped {
                id, epoch, unsettled, ..
            } => Event::Stopped { id, epoch, unsettled },
            ShardCommand::OwnerPanicked(id) => Event::Panicked(id),
            ShardCommand::Fenced(epoch) => Event::Fenced(epoch),
            ShardCommand::Raised(from, raise) => Event::Raised { from, raise },
            ShardCommand::HandOff(from, to) => Event::HandOff { from, to },
            ShardCommand::HandedOff(from, done) => Event::HandedOff { from, done },
            ShardCommand::LoadAhead(peer, ids) => {
                self.loading_ahead_for = Some(peer);
                Event::LoadAhead(ids)
            }
            ShardCommand::LoadedAhead(id, rows) => {
                let is_read = rows.is_some();
                read = rows.map_or(Read::Nothing, Read::Ahead);
                Event::LoadedAhead(id, is_read)
            }
            ShardCommand::Passivate => {
                return port.command_each(false, || OwnerCommand::Passivate);
            }
            ShardCommand::Sweep => {
                port.command_each(true, || OwnerCommand::Sweep);
                Event::Sweep
            }
            ShardCommand::Drain(done) => {
                self.drained.push(done);
                Event::Drain
            }
        };
        self.feed(event, read, port).await;
        if is_change {
            port.end_change();
        }
    }

    /// Feeds an event, and all events that follow from it, to the state machine.
    async fn feed(&mut self, event: Event<K>, mut read: Read<K>, port: &mut impl ShardPort<K>) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut effects = Vec::new();
            self.lifecycle.handle(event, &mut effects);
            self.closed_at = match self.lifecycle.serving() {
                ServingState::Moving => self.closed_at.or_else(|| Some(port.moment())),
                ServingState::Unserved | ServingState::Serving(_) | ServingState::Drained => None,
            };
            for effect in effects {
                events.extend(self.carry_out(effect, &mut read, port).await);
            }
        }
        port.show(self.lifecycle.serving());
        if self.ahead.len() != self.ahead_shown {
            let change = self.ahead.len() as f64 - self.ahead_shown as f64;
            handles().owners.ahead.increment(change);
            self.ahead_shown = self.ahead.len();
        }
    }

    async fn carry_out(
        &mut self,
        effect: Effect<K>,
        read: &mut Read<K>,
        port: &mut impl ShardPort<K>,
    ) -> Option<Event<K>> {
        match effect {
            Effect::Load(id) => return load(id, None, port),
            Effect::LoadAhead(id) => port.load_ahead(id),
            Effect::Keep(id) => {
                if let Read::Ahead(rows) = std::mem::replace(read, Read::Nothing) {
                    self.ahead.insert(id, rows);
                }
            }
            Effect::ReportLoadedAhead => {
                if let Some(peer) = self.loading_ahead_for.take() {
                    port.report_loaded_ahead(peer);
                }
            }
            Effect::LoadRest(id) => return load(id, self.ahead.remove(&id), port),
            Effect::Forget(id) => drop(self.ahead.remove(&id)),
            Effect::Activate(id, fence) => {
                let read = std::mem::replace(read, Read::Nothing);
                return self.activate(id, fence, read, port).await;
            }
            Effect::Deliver(id, request) => return self.deliver(id, request, port),
            Effect::SetBack(request, setback) => {
                // A lifecycle answers *overloaded* only if there is no place for another owner, or for a
                // request that waits for a load.
                if setback == Setback::Overloaded {
                    handles().refused_by_owners.increment(1);
                }
                request.set_back(setback);
            }
            Effect::Absent(request) => request.absent(),
            Effect::Refence(id, epoch) => port.command(id, OwnerCommand::Refence(epoch)),
            Effect::Stop(id) => port.command(id, OwnerCommand::Stop),
            Effect::Drain(id) => port.command(id, OwnerCommand::Drain),
            Effect::Raise { from, pause } => port.raise(from, pause),
            Effect::HandOff { from, to } => port.hand_off(from, to, self.closed_at),
            Effect::Drained(fence) => port.release(fence, std::mem::take(&mut self.drained)),
        }
        None
    }

    async fn activate(
        &mut self,
        id: K::Id,
        fence: Fence,
        read: Read<K>,
        port: &mut impl ShardPort<K>,
    ) -> Option<Event<K>> {
        let started = match read {
            Read::Whole(parts) => port.activate(id, fence, parts).await,
            Read::Nothing | Read::Ahead(_) => Err("nothing was read".to_owned()),
        };
        match started {
            Ok(()) => {
                self.not_started = None;
                handles().owner_activations.increment(1);
                None
            }
            Err(error) => {
                tracing::error!(%id, shard = %self.id, %error, "an owner did not start");
                self.not_started = Some(id);
                Some(Event::Stopped {
                    id,
                    epoch: fence.epoch,
                    unsettled: false,
                })
            }
        }
    }

    fn deliver(&self, id: K::Id, request: Request<K>, port: &mut impl ShardPort<K>) -> Option<Event<K>> {
        let (request, reason) = port.deliver(id, request).err()?;
        match reason {
            NotDelivered::Full => request.set_back(Setback::Overloaded),
            NotDelivered::NoOwner if self.not_started == Some(id) => {
                request.set_back(Setback::StoreUnavailable);
            }
            NotDelivered::Closed | NotDelivered::NoOwner => {
                return Some(Event::Bounced(id, request));
            }
        }
        None
    }
}

fn load<K: Kind>(id: K::Id, ahead: Option<AheadRows<K>>, port: &mut impl ShardPort<K>) -> Option<Event<K>> {
    (!port.load(id, ahead)).then_some(Event::Loaded(id, Load::NoPlace))
}
