//! What is asked of an owner, and everything it can answer.
//!
//! Three layers, never mixed: an *outcome* or a *refusal* is the owner's decision and true; a [`Setback`]
//! means that there is no decision to tell, and says whether there may be one.

use crate::coupon::offer::{Coupon, InvalidField, Issuance, OfferPatch};
use crate::ids::{Epoch, RequestKey, UserId};
use crate::owning::admission::Permit;
use crate::store::batch::Settlement;
use crate::time::{Moment, Timestamp};

use tokio::sync::oneshot;

/// A user asks for the coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// Who asks.
    pub user: UserId,
    /// The identity of this request; asking again with it gives the same answer.
    pub key: RequestKey,
    /// After this nobody waits for the answer: an owner that has not decided yet refuses.
    pub expires: Moment,
}

/// The owner's decision on an issue request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueOutcome {
    /// The coupon was given now.
    Issued(Issuance),
    /// It had been given to this user for this key before.
    Replayed(Issuance),
    /// It was not given.
    Refused(Refusal),
}

/// Why a coupon is not given, in order of precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such coupon.
    UnknownCoupon,
    /// The user has as many as allowed; this is the latest.
    AlreadyIssued(Box<Issuance>),
    /// Closed by an administrator.
    Closed,
    /// Paused by an administrator.
    Paused,
    /// The window has not begun.
    NotStarted {
        /// When it begins.
        starts_at: Timestamp,
        /// The owner's clock when it decided.
        server_time: Timestamp,
    },
    /// The window is over.
    Ended {
        /// When it ended.
        ends_at: Timestamp,
        /// The owner's clock when it decided.
        server_time: Timestamp,
    },
    /// All are given out.
    SoldOut {
        /// How many there were.
        total_quantity: u64,
    },
}

/// What an administrator wants of a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set these parts of the offer.
    Patch(Box<OfferPatch>),
    /// Issue no more until resumed.
    Pause,
    /// Issue again.
    Resume,
    /// Issue no more, for ever.
    Close,
}

/// A change, and the conditions on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRequest {
    /// What is wanted.
    pub change: Change,
    /// Only if the coupon has this version.
    pub if_version: Option<u64>,
    /// After this nobody waits for the answer.
    pub expires: Moment,
}

/// The owner's decision on a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The coupon as it is now, changed or as it was.
    Done(Box<ChangeDone>),
    /// It was not changed.
    Refused(ChangeRefusal),
}

/// A change that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeDone {
    /// The coupon after it.
    pub coupon: Coupon,
    /// How many were decided when it was.
    pub issued: crate::ids::Sequence,
}

/// Why a coupon is not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// There is no such coupon.
    UnknownCoupon,
    /// It has another version.
    VersionMismatch {
        /// The one it has.
        version: u64,
    },
    /// It is closed for ever.
    Closed,
    /// More are decided than it would have.
    QuantityBelowIssued {
        /// How many are decided.
        issued: u64,
    },
    /// The offer would not make sense.
    Invalid(Vec<InvalidField>),
}

/// Why there is no decision to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Setback {
    /// A queue is full. Nothing was decided.
    #[error("a queue is full")]
    Overloaded,
    /// This is not the owner, or not any more. Nothing was decided.
    #[error("ownership is moving")]
    Moved,
    /// The database does not answer. Nothing was decided.
    #[error("the store does not answer")]
    StoreUnavailable,
    /// The request reached its owner too late. Nothing was decided.
    #[error("the request expired before it was decided")]
    Expired,
    /// It may have been decided, and may yet be stored: only asking again with the same key tells.
    #[error("the outcome is unknown")]
    Unknown,
}

/// What comes back for an issue request.
pub type IssueAnswer = Result<IssueOutcome, Setback>;
/// What comes back for a change.
pub type ChangeAnswer = Result<ChangeOutcome, Setback>;

/// The way back to whoever asked: one answer, exactly once.
///
/// Dropped without one (its owner panicked, its mailbox went), it answers [`Setback::Unknown`] by itself:
/// nobody waits in vain, and nobody is told *no* who may have been told *yes*. It carries the places that the
/// request takes in bounded queues and gives them back when answered.
#[derive(Debug)]
pub struct Reply<T> {
    asker: Asker<T>,
    _node: Permit,
    owner: Option<Permit>,
}

#[derive(Debug)]
enum Asker<T> {
    Here(oneshot::Sender<T>),
    Elsewhere(Box<dyn RemoteAsker<T>>),
}

/// Somebody on another node who waits for an answer. Dropped without one it sends [`Setback::Unknown`].
pub trait RemoteAsker<T>: std::fmt::Debug + Send + Sync {
    /// Whether the answer still finds anybody.
    fn is_waited_for(&self) -> bool;
    /// Sends the answer. It must neither wait nor ask a shard: whoever answers may hold a shard's table.
    fn answer(self: Box<Self>, answer: T);
}

impl<T> Reply<T> {
    /// A reply and the future of its answer. `node` is the request's place in the node's queue.
    pub fn new(node: Permit) -> (Self, oneshot::Receiver<T>) {
        let (asker, answer) = oneshot::channel();
        (
            Self {
                asker: Asker::Here(asker),
                _node: node,
                owner: None,
            },
            answer,
        )
    }

    /// A reply to somebody on another node. `node` is the request's place in this node's queue.
    pub fn elsewhere(node: Permit, asker: Box<dyn RemoteAsker<T>>) -> Self {
        Self {
            asker: Asker::Elsewhere(asker),
            _node: node,
            owner: None,
        }
    }

    /// Takes a place in the owner's queue as well.
    pub fn admitted(&mut self, owner: Permit) {
        self.owner = Some(owner);
    }

    /// Whether somebody still waits for the answer.
    pub fn is_waited_for(&self) -> bool {
        match &self.asker {
            Asker::Here(asker) => !asker.is_closed(),
            Asker::Elsewhere(asker) => asker.is_waited_for(),
        }
    }

    /// Answers. That the asker is gone is no error: asking again finds what was decided.
    pub fn send(self, answer: T) {
        match self.asker {
            Asker::Here(asker) => drop(asker.send(answer)),
            Asker::Elsewhere(asker) => asker.answer(answer),
        }
    }
}

/// A request on its way to the owner, with the way back.
#[derive(Debug)]
pub enum Request {
    /// Give a user the coupon.
    Issue(IssueRequest, Reply<IssueAnswer>),
    /// Change the coupon.
    Change(ChangeRequest, Reply<ChangeAnswer>),
}

impl Request {
    /// Takes a place in the owner's queue.
    pub fn admitted(&mut self, owner: Permit) {
        match self {
            Self::Issue(_, reply) => reply.admitted(owner),
            Self::Change(_, reply) => reply.admitted(owner),
        }
    }

    /// Whether somebody still waits for the answer.
    pub fn is_waited_for(&self) -> bool {
        match self {
            Self::Issue(_, reply) => reply.is_waited_for(),
            Self::Change(_, reply) => reply.is_waited_for(),
        }
    }

    /// Answers that there is no decision.
    pub fn set_back(self, setback: Setback) {
        match self {
            Self::Issue(_, reply) => reply.send(Err(setback)),
            Self::Change(_, reply) => reply.send(Err(setback)),
        }
    }

    /// Answers that there is no such coupon.
    pub fn unknown_coupon(self) {
        match self {
            Self::Issue(_, reply) => reply.send(Ok(IssueOutcome::Refused(Refusal::UnknownCoupon))),
            Self::Change(_, reply) => reply.send(Ok(ChangeOutcome::Refused(ChangeRefusal::UnknownCoupon))),
        }
    }
}

// Owners are asked through links, never by name from another node: their messages do not leave the process.
impl ractor::Message for OwnerMail {}

/// What an owner's mailbox takes.
#[derive(Debug)]
pub enum OwnerMail {
    /// There are requests in its inbox.
    Requests,
    /// Told by the house.
    Command(OwnerCommand),
}

impl From<OwnerCommand> for OwnerMail {
    fn from(command: OwnerCommand) -> Self {
        Self::Command(command)
    }
}

/// Everything that happens to an owner.
#[derive(Debug)]
pub enum OwnerCommand {
    /// A request by somebody who waits.
    Decide(Request),
    /// Gather no longer: hand over what is undelivered.
    Submit,
    /// What became of the portion that is out.
    Settle(Settlement),
    /// The portion that is out is not stored yet: the store refuses or does not answer.
    Delayed,
    /// The shard has a new epoch; what was out under the old one and came back fenced goes out again.
    Refence(Epoch),
    /// The first after being made: say what there is to say.
    Announce,
    /// Forget answers that nobody waits for any more, and give back their places.
    Sweep,
    /// Stop, if there is nothing to do and has not been for a while.
    Passivate,
    /// Store what is decided, answer everybody, admit nobody, stop.
    Drain,
    /// Stop now: nothing more may be decided or confirmed.
    Stop,
    /// Panic, as a mistake in an owner would make it.
    #[cfg(test)]
    Panic,
}
