//! What a shard's actor does with its mail and with the effects of [`ShardLifecycle`], apart from the actor.
//!
//! The actor drives it with tasks, the store and owners; a simulation drives the same code with its own.

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
    /// Its queue is full.
    Full,
    /// Its queue is closed: it stops.
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

/// What surrounds a shard: its owners, the store and its peers. No call may wait, but for
/// [`Self::activate`].
pub trait ShardPort<K: Kind> {
    /// Reads the clock.
    fn moment(&self) -> Moment;

    /// Begins to load an owner's state; [`ShardCommand::Loaded`] ends it. False if too many loads wait.
    fn load(&mut self, id: K::Id, ahead: Option<AheadRows<K>>) -> bool;

    /// Begins to load rows ahead; [`ShardCommand::LoadedAhead`] ends it.
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

    /// Sends an owner a command, if there is one.
    fn command(&mut self, id: K::Id, command: OwnerCommand<K>);

    /// Sends each owner a command; only those with a request if `busy`.
    fn command_each(&mut self, busy: bool, command: fn() -> OwnerCommand<K>);

    /// Raises the epoch from this fence, after a pause if so said; [`ShardCommand::Raised`] ends it.
    fn raise(&mut self, from: Fence, pause: bool);

    /// Names the next owner, or none; [`ShardCommand::HandedOff`] ends it. The shard has admitted nothing
    /// since `closed_at`.
    fn hand_off(&mut self, from: Fence, to: Option<Incarnation>, closed_at: Option<Moment>);

    /// Releases the shard, if there is a fence to release it from, and then tells all of `drained`.
    fn release(&mut self, fence: Option<Fence>, drained: Vec<oneshot::Sender<()>>);

    /// Shows how the shard stands now.
    fn show(&mut self, serving: ServingState);

    /// Notes that a change of ownership, which was counted when it was sent, is done.
    fn end_change(&mut self);
}

/// What came with an event.
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
    /// The peer that will hand the shard to this node and waits to hear that everything is loaded ahead.
    loading_ahead_for: Option<Incarnation>,
    /// Since when it admits nothing, because it is being handed off.
    closed_at: Option<Moment>,
    /// The owner that could not be started just now.
    not_started: Option<K::Id>,
}

impl<K: Kind> ShardDriver<K> {
    /// Drives a shard that is not served yet.
    pub fn new(id: ShardId) -> Self {
        Self {
            id,
            lifecycle: ShardLifecycle::default(),
            ahead: HashMap::new(),
            drained: Vec::new(),
            loading_ahead_for: None,
            closed_at: None,
            not_started: None,
        }
    }

    /// Returns the shard's state machine.
    pub fn lifecycle(&self) -> &ShardLifecycle<K> {
        &self.lifecycle
    }

    /// Takes a command and carries out what follows from it. [`ShardCommand::OwnerStopped`] only of the owner
    /// that is there.
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

    /// Feeds an event and all that follows from it.
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
                // A lifecycle refuses only for lack of these places: those for owners, and those for requests
                // that wait for a load.
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
