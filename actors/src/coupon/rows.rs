//! The rows of coupons and issuances. Creating a coupon and reading rows need no owner. The statements are in
//! a folder for each database.

mod codes;
pub(crate) mod columns;
mod issuances;
pub mod mysql;
mod search;
pub mod sqlite;
mod statistics;
mod user_steps;

use std::collections::HashMap;

use async_trait::async_trait;

pub use self::codes::{AddSecretError, CodeRows};
pub use self::issuances::{IssuancePage, IssuanceQuery, IssuancesOf};
pub use self::search::{CouponFilter, CouponPage, CouponQuery};
pub use self::statistics::{BUCKETS_MAX, Statistics, StatisticsCounts, StatisticsQuery};
pub use self::user_steps::{UserPlace, UserStep, UserStepPage};

use crate::coupon::ids::{CouponId, IssuanceId, Sequence};
use crate::coupon::offer::{Coupon, CouponView, Discount, Issuance, Metadata, Offer, Status};
use crate::coupon::record::{ChangeRecord, ChangeRow};
use crate::coupon::uses::{Use, UseNumber, UsedIssuance};
use crate::ids::{RequestKey, UserId};
use crate::store::{Result, StoreError};
use crate::time::Timestamp;

/// A coupon to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCoupon {
    /// Identity of the request. Another request with the same key gets the first coupon.
    pub key: RequestKey,
    /// The offer, already checked.
    pub offer: Offer,
    /// `Open` or `Paused`.
    pub status: Status,
    /// When it is created.
    pub created_at: Timestamp,
    /// What the audit log keeps of it.
    pub record: Option<ChangeRecord>,
}

impl NewCoupon {
    /// Returns what the request asks for, in a canonical form. This form is stored with the coupon and is
    /// compared when the key is used again, because the coupon itself may have changed meanwhile.
    pub fn body(&self) -> String {
        let (kind, value) = match self.offer.discount {
            None => (None, None),
            Some(Discount::Amount(value)) => (Some("amount"), Some(value)),
            Some(Discount::Rate(value)) => (Some("rate"), Some(u64::from(value))),
        };
        let body = CreationBody {
            title: &self.offer.title,
            description: self.offer.description.as_deref(),
            metadata: &self.offer.metadata,
            max_discount: self.offer.max_discount,
            use_until: self.offer.use_until.map(Timestamp::as_micros),
            time_zone: self.offer.time_zone.as_deref(),
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

/// The canonical form must stay equal to the form that an older release stored. So fields keep their order,
/// and a new field is left out if it is not set.
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
    per_user_limit: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    starts_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_within_days: Option<u16>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: &'a Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_discount: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'a str>,
}

/// The result of creating a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The coupon is new.
    New(Coupon),
    /// The same request with this key created the coupon before. This is the coupon as it is now.
    Before(CouponView),
    /// Another request with this key created a coupon.
    KeyReused,
}

/// The place where a page of a user's issuances begins: after this issuance, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserCursor {
    /// When it was issued.
    pub issued_at: Timestamp,
    /// Its id, which orders issuances of the same microsecond.
    pub id: IssuanceId,
}

/// Returns the error of a batch that holds entries of different sorts.
pub(crate) fn mixed_sorts() -> StoreError {
    StoreError::Unreadable("a batch holds entries of different sorts".to_owned())
}

/// Creating coupons, and reads of coupons and issuances.
///
/// Cancel safety: a dropped future may leave its statement running. The statement takes effect whole or not
/// at all.
#[async_trait]
pub trait CouponRows: CodeRows {
    /// Creates a coupon.
    async fn create_coupon(&self, new: &NewCoupon) -> Result<Created>;

    /// Returns one coupon and its highest stored sequence.
    async fn coupon(&self, id: CouponId) -> Result<Option<CouponView>>;

    /// Returns a page of a coupon's changes after a version, by version: the creation, and each change that
    /// made a version. A change that a node of the former build stored is missing. `None` if the coupon
    /// does not exist.
    async fn changes(
        &self,
        coupon: CouponId,
        after_version: u64,
        limit: u32,
    ) -> Result<Option<Vec<ChangeRow>>>;

    /// Takes one step of a search for coupons. Each coupon is shown as of one moment.
    async fn coupons(&self, query: &CouponQuery) -> Result<CouponPage>;

    /// Reads a page of a list of issuances, or takes one step of a search for issuances. What it returns is
    /// of one moment. `None` if the list is about a coupon that does not exist.
    ///
    /// There is no index in the order of a user's list, because it would slow every issuance down. For each
    /// page of it, all issuances of the user (and the coupon) are read and sorted. For users with very many
    /// there is [`CouponSnapshot::user_step`].
    async fn issuances(&self, query: &IssuanceQuery) -> Result<Option<IssuancePage>>;

    /// Reads a page of a list of a user, as [`Self::issuances`] does, if the user has at most this many
    /// issuances, or this many of the coupon, in any state. `None` if the user has more, or if the list is
    /// about a coupon that does not exist.
    async fn issuances_of_few(&self, query: &IssuanceQuery, at_most: u32) -> Result<Option<IssuancePage>>;

    /// Begins a snapshot, which takes a connection for as long as it exists.
    async fn snapshot(&self) -> Result<Box<dyn CouponSnapshot>>;

    /// Returns a page of the uses of an issuance after a number, oldest first.
    async fn uses_of(&self, id: IssuanceId, after: UseNumber, limit: u32) -> Result<Vec<Use>>;

    /// Returns one issuance.
    async fn issuance(&self, id: IssuanceId) -> Result<Option<Issuance>> {
        let query = IssuanceQuery::all(IssuancesOf::Id(id), 1);
        let page = self.issuances(&query).await?.unwrap_or_default();
        Ok(page.issuances.into_iter().next().map(|used| used.issuance))
    }

    /// Returns a page of a user's issuances, newest first; with `coupon`, only issuances of that coupon.
    async fn issuances_of_user(
        &self,
        user: &UserId,
        coupon: Option<CouponId>,
        after: Option<UserCursor>,
        limit: u32,
    ) -> Result<Vec<Issuance>> {
        let user = user.clone();
        let query = IssuanceQuery::all(IssuancesOf::User { user, coupon, after }, limit);
        let page = self.issuances(&query).await?.unwrap_or_default();
        Ok(page.issuances.into_iter().map(|used| used.issuance).collect())
    }

    /// Returns a page of a coupon's issuances after a sequence, in order of sequence. If a user is given,
    /// returns only this user's issuances.
    async fn issuances_of_coupon(
        &self,
        coupon: CouponId,
        user: Option<&UserId>,
        after: Sequence,
        limit: u32,
    ) -> Result<Vec<Issuance>> {
        let user = user.cloned();
        let query = IssuanceQuery::all(IssuancesOf::Coupon { coupon, user, after }, limit);
        let page = self.issuances(&query).await?.unwrap_or_default();
        Ok(page.issuances.into_iter().map(|used| used.issuance).collect())
    }
}

/// Reads that all show the rows of one moment, which is after the snapshot was asked for. Dropping it ends
/// it.
///
/// The database keeps what is older for as long as a snapshot exists, so a holder drops it within seconds.
/// After an error, further reads fail.
///
/// Cancel safety: as for [`CouponRows`].
#[async_trait]
pub trait CouponSnapshot: Send + Sync + 'static {
    /// Returns one coupon and its highest stored sequence.
    async fn coupon(&self, id: CouponId) -> Result<Option<CouponView>>;

    /// Takes one step of a search for coupons.
    async fn coupons(&self, query: &CouponQuery) -> Result<CouponPage>;

    /// Takes one step of a search for issuances; `None` if their coupon does not exist.
    async fn issuances(&self, query: &IssuanceQuery) -> Result<Option<IssuancePage>>;

    /// Returns these issuances with their latest uses, in no particular order.
    async fn issuances_with_ids(&self, ids: &[IssuanceId]) -> Result<Vec<UsedIssuance>>;

    /// Takes one step through all issuances of a user, for a list of them.
    async fn user_step(&self, step: &UserStep) -> Result<UserStepPage>;

    /// Returns how many issuances a user has of the coupons after the first of these up to the second, or up
    /// to the last one.
    async fn count_of_user(
        &self,
        user: &UserId,
        coupons: (Option<CouponId>, Option<CouponId>),
    ) -> Result<u64>;

    /// Returns these coupons.
    async fn coupons_of(&self, ids: &[CouponId]) -> Result<HashMap<CouponId, CouponView>>;

    /// Returns the number of the coupon's last use.
    async fn last_use(&self, coupon: CouponId) -> Result<UseNumber>;

    /// Takes one step of a computation of statistics, which goes on where these statistics end; `None` if the
    /// coupon does not exist.
    async fn statistics(&self, query: &StatisticsQuery, so_far: Statistics) -> Result<Option<Statistics>>;
}
