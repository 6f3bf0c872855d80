//! The terms of a link, its effects, and the reasons for its end.

use std::time::Duration;

use crate::ids::Incarnation;
use crate::link::frame::{MESSAGE_BYTES_MAX, Numbered, RemoteRequest};
use crate::link::hello::{Hello, Mismatch};
use crate::link::payload::{Outgoing, Payload, Undelivered};
use crate::time::Moment;

/// The role of this end of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// This end dialled, and gave the link this generation, which is higher than all earlier ones.
    Dialler {
        /// The link's generation.
        generation: u64,
    },
    /// This end was dialled, and accepts the dialler's generation if it is higher than `above`.
    Acceptor {
        /// The highest generation that the same peer had before.
        above: u64,
    },
}

/// The terms of a link.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The role of this end.
    pub role: Role,
    /// This node's hello.
    pub hello: Hello,
    /// The peer's incarnation, from the session.
    pub peer: Incarnation,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Time after which an unanswered heartbeat means that the peer is gone, or cannot receive or send.
    pub silent_after: Duration,
    /// Maximum number of requests of one flow in flight.
    pub flow_places: usize,
}

/// Reasons for which a link ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// This node refused the peer's hello.
    #[error("refused: {0}")]
    Mismatch(Mismatch),
    /// The peer refused this node's hello.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// Frames are missing.
    #[error("received frame {got}, expected frame {expected}")]
    Missing {
        /// The expected number.
        expected: u64,
        /// The received number.
        got: u64,
    },
    /// The peer does not answer heartbeats.
    #[error("the peer is silent")]
    Silent,
    /// The peer sent something that the protocol does not allow.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The session under the link ended.
    #[error("the session ended")]
    Lost,
}

/// Effects that the shell carries out.
#[derive(Debug)]
pub enum Effect<P: Payload> {
    /// Sends this frame.
    Send {
        /// The frame.
        bytes: Vec<u8>,
        /// The number of requests in it.
        requests: usize,
    },
    /// Reports that each end accepted the other's hello, so requests may come.
    Up,
    /// Calls [`super::LinkEnd::beat`] with the content of the heartbeat that is due.
    BeatDue,
    /// Handles a request of the peer, which expires at that moment.
    Handle(RemoteRequest<P>, Moment),
    /// Answers a caller on this node.
    Reply(P::Reply, Result<P::Answer, Undelivered>),
    /// Reports that a request of this node was not sent because all places of its flow are taken.
    Full(Outgoing<P>),
    /// Reports that the peer waits for [`super::LinkEnd::answer_heartbeat`].
    HeartbeatReceived(Numbered),
    /// Reports that the peer answered a heartbeat.
    HeartbeatAnswered {
        /// A moment shortly before the heartbeat was sent.
        sent_at: Moment,
        /// The content of the answer.
        content: Vec<u8>,
    },
    /// Reports news from the peer, which [`super::LinkEnd::acknowledge`] acknowledges.
    News(Numbered),
    /// Reports that the peer acknowledged the news of this number.
    Acknowledged(u64),
    /// Reports that a frame was dropped, for this reason.
    Dropped(&'static str),
    /// Reports that the link ended and all its requests are answered.
    Reset(Reason),
}

/// All effects, in order.
pub type Effects<P> = Vec<Effect<P>>;

/// Returns the content, or empty content if it is too long for a frame. That is a bug, because handlers know
/// the maximum length.
pub(super) fn bounded(content: Vec<u8>) -> Vec<u8> {
    if content.len() <= MESSAGE_BYTES_MAX {
        return content;
    }
    tracing::error!(
        bytes = content.len(),
        "the content of a heartbeat is too long and is not sent"
    );
    Vec::new()
}
