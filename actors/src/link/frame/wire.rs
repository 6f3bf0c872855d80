//! The shape of frames on the wire, as protocol buffers: field tags stay what they are for ever, so that two
//! releases understand each other.
//!
//! Nothing here is checked; [`super::read`] turns it into values that are, and [`super::write`] makes it of
//! such values.

use prost::bytes::Bytes;

/// What is around the items of a frame. Items are fields of their own, so that they can be counted before one
/// is looked at.
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
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Refusal(Refusal),
    #[prost(message, tag = "3")]
    Issue(Issue),
    #[prost(message, tag = "4")]
    Change(Change),
    #[prost(message, tag = "5")]
    IssueAnswer(IssueAnswer),
    #[prost(message, tag = "6")]
    ChangeAnswer(ChangeAnswer),
    #[prost(message, tag = "7")]
    Heartbeat(Notice),
    #[prost(message, tag = "8")]
    HeartbeatAnswer(Notice),
    #[prost(message, tag = "9")]
    News(Notice),
    #[prost(message, tag = "10")]
    Heard(Notice),
    #[prost(message, tag = "11")]
    Preload(Preload),
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

/// Something opaque to the link, by a number of its sender's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Notice {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub content: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Preload {
    #[prost(uint32, tag = "1")]
    pub shard: u32,
    #[prost(uint64, repeated, tag = "2")]
    pub coupons: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Issue {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub coupon: u64,
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    #[prost(uint64, tag = "4")]
    pub remaining_micros: u64,
    #[prost(string, tag = "5")]
    pub user: String,
    #[prost(string, tag = "6")]
    pub key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub coupon: u64,
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    #[prost(uint64, tag = "4")]
    pub remaining_micros: u64,
    #[prost(uint64, optional, tag = "5")]
    pub if_version: Option<u64>,
    #[prost(enumeration = "ChangeKind", tag = "6")]
    pub kind: i32,
    #[prost(message, optional, tag = "7")]
    pub patch: Option<Patch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ChangeKind {
    None = 0,
    Patch = 1,
    Pause = 2,
    Resume = 3,
    Close = 4,
}

/// A patch: what is present is set; what [`Self::cleared`] names by its tag's bit is cleared.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Patch {
    #[prost(uint32, tag = "1")]
    pub cleared: u32,
    #[prost(string, optional, tag = "2")]
    pub title: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub discount: Option<DiscountPatch>,
    #[prost(uint64, optional, tag = "4")]
    pub min_order_amount: Option<u64>,
    #[prost(uint64, optional, tag = "5")]
    pub total_quantity: Option<u64>,
    #[prost(int64, optional, tag = "6")]
    pub starts_at: Option<i64>,
    #[prost(int64, optional, tag = "7")]
    pub ends_at: Option<i64>,
    #[prost(uint32, optional, tag = "8")]
    pub use_within_days: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DiscountPatch {
    #[prost(enumeration = "DiscountKind", optional, tag = "1")]
    pub kind: Option<i32>,
    #[prost(uint64, optional, tag = "2")]
    pub value: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum DiscountKind {
    None = 0,
    Amount = 1,
    Rate = 2,
}

/// Why there is no decision; the order is not that of [`crate::owning::message::Setback`] and never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Setback {
    None = 0,
    Overloaded = 1,
    Moved = 2,
    StoreUnavailable = 3,
    Expired = 4,
    Unknown = 5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum IssueVerdict {
    None = 0,
    Issued = 1,
    Replayed = 2,
    UnknownCoupon = 3,
    AlreadyIssued = 4,
    Closed = 5,
    Paused = 6,
    NotStarted = 7,
    Ended = 8,
    SoldOut = 9,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct IssueAnswer {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(enumeration = "Setback", tag = "2")]
    pub setback: i32,
    #[prost(enumeration = "IssueVerdict", tag = "3")]
    pub verdict: i32,
    #[prost(message, optional, tag = "4")]
    pub issuance: Option<Issuance>,
    /// The edge of the window that refused.
    #[prost(int64, tag = "5")]
    pub edge: i64,
    #[prost(int64, tag = "6")]
    pub server_time: i64,
    #[prost(uint64, tag = "7")]
    pub total_quantity: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Issuance {
    #[prost(uint64, tag = "1")]
    pub coupon: u64,
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    #[prost(string, tag = "3")]
    pub user: String,
    #[prost(uint32, tag = "4")]
    pub nth: u32,
    #[prost(string, tag = "5")]
    pub key: String,
    #[prost(int64, tag = "6")]
    pub issued_at: i64,
    #[prost(int64, optional, tag = "7")]
    pub expires_at: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ChangeVerdict {
    None = 0,
    Done = 1,
    UnknownCoupon = 2,
    VersionMismatch = 3,
    Closed = 4,
    QuantityBelowIssued = 5,
    Invalid = 6,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeAnswer {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(enumeration = "Setback", tag = "2")]
    pub setback: i32,
    #[prost(enumeration = "ChangeVerdict", tag = "3")]
    pub verdict: i32,
    #[prost(message, optional, tag = "4")]
    pub coupon: Option<Coupon>,
    #[prost(uint64, tag = "5")]
    pub issued: u64,
    #[prost(uint64, tag = "6")]
    pub version: u64,
    #[prost(message, repeated, tag = "7")]
    pub invalid: Vec<InvalidField>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct InvalidField {
    #[prost(string, tag = "1")]
    pub field: String,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    None = 0,
    Open = 1,
    Paused = 2,
    Closed = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Coupon {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(string, tag = "2")]
    pub title: String,
    #[prost(enumeration = "DiscountKind", tag = "3")]
    pub discount_kind: i32,
    #[prost(uint64, tag = "4")]
    pub discount_value: u64,
    #[prost(uint64, optional, tag = "5")]
    pub min_order_amount: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    pub total_quantity: Option<u64>,
    #[prost(uint32, tag = "7")]
    pub per_user_limit: u32,
    #[prost(int64, optional, tag = "8")]
    pub starts_at: Option<i64>,
    #[prost(int64, optional, tag = "9")]
    pub ends_at: Option<i64>,
    #[prost(uint32, optional, tag = "10")]
    pub use_within_days: Option<u32>,
    #[prost(enumeration = "Status", tag = "11")]
    pub status: i32,
    #[prost(uint64, tag = "12")]
    pub version: u64,
    #[prost(int64, tag = "13")]
    pub created_at: i64,
    #[prost(int64, tag = "14")]
    pub updated_at: i64,
}
