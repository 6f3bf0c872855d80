//! The store: what the engine asks of a database, and what every database must promise.
//!
//! Whatever changes something is one statement or one short transaction, and every call has a limit in time,
//! loading one a page. The contract suite (`tests/store`) says in code what is said here in words;
//! every store passes it.

pub mod batch;
pub mod links;
pub mod mysql;
pub mod sqlite;
mod uninterrupted;

use async_trait::async_trait;

use crate::coupon::offer::{Coupon, CouponView, Discount, Issuance, Offer, Status};
use crate::ids::{
    CouponId, Epoch, Fence, Incarnation, IssuanceId, NodeId, RequestKey, Sequence, ShardId, UserId,
};
use crate::store::batch::{Batch, Found};
use crate::time::Timestamp;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Surely nothing was changed; trying again may help (a lock, a refused connection, a full disk).
    #[error("not stored: {0}")]
    NotStored(String),
    /// It may have been changed (a connection lost or a limit passed while waiting for the answer).
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Other rows stand where these should go, or these are such that no database takes them: trying again is
    /// in vain. Surely nothing was changed.
    #[error("clash: {0}")]
    Clash(String),
    /// What is stored makes no sense to this program (a gap in sequences, an unknown status, a missing
    /// table).
    #[error("unreadable: {0}")]
    Unreadable(String),
    /// The disk failed to keep what it had taken (fsync): nothing more may be told, and the process must end.
    #[error("the disk lost writes: {0}")]
    Fatal(String),
}

/// Exit status of a process whose disk lost what it had taken: `EX_IOERR` of sysexits.
const EXIT_IO_ERROR: i32 = 74;

/// Ends the process, as the disk lost what it had taken ([`StoreError::Fatal`]): the system reports that
/// once, and whatever is told after it may be missing tomorrow. Stores call it themselves, whichever call was
/// the one to hear of it.
pub(crate) fn end_process(why: &str) -> ! {
    tracing::error!(
        why,
        "the disk lost writes that it had taken: this process must not tell anything more"
    );
    std::process::exit(EXIT_IO_ERROR);
}

/// Result of a store call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The state a node gives itself in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Joined, not serving yet.
    Joining,
    /// Serving, or about to claim what it is to serve.
    Ready,
    /// Draining.
    Leaving,
    /// Not living any more: ended by itself or by another.
    Ended,
}

impl NodeState {
    /// The name in rows and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Ready => "ready",
            Self::Leaving => "leaving",
            Self::Ended => "ended",
        }
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Joining, Self::Ready, Self::Leaving, Self::Ended]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// A node's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name.
    pub id: NodeId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// How often this life has beaten.
    pub beat: u64,
    /// What it says of itself.
    pub state: NodeState,
    /// Where its HTTP is reached.
    pub http: String,
    /// Where its links are reached; empty where there are none.
    pub cluster: String,
    /// Whom it is linked to, as of its last beat; at most [`links::LINKS_MAX`].
    pub links: Vec<Incarnation>,
}

/// A shard's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardRow {
    /// Which shard.
    pub id: ShardId,
    /// Its ownership number; 0 before the first claim.
    pub epoch: Epoch,
    /// Who owns it, if anybody.
    pub owner: Option<Incarnation>,
}

/// A compare-and-set of one shard's ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The shard as it was read.
    pub seen: ShardRow,
    /// Who is to own it, in the next epoch.
    pub claimant: Incarnation,
}

/// A compare-and-set by which an owner gives a shard to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandOver {
    /// Which shard.
    pub shard: ShardId,
    /// The fence under which it is given up.
    pub from: Fence,
    /// Who is to own it, in the next epoch.
    pub to: Incarnation,
}

/// A coupon to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCoupon {
    /// Identity of the request; the same key again gives the first coupon.
    pub key: RequestKey,
    /// What is set. Already checked.
    pub offer: Offer,
    /// `Open` or `Paused`.
    pub status: Status,
    /// When.
    pub created_at: Timestamp,
}

impl NewCoupon {
    /// What it asks for, in one spelling: a store keeps this with the coupon and compares, as the coupon
    /// itself may have been changed since.
    pub fn body(&self) -> String {
        let (kind, value) = match self.offer.discount {
            None => (None, None),
            Some(Discount::Amount(value)) => (Some("amount"), Some(value)),
            Some(Discount::Rate(value)) => (Some("rate"), Some(u64::from(value))),
        };
        let body = CreationBody {
            title: &self.offer.title,
            discount_kind: kind,
            discount_value: value,
            min_order_amount: self.offer.min_order_amount,
            total_quantity: self.offer.total_quantity,
            per_user_limit: self.offer.per_user_limit,
            starts_at: self.offer.starts_at.map(Timestamp::as_micros),
            ends_at: self.offer.ends_at.map(Timestamp::as_micros),
            use_within_days: self.offer.use_within_days,
            status: self.status.as_str(),
        };
        // Texts and numbers under fixed names always have a JSON form.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

/// Stored: fields keep their order, and new ones are left out where they are not set, so that what was stored
/// before still compares.
#[derive(serde::Serialize)]
struct CreationBody<'a> {
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    discount_kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discount_value: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_order_amount: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_quantity: Option<u64>,
    per_user_limit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_within_days: Option<u16>,
    status: &'static str,
}

/// What came of making a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    New(Coupon),
    /// This key made it before, from the same offer and status; the coupon as it is now.
    Before(CouponView),
    /// This key made another coupon.
    KeyReused,
}

/// One page of coupons, newest (highest id) first.
#[derive(Debug, Clone, Copy)]
pub struct CouponQuery {
    /// Only those with a lower id.
    pub before: Option<CouponId>,
    /// At most so many.
    pub limit: u32,
}

/// Where a page of a user's issuances begins: after this one, in the order newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserCursor {
    /// Its time.
    pub issued_at: Timestamp,
    /// Itself, to tell apart those of the same microsecond.
    pub id: IssuanceId,
}

/// An issuance as it is read for an owner being loaded: borrowed, as there may be a million.
#[derive(Debug, Clone, Copy)]
pub struct LoadedIssuance<'a> {
    /// Its place.
    pub sequence: Sequence,
    /// Who has it; of the form of a [`UserId`].
    pub user: &'a str,
    /// The user's first, second …
    pub nth: u8,
    /// The request it answered; of the form of a [`RequestKey`].
    pub key: &'a str,
    /// When it was decided.
    pub issued_at: Timestamp,
    /// Until when it can be used.
    pub expires_at: Option<Timestamp>,
}

/// Takes issuances in order of sequence while an owner is loaded.
pub type LoadSink<'a> = &'a mut (dyn FnMut(LoadedIssuance<'_>) -> Result<()> + Send);

/// The database, as the engine sees it.
///
/// Cancel safety: a dropped future may leave its statement running; whatever it was doing either happens
/// whole or not at all.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Whether nobody else can have this store open: the rows of all other nodes are then dead ones'.
    fn is_exclusive(&self) -> bool {
        false
    }

    /// Checks that this is a store for this program (schema, [`crate::ids::SHARDS`],
    /// [`crate::ids::SHARD_HASH`]), makes the rows of `cluster` and `shards` if there are none, and answers
    /// at all.
    async fn check(&self) -> Result<()>;

    // --- the cluster's rows ---

    /// Puts a node's row in place of the one with the same id, if that still has the incarnation `replaces`
    /// (`None`: if there is none). False: somebody else was there first.
    async fn join(&self, node: &NodeRow, replaces: Option<Incarnation>) -> Result<bool>;

    /// Counts one beat of this incarnation, and says its state and whom it is linked to. The new beat; `None`
    /// if its row is not there or has ended.
    async fn beat(
        &self,
        id: &NodeId,
        incarnation: Incarnation,
        state: NodeState,
        links: &[Incarnation],
    ) -> Result<Option<u64>>;

    /// Declares another incarnation dead: its row says so from now on, if it still has that incarnation and
    /// that beat, and if `by` lives itself. False: one of these is not so.
    async fn end(&self, by: Incarnation, dead: &NodeRow) -> Result<bool>;

    /// All nodes' rows, by id.
    async fn nodes(&self) -> Result<Vec<NodeRow>>;

    /// All shards' rows, by id.
    async fn shards(&self) -> Result<Vec<ShardRow>>;

    /// Claims shards, each for itself: raises the epoch and names the owner where the row is still as it was
    /// seen, and commits. The rows after that, in the order of the claims, claimed or not.
    async fn claim(&self, claims: &[Claim]) -> Result<Vec<ShardRow>>;

    /// Gives shards to other nodes, each for itself: raises the epoch and names the new owner where the fence
    /// still holds, and commits. The rows after that, in the order asked, handed over or not.
    async fn hand_over(&self, hand_overs: &[HandOver]) -> Result<Vec<ShardRow>>;

    /// Gives up shards owned under these fences, which keep their epochs; those owned otherwise stay as they
    /// are.
    async fn release(&self, shards: &[(ShardId, Fence)]) -> Result<()>;

    // --- owners ---

    /// Stores a batch whole, or leaves out portions whose guards do not hold: the fence; for issuances the
    /// coupon's quantity and per-user limit; for a change the version before it and the quantity. One
    /// statement, and the portions are either all issuances or one change; how many rows it stored (a portion
    /// is stored whole or not at all).
    async fn write(&self, batch: &Batch) -> Result<u64>;

    /// How the rows of each portion stand, by fresh reads, in the order of the portions. The fence is read
    /// before the rows: where it does not hold any more, what is said of the rows is final. A portion of
    /// which just a part is there, or a row that makes no sense, is `Different`.
    async fn read_back(&self, batch: &Batch) -> Result<Vec<Found>>;

    /// Reads a coupon and its issuances after `after`, in order of sequence. `None`: there is no such coupon.
    async fn load(
        &self,
        coupon: CouponId,
        after: Sequence,
        issuances: LoadSink<'_>,
    ) -> Result<Option<Coupon>>;

    // --- coupons and issuances, for people ---

    /// Makes a coupon.
    async fn create_coupon(&self, new: &NewCoupon) -> Result<Created>;

    /// One coupon and its highest stored sequence.
    async fn coupon(&self, id: CouponId) -> Result<Option<CouponView>>;

    /// A page of coupons.
    async fn coupons(&self, query: &CouponQuery) -> Result<Vec<CouponView>>;

    /// One issuance.
    async fn issuance(&self, id: IssuanceId) -> Result<Option<Issuance>>;

    /// A page of a user's issuances, newest first. No index has them in that order, as it would cost every
    /// issuance: all that the user has is read and sorted for each page.
    async fn issuances_of_user(
        &self,
        user: &UserId,
        after: Option<UserCursor>,
        limit: u32,
    ) -> Result<Vec<Issuance>>;

    /// A page of a coupon's issuances after a sequence, by sequence, of one user if named.
    async fn issuances_of_coupon(
        &self,
        coupon: CouponId,
        user: Option<&UserId>,
        after: Sequence,
        limit: u32,
    ) -> Result<Vec<Issuance>>;
}
