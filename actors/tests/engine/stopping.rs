//! Stopping an engine: everything that was admitted is stored and answered, and stopping never hangs.

use std::collections::HashSet;
use std::time::Duration;

use actors::coupon::issue::IssueOutcome;
use actors::engine::NotReady;
use actors::ids::SHARDS;
use actors::owning::request::Setback;
use actors::store::ClusterStore;
use testkit::poll::eventually;

use super::fixture::{DEADLINE, LONG, TestEngine, user};

#[tokio::test(flavor = "multi_thread")]
async fn stopping_stores_and_answers_everything_that_was_admitted() {
    let (fixture, coupon) = TestEngine::with_coupon(None).await;
    let asked: Vec<_> = (0..2_000_u32)
        .map(|number| fixture.spawn_issue(coupon, number, number, DEADLINE))
        .collect();
    eventually("some coupons are issued", async || {
        !fixture.issuances(coupon).await.is_empty()
    })
    .await;
    assert!(fixture.engine.stop(Duration::from_secs(10)).await);
    let stored: HashSet<_> = fixture
        .issuances(coupon)
        .await
        .into_iter()
        .map(|row| row.user)
        .collect();
    let mut issued = 0;
    for (number, answer) in asked.into_iter().enumerate() {
        match answer.await.unwrap() {
            Ok(IssueOutcome::Issued(issuance)) => {
                issued += 1;
                assert!(stored.contains(&issuance.user));
            }
            Err(Setback::Moved | Setback::StoreUnavailable) => {
                assert!(
                    !stored.contains(&user(number as u32)),
                    "stored although the answer says that nothing was decided"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(issued, stored.len());
    let shards = fixture.store.shards().await.unwrap();
    assert!(
        shards.iter().all(|row| row.owner.is_none()),
        "a shard was not released"
    );
}

/// If each shard were released by a commit of its own, a node could not stop in time where commits are slow.
#[tokio::test(flavor = "multi_thread")]
async fn all_shards_are_released_by_few_commits() {
    let fixture = TestEngine::new().await;
    fixture.faults.delay_moves(Duration::from_millis(100));
    assert!(fixture.engine.stop(Duration::from_secs(10)).await);
    let shards = fixture.store.shards().await.unwrap();
    assert!(shards.iter().all(|row| row.owner.is_none()));
    let moves = fixture.faults.moves();
    assert!(
        (4..=16).contains(&moves),
        "{moves} commits released {SHARDS} shards"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_although_the_portion_in_flight_comes_back_fenced() {
    let (fixture, coupon) = TestEngine::with_coupon(None).await;
    fixture.faults.hold_writes(true);
    let asked = fixture.spawn_issue(coupon, 1, 1, DEADLINE);
    eventually("the request is admitted", async || fixture.engine.admitted() == 1).await;
    fixture.faults.refuse_beats(true);
    fixture.take_shard_away(coupon).await;
    let engine = fixture.engine.clone();
    let stopped = tokio::spawn(async move { engine.stop(LONG).await });
    eventually("the engine is stopping", async || {
        fixture.engine.not_ready().contains(&NotReady::Draining)
    })
    .await;
    fixture.faults.hold_writes(false);
    assert!(
        tokio::time::timeout(DEADLINE, stopped)
            .await
            .expect("stopping ends")
            .unwrap()
    );
    assert!(matches!(
        asked.await.unwrap(),
        Err(Setback::Unknown | Setback::Moved | Setback::StoreUnavailable)
    ));
    assert!(fixture.issuances(coupon).await.is_empty());
}
