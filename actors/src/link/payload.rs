//! What links carry. They read none of it.

#[cfg(test)]
pub(crate) mod sample;

use std::fmt::Debug;

use crate::link::frame::Unreadable;
use crate::time::Moment;

/// Why a request that was given to a link has no answer of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undelivered {
    /// It was not sent: there is no link, or it went first.
    NotSent,
    /// Too many requests are on their way, or it is longer than a frame carries. It was not sent.
    NoRoom,
    /// It expired before it was sent, or its caller is gone.
    Expired,
    /// It was sent, and the link went or the peer did not answer in time: it may have been taken.
    Unanswered,
}

/// The requests and answers of a node, as links carry them.
pub trait Payload: Copy + Debug + Default + PartialEq + Send + Sync + 'static {
    /// A request.
    type Ask: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// The answer to a request.
    type Answer: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// The way of an answer to its caller on this node.
    type Reply: Debug + Send + 'static;

    /// Writes a request.
    fn encode_ask(ask: Self::Ask) -> Vec<u8>;

    /// Reads a request.
    ///
    /// # Errors
    ///
    /// If a field does not hold what this program would have written.
    fn decode_ask(bytes: &[u8]) -> Result<Self::Ask, Unreadable>;

    /// Writes an answer.
    fn encode_answer(answer: Self::Answer) -> Vec<u8>;

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// If a field does not hold what this program would have written.
    fn decode_answer(bytes: &[u8]) -> Result<Self::Answer, Unreadable>;

    /// Returns true if the caller still waits.
    fn is_waited_for(reply: &Self::Reply) -> bool;

    /// Answers the caller. Must not wait.
    fn reply(reply: Self::Reply, answer: Result<Self::Answer, Undelivered>);
}

/// A request of this node for a peer.
#[derive(Debug)]
pub struct Outgoing<P: Payload> {
    /// Requests with the same number share a window, so that a slow one holds up none but its own.
    pub flow: u64,
    /// The caller does not wait longer.
    pub expires: Moment,
    /// What is asked.
    pub ask: P::Ask,
    /// The way of the answer.
    pub reply: P::Reply,
}

impl<P: Payload> Outgoing<P> {
    /// Answers that it was not delivered.
    pub fn undelivered(self, why: Undelivered) {
        P::reply(self.reply, Err(why));
    }
}
