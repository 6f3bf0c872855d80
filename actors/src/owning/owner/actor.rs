//! The owner of one coupon: the shell around [`super::Owner`]. Its mailbox is the queue, and it is the only
//! one who decides for its coupon.
//!
//! This actor reads the clocks, feeds the state machine and carries out what it says: sends answers, hands
//! portions to a lane, tells the shard. It never waits for anything but its turn, so no coupon holds up
//! another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};

use crate::cluster::lease::Lease;
use crate::coupon::ledger::Ledger;
use crate::ids::{CouponId, Fence};
use crate::metrics::{Handles, handles};
use crate::owning::admission::{Admission, NotAdmitted, Permit};
use crate::owning::door::{Board, Door};
use crate::owning::inbox::Inbox;
use crate::owning::message::{OwnerCommand, OwnerMail, Request, Setback};
use crate::owning::owner::{Effect, Owner};
use crate::owning::shard::ShardCommand;
use crate::owning::write_back::Lanes;
use crate::time;

/// Most requests that are in an owner's mailbox or wait for its answers, unless it is said otherwise: about
/// two seconds of its work, which is what callers wait for.
pub const OWNER_PLACES: usize = 65_536;

/// Most requests that are decided without a look at what else is in the mailbox: a tenth of a millisecond's,
/// so that what was stored is not told late.
const DECIDED_AT_ONCE: usize = 128;

/// With so many entries a portion waits for nobody: what a commit costs by itself, some 0.5 ms, is by then no
/// more for each than its own row costs a server.
const GOES_AT_ONCE: usize = 16;

/// How often others have their turn while an owner gathers. A turn is what is ready on its thread, 61 ticks
/// of the runtime at most, and mostly a look at the sockets; an idle node is through with all of them within
/// microseconds. Two are too few for those who were answered to come again; more than four help little, and
/// on a busy node they take longer.
const TURNS: usize = 4;

/// An owner, as others hold it.
#[derive(Debug, Clone)]
pub struct OwnerHandle {
    actor: ActorRef<OwnerMail>,
    inbox: Inbox<Request>,
    admission: Admission,
}

impl OwnerHandle {
    /// Puts a request into the mailbox, or gives it back with the reason why not; then it was not and will
    /// not be decided. One that an owner let in just before its end is told so.
    pub fn decide(&self, mut request: Request) -> Result<(), (Request, NotAdmitted)> {
        match self.admission.admit() {
            Ok(place) => request.admitted(place),
            Err(reason) => {
                if reason == NotAdmitted::Full {
                    handles().refused_by_owner.increment(1);
                }
                return Err((request, reason));
            }
        }
        if self.inbox.put(request) && self.actor.cast(OwnerMail::Requests).is_err() {
            // It ended since it let this one in, and with it those who came meanwhile and rely on this one to
            // wake it.
            self.inbox
                .take()
                .into_iter()
                .for_each(|request| request.set_back(Setback::Moved));
        }
        Ok(())
    }

    /// Tells it something. An owner that is gone needs no telling.
    pub fn tell(&self, command: OwnerCommand) {
        let _ = self.actor.cast(command.into());
    }

    /// Whether anybody is in its mailbox or waits for its answer.
    pub fn is_busy(&self) -> bool {
        self.admission.taken() > 0
    }

    /// Whether this is that actor, and not another owner of the same coupon, before or after it.
    pub fn is(&self, actor: ActorId) -> bool {
        self.actor.get_id() == actor
    }
}

/// What owners need of their node.
#[derive(Clone)]
pub struct Surroundings {
    /// The node's leave to decide.
    pub lease: Lease,
    /// Where portions go.
    pub lanes: Lanes,
    /// Where sold-out coupons are posted.
    pub board: Arc<Board>,
    /// This node's own door, which hears of changes at once.
    pub door: Arc<Door>,
    /// An owner without requests for so long is unloaded.
    pub idle: Duration,
    /// Most requests in one owner's queue; [`OWNER_PLACES`] is a good number.
    pub requests_max: usize,
}

/// Makes the owner of a coupon that was loaded under `fence`, as a child of its shard. `place` is its place
/// among the owners of the node.
pub async fn spawn(
    ledger: Ledger,
    place: Permit,
    fence: Fence,
    surroundings: Surroundings,
    shard: &ActorRef<ShardCommand>,
) -> Result<OwnerHandle, ractor::SpawnErr> {
    let admission = Admission::new(surroundings.requests_max);
    let owner = Owner::new(ledger, fence, surroundings.idle, GOES_AT_ONCE, time::moment());
    let inbox = Inbox::default();
    let arguments = Arguments {
        owner,
        surroundings,
        shard: shard.clone(),
        inbox: inbox.clone(),
        admission: admission.clone(),
        place,
    };
    let (actor, _task) = CouponActor::spawn_linked(None, CouponActor, arguments, shard.get_cell()).await?;
    Ok(OwnerHandle {
        actor,
        inbox,
        admission,
    })
}

struct CouponActor;

struct Arguments {
    owner: Owner,
    surroundings: Surroundings,
    shard: ActorRef<ShardCommand>,
    inbox: Inbox<Request>,
    admission: Admission,
    place: Permit,
}

struct State {
    owner: Owner,
    coupon: CouponId,
    surroundings: Surroundings,
    shard: ActorRef<ShardCommand>,
    inbox: Inbox<Request>,
    /// Taken out of the inbox, and before all that is in it.
    next: VecDeque<Request>,
    admission: Admission,
    /// Its place among the owners of the node.
    _place: Permit,
    effects: Vec<Effect>,
    /// It was told to gather.
    gathers: bool,
    shown: Shown,
}

/// What the gauges have been told of this owner; taken back when it goes, however it goes.
struct Shown {
    metrics: &'static Handles,
    waiting: usize,
    unstored: u64,
}

impl Shown {
    fn update(&mut self, waiting: usize, unstored: u64) {
        if waiting != self.waiting {
            self.metrics
                .waiting
                .increment(waiting as f64 - self.waiting as f64);
            self.waiting = waiting;
        }
        if unstored != self.unstored {
            self.metrics
                .unstored
                .increment(unstored as f64 - self.unstored as f64);
            self.unstored = unstored;
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.update(0, 0);
        self.metrics.owners_active.decrement(1.0);
    }
}

impl Actor for CouponActor {
    type Msg = OwnerMail;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<OwnerMail>,
        arguments: Arguments,
    ) -> Result<State, ActorProcessingErr> {
        let Arguments {
            owner,
            surroundings,
            shard,
            inbox,
            admission,
            place,
        } = arguments;
        let metrics = handles();
        metrics.owners_active.increment(1.0);
        let shown = Shown {
            metrics,
            waiting: 0,
            unstored: 0,
        };
        let coupon = owner.coupon();
        // Not here: the shard waits for this to return, and a notice of a million winners takes its time.
        let _ = myself.cast(OwnerCommand::Announce.into());
        let next = VecDeque::new();
        Ok(State {
            owner,
            coupon,
            surroundings,
            shard,
            inbox,
            next,
            admission,
            _place: place,
            effects: Vec::new(),
            gathers: false,
            shown,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<OwnerMail>,
        mail: OwnerMail,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match mail {
            OwnerMail::Requests => state.decide(&myself),
            OwnerMail::Command(command) => state.handle(command),
        }
        state.carry_out(&myself);
        if std::mem::take(&mut state.gathers) {
            state.gather(&myself).await;
        }
        Ok(())
    }
}

impl State {
    /// Decides some of the requests that are there, and comes back for the others.
    fn decide(&mut self, myself: &ActorRef<OwnerMail>) {
        self.next.extend(self.inbox.take());
        for _ in 0..DECIDED_AT_ONCE {
            let Some(request) = self.next.pop_front() else {
                return;
            };
            self.handle(OwnerCommand::Decide(request));
        }
        if !self.next.is_empty() && myself.cast(OwnerMail::Requests).is_err() {
            // It stopped, and says so to each.
            while let Some(request) = self.next.pop_front() {
                self.handle(OwnerCommand::Decide(request));
            }
        }
    }

    /// Lets others have their turns and decides for who comes, until there are enough for the next portion.
    async fn gather(&mut self, myself: &ActorRef<OwnerMail>) {
        for _ in 0..TURNS {
            if !self.owner.is_gathering() {
                break;
            }
            tokio::task::yield_now().await;
            self.decide(myself);
            self.carry_out(myself);
        }
        self.handle(OwnerCommand::Submit);
        self.carry_out(myself);
    }

    fn handle(&mut self, command: OwnerCommand) {
        let now = time::now();
        let lease_holds = self
            .surroundings
            .lease
            .holds_for(self.owner.incarnation(), now.moment);
        self.owner.handle(command, now, lease_holds, &mut self.effects);
    }

    fn carry_out(&mut self, myself: &ActorRef<OwnerMail>) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Answer(answer) => answer.send(),
                Effect::Submit(portion) => {
                    if !self.surroundings.lanes.submit(portion, myself.clone()) {
                        // Lanes end after owners and have a place for each: only a mistake leads here, and
                        // stopping loses nothing.
                        tracing::error!(coupon = %self.coupon, "no lane takes what was decided");
                        self.tell(myself, OwnerCommand::Stop);
                    }
                }
                Effect::Gather => self.gathers = true,
                Effect::Post(notice) => self.surroundings.board.post(self.owner.incarnation(), notice),
                Effect::Withdraw { floor } => {
                    self.surroundings.board.withdraw(self.coupon);
                    if let Some(version) = floor {
                        self.surroundings
                            .door
                            .raise_floor(self.coupon, version, time::moment());
                    }
                }
                Effect::ReportFenced(epoch) => {
                    let _ = self.shard.cast(ShardCommand::Fenced(epoch));
                }
                Effect::CloseIfEmpty => {
                    if self.admission.close_if_empty() {
                        self.tell(myself, OwnerCommand::Stop);
                    }
                }
                Effect::Stop { unsettled } => self.stop(myself, unsettled),
            }
        }
        self.effects = effects;
        self.shown.update(self.owner.waiting(), self.owner.unstored());
    }

    fn tell(&self, myself: &ActorRef<OwnerMail>, command: OwnerCommand) {
        let _ = myself.cast(command.into());
    }

    /// Takes nobody more, lets those in the mailbox be sent on, and ends. The shard may load the coupon again
    /// at once.
    fn stop(&self, myself: &ActorRef<OwnerMail>, unsettled: bool) {
        self.admission.close();
        let _ = myself.drain();
        let stopped = ShardCommand::OwnerStopped {
            coupon: self.coupon,
            actor: myself.get_id(),
            epoch: self.owner.epoch(),
            unsettled,
        };
        let _ = self.shard.cast(stopped);
    }
}
