//! A request on its way to an owner, the path of its answer, and the other commands to an owner.
//!
//! Outcomes and setbacks are never mixed. An *outcome* is the owner's decision, and it is true. A [`Setback`]
//! means that there is no decision to answer with, and says whether the request may have been decided.

use tokio::sync::oneshot;

use crate::admission::Permit;
use crate::ids::Epoch;
use crate::owning::kind::Kind;
use crate::store::batch::Settlement;
use crate::time::Moment;
use crate::trace::Span;

/// Why there is no decision to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Setback {
    /// A queue is full. Nothing was decided.
    #[error("a queue is full")]
    Overloaded,
    /// The request reached a node that does not own the shard, or no longer owns it. Nothing was decided.
    #[error("ownership is moving")]
    Moved,
    /// The database does not answer. Nothing was decided.
    #[error("the store does not answer")]
    StoreUnavailable,
    /// The request reached its owner too late. Nothing was decided.
    #[error("the request expired before it was decided")]
    Expired,
    /// The request may have been decided, and the decision may still be stored. Only a retry with the same
    /// key shows the outcome.
    #[error("the outcome is unknown")]
    Unknown,
}

/// The answer to a request: an outcome or a setback.
pub type Answer<K> = Result<<K as Kind>::Outcome, Setback>;

/// The path of one answer back to its caller.
///
/// A reply that is dropped without an answer (the owner panicked, or its mailbox is gone) answers
/// [`Setback::Unknown`]. So no caller waits in vain, and no caller is refused if its request may have been
/// decided. A reply holds the places that its request takes in bounded queues, and frees them when it
/// answers. It also holds the span of the attempt, which ends with the answer.
#[derive(Debug)]
pub struct Reply<K: Kind> {
    caller: Caller<K>,
    _node: Permit,
    owner: Option<Permit>,
    span: Span,
}

#[derive(Debug)]
enum Caller<K: Kind> {
    Local(oneshot::Sender<Answer<K>>),
    Remote(Box<dyn RemoteCaller<K>>),
}

/// A caller on another node that waits for an answer. If it is dropped without an answer, it sends
/// [`Setback::Unknown`].
pub trait RemoteCaller<K: Kind>: std::fmt::Debug + Send + Sync {
    /// Returns true if the caller still waits.
    fn is_waiting(&self) -> bool;

    /// Sends the answer. Must neither wait nor call a shard, because a shard's table may be locked during
    /// this call.
    fn send(self: Box<Self>, answer: Answer<K>);
}

impl<K: Kind> Reply<K> {
    /// Makes a reply, and the receiver of its answer. `node` is the request's place in the node's queue.
    pub fn new(node: Permit) -> (Self, oneshot::Receiver<Answer<K>>) {
        let (caller, answer) = oneshot::channel();
        let reply = Self {
            caller: Caller::Local(caller),
            _node: node,
            owner: None,
            span: Span::default(),
        };
        (reply, answer)
    }

    /// Makes a reply to another node. `node` is the request's place in this node's queue.
    pub fn remote(node: Permit, caller: Box<dyn RemoteCaller<K>>) -> Self {
        Self {
            caller: Caller::Remote(caller),
            _node: node,
            owner: None,
            span: Span::default(),
        }
    }

    /// Makes this the span that ends with the answer.
    #[must_use]
    pub fn traced(self, span: Span) -> Self {
        Self { span, ..self }
    }

    /// Returns the span that ends with the answer.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Returns true if the caller still waits.
    pub fn is_waited_for(&self) -> bool {
        match &self.caller {
            Caller::Local(caller) => !caller.is_closed(),
            Caller::Remote(caller) => caller.is_waiting(),
        }
    }

    /// Sends the answer. If the caller is gone, that is no error: a retry finds the decision.
    pub fn send(self, answer: Answer<K>) {
        self.span.edit(|record| match &answer {
            Ok(outcome) => record.note("firstcome.refused", K::is_refusal(outcome)),
            Err(setback) => record.fail(setback.to_string()),
        });
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
    /// When the caller stops waiting. An owner that has not decided by then answers [`Setback::Expired`].
    pub expires: Moment,
    /// The path of the answer.
    pub reply: Reply<K>,
}

impl<K: Kind> Request<K> {
    /// Takes a place in the owner's queue.
    pub fn enter(&mut self, owner: Permit) {
        self.reply.span.event("queued");
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

    /// Answers that the requested thing does not exist.
    pub fn absent(self) {
        let outcome = K::absent(&self.ask);
        self.reply.send(Ok(outcome));
    }
}

// Other nodes reach owners through links, not through remote actors. So this message never leaves the
// process, and cannot be serialized.
impl<K: Kind> ractor::Message for OwnerMail<K> {}

/// A message to an owner's actor.
#[derive(Debug)]
pub enum OwnerMail<K: Kind> {
    /// There are requests in the owner's inbox.
    Requests,
    /// A command to the owner.
    Command(OwnerCommand<K>),
}

impl<K: Kind> From<OwnerCommand<K>> for OwnerMail<K> {
    fn from(command: OwnerCommand<K>) -> Self {
        Self::Command(command)
    }
}

/// The commands to an owner.
#[derive(Debug)]
pub enum OwnerCommand<K: Kind> {
    /// Decide a request.
    Decide(Request<K>),
    /// Stop gathering, and hand over the undelivered entries.
    Submit,
    /// Learn the fate of the portion in flight.
    Settle(Settlement),
    /// Learn that the portion in flight is not stored yet, because the store refuses it or does not answer.
    Delayed,
    /// Use the shard's new epoch. A portion that was fenced under the old epoch is sent again.
    Refence(Epoch),
    /// Post a notice for doors, if there is one to post. This is the first command of every owner.
    Announce,
    /// Set the figures anew, because counts of the kind may change with time alone. The actor does so after
    /// every command.
    Count,
    /// Drop answers whose callers no longer wait, and free their places.
    Sweep,
    /// Stop if there has been nothing to do for a while.
    Passivate,
    /// Decide nothing more, store what is decided, answer everything, and stop.
    Drain,
    /// Stop now: nothing more may be decided or confirmed.
    Stop,
    /// Panic, as an owner with a bug would.
    #[cfg(test)]
    Panic,
}
