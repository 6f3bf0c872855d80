//! Tests of what cannot be caused outside the crate: an owner that panics or stops, and refusals at start.
//! Coupons are the sample kind. The other tests of the engine are in `actors/tests/engine`.

use super::*;
use crate::cluster::membership::life_record::LifeRecord;
use crate::coupon::CouponKind;
use crate::coupon::client::Coupons;
use crate::coupon::ids::CouponId;
use crate::coupon::issue::IssueOutcome;
use crate::coupon::offer::{Offer, Status};
use crate::coupon::rows::{Created, NewCoupon};
use crate::ids::{RequestKey, UserId};
use crate::owning::request::OwnerCommand;
use crate::store::sqlite::{Options as SqliteOptions, SqliteStore};
use crate::trace::{Span, Spans};

type Engine = super::Engine<CouponKind>;

const DEADLINE: Duration = Duration::from_secs(10);

fn options() -> Options {
    Options {
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
    }
}

/// Starts an engine over an empty database, and waits until it is ready.
async fn coupons(folder: &tempfile::TempDir) -> Coupons {
    let store = SqliteStore::open(&SqliteOptions::new(folder.path().join("test.db")))
        .await
        .unwrap();
    let store = Arc::new(store);
    let engine = Engine::start(options(), store.clone()).await.unwrap();
    let ready = async {
        while !engine.not_ready().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ready).await.unwrap();
    Coupons::new(engine, store)
}

#[tokio::test]
async fn a_node_in_a_cluster_needs_a_shared_store_and_a_lease_below_the_maximum() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&SqliteOptions::new(folder.path().join("test.db")))
        .await
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = ClusterOptions {
        name: "test".to_owned(),
        advertise: listener.local_addr().unwrap().to_string(),
        listener: Arc::new(listener),
        cookie: "crumbs".to_owned(),
        tls: None,
        heartbeat: crate::link::HEARTBEAT,
    };
    assert!(
        !format!("{cluster:?}").contains("crumbs"),
        "the cookie is a secret"
    );
    let options = Options {
        cluster: Some(cluster),
        ..options()
    };
    let refused = Engine::start(options.clone(), Arc::new(store))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("only one node can open this store"), "{refused}");
    let (longest, longer) = (
        options.clone(),
        Options {
            lease: LEASE_MAX + Duration::from_millis(1),
            ..options
        },
    );
    assert!(parts::check_cluster(&longest, false).is_ok() && parts::check_cluster(&longer, false).is_err());
}

async fn coupon(coupons: &Coupons) -> CouponId {
    let offer = Offer::titled("test");
    let new = NewCoupon {
        key: RequestKey::random(),
        offer,
        status: Status::Open,
        created_at: time::timestamp(),
        record: None,
    };
    let Created::New(coupon) = coupons.rows().create_coupon(&new).await.unwrap() else {
        panic!("the coupon is new")
    };
    coupon.id
}

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

/// Issues a coupon, and retries with the same key while the outcome is unknown, because the router gives up
/// after a few consecutive stops of the owner. A request that is left in a mailbox gets no answer within the
/// limit, so it is not retried.
async fn issue_again(coupons: &Coupons, coupon: CouponId, user: UserId) -> IssueOutcome {
    let key = RequestKey::random();
    let known = async {
        loop {
            match coupons
                .issue(coupon, user.clone(), key.clone(), 2 * DEADLINE, &Span::default())
                .await
            {
                Err(Setback::Unknown) => {}
                answer => return answer.unwrap(),
            }
        }
    };
    tokio::time::timeout(DEADLINE, known)
        .await
        .expect("an answer in time")
}

/// The test uses one thread, so that all requests are in the mailbox before the owner takes the first.
#[tokio::test]
async fn owners_that_stop_and_are_loaded_again_answer_every_request_in_their_mailboxes() {
    const USERS: usize = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let coupons = coupons(&folder).await;
    let coupon = coupon(&coupons).await;
    let asked: Vec<_> = (0..USERS)
        .map(|number| {
            let coupons = coupons.clone();
            tokio::spawn(async move { issue_again(&coupons, coupon, user(number)).await })
        })
        .collect();
    let shard = coupons.engine().inner.shards[usize::from(coupon.shard().get())].clone();
    let stops = tokio::spawn(async move {
        loop {
            shard.tell_owner(coupon, OwnerCommand::Stop);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut sequences = Vec::new();
    for answer in asked {
        match answer.await.unwrap() {
            IssueOutcome::Issued(issuance) => sequences.push(issuance.id.sequence.get()),
            IssueOutcome::Replayed(used) => sequences.push(used.issuance.id.sequence.get()),
            IssueOutcome::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
    stops.abort();
    sequences.sort_unstable();
    assert!(sequences.into_iter().eq(1..=USERS as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_panics_is_reloaded_and_every_request_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let coupons = coupons(&folder).await;
    let coupon = coupon(&coupons).await;
    let epoch = coupons.engine().place(coupon.shard()).await.unwrap().0.epoch;
    let asked: Vec<_> = (0..1_000)
        .map(|number| {
            let coupons = coupons.clone();
            tokio::spawn(async move {
                coupons
                    .issue(
                        coupon,
                        user(number),
                        RequestKey::random(),
                        DEADLINE,
                        &Span::default(),
                    )
                    .await
            })
        })
        .collect();
    let shard = &coupons.engine().inner.shards[usize::from(coupon.shard().get())];
    let panics = async {
        while !shard.tell_owner(coupon, OwnerCommand::Panic) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, panics).await.unwrap();
    let mut sequences = Vec::new();
    for answer in asked {
        match answer.await.unwrap().unwrap() {
            // What was decided before the panic is found by the next owner, under the same key.
            IssueOutcome::Issued(issuance) => sequences.push(issuance.id.sequence.get()),
            IssueOutcome::Replayed(used) => sequences.push(used.issuance.id.sequence.get()),
            IssueOutcome::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
    sequences.sort_unstable();
    assert!(sequences.into_iter().eq(1..=1_000));
    assert!(
        coupons.engine().place(coupon.shard()).await.unwrap().0.epoch > epoch,
        "the epoch is raised before the coupon is read again"
    );
}
