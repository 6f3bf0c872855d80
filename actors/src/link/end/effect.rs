//! What a link is to be, what it wants done, and why it ends.

use std::time::Duration;

use crate::ids::{CouponId, Incarnation, ShardId};
use crate::link::frame::{Notice, RemoteRequest};
use crate::link::hello::{Hello, Mismatch};
use crate::owning::message::{ChangeAnswer, IssueAnswer, Reply, Request, Setback};
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
    /// Most requests for one coupon on their way.
    pub coupon_places: usize,
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
pub enum Effect {
    /// Send this frame.
    Send {
        /// The frame.
        bytes: Vec<u8>,
        /// How many requests are in it.
        requests: usize,
    },
    /// Both ends took the other's hello: requests may come.
    Up,
    /// Say with [`super::Link::beat`] what goes with the heartbeat that is due.
    BeatDue,
    /// Hand this to its owner. It expires at that moment.
    Ask(RemoteRequest, Moment),
    /// Answer an issue request of this node.
    Issue(Reply<IssueAnswer>, IssueAnswer),
    /// Answer a change of this node.
    Change(Reply<ChangeAnswer>, ChangeAnswer),
    /// A request of this node was not sent.
    SetBack(Request, Setback),
    /// As it is, and because all places of its coupon are taken.
    Full(Request),
    /// The peer asks for [`super::Link::answer_heartbeat`].
    HeartbeatAsked(Notice),
    /// The peer answered a heartbeat that was begun at that moment.
    HeartbeatAnswered {
        /// Before it was sent.
        sent_at: Moment,
        /// What came with the answer.
        content: Vec<u8>,
    },
    /// The peer has news; [`super::Link::heard`] acknowledges.
    News(Notice),
    /// The peer heard the news of this number.
    Heard(u64),
    /// The peer hints at coupons to load ahead.
    Preload(ShardId, Vec<CouponId>),
    /// A frame was dropped, for this reason.
    Dropped(&'static str),
    /// The link is over, and all its requests are answered.
    Reset(Reason),
}

/// Everything to be done, in order.
pub type Effects = Vec<Effect>;
