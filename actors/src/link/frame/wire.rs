//! The shape of frames on the wire, as protocol buffers. Field tags never change, so that two releases
//! understand each other.
//!
//! These types check nothing. [`super::read`] turns them into checked values, and [`super::write`] makes them
//! from values.

use prost::bytes::Bytes;

/// The envelope of a frame's items. Items are separate fields, so that they can be counted before any is
/// decoded.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(uint64, tag = "2")]
    pub from: u64,
    #[prost(uint64, tag = "3")]
    pub to: u64,
    #[prost(uint64, tag = "4")]
    pub generation: u64,
    #[prost(uint64, tag = "5")]
    pub number: u64,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub items: Vec<Bytes>,
}

/// The tag of [`Envelope::items`].
pub const ITEM_TAG: u32 = 6;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Item {
    #[prost(oneof = "ItemKind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub kind: Option<ItemKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ItemKind {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Refusal(Refusal),
    #[prost(message, tag = "3")]
    Request(Request),
    #[prost(message, tag = "4")]
    Answer(Content),
    #[prost(message, tag = "5")]
    Heartbeat(Content),
    #[prost(message, tag = "6")]
    HeartbeatAnswer(Content),
    #[prost(message, tag = "7")]
    News(Content),
    #[prost(message, tag = "8")]
    Acknowledgement(Content),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Hello {
    #[prost(uint32, repeated, tag = "1")]
    pub versions: Vec<u32>,
    #[prost(string, tag = "2")]
    pub cluster: String,
    #[prost(string, tag = "3")]
    pub node: String,
    #[prost(uint64, tag = "4")]
    pub incarnation: u64,
    #[prost(uint32, tag = "5")]
    pub shards: u32,
    #[prost(string, tag = "6")]
    pub hash: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Refusal {
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// Content that the link does not interpret, with a number that the sender chose.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Content {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub content: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub remaining_micros: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub content: Bytes,
}
