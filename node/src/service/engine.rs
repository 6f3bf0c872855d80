//! The only place that calls the engine and its store: adapts them to what the service needs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actors::coupon::CouponKind;
use actors::coupon::change::ChangeOutcome;
use actors::coupon::client::Coupons;
use actors::coupon::ids::{CouponId, IssuanceId};
use actors::coupon::issue::IssueOutcome;
use actors::coupon::record::ChangeRow;
use actors::coupon::rows::{CouponRows, CouponSnapshot};
use actors::coupon::uses::{Use, UseNumber, UseOutcome, UseRequest, UsedIssuance};
use actors::engine::{Engine, Options, StartError};
use actors::ids::{RequestKey, ShardId, UserId};
use actors::store::Store;
use actors::trace::Span;

pub(crate) use actors::coupon::change::{Change, ChangeRefusal, ChangeRequest};
pub(crate) use actors::coupon::issue::Refusal;
pub(crate) use actors::coupon::offer::{CouponView, Issuance};
pub(crate) use actors::coupon::rows::{
    CouponFilter, CouponPage, CouponQuery, Created, IssuancePage, IssuanceQuery, IssuancesOf, NewCoupon,
    Statistics, StatisticsQuery, UserCursor,
};
pub(crate) use actors::engine::{ClusterView, NotReady};
pub(crate) use actors::owning::request::Setback;
pub(crate) use actors::store::{NodeRow, NodeState, Result as StoreResult, ShardRow};

use super::Error;
use crate::telemetry::CouponFigures;

/// An issuance, and whether an earlier request with the same key made it.
#[derive(Debug)]
pub(crate) struct IssueResponse {
    /// The issuance, with what became of it if it was issued before.
    pub(crate) used: UsedIssuance,
    /// True if it was issued before.
    pub(crate) replayed: bool,
}

/// A coupon after a change.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The coupon.
    pub(crate) view: CouponView,
    /// The version before the change, if it is known.
    pub(crate) from_version: Option<u64>,
    /// True if an earlier request with the same key was executed.
    pub(crate) replayed: bool,
}

/// A running engine. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CouponEngine(Coupons);

impl fmt::Debug for CouponEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CouponEngine")
    }
}

impl CouponEngine {
    /// Starts an engine over a store. `rows` are the rows of coupons in that store.
    pub(crate) async fn start(
        options: Options,
        store: Arc<dyn Store<CouponKind>>,
        rows: Arc<dyn CouponRows>,
    ) -> Result<Self, StartError> {
        let engine = Engine::start(options, store).await?;
        Ok(Self(Coupons::new(engine, rows)))
    }

    /// Returns why the node is not ready; empty if it is ready.
    pub(crate) fn not_ready(&self) -> Vec<NotReady> {
        self.0.engine().not_ready()
    }

    /// Sets the gauges that are collected on demand. Returns the figures of the busiest coupons, at most
    /// `most`.
    pub(super) fn collect(&self, most: usize) -> Vec<CouponFigures> {
        self.0.engine().collect(most)
    }

    /// Hands all shards off to other nodes, within the limit.
    pub(crate) async fn hand_off(&self, limit: Duration) {
        self.0.engine().hand_off(limit).await;
    }

    /// Stores everything and leaves the cluster. Returns false if that takes longer than the limit.
    pub(crate) async fn stop(&self, limit: Duration) -> bool {
        self.0.engine().stop(limit).await
    }

    /// Asks the coupon's owner to issue. The engine resolves an unknown outcome within the deadline if it
    /// can.
    pub(super) async fn issue(
        &self,
        coupon: CouponId,
        user: UserId,
        key: RequestKey,
        deadline: Duration,
        span: &Span,
    ) -> Result<IssueResponse, Error> {
        match self.0.issue(coupon, user, key, deadline, span).await? {
            IssueOutcome::Issued(issuance) => Ok(IssueResponse {
                used: issuance.into(),
                replayed: false,
            }),
            IssueOutcome::Replayed(used) => Ok(IssueResponse {
                used: *used,
                replayed: true,
            }),
            IssueOutcome::Refused(refusal) => Err(refusal.into()),
        }
    }

    /// Asks the coupon's owner for a change.
    pub(super) async fn change(
        &self,
        coupon: CouponId,
        request: ChangeRequest,
        deadline: Duration,
        span: &Span,
    ) -> Result<Changed, Error> {
        let (done, replayed) = match self.0.change(coupon, request, deadline, span).await? {
            ChangeOutcome::Done(done) => (done, false),
            ChangeOutcome::Replayed(done) => (done, true),
            ChangeOutcome::Refused(refusal) => return Err(refusal.into()),
        };
        let from_version = done.from_version;
        Ok(Changed {
            view: self.0.after_change(*done).await?,
            from_version,
            replayed,
        })
    }

    /// Asks the coupon's owner for a use. Returns the issuance, and true if the same use was made before.
    pub(super) async fn use_issuance(
        &self,
        coupon: CouponId,
        request: UseRequest,
        deadline: Duration,
        span: &Span,
    ) -> Result<(UsedIssuance, bool), Error> {
        match self.0.use_issuance(coupon, request, deadline, span).await? {
            UseOutcome::Done(done) => Ok((done.used, false)),
            UseOutcome::Replayed(done) => Ok((done.used, true)),
            UseOutcome::Refused(refusal) => Err(Error::UseRefused(refusal)),
        }
    }

    /// Begins a snapshot.
    pub(super) async fn snapshot(&self) -> StoreResult<Box<dyn CouponSnapshot>> {
        self.0.rows().snapshot().await
    }

    /// Reads a page of a list of issuances; `None` if the list is about a coupon that does not exist.
    pub(super) async fn issuances(&self, query: &IssuanceQuery) -> StoreResult<Option<IssuancePage>> {
        self.0.rows().issuances(query).await
    }

    /// Reads a page of a user's list if it has at most this many issuances; `None` if it has more.
    pub(super) async fn issuances_of_few(
        &self,
        query: &IssuanceQuery,
        at_most: u32,
    ) -> StoreResult<Option<IssuancePage>> {
        self.0.rows().issuances_of_few(query, at_most).await
    }

    /// Reads up to `limit` uses of an issuance, oldest first; `None` if the issuance does not exist.
    pub(super) async fn uses_of(
        self,
        id: IssuanceId,
        after: UseNumber,
        limit: u32,
    ) -> StoreResult<Option<Vec<Use>>> {
        let store = self.0.rows();
        let uses = store.uses_of(id, after, limit).await?;
        let exists = !uses.is_empty() || store.issuance(id).await?.is_some();
        Ok(exists.then_some(uses))
    }

    /// Creates a coupon.
    pub(super) async fn create_coupon(self, new: NewCoupon) -> StoreResult<Created> {
        self.0.rows().create_coupon(&new).await
    }

    /// Reads a coupon.
    pub(super) async fn coupon(self, id: CouponId) -> StoreResult<Option<CouponView>> {
        self.0.rows().coupon(id).await
    }

    /// Reads up to `limit` changes of a coupon after a version; `None` if the coupon does not exist.
    pub(super) async fn changes(
        self,
        id: CouponId,
        after_version: u64,
        limit: u32,
    ) -> StoreResult<Option<Vec<ChangeRow>>> {
        self.0.rows().changes(id, after_version, limit).await
    }

    /// Takes one step of a search for coupons, newest first.
    pub(crate) async fn coupons(&self, query: &CouponQuery) -> StoreResult<CouponPage> {
        self.0.rows().coupons(query).await
    }

    /// Reads nodes and shards.
    pub(super) async fn cluster(self) -> StoreResult<ClusterView> {
        self.0.engine().cluster().await
    }

    /// Reads the shard of a coupon, and the nodes; `None` if the coupon does not exist.
    pub(super) async fn place(self, coupon: CouponId) -> StoreResult<Option<(ShardRow, Vec<NodeRow>)>> {
        if self.0.rows().coupon(coupon).await?.is_none() {
            return Ok(None);
        }
        let shard: ShardId = coupon.shard();
        Ok(Some(self.0.engine().place(shard).await?))
    }
}
