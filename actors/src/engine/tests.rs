//! What no store can be made to do: an owner that panics; and what is refused at start. The other tests of
//! the engine are in `tests/engine.rs`.

use super::*;
use crate::coupon::offer::{Offer, Status};
use crate::owning::message::OwnerCommand;
use crate::store::sqlite::{Options as SqliteOptions, SqliteStore};
use crate::store::{Created, NewCoupon};

const DEADLINE: Duration = Duration::from_secs(10);

fn options() -> Options {
    Options {
        node: NodeId::parse("test").unwrap(),
        http: String::new(),
        lease: Duration::from_secs(3),
        beat: Duration::from_millis(50),
        idle: Duration::from_secs(60),
        requests_max: 10_000,
        coupon_requests_max: 10_000,
        lanes: 1,
        cluster: None,
    }
}

async fn engine(folder: &tempfile::TempDir) -> Engine {
    let store = SqliteStore::open(&SqliteOptions::new(folder.path().join("test.db")))
        .await
        .unwrap();
    let engine = Engine::start(options(), Arc::new(store)).await.unwrap();
    let ready = async {
        while !engine.not_ready().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ready).await.unwrap();
    engine
}

#[tokio::test]
async fn a_node_among_others_needs_a_store_that_they_share_and_a_lease_that_ends_in_time() {
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
    assert!(refused.contains("one node's alone"), "{refused}");
    let (longest, longer) = (
        options.clone(),
        Options {
            lease: LEASE_MAX + Duration::from_millis(1),
            ..options
        },
    );
    assert!(check_lease(&longest).is_ok() && check_lease(&longer).is_err());
}

async fn coupon(engine: &Engine) -> CouponId {
    let offer = Offer::titled("test");
    let new = NewCoupon {
        key: RequestKey::random(),
        offer,
        status: Status::Open,
        created_at: time::timestamp(),
    };
    let Created::New(coupon) = engine.store().create_coupon(&new).await.unwrap() else {
        panic!("it is new")
    };
    coupon.id
}

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

/// One thread, so that all of them are in the mailbox before the owner looks.
#[tokio::test]
async fn owners_that_stop_and_come_again_leave_nobody_lying_in_their_mailbox() {
    const USERS: usize = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder).await;
    let coupon = coupon(&engine).await;
    let asked: Vec<_> = (0..USERS)
        .map(|number| {
            let engine = engine.clone();
            tokio::spawn(async move {
                engine
                    .issue(coupon, user(number), RequestKey::random(), DEADLINE)
                    .await
            })
        })
        .collect();
    let shard = engine.inner.shards[usize::from(coupon.shard().get())].clone();
    let stops = tokio::spawn(async move {
        loop {
            shard.tell_owner(coupon, OwnerCommand::Stop);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut sequences = Vec::new();
    for answer in asked {
        match answer.await.unwrap().unwrap() {
            IssueOutcome::Issued(issuance) | IssueOutcome::Replayed(issuance) => {
                sequences.push(issuance.id.sequence.get())
            }
            IssueOutcome::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
    stops.abort();
    sequences.sort_unstable();
    assert!(sequences.into_iter().eq(1..=USERS as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_an_owner_costs_that_owner_a_reload_and_nobody_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(&folder).await;
    let coupon = coupon(&engine).await;
    let epoch = engine.shard(coupon.shard()).await.unwrap().epoch;
    let asked: Vec<_> = (0..1_000)
        .map(|number| {
            let engine = engine.clone();
            tokio::spawn(async move {
                engine
                    .issue(coupon, user(number), RequestKey::random(), DEADLINE)
                    .await
            })
        })
        .collect();
    let shard = &engine.inner.shards[usize::from(coupon.shard().get())];
    let panics = async {
        while !shard.tell_owner(coupon, OwnerCommand::Panic) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, panics).await.unwrap();
    let mut sequences = Vec::new();
    for answer in asked {
        match answer.await.unwrap().unwrap() {
            // Whoever was decided before it went is found by the next owner, under the same key.
            IssueOutcome::Issued(issuance) | IssueOutcome::Replayed(issuance) => {
                sequences.push(issuance.id.sequence.get())
            }
            IssueOutcome::Refused(refusal) => panic!("{refusal:?}"),
        }
    }
    sequences.sort_unstable();
    assert!(sequences.into_iter().eq(1..=1_000));
    assert!(
        engine.shard(coupon.shard()).await.unwrap().epoch > epoch,
        "raised before it was read again"
    );
}
