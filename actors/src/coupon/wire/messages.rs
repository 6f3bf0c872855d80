//! The shape of a coupon's requests and outcomes on a link, as protocol buffers. Field tags never change, so
//! that two releases understand each other. These types check nothing.

/// A request to an owner.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ask {
    #[prost(oneof = "AskKind", tags = "1, 2, 3")]
    pub kind: Option<AskKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum AskKind {
    #[prost(message, tag = "1")]
    Issue(Issue),
    #[prost(message, tag = "2")]
    Change(Change),
    // Link version 3 knows this.
    #[prost(message, tag = "3")]
    Use(Use),
}

/// An owner's answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Outcome {
    #[prost(oneof = "OutcomeKind", tags = "1, 2, 3")]
    pub kind: Option<OutcomeKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OutcomeKind {
    #[prost(message, tag = "1")]
    Issue(IssueOutcome),
    #[prost(message, tag = "2")]
    Change(ChangeOutcome),
    #[prost(message, tag = "3")]
    Use(UseOutcome),
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Issue {
    #[prost(string, tag = "1")]
    pub user: String,
    #[prost(string, tag = "2")]
    pub key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    #[prost(uint64, optional, tag = "1")]
    pub if_version: Option<u64>,
    #[prost(enumeration = "ChangeKind", tag = "2")]
    pub kind: i32,
    #[prost(message, optional, boxed, tag = "3")]
    pub patch: Option<Box<Patch>>,
    /// The former build does not know this field, and executes the change as one without a key.
    #[prost(string, optional, tag = "4")]
    pub key: Option<String>,
    /// Further versions that satisfy the condition. The former build reads only the first version. So it
    /// may refuse a change that satisfies the condition, and never executes one that does not.
    #[prost(uint64, repeated, tag = "5")]
    pub or_versions: Vec<u64>,
    /// Who makes the change, for the audit log. The former build knows neither this nor the next field.
    #[prost(string, optional, tag = "6")]
    pub author: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub asked: Option<String>,
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

/// A patch. Fields that are present are set. Fields whose tag is a bit in [`Self::cleared`] are cleared.
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
    // Link version 3 knows these.
    #[prost(string, optional, tag = "9")]
    pub description: Option<String>,
    #[prost(message, optional, tag = "10")]
    pub metadata: Option<MetadataPatch>,
    #[prost(uint64, optional, tag = "11")]
    pub max_discount: Option<u64>,
    #[prost(int64, optional, tag = "12")]
    pub use_until: Option<i64>,
    #[prost(string, optional, tag = "13")]
    pub time_zone: Option<String>,
}

/// In order of the keys, so that equal patches have equal bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetadataPatch {
    #[prost(message, repeated, tag = "1")]
    pub pairs: Vec<MetadataPair>,
}

/// A key without a value is removed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetadataPair {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum IssueResult {
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
pub struct IssueOutcome {
    #[prost(enumeration = "IssueResult", tag = "3")]
    pub result: i32,
    #[prost(message, optional, tag = "4")]
    pub issuance: Option<Issuance>,
    /// The beginning or the end of the window, on which the refusal is based.
    #[prost(int64, tag = "5")]
    pub edge: i64,
    #[prost(int64, tag = "6")]
    pub server_time: i64,
    #[prost(uint64, tag = "7")]
    pub total_quantity: u64,
    /// The latest use of the issuance. The former build does not know this field.
    #[prost(message, optional, tag = "8")]
    pub latest: Option<LatestUse>,
}

/// A request for a use.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Use {
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    #[prost(string, optional, tag = "2")]
    pub of_user: Option<String>,
    #[prost(string, tag = "3")]
    pub author: String,
    #[prost(enumeration = "UseKind", tag = "4")]
    pub kind: i32,
    #[prost(string, optional, tag = "5")]
    pub order: Option<String>,
    #[prost(uint64, optional, tag = "6")]
    pub amount: Option<u64>,
    #[prost(uint32, tag = "7")]
    pub hold_seconds: u32,
    #[prost(string, optional, tag = "8")]
    pub reason: Option<String>,
    #[prost(bool, tag = "9")]
    pub returns: bool,
}

/// What is asked for, and what a use did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum UseKind {
    None = 0,
    Reserved = 1,
    Redeemed = 2,
    Released = 3,
    Refunded = 4,
    Revoked = 5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum UseResult {
    None = 0,
    Done = 1,
    Replayed = 2,
    UnknownIssuance = 3,
    OrderMismatch = 4,
    Revoked = 5,
    Redeemed = 6,
    Reserved = 7,
    Expired = 8,
    BelowMinimum = 9,
    NotReserved = 10,
    NotRedeemed = 11,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct UseOutcome {
    #[prost(enumeration = "UseResult", tag = "1")]
    pub result: i32,
    #[prost(message, optional, tag = "2")]
    pub issuance: Option<Issuance>,
    #[prost(message, optional, tag = "3")]
    pub latest: Option<LatestUse>,
    #[prost(uint64, optional, tag = "4")]
    pub supersedes: Option<u64>,
    /// The end of a hold or of use.
    #[prost(int64, tag = "5")]
    pub until: i64,
    #[prost(uint64, tag = "6")]
    pub min_order_amount: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LatestUse {
    #[prost(enumeration = "UseKind", tag = "1")]
    pub kind: i32,
    #[prost(string, optional, tag = "2")]
    pub order: Option<String>,
    #[prost(uint64, optional, tag = "3")]
    pub amount: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    pub discount: Option<u64>,
    #[prost(int64, optional, tag = "5")]
    pub hold_until: Option<i64>,
    #[prost(bool, tag = "6")]
    pub returns: bool,
    #[prost(int64, tag = "7")]
    pub at: i64,
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
pub enum ChangeResult {
    None = 0,
    Done = 1,
    UnknownCoupon = 2,
    VersionMismatch = 3,
    Closed = 4,
    QuantityBelowIssued = 5,
    Invalid = 6,
    Replayed = 7,
    KeyReused = 8,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ChangeOutcome {
    #[prost(enumeration = "ChangeResult", tag = "3")]
    pub result: i32,
    #[prost(message, optional, tag = "4")]
    pub coupon: Option<Coupon>,
    #[prost(uint64, tag = "5")]
    pub issued: u64,
    #[prost(uint64, tag = "6")]
    pub version: u64,
    #[prost(message, repeated, tag = "7")]
    pub invalid: Vec<InvalidField>,
    /// The release before does not write this field.
    #[prost(uint64, optional, tag = "8")]
    pub from_version: Option<u64>,
    /// How many issuances are reserved, redeemed, revoked and given back, in this order. The release before
    /// does not write this field.
    #[prost(uint64, repeated, tag = "9")]
    pub uses: Vec<u64>,
    /// How many issuances were given back, if the quantity is below what is issued.
    #[prost(uint64, tag = "10")]
    pub returned: u64,
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
    // The former build ignores these.
    #[prost(string, optional, tag = "15")]
    pub description: Option<String>,
    #[prost(message, repeated, tag = "16")]
    pub metadata: Vec<MetadataPair>,
    #[prost(uint64, optional, tag = "17")]
    pub max_discount: Option<u64>,
    #[prost(int64, optional, tag = "18")]
    pub use_until: Option<i64>,
    #[prost(string, optional, tag = "19")]
    pub time_zone: Option<String>,
    /// `per_user_limit` is only for the former build.
    #[prost(bool, tag = "20")]
    pub no_user_limit: bool,
}
