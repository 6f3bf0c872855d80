//! What a link is to be, what it wants done, and why it ends.

use std::time::Duration;

use crate::ids::Incarnation;
use crate::link::frame::{Numbered, RemoteRequest};
use crate::link::hello::{Hello, Mismatch};
use crate::link::payload::{Outgoing, Payload, Undelivered};
use crate::time::Moment;

/// Which end of the link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It dialled, and gave the link this generation, higher than all before.
    Dialler {
        /// The link's generation.
        generation: u64,
    },
    /// It was dialled, and takes the dialler's generation if it is higher than this.
    Acceptor {
        /// The highest generation that the same peer had before.
        above: u64,
    },
}

/// What a link is to be.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Which end this is.
    pub role: Role,
    /// What this node says of itself.
    pub hello: Hello,
    /// Who is at the other end, as its session has it.
    pub peer: Incarnation,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// A heartbeat unanswered for so long means that the peer is gone, or cannot hear, or cannot speak.
    pub silent_after: Duration,
    /// Most requests of one flow on their way.
    pub flow_places: usize,
}

/// Why a link ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// This node refused the peer's hello.
    #[error("refused: {0}")]
    Mismatch(Mismatch),
    /// The peer refused this node's hello.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// Frames are missing.
    #[error("frame {got} came where {expected} was due")]
    Missing {
        /// The number that was due.
        expected: u64,
        /// The one that came.
        got: u64,
    },
    /// The peer does not answer heartbeats.
    #[error("the peer is silent")]
    Silent,
    /// The peer says what is not agreed upon.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The session under it is gone.
    #[error("the session ended")]
    Lost,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect<P: Payload> {
    /// Send this frame.
    Send {
        /// The frame.
        bytes: Vec<u8>,
        /// How many requests are in it.
        requests: usize,
    },
    /// Both ends accepted the other's hello: requests may come.
    Up,
    /// Give [`super::LinkEnd::beat`] the content of the heartbeat that is due.
    BeatDue,
    /// Handle a request of the peer. It expires at that moment.
    Handle(RemoteRequest<P>, Moment),
    /// Answer a caller on this node.
    Reply(P::Reply, Result<P::Answer, Undelivered>),
    /// A request of this node was not sent because all places of its flow are taken.
    Full(Outgoing<P>),
    /// The peer waits for [`super::LinkEnd::answer_heartbeat`].
    HeartbeatReceived(Numbered),
    /// The peer answered a heartbeat that was begun at that moment.
    HeartbeatAnswered {
        /// Before it was sent.
        sent_at: Moment,
        /// What came with the answer.
        content: Vec<u8>,
    },
    /// The peer has news; [`super::LinkEnd::acknowledge`] acknowledges them.
    News(Numbered),
    /// The peer acknowledged the news of this number.
    Acknowledged(u64),
    /// A frame was dropped, for this reason.
    Dropped(&'static str),
    /// The link is over, and all its requests are answered.
    Reset(Reason),
}

/// Everything to be done, in order.
pub type Effects<P> = Vec<Effect<P>>;
