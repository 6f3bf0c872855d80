//! An engine over a SQLite file in a temporary folder.

use std::sync::Arc;
use std::time::Duration;

use actors::coupon::CouponKind;
use actors::coupon::client::{Coupons, IssueAnswer};
use actors::coupon::offer::{Issuance, Offer, Status};
use actors::coupon::rows::{CouponRows, Created, NewCoupon};
use actors::engine::{Engine, Options};
use actors::ids::{CouponId, NodeId, RequestKey, Sequence, UserId};
use actors::owning::owner::actor::OWNER_PLACES;
use actors::owning::router::REQUESTS_MAX;
use actors::store::ShardRow;
use actors::store::sqlite::{Options as SqliteOptions, SqliteStore};

use testkit::poll::eventually;

use super::faults::{Faults, Faulty};

/// For requests that wait until a test lets them go.
pub const LONG: Duration = Duration::from_secs(60);
/// How long a request waits in these tests.
pub const DEADLINE: Duration = Duration::from_secs(5);

pub struct House {
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

impl House {
    pub async fn new() -> Self {
        Self::build(Duration::from_secs(3), Duration::from_secs(60)).await
    }

    pub async fn with_lease(lease: Duration) -> Self {
        Self::build(lease, Duration::from_secs(60)).await
    }

    pub async fn with_idle(idle: Duration) -> Self {
        Self::build(Duration::from_secs(3), idle).await
    }

    async fn build(lease: Duration, idle: Duration) -> Self {
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
            owner_requests_max: OWNER_PLACES,
            lanes: 1,
            cluster: None,
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

    /// Stops the engine, and starts another over the same file.
    pub async fn restart(&mut self) {
        assert!(self.engine.stop(DEADLINE).await);
        self.store.close().await;
        (self.store, self.engine) = start(&self.file, &self.options, &self.faults).await;
        self.coupons = Coupons::new(self.engine.clone(), self.store.clone());
    }

    pub async fn coupon(&self, total_quantity: Option<u64>, per_user_limit: u8) -> CouponId {
        let offer = Offer {
            total_quantity,
            per_user_limit,
            use_within_days: Some(30),
            ..Offer::titled("test")
        };
        let new = NewCoupon {
            key: RequestKey::random(),
            offer,
            status: Status::Open,
            created_at: actors::time::timestamp(),
        };
        match self.store.create_coupon(&new).await.unwrap() {
            Created::New(coupon) => coupon.id,
            other => panic!("{other:?}"),
        }
    }

    pub async fn issue(&self, coupon: CouponId, user_number: u32, key_number: u32) -> IssueAnswer {
        self.coupons
            .issue(coupon, user(user_number), key(key_number), DEADLINE)
            .await
    }

    /// Returns the row of a coupon's shard.
    pub async fn shard(&self, coupon: CouponId) -> ShardRow {
        self.engine.place(coupon.shard()).await.unwrap().0
    }

    pub async fn issuances(&self, coupon: CouponId) -> Vec<Issuance> {
        self.store
            .issuances_of_coupon(coupon, None, Sequence::NONE, 100_000)
            .await
            .unwrap()
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
    eventually("ready", async || engine.not_ready().is_empty()).await;
    (store, engine)
}
