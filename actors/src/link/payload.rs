//! The payload of links, which the links themselves do not interpret.

#[cfg(test)]
pub(crate) mod sample;

use std::fmt::Debug;

use crate::link::frame::FrameError;
use crate::time::Moment;

/// Reasons why a request that was given to a link has no answer from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// The request was not sent: there is no link, or the link was lost first, or the peer is of a release
    /// that does not know such requests.
    NotSent,
    /// The request was not sent: too many requests are in flight, or it is too long for a frame.
    NoRoom,
    /// The request expired before it was sent, or its caller is gone.
    Expired,
    /// The request was sent, but the link was lost or the peer did not answer in time. The request may have
    /// been decided.
    Unanswered,
}

/// The requests and answers of a node, as links carry them.
pub trait Payload: Copy + Debug + Default + PartialEq + Send + Sync + 'static {
    /// A request.
    type Ask: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// The answer to a request.
    type Answer: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// The path of an answer to its caller on this node.
    type Reply: Debug + Send + 'static;

    /// Returns the lowest version of a link over which the request can be sent.
    fn version_of(ask: &Self::Ask) -> u32;

    /// Writes a request.
    fn encode_ask(ask: Self::Ask) -> Vec<u8>;

    /// Reads a request.
    ///
    /// # Errors
    ///
    /// If a field holds a value that this program never writes.
    fn decode_ask(bytes: &[u8]) -> Result<Self::Ask, FrameError>;

    /// Writes an answer.
    fn encode_answer(answer: Self::Answer) -> Vec<u8>;

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// If a field holds a value that this program never writes.
    fn decode_answer(bytes: &[u8]) -> Result<Self::Answer, FrameError>;

    /// Returns true if the caller still waits.
    fn is_waited_for(reply: &Self::Reply) -> bool;

    /// Answers the caller. Must not wait.
    fn reply(reply: Self::Reply, answer: Result<Self::Answer, Undelivered>);
}

/// A request of this node for a peer.
#[derive(Debug)]
pub struct Outgoing<P: Payload> {
    /// The flow. Requests with the same number share a window, so that a slow flow delays only its own
    /// requests.
    pub flow: u64,
    /// The time until which the caller waits.
    pub expires: Moment,
    /// The request itself.
    pub ask: P::Ask,
    /// The path of the answer.
    pub reply: P::Reply,
}

impl<P: Payload> Outgoing<P> {
    /// Answers that the request was not delivered.
    pub fn undelivered(self, why: Undelivered) {
        P::reply(self.reply, Err(why));
    }
}
