//! An engine over a SQLite file in a temporary folder.

use std::sync::Arc;
use std::time::Duration;

use actors::cluster::membership::life_record::LifeRecord;
use actors::coupon::CouponKind;
use actors::coupon::change::Change;
use actors::coupon::client::{ChangeAnswer, Coupons, IssueAnswer};
use actors::coupon::ids::{CouponId, Sequence};
use actors::coupon::issue::IssueOutcome;
use actors::coupon::offer::{Issuance, Offer, Status};
use actors::coupon::rows::{CouponRows, Created, NewCoupon};
use actors::engine::{Engine, NotReady, Options};
use actors::ids::{Incarnation, NodeId, RequestKey, UserId};
use actors::owning::owner::actor::OWNER_PLACES;
use actors::owning::router::REQUESTS_MAX;
use actors::store::sqlite::{Options as SqliteOptions, SqliteStore};
use actors::store::{Claim, ClusterStore, NodeRow, NodeState, ShardRow};
use actors::trace::{Span, Spans};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use testkit::poll::eventually;
use tokio::task::JoinHandle;

use super::faults::{Faults, Faulty};

/// Deadline of requests that wait until a test releases them.
pub const LONG: Duration = Duration::from_secs(60);
/// Deadline of the other requests.
pub const DEADLINE: Duration = Duration::from_secs(5);

pub struct TestEngine {
    pub engine: Engine<CouponKind>,
    pub coupons: Coupons,
    pub store: Arc<SqliteStore>,
    pub faults: Arc<Faults>,
    options: Options,
    file: SqliteOptions,
    _folder: tempfile::TempDir,
}

pub fn user(number: u32) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

pub fn key(number: u32) -> RequestKey {
    RequestKey::parse(&format!("key-{number}")).unwrap()
}

const LEASE: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(60);

impl TestEngine {
    pub async fn new() -> Self {
        Self::build(LEASE, IDLE, OWNER_PLACES).await
    }

    pub async fn with_lease(lease: Duration) -> Self {
        Self::build(lease, IDLE, OWNER_PLACES).await
    }

    pub async fn with_idle(idle: Duration) -> Self {
        Self::build(LEASE, idle, OWNER_PLACES).await
    }

    /// Starts an engine, and makes a coupon of which each user may have one.
    pub async fn with_coupon(total_quantity: Option<u64>) -> (Self, CouponId) {
        let fixture = Self::new().await;
        let coupon = fixture.coupon(total_quantity, 1).await;
        (fixture, coupon)
    }

    /// Starts an engine whose owners have queues of this many requests, and makes a coupon.
    pub async fn with_queues_of(owner_requests_max: usize) -> (Self, CouponId) {
        let fixture = Self::build(LEASE, IDLE, owner_requests_max).await;
        let coupon = fixture.coupon(None, 1).await;
        (fixture, coupon)
    }

    /// Starts an engine that stores up to this many batches at the same time.
    pub async fn with_lanes(lanes: usize) -> Self {
        Self::build_with(LEASE, IDLE, OWNER_PLACES, lanes).await
    }

    async fn build(lease: Duration, idle: Duration, owner_requests_max: usize) -> Self {
        Self::build_with(lease, idle, owner_requests_max, 1).await
    }

    async fn build_with(lease: Duration, idle: Duration, owner_requests_max: usize, lanes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteOptions {
            readers: 1,
            ..SqliteOptions::new(folder.path().join("test.db"))
        };
        let node = NodeId::parse("test").unwrap();
        let options = Options {
            node,
            http: String::new(),
            lease,
            beat: Duration::from_millis(50),
            idle,
            requests_max: REQUESTS_MAX,
            owner_requests_max,
            record: LifeRecord::default(),
            lanes,
            cluster: None,
            spans: Spans::default(),
        };
        let faults = Arc::new(Faults::default());
        let (store, engine) = start(&file, &options, &faults).await;
        Self {
            coupons: Coupons::new(engine.clone(), store.clone()),
            engine,
            store,
            faults,
            options,
            file,
            _folder: folder,
        }
    }

    /// Stops the engine and starts another one on the same file.
    pub async fn restart(&mut self) {
        assert!(self.engine.stop(DEADLINE).await);
        self.store.close().await;
        (self.store, self.engine) = start(&self.file, &self.options, &self.faults).await;
        self.coupons = Coupons::new(self.engine.clone(), self.store.clone());
    }

    pub async fn coupon(&self, total_quantity: Option<u64>, per_user_limit: u8) -> CouponId {
        let offer = Offer {
            total_quantity,
            per_user_limit: Some(per_user_limit),
            use_within_days: Some(30),
            ..Offer::titled("test")
        };
        let new = NewCoupon {
            key: RequestKey::random(),
            offer,
            status: Status::Open,
            created_at: actors::time::timestamp(),
            record: None,
        };
        match self.store.create_coupon(&new).await.unwrap() {
            Created::New(coupon) => coupon.id,
            other => panic!("{other:?}"),
        }
    }

    pub async fn issue(&self, coupon: CouponId, user_number: u32, key_number: u32) -> IssueAnswer {
        self.coupons
            .issue(
                coupon,
                user(user_number),
                key(key_number),
                DEADLINE,
                &Span::default(),
            )
            .await
    }

    /// Requests the coupon for the user of this number, with the key of the same number. Panics unless this
    /// request issues the coupon.
    pub async fn must_issue(&self, coupon: CouponId, number: u32) -> Issuance {
        match self.issue(coupon, number, number).await {
            Ok(IssueOutcome::Issued(issuance)) => issuance,
            other => panic!("user {number}: {other:?}"),
        }
    }

    /// Sends an issue request from a task of its own.
    pub fn spawn_issue(
        &self,
        coupon: CouponId,
        user_number: u32,
        key_number: u32,
        deadline: Duration,
    ) -> JoinHandle<IssueAnswer> {
        let coupons = self.coupons.clone();
        tokio::spawn(async move {
            coupons
                .issue(
                    coupon,
                    user(user_number),
                    key(key_number),
                    deadline,
                    &Span::default(),
                )
                .await
        })
    }

    /// Pauses the coupon from a task of its own.
    pub fn spawn_pause(&self, coupon: CouponId, deadline: Duration) -> JoinHandle<ChangeAnswer> {
        let coupons = self.coupons.clone();
        tokio::spawn(async move {
            let pause = Change::Pause.into();
            coupons.change(coupon, pause, deadline, &Span::default()).await
        })
    }

    pub async fn issuances(&self, coupon: CouponId) -> Vec<Issuance> {
        self.store
            .issuances_of_coupon(coupon, None, Sequence::NONE, 100_000)
            .await
            .unwrap()
    }

    /// Returns the row of a coupon's shard.
    pub async fn shard(&self, coupon: CouponId) -> ShardRow {
        self.engine.place(coupon.shard()).await.unwrap().0
    }

    /// Claims a coupon's shard for an incarnation that no node has. Returns the row before the claim, and
    /// that incarnation.
    pub async fn take_shard_away(&self, coupon: CouponId) -> (ShardRow, Incarnation) {
        let (seen, claimant) = (self.shard(coupon).await, Incarnation::random());
        self.store.claim(&[Claim { seen, claimant }]).await.unwrap();
        (seen, claimant)
    }

    /// Returns the row of this node, which is the only row.
    pub async fn node(&self) -> NodeRow {
        self.store.nodes().await.unwrap().remove(0)
    }

    /// Ends the row of this node, as a peer would. Returns the incarnation that was ended.
    pub async fn end_node(&self) -> Incarnation {
        let NodeRow { id, incarnation, .. } = self.node().await;
        self.store
            .beat(&id, incarnation, NodeState::Ended, &[])
            .await
            .unwrap();
        incarnation
    }

    /// Waits until the node serves under another incarnation.
    pub async fn rejoined(&self, before: Incarnation) {
        eventually("a new incarnation serves", async || {
            let row = self.store.nodes().await.unwrap().pop();
            row.is_some_and(|row| row.incarnation != before) && self.engine.not_ready().is_empty()
        })
        .await;
    }

    /// Refuses beats, and waits until the lease has ended.
    pub async fn lose_lease(&self) {
        self.faults.refuse_beats(true);
        eventually("the lease ends", async || {
            self.engine.not_ready().contains(&NotReady::NoLease)
        })
        .await;
    }

    /// Accepts beats again, and waits until the node is ready.
    pub async fn regain_lease(&self) {
        self.faults.refuse_beats(false);
        eventually("the node has a lease again", async || {
            self.engine.not_ready().is_empty()
        })
        .await;
    }

    /// Waits until the engine reports that the store accepts nothing.
    pub async fn store_fails(&self) {
        eventually("the engine reports a failing store", async || {
            self.engine.not_ready() == [NotReady::NoStore]
        })
        .await;
    }

    /// Runs statements on the database file directly, without the store.
    pub async fn run_sql(&self, statements: &'static str) {
        let mut connection = SqliteConnectOptions::new()
            .filename(self.store.path())
            .connect()
            .await
            .unwrap();
        sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

async fn start(
    file: &SqliteOptions,
    options: &Options,
    faults: &Arc<Faults>,
) -> (Arc<SqliteStore>, Engine<CouponKind>) {
    let store = Arc::new(SqliteStore::open(file).await.unwrap());
    let faulty = Arc::new(Faulty::new(Arc::clone(&store), Arc::clone(faults)));
    let engine = Engine::start(options.clone(), faulty).await.unwrap();
    eventually("the engine is ready", async || engine.not_ready().is_empty()).await;
    (store, engine)
}
