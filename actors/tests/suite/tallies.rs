//! Tallies in an engine that also serves coupons, over a SQLite file: the engine's promises hold for a kind
//! that the engine does not know.

use std::sync::Arc;
use std::time::Duration;

use actors::cluster::membership::life_record::LifeRecord;
use actors::coupon::CouponKind;
use actors::engine::{Engine, Options};
use actors::ids::{NodeId, RequestKey};
use actors::owning::kind::Kind;
use actors::owning::pair::Either::{First, Second};
use actors::owning::pair::Pair;
use actors::owning::request::Setback;
use actors::store::sqlite::{Options as SqliteOptions, SqliteStore};
use actors::trace::{Span, Spans};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use crate::tally::{Add, AddOutcome, Addition, Tally, TallyId};

type Both = Pair<CouponKind, Tally>;

const DEADLINE: Duration = Duration::from_secs(10);

struct TallyEngine {
    engine: Engine<Both>,
    store: SqliteStore,
    folder: tempfile::TempDir,
}

fn key(number: u64) -> RequestKey {
    RequestKey::parse(&format!("key-{number}")).unwrap()
}

/// The tally of these tests, on the shard of the coupon 1.
fn tally() -> TallyId {
    TallyId::on(CouponKind::shard(actors::coupon::ids::CouponId::new(1).unwrap()))
}

impl TallyEngine {
    async fn new(bound: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (engine, store) = Self::start(&folder).await;
        let fixture = Self {
            engine,
            store,
            folder,
        };
        let insert = format!("REPLACE INTO tallies (id, bound) VALUES ({}, {bound})", tally().0);
        let mut connection = fixture.connect().await;
        sqlx::query(AssertSqlSafe(insert))
            .execute(&mut connection)
            .await
            .unwrap();
        fixture
    }

    async fn start(folder: &tempfile::TempDir) -> (Engine<Both>, SqliteStore) {
        let file = SqliteOptions::new(folder.path().join("test.db")).with_tables_of::<Both>();
        let store = SqliteStore::open(&file).await.unwrap();
        let options = Options {
            node: NodeId::parse("test").unwrap(),
            http: String::new(),
            lease: Duration::from_secs(3),
            beat: Duration::from_millis(50),
            idle: Duration::from_secs(60),
            requests_max: 10_000,
            owner_requests_max: 10_000,
            record: LifeRecord::default(),
            lanes: 1,
            cluster: None,
            spans: Spans::default(),
        };
        let engine = Engine::start(options, Arc::new(store.clone())).await.unwrap();
        let ready = async {
            while !engine.not_ready().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, ready).await.unwrap();
        (engine, store)
    }

    async fn restart(self) -> Self {
        assert!(self.engine.stop(DEADLINE).await);
        self.store.close().await;
        let (engine, store) = Self::start(&self.folder).await;
        let folder = self.folder;
        Self {
            engine,
            store,
            folder,
        }
    }

    async fn connect(&self) -> SqliteConnection {
        let path = self.folder.path().join("test.db");
        SqliteConnection::connect(&format!("sqlite://{}", path.display()))
            .await
            .unwrap()
    }

    async fn add(&self, tally: TallyId, key: RequestKey, amount: u64) -> Result<AddOutcome, Setback> {
        let answer = self
            .engine
            .request(
                Second(tally),
                Second(Add { key, amount }),
                DEADLINE,
                &Span::default(),
            )
            .await?;
        Ok(answer.second().expect("an answer of the requested kind"))
    }

    /// Returns the stored total after each addition.
    async fn stored(&self) -> Vec<i64> {
        let mut connection = self.connect().await;
        let query = sqlx::query_scalar("SELECT total FROM additions ORDER BY number");
        query.fetch_all(&mut connection).await.unwrap()
    }
}

fn added(outcome: Result<AddOutcome, Setback>) -> Option<Addition> {
    match outcome.unwrap() {
        AddOutcome::Added(addition) | AddOutcome::Replayed(addition) => Some(addition),
        AddOutcome::BeyondBound { .. } => None,
        AddOutcome::UnknownTally => panic!("the tally is there"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_fills_a_tally_to_its_bound_and_not_beyond() {
    let fixture = TallyEngine::new(500).await;
    let adds = (0..1_000).map(|number| fixture.add(tally(), key(number), 1 + number % 3));
    let outcomes = futures_util::future::join_all(adds).await;
    let mut additions: Vec<Addition> = outcomes.into_iter().filter_map(added).collect();
    additions.sort_by_key(|addition| addition.number);
    let mut total = 0;
    for (addition, number) in additions.iter().zip(1..) {
        total += addition.amount;
        assert_eq!((addition.number, addition.total), (number, total));
    }
    assert_eq!(total, 500, "the demand exceeds the bound");
    let stored = fixture.stored().await;
    assert_eq!(stored.len(), additions.len());
    assert_eq!(stored.last(), Some(&500));
}

#[tokio::test]
async fn a_repeated_key_adds_once_also_after_a_restart() {
    let fixture = TallyEngine::new(10).await;
    let first = fixture.add(tally(), key(1), 4).await.unwrap();
    let AddOutcome::Added(addition) = first else {
        panic!("{first:?}")
    };
    let again = fixture.add(tally(), key(1), 4).await.unwrap();
    assert_eq!(again, AddOutcome::Replayed(addition.clone()));
    let fixture = fixture.restart().await;
    let again = fixture.add(tally(), key(1), 4).await.unwrap();
    assert_eq!(again, AddOutcome::Replayed(addition));
    assert_eq!(added(fixture.add(tally(), key(2), 6).await).unwrap().total, 10);
    assert_eq!(fixture.stored().await, [4, 10]);
}

#[tokio::test]
async fn a_door_refuses_additions_to_a_full_tally_and_lets_a_repeated_key_pass() {
    let fixture = TallyEngine::new(3).await;
    assert_eq!(added(fixture.add(tally(), key(1), 3).await).unwrap().total, 3);
    let known = async {
        while fixture.engine.door_notices() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, known).await.unwrap();
    let refused = fixture.add(tally(), key(2), 1).await.unwrap();
    assert_eq!(refused, AddOutcome::BeyondBound { bound: 3 });
    let replayed = fixture.add(tally(), key(1), 3).await.unwrap();
    assert!(matches!(replayed, AddOutcome::Replayed(_)), "{replayed:?}");
}

#[tokio::test]
async fn owners_of_both_kinds_live_in_one_shard() {
    use actors::coupon::issue::{IssueOutcome, IssueRequest};
    use actors::coupon::offer::{Offer, Status};
    use actors::coupon::rows::{CouponRows, Created, NewCoupon};
    use actors::coupon::{CouponAsk, CouponOutcome};
    use actors::ids::UserId;

    let fixture = TallyEngine::new(5).await;
    let new = NewCoupon {
        key: key(1),
        offer: Offer::titled("test"),
        status: Status::Open,
        created_at: actors::time::timestamp(),
        record: None,
    };
    let Created::New(coupon) = fixture.store.create_coupon(&new).await.unwrap() else {
        panic!("it is new")
    };
    assert_eq!(Both::shard(First(coupon.id)), Both::shard(Second(tally())));
    let user = UserId::parse("alice").unwrap();
    let ask = CouponAsk::Issue(IssueRequest { user, key: key(1) });
    let untraced = Span::default();
    let (issued, sum) = tokio::join!(
        fixture
            .engine
            .request(First(coupon.id), First(ask), DEADLINE, &untraced),
        fixture.add(tally(), key(1), 2)
    );
    let issued = issued.unwrap().first();
    assert!(
        matches!(issued, Some(CouponOutcome::Issue(IssueOutcome::Issued(_)))),
        "{issued:?}"
    );
    assert_eq!(added(sum).unwrap().total, 2);
    assert_eq!(fixture.engine.owners_active(), 2);
}

#[tokio::test]
async fn a_tally_that_was_never_created_is_unknown() {
    let fixture = TallyEngine::new(5).await;
    let other = TallyId(1_000_000);
    assert_eq!(fixture.add(other, key(1), 1).await, Ok(AddOutcome::UnknownTally));
}
