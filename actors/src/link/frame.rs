//! Frames: everything that two nodes exchange, gathered, bounded and numbered.
//!
//! A frame names both incarnations, the generation of their link, and the frame's own number in the link.
//! Every field is checked before any of them is used: a frame is accepted whole or not at all. Reading needs
//! at most about forty times the frame's size in memory, and never panics.

mod read;
mod wire;
mod write;

use std::time::Duration;

use crate::ids::Incarnation;
use crate::link::hello::Hello;
use crate::link::payload::Payload;

pub use read::FrameError;
pub use write::{Writer, Written};

/// Size from which a frame is full: large enough to share the cost of a message among a thousand requests,
/// small enough not to delay a heartbeat.
pub const FRAME_BYTES_TARGET: usize = 256 * 1024;
/// Maximum size of a frame. The last item may go beyond the target.
pub const FRAME_BYTES_MAX: usize = FRAME_BYTES_TARGET + ITEM_BYTES_MAX + 1024;
/// Maximum number of items in a frame. The shortest items in practice are refusals of about 15 bytes.
pub const ITEMS_MAX: usize = 16_384;
/// Maximum length of an item. The HTTP API accepts bodies of at most 16 KiB, so only messages of doors come
/// near this length.
pub const ITEM_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 64;
/// Maximum length of the content of a heartbeat, of a heartbeat's answer, or of news.
pub const MESSAGE_BYTES_MAX: usize = 192 * 1024;
/// Maximum length of a text in a hello or a refusal.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of versions that a hello names.
pub const VERSIONS_MAX: usize = 16;
/// Maximum time for which a request waits.
pub const REMAINING_MAX: Duration = Duration::from_secs(3_600);

/// The version of frames that carry hello or a refusal. All releases understand it.
pub const VERSION_OF_HELLO: u32 = 0;

/// The sender and receiver of a frame, and its place in their link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The version in which the frame's items are written.
    pub version: u32,
    /// The sender.
    pub from: Incarnation,
    /// The receiver.
    pub to: Incarnation,
    /// The generation of their link.
    pub generation: u64,
    /// The frame's number in that link, from 1; 0 for hello and refusals.
    pub number: u64,
}

/// A frame, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame<P: Payload> {
    /// Its sender, receiver and place.
    pub header: Header,
    /// Its items, in order.
    pub items: Vec<Item<P>>,
}

impl<P: Payload> Frame<P> {
    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// If the bytes are not a valid frame.
    pub fn read(bytes: Vec<u8>) -> Result<Self, FrameError> {
        read::frame(bytes)
    }
}

/// One item of a frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Item<P: Payload> {
    /// The sender's identity and the versions that it speaks.
    Hello(Hello),
    /// The sender refuses the link, for this reason.
    Refusal(String),
    /// A request for the peer.
    Request(RemoteRequest<P>),
    /// The answer to the request of this number.
    Answer(u64, P::Answer),
    /// A heartbeat, which the peer answers at once.
    Heartbeat(Numbered),
    /// The answer to the heartbeat of this number.
    HeartbeatAnswer(Numbered),
    /// News for the peer, to be acknowledged.
    News(Numbered),
    /// The acknowledgement of the news of this number.
    Acknowledgement(u64),
}

/// Bytes that the link does not interpret, with a number that the sender chose.
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
    /// How long the caller was still going to wait when the request was sent.
    pub remaining: Duration,
    /// The request itself.
    pub ask: P::Ask,
}

#[cfg(test)]
mod tests;
