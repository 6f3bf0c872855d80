//! Frames: everything that two nodes say to each other, gathered, bounded and numbered.
//!
//! A frame names both incarnations, the generation of their link and its own number in it. What is read is
//! checked to the last field before any of it is used: a frame is taken whole or not at all. Reading takes at most
//! some forty times the frame's own bytes of memory and never panics.

mod read;
mod wire;
mod write;

use std::time::Duration;

use crate::ids::Incarnation;
use crate::link::hello::Hello;
use crate::link::payload::Payload;

pub use read::Unreadable;
pub use write::{Writer, Written};

/// A frame that has so many bytes is full: large enough to share the cost of a message among a thousand requests,
/// small enough not to hold up a heartbeat.
pub const FRAME_BYTES_TARGET: usize = 256 * 1024;
/// No frame has more bytes: the last item may go beyond the target.
pub const FRAME_BYTES_MAX: usize = FRAME_BYTES_TARGET + ITEM_BYTES_MAX + 1024;
/// Most items in a frame; the shortest real ones, refusals, are about 15 bytes.
pub const ITEMS_MAX: usize = 16_384;
/// Longest item. A gateway takes bodies of at most 16 KiB, so only messages of doors come near it.
pub const ITEM_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 64;
/// Longest content of a heartbeat, an answer to one, or news.
pub const MESSAGE_BYTES_MAX: usize = 192 * 1024;
/// Longest text in a hello or a refusal.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most versions that a hello names.
pub const VERSIONS_MAX: usize = 16;
/// No request waits longer.
pub const REMAINING_MAX: Duration = Duration::from_secs(3_600);

/// The version of frames that carry hello or a refusal: understood by all releases.
pub const VERSION_OF_HELLO: u32 = 0;

/// Where a frame comes from and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The version in which its items are written.
    pub version: u32,
    /// The sender.
    pub from: Incarnation,
    /// The receiver.
    pub to: Incarnation,
    /// The generation of their link.
    pub generation: u64,
    /// Its place in that link, from 1; 0 for hello and refusals.
    pub number: u64,
}

/// A frame, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame<P: Payload> {
    /// Where it belongs.
    pub header: Header,
    /// What it says, in order.
    pub items: Vec<Item<P>>,
}

impl<P: Payload> Frame<P> {
    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(bytes: Vec<u8>) -> Result<Self, Unreadable> {
        read::frame(bytes)
    }
}

/// One thing said.
#[derive(Debug, Clone, PartialEq)]
pub enum Item<P: Payload> {
    /// What the sender is and which versions it speaks.
    Hello(Hello),
    /// The sender will have no link, for this reason.
    Refusal(String),
    /// A request for the peer.
    Request(RemoteRequest<P>),
    /// The answer to the request of this number.
    Answer(u64, P::Answer),
    /// A sign of life, to be answered at once.
    Heartbeat(Numbered),
    /// The answer to the heartbeat of this number.
    HeartbeatAnswer(Numbered),
    /// News for the peer, to be acknowledged.
    News(Numbered),
    /// The news of this number were taken.
    Acknowledgement(u64),
}

/// Bytes that mean nothing to the link, under a number of its sender's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// The number by which it is answered.
    pub id: u64,
    /// At most [`MESSAGE_BYTES_MAX`] bytes.
    pub content: Vec<u8>,
}

/// A request on its way to another node.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteRequest<P: Payload> {
    /// The number by which it is answered.
    pub id: u64,
    /// How much longer its caller waited when it was sent.
    pub remaining: Duration,
    /// What is asked.
    pub ask: P::Ask,
}

#[cfg(test)]
mod tests;
