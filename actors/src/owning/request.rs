//! A request on its way to an owner, the way of its answer, and what an owner is told besides.
//!
//! Two layers that are never mixed: an *outcome* is the owner's decision and true; a [`Setback`] means that
//! there is no decision to tell, and says whether there may be one.

use tokio::sync::oneshot;

use crate::admission::Permit;
use crate::ids::Epoch;
use crate::owning::kind::Kind;
use crate::store::batch::Settlement;
use crate::time::Moment;

/// Why there is no decision to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Setback {
    /// A queue is full. Nothing was decided.
    #[error("a queue is full")]
    Overloaded,
    /// The request reached a node that is not the owner, or no longer. Nothing was decided.
    #[error("ownership is moving")]
    Moved,
    /// The database does not answer. Nothing was decided.
    #[error("the store does not answer")]
    StoreUnavailable,
    /// The request reached its owner too late. Nothing was decided.
    #[error("the request expired before it was decided")]
    Expired,
    /// It may have been decided, and may yet be stored. Only asking again with the same key tells.
    #[error("the outcome is unknown")]
    Unknown,
}

/// What comes back for a request.
pub type Answer<K> = Result<<K as Kind>::Outcome, Setback>;

/// The way of one answer back to its caller.
///
/// If it is dropped without an answer (its owner panicked, its mailbox is gone), it answers
/// [`Setback::Unknown`]. So no caller waits in vain, and none is refused whose request may have been decided.
/// It carries the places that the request takes in bounded queues, and frees them when it answers.
#[derive(Debug)]
pub struct Reply<K: Kind> {
    caller: Caller<K>,
    _node: Permit,
    owner: Option<Permit>,
}

#[derive(Debug)]
enum Caller<K: Kind> {
    Local(oneshot::Sender<Answer<K>>),
    Remote(Box<dyn RemoteCaller<K>>),
}

/// A caller on another node that waits for an answer. Dropped without one it sends [`Setback::Unknown`].
pub trait RemoteCaller<K: Kind>: std::fmt::Debug + Send + Sync {
    /// Returns true if the caller still waits.
    fn is_waiting(&self) -> bool;

    /// Sends the answer. Must neither wait nor call a shard: a shard's table may be locked meanwhile.
    fn send(self: Box<Self>, answer: Answer<K>);
}

impl<K: Kind> Reply<K> {
    /// Makes a reply and the future of its answer. `node` is the request's place in the node's queue.
    pub fn new(node: Permit) -> (Self, oneshot::Receiver<Answer<K>>) {
        let (caller, answer) = oneshot::channel();
        let reply = Self {
            caller: Caller::Local(caller),
            _node: node,
            owner: None,
        };
        (reply, answer)
    }

    /// Makes a reply to another node. `node` is the request's place in this node's queue.
    pub fn remote(node: Permit, caller: Box<dyn RemoteCaller<K>>) -> Self {
        Self {
            caller: Caller::Remote(caller),
            _node: node,
            owner: None,
        }
    }

    /// Returns true if the caller still waits.
    pub fn is_waited_for(&self) -> bool {
        match &self.caller {
            Caller::Local(caller) => !caller.is_closed(),
            Caller::Remote(caller) => caller.is_waiting(),
        }
    }

    /// Answers. A caller that is gone is no error: a retry finds what was decided.
    pub fn send(self, answer: Answer<K>) {
        match self.caller {
            Caller::Local(caller) => drop(caller.send(answer)),
            Caller::Remote(caller) => caller.send(answer),
        }
    }
}

/// A request on its way to an owner.
#[derive(Debug)]
pub struct Request<K: Kind> {
    /// What is asked.
    pub ask: K::Ask,
    /// The caller does not wait longer. An owner that has not decided by then refuses.
    pub expires: Moment,
    /// The way of the answer.
    pub reply: Reply<K>,
}

impl<K: Kind> Request<K> {
    /// Takes a place in the owner's queue.
    pub fn enter(&mut self, owner: Permit) {
        self.reply.owner = Some(owner);
    }

    /// Returns true if the caller still waits.
    pub fn is_waited_for(&self) -> bool {
        self.reply.is_waited_for()
    }

    /// Answers that there is no decision.
    pub fn set_back(self, setback: Setback) {
        self.reply.send(Err(setback));
    }

    /// Answers that what is asked for does not exist.
    pub fn absent(self) {
        let outcome = K::absent(&self.ask);
        self.reply.send(Ok(outcome));
    }
}

// Owners are asked through links, never by name from another node: their messages do not leave the process.
impl<K: Kind> ractor::Message for OwnerMail<K> {}

/// What an owner's mailbox takes.
#[derive(Debug)]
pub enum OwnerMail<K: Kind> {
    /// There are requests in its inbox.
    Requests,
    /// A command of its node.
    Command(OwnerCommand<K>),
}

impl<K: Kind> From<OwnerCommand<K>> for OwnerMail<K> {
    fn from(command: OwnerCommand<K>) -> Self {
        Self::Command(command)
    }
}

/// Everything that happens to an owner.
#[derive(Debug)]
pub enum OwnerCommand<K: Kind> {
    /// Decide a request.
    Decide(Request<K>),
    /// Stop gathering: hand over what is not delivered yet.
    Submit,
    /// Learn what became of the portion that is out.
    Settle(Settlement),
    /// Learn that the portion that is out is not stored yet: the store refuses or does not answer.
    Delayed,
    /// Take the shard's new epoch. What was fenced under the old one is sent again.
    Refence(Epoch),
    /// Tell doors what there is to tell. The first command of every owner.
    Announce,
    /// Drop answers that are no longer waited for, and free their places.
    Sweep,
    /// Stop if there has been nothing to do for a while.
    Passivate,
    /// Store what is decided, answer everything, admit nothing, stop.
    Drain,
    /// Stop now: nothing more may be decided or confirmed.
    Stop,
    /// Panic, as a mistake in an owner would.
    #[cfg(test)]
    Panic,
}
