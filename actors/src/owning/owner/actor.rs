//! The actor around one owner. Its mailbox is the queue, and only this actor decides about what it owns.
//!
//! It reads the clocks, sends answers, hands portions to a lane and reports to its shard. It never waits,
//! except for its turn to run, so a slow owner does not delay other owners.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};

use crate::admission::{NotAdmitted, Permit};
use crate::cluster::lease::Lease;
use crate::ids::{Epoch, Fence, Incarnation};
use crate::metrics::{Handles, handles};
use crate::owning::door::{Board, Door, Notice};
use crate::owning::figures::{OwnerFigures, OwnerReading};
use crate::owning::kind::Kind;
use crate::owning::owner::Owner;
use crate::owning::owner::driver::{OwnerDriver, OwnerPort, OwnerQueue};
use crate::owning::request::{OwnerCommand, OwnerMail, Request};
use crate::owning::shard::ShardCommand;
use crate::owning::write_back::Lanes;
use crate::store::batch::Portion;
use crate::time::{self, Moment, Now};
use crate::trace::TraceParent;

/// Default maximum number of requests that are queued before an owner or wait for its answer: about two
/// seconds of the owner's work. Callers wait about as long.
pub const OWNER_PLACES: usize = 65_536;

/// A portion with this many entries does not wait for more. With so many entries, each entry's share of the
/// fixed cost of a commit (some 0.5 ms) is at most what its own row costs at a server.
const GATHER_BELOW: usize = 16;

/// The handle of an owner.
#[derive(Debug)]
pub struct OwnerHandle<K: Kind> {
    actor: ActorRef<OwnerMail<K>>,
    queue: OwnerQueue<K>,
    figures: Arc<OwnerFigures>,
}

impl<K: Kind> Clone for OwnerHandle<K> {
    fn clone(&self) -> Self {
        Self {
            actor: self.actor.clone(),
            queue: self.queue.clone(),
            figures: Arc::clone(&self.figures),
        }
    }
}

impl<K: Kind> OwnerHandle<K> {
    /// Puts a request into the owner's queue; see [`OwnerQueue::enter`].
    ///
    /// # Errors
    ///
    /// The request, if the queue is full or closed.
    pub fn admit(&self, request: Request<K>) -> Result<(), (Request<K>, NotAdmitted)> {
        self.queue
            .enter(request, || self.actor.cast(OwnerMail::Requests).is_ok())
    }

    /// Sends a command. If the owner is gone, the command is dropped.
    pub fn command(&self, command: OwnerCommand<K>) {
        let _ = self.actor.cast(command.into());
    }

    /// Returns true if a request is queued or waits for its answer.
    pub fn is_busy(&self) -> bool {
        self.queue.is_busy()
    }

    /// Reads the owner's figures.
    pub fn read(&self) -> OwnerReading {
        self.figures.read(self.queue.length())
    }

    /// Returns how busy the owner was lately; see [`OwnerFigures::recent`].
    pub fn recent(&self, passed: Duration) -> f64 {
        self.figures.recent(passed)
    }

    /// Returns true if this is the handle of that actor, and not of an earlier or later owner of the same id.
    pub fn is(&self, actor: ActorId) -> bool {
        self.actor.get_id() == actor
    }
}

/// What owners need of their node.
#[derive(Clone)]
pub struct OwnerContext<K: Kind> {
    /// The node's permission to decide.
    pub lease: Lease,
    /// Where portions go.
    pub lanes: Lanes<K>,
    /// Where notices are posted.
    pub board: Arc<Board<K>>,
    /// This node's own door, which learns of changes at once.
    pub door: Arc<Door<K>>,
    /// An owner that has no requests for this long is passivated.
    pub idle: Duration,
    /// Maximum number of requests in one owner's queue; [`OWNER_PLACES`] is a good value.
    pub requests_max: usize,
}

/// Starts the owner of a state that was loaded under `fence`, as a child of its shard. `place` is the owner's
/// place among the owners of the node.
///
/// # Errors
///
/// If the actor does not start.
pub async fn spawn<K: Kind>(
    state: K::State,
    place: Permit,
    fence: Fence,
    context: OwnerContext<K>,
    shard: &ActorRef<ShardCommand<K>>,
) -> Result<OwnerHandle<K>, ractor::SpawnErr> {
    let queue = OwnerQueue::new(context.requests_max);
    let now = time::now();
    let mut owner = Owner::new(state, fence, context.idle, GATHER_BELOW, now.moment);
    let figures = Arc::new(OwnerFigures::new(&mut owner, now.timestamp));
    let arguments = Arguments {
        figures: Arc::clone(&figures),
        driver: OwnerDriver::new(owner, queue.clone()),
        context,
        shard: shard.clone(),
        place,
    };
    let (actor, _task) = OwnerActor::spawn_linked(
        None,
        OwnerActor(std::marker::PhantomData),
        arguments,
        shard.get_cell(),
    )
    .await?;
    Ok(OwnerHandle {
        actor,
        queue,
        figures,
    })
}

struct OwnerActor<K>(std::marker::PhantomData<K>);

struct Arguments<K: Kind> {
    figures: Arc<OwnerFigures>,
    driver: OwnerDriver<K>,
    context: OwnerContext<K>,
    shard: ActorRef<ShardCommand<K>>,
    place: Permit,
}

struct State<K: Kind> {
    driver: OwnerDriver<K>,
    port: Port<K>,
    /// The owner's place among the owners of the node.
    _place: Permit,
    gauges: OwnerGauges,
    figures: Arc<OwnerFigures>,
}

/// The share of this owner in the node's gauges. It is subtracted when the owner ends, even by a panic.
struct OwnerGauges {
    metrics: &'static Handles,
    waiting: usize,
    unstored: u64,
}

impl OwnerGauges {
    fn new() -> Self {
        let metrics = handles();
        metrics.owners_active.increment(1.0);
        Self {
            metrics,
            waiting: 0,
            unstored: 0,
        }
    }

    fn update(&mut self, waiting: usize, unstored: u64) {
        if waiting != self.waiting {
            let change = waiting as f64 - self.waiting as f64;
            self.metrics.waiting.increment(change);
            self.waiting = waiting;
        }
        if unstored != self.unstored {
            let change = unstored as f64 - self.unstored as f64;
            self.metrics.unstored.increment(change);
            self.unstored = unstored;
        }
    }
}

impl Drop for OwnerGauges {
    fn drop(&mut self) {
        self.update(0, 0);
        self.metrics.owners_active.decrement(1.0);
    }
}

impl<K: Kind> Actor for OwnerActor<K> {
    type Msg = OwnerMail<K>;
    type State = State<K>;
    type Arguments = Arguments<K>;

    async fn pre_start(
        &self,
        myself: ActorRef<OwnerMail<K>>,
        arguments: Arguments<K>,
    ) -> Result<State<K>, ActorProcessingErr> {
        let Arguments {
            figures,
            driver,
            context,
            shard,
            place,
        } = arguments;
        // The notice is posted later and not here. The shard waits for `pre_start` to return, and a notice of
        // a million users takes long.
        let _ = myself.cast(OwnerCommand::Announce.into());
        Ok(State {
            driver,
            port: Port {
                myself,
                context,
                shard,
            },
            _place: place,
            gauges: OwnerGauges::new(),
            figures,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<OwnerMail<K>>,
        mail: OwnerMail<K>,
        state: &mut State<K>,
    ) -> Result<(), ActorProcessingErr> {
        let State { driver, port, .. } = state;
        driver.handle(mail, port);
        while driver.is_gathering() {
            tokio::task::yield_now().await;
            driver.take_turn(port);
        }
        let owner = driver.owner_mut();
        state.gauges.update(owner.waiting(), owner.unstored());
        state.figures.set(owner, time::timestamp());
        Ok(())
    }
}

struct Port<K: Kind> {
    myself: ActorRef<OwnerMail<K>>,
    context: OwnerContext<K>,
    shard: ActorRef<ShardCommand<K>>,
}

impl<K: Kind> OwnerPort<K> for Port<K> {
    fn now(&self) -> Now {
        time::now()
    }

    fn lease_holds(&self, incarnation: Incarnation, now: Moment) -> bool {
        self.context.lease.holds_for(incarnation, now)
    }

    fn send_to_self(&mut self, mail: OwnerMail<K>) -> bool {
        self.myself.cast(mail).is_ok()
    }

    fn close_mailbox(&mut self) {
        let _ = self.myself.drain();
    }

    fn submit(&mut self, portion: Portion<K>, traces: Vec<TraceParent>) -> bool {
        self.context.lanes.submit(portion, traces, self.myself.clone())
    }

    fn post(&mut self, by: Incarnation, notice: Arc<Notice<K>>) {
        self.context.board.post(by, notice);
    }

    fn withdraw(&mut self, id: K::Id, floor: Option<u64>) {
        self.context.board.withdraw(id);
        if let Some(version) = floor {
            self.context.door.raise_floor(id, version, time::moment());
        }
    }

    fn report_fenced(&mut self, epoch: Epoch) {
        let _ = self.shard.cast(ShardCommand::Fenced(epoch));
    }

    fn report_stopped(&mut self, id: K::Id, epoch: Epoch, unsettled: bool) {
        let stopped = ShardCommand::OwnerStopped {
            id,
            actor: self.myself.get_id(),
            epoch,
            unsettled,
        };
        let _ = self.shard.cast(stopped);
    }
}
