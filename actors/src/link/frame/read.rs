//! Conversion of bytes to values, all of which are checked: a peer is trusted as little as a client.

use std::time::Duration;

use prost::Message;
use prost::bytes::Bytes;

use super::wire;
use super::{
    FRAME_BYTES_MAX, Frame, Header, ITEM_BYTES_MAX, ITEMS_MAX, Item, MESSAGE_BYTES_MAX, Numbered,
    REMAINING_MAX, RemoteRequest, TEXT_BYTES_MAX, VERSION_OF_HELLO, VERSIONS_MAX,
};
use crate::ids::{Incarnation, NodeId};
use crate::link::hello::{Hello, VERSIONS};
use crate::link::payload::Payload;

/// Reasons why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame has more than [`FRAME_BYTES_MAX`] bytes.
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// The frame has more than [`ITEMS_MAX`] items, or an item that is too long.
    #[error("a frame of {0} items has too many items, or one that is too long")]
    TooMany(usize),
    /// The bytes are not protocol buffers of the expected shape.
    #[error("a frame is malformed: {0}")]
    Malformed(String),
    /// The frame has a version that this release does not speak.
    #[error("a frame is of version {0}, which this release does not speak")]
    Version(u32),
    /// A field holds an invalid value.
    #[error("a frame has a wrong {0}")]
    Wrong(&'static str),
    /// The payload of an item cannot be read.
    #[error("a frame carries an unreadable message: {0}")]
    Payload(String),
}

type Result<T> = std::result::Result<T, FrameError>;

impl From<prost::DecodeError> for FrameError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Returns a required value, or an error with the name of its field.
trait Required<T> {
    fn required(self, name: &'static str) -> Result<T>;
}

impl<T> Required<T> for Option<T> {
    fn required(self, name: &'static str) -> Result<T> {
        self.ok_or(FrameError::Wrong(name))
    }
}

impl<T, E> Required<T> for std::result::Result<T, E> {
    fn required(self, name: &'static str) -> Result<T> {
        self.map_err(|_| FrameError::Wrong(name))
    }
}

pub(super) fn frame<P: Payload>(bytes: Vec<u8>) -> Result<Frame<P>> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(bytes.len()));
    }
    // Items are slices of the frame's own bytes. Each item takes 32 bytes of memory. The shortest item takes
    // two bytes in the frame.
    let envelope = wire::Envelope::decode(Bytes::from(bytes))?;
    if envelope.version != VERSION_OF_HELLO && !VERSIONS.contains(&envelope.version) {
        return Err(FrameError::Version(envelope.version));
    }
    let is_long = |item: &Bytes| item.len() > ITEM_BYTES_MAX;
    if envelope.items.len() > ITEMS_MAX || envelope.items.iter().any(is_long) {
        return Err(FrameError::TooMany(envelope.items.len()));
    }
    let header = Header {
        version: envelope.version,
        from: Incarnation::new(envelope.from).required("sender")?,
        to: Incarnation::new(envelope.to).required("receiver")?,
        generation: envelope.generation,
        number: envelope.number,
    };
    let items = envelope.items.into_iter();
    let items = items
        .map(|bytes| item(wire::Item::decode(bytes)?))
        .collect::<Result<_>>()?;
    Ok(Frame { header, items })
}

fn item<P: Payload>(item: wire::Item) -> Result<Item<P>> {
    Ok(match item.kind.required("item")? {
        wire::ItemKind::Hello(hello) => Item::Hello(greeting(hello)?),
        wire::ItemKind::Refusal(refusal) => Item::Refusal(text(refusal.reason, "refusal")?),
        wire::ItemKind::Request(request) => Item::Request(RemoteRequest {
            id: request.id,
            remaining: remaining(request.remaining_micros)?,
            ask: P::decode_ask(&request.content)?,
        }),
        wire::ItemKind::Answer(answer) => Item::Answer(answer.id, P::decode_answer(&answer.content)?),
        wire::ItemKind::Heartbeat(message) => Item::Heartbeat(numbered(message)?),
        wire::ItemKind::HeartbeatAnswer(message) => Item::HeartbeatAnswer(numbered(message)?),
        wire::ItemKind::News(message) => Item::News(numbered(message)?),
        wire::ItemKind::Acknowledgement(message) => Item::Acknowledgement(message.id),
    })
}

fn greeting(hello: wire::Hello) -> Result<Hello> {
    let few = hello.versions.len() <= VERSIONS_MAX;
    Ok(Hello {
        versions: few.then_some(hello.versions).required("list of versions")?,
        cluster: text(hello.cluster, "cluster")?,
        node: NodeId::parse(&hello.node).required("node")?,
        incarnation: Incarnation::new(hello.incarnation).required("incarnation")?,
        shards: hello.shards,
        hash: text(hello.hash, "shard hash")?,
    })
}

fn numbered(message: wire::Content) -> Result<Numbered> {
    let fits = message.content.len() <= MESSAGE_BYTES_MAX;
    let message = Numbered {
        id: message.id,
        content: message.content.to_vec(),
    };
    fits.then_some(message).required("length of a message")
}

fn text(text: String, name: &'static str) -> Result<String> {
    (text.len() <= TEXT_BYTES_MAX).then_some(text).required(name)
}

fn remaining(micros: u64) -> Result<Duration> {
    let remaining = Duration::from_micros(micros);
    (remaining <= REMAINING_MAX)
        .then_some(remaining)
        .required("remaining time")
}
