//! Conversion of values to bytes.

use std::time::Duration;

use prost::Message;
use prost::bytes::Bytes;
use prost::encoding::{encoded_len_varint, key_len};

use super::wire;
use super::{FRAME_BYTES_TARGET, Header, ITEM_BYTES_MAX, ITEMS_MAX, Item, Numbered, REMAINING_MAX};
use crate::link::hello::Hello;
use crate::link::payload::Payload;

/// Gathers items into one frame.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    items: usize,
}

/// An encoded item that is not too long for a frame.
#[derive(Debug)]
pub struct Written(wire::Item);

impl Written {
    /// Encodes the item; `None` if it is too long for any frame.
    pub fn new<P: Payload>(item: Item<P>) -> Option<Self> {
        let item = wire::Item {
            kind: Some(kind(item)),
        };
        (item.encoded_len() <= ITEM_BYTES_MAX).then_some(Self(item))
    }
}

impl Writer {
    /// Begins a frame without items.
    pub fn new(header: Header) -> Self {
        let Header {
            version,
            from,
            to,
            generation,
            number,
        } = header;
        let envelope = wire::Envelope {
            version,
            from: from.get(),
            to: to.get(),
            generation,
            number,
            items: Vec::new(),
        };
        Self {
            bytes: envelope.encode_to_vec(),
            items: 0,
        }
    }

    /// Returns true if the frame must be sent before another item is added.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES_TARGET || self.items >= ITEMS_MAX
    }

    /// Adds an item to a frame that is not full.
    pub fn add(&mut self, Written(item): &Written) {
        debug_assert!(!self.is_full());
        let length = item.encoded_len();
        let around = key_len(wire::ITEM_TAG) + encoded_len_varint(length as u64);
        self.bytes.reserve(around + length);
        prost::encoding::message::encode(wire::ITEM_TAG, item, &mut self.bytes);
        self.items += 1;
    }

    /// Returns the frame's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn kind<P: Payload>(item: Item<P>) -> wire::ItemKind {
    match item {
        Item::Hello(hello) => wire::ItemKind::Hello(greeting(hello)),
        Item::Refusal(reason) => wire::ItemKind::Refusal(wire::Refusal { reason }),
        Item::Request(request) => wire::ItemKind::Request(wire::Request {
            id: request.id,
            remaining_micros: micros(request.remaining),
            content: P::encode_ask(request.ask).into(),
        }),
        Item::Answer(id, answer) => wire::ItemKind::Answer(wire::Content {
            id,
            content: P::encode_answer(answer).into(),
        }),
        Item::Heartbeat(message) => wire::ItemKind::Heartbeat(numbered(message)),
        Item::HeartbeatAnswer(message) => wire::ItemKind::HeartbeatAnswer(numbered(message)),
        Item::News(message) => wire::ItemKind::News(numbered(message)),
        Item::Acknowledgement(id) => wire::ItemKind::Acknowledgement(wire::Content {
            id,
            content: Bytes::new(),
        }),
    }
}

fn greeting(hello: Hello) -> wire::Hello {
    wire::Hello {
        versions: hello.versions,
        cluster: hello.cluster,
        node: hello.node.to_string(),
        incarnation: hello.incarnation.get(),
        shards: hello.shards,
        hash: hello.hash,
    }
}

fn numbered(message: Numbered) -> wire::Content {
    wire::Content {
        id: message.id,
        content: message.content.into(),
    }
}

/// Rounds down, so that a request never has more time at the peer than here.
fn micros(remaining: Duration) -> u64 {
    u64::try_from(remaining.min(REMAINING_MAX).as_micros()).unwrap_or(u64::MAX)
}
