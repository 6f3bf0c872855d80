//! Frames: everything that two nodes say to each other, gathered, bounded and numbered.
//!
//! A frame names both incarnations, the generation of their link and its own number in it. What is read is
//! checked to the last field before anybody sees it: a frame is taken whole or not at all. Reading takes at
//! most some forty times the frame's own bytes of memory and never panics.

mod read;
mod wire;
mod write;

use std::time::Duration;

use crate::ids::{CouponId, Epoch, Incarnation, RequestKey, ShardId, UserId};
use crate::link::hello::Hello;
use crate::owning::message::{Change, ChangeAnswer, IssueAnswer};

pub use read::Unreadable;
pub(crate) use read::coupon as read_coupon;
pub(crate) use wire::Coupon as WireCoupon;
pub(crate) use write::coupon as write_coupon;
pub use write::{Writer, Written};

/// A frame that has so many bytes is full: large enough to share the cost of a message among a thousand
/// requests, small enough not to hold up a heartbeat.
pub const FRAME_BYTES_TARGET: usize = 256 * 1024;
/// No frame has more bytes: the last item may go beyond the target.
pub const FRAME_BYTES_MAX: usize = FRAME_BYTES_TARGET + ITEM_BYTES_MAX + 1024;
/// Most items in a frame; the shortest real ones, refusals, are about 15 bytes.
pub const ITEMS_MAX: usize = 16_384;
/// Longest item. A gateway takes bodies of at most 16 KiB, so only notices come near it.
pub const ITEM_BYTES_MAX: usize = NOTICE_BYTES_MAX + 64;
/// Longest content of a heartbeat, an answer to one, or news.
pub const NOTICE_BYTES_MAX: usize = 192 * 1024;
/// Most coupons in a hint; the rest is loaded when asked for.
pub const PRELOAD_MAX: usize = 4_096;
/// Longest text of an offer in a request or an answer: what a gateway takes as a whole body.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most versions that a hello names.
pub const VERSIONS_MAX: usize = 16;
/// Most fields that are wrong with an offer.
pub const INVALID_MAX: usize = 32;
/// No request waits longer.
pub const REMAINING_MAX: Duration = Duration::from_secs(3_600);

/// The version of frames that carry hello or a refusal: understood by all releases.
pub const VERSION_OF_HELLO: u32 = 0;

/// Where a frame comes from and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The version in which its items are written.
    pub version: u32,
    /// Who sends it.
    pub from: Incarnation,
    /// For whom it is.
    pub to: Incarnation,
    /// Of which of their links.
    pub generation: u64,
    /// Its place in that link, from 1; 0 for hello and refusals.
    pub number: u64,
}

/// A frame, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Where it belongs.
    pub header: Header,
    /// What it says, in order.
    pub items: Vec<Item>,
}

impl Frame {
    /// Reads a frame, or says what is wrong with it.
    pub fn read(bytes: Vec<u8>) -> Result<Self, Unreadable> {
        read::frame(bytes)
    }
}

/// One thing said.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// Who the sender is, and what it speaks.
    Hello(Hello),
    /// The sender will have no link, for this reason.
    Refusal(String),
    /// A request for an owner.
    Request(RemoteRequest),
    /// The answer to the request of this number.
    Answer(u64, Answer),
    /// A sign of life, to be answered at once, with what doors ask.
    Heartbeat(Notice),
    /// The answer to the heartbeat of this number, with what owners tell doors.
    HeartbeatAnswer(Notice),
    /// News for this node, to be acknowledged.
    News(Notice),
    /// The news of this number were heard.
    Heard(u64),
    /// The shard will be handed to you: load these coupons ahead.
    Preload(ShardId, Vec<CouponId>),
}

/// Bytes that mean nothing to the link, under a number of its sender's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The number by which it is answered.
    pub id: u64,
    /// At most [`NOTICE_BYTES_MAX`] bytes.
    pub content: Vec<u8>,
}

/// A request on its way to an owner on another node.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteRequest {
    /// The number by which it is answered.
    pub id: u64,
    /// Whose owner is asked.
    pub coupon: CouponId,
    /// The epoch of its shard in which the asker believes.
    pub epoch: Epoch,
    /// How long its asker waits yet, when it was sent.
    pub remaining: Duration,
    /// What is asked.
    pub what: Asked,
}

/// What is asked of an owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The coupon, for a user.
    Issue {
        /// Who asks.
        user: UserId,
        /// The identity of the request.
        key: RequestKey,
    },
    /// A change.
    Change {
        /// What is wanted.
        change: Change,
        /// Only if the coupon has this version.
        if_version: Option<u64>,
    },
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// For an issue request.
    Issue(IssueAnswer),
    /// For a change.
    Change(ChangeAnswer),
}

#[cfg(test)]
mod tests;
