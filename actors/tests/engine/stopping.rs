//! Stopping an engine: everything that was admitted is stored and answered, and the stop ends.

use std::collections::HashSet;
use std::time::Duration;

use actors::coupon::issue::IssueOutcome;
use actors::engine::NotReady;
use actors::ids::SHARDS;
use actors::owning::request::Setback;
use actors::store::ClusterStore;
use testkit::poll::eventually;

use super::house::{DEADLINE, House, LONG, user};

#[tokio::test(flavor = "multi_thread")]
async fn stopping_stores_and_answers_everything_that_was_admitted() {
    let (house, coupon) = House::with_coupon(None).await;
    let asked: Vec<_> = (0..2_000_u32)
        .map(|number| house.spawn_issue(coupon, number, number, DEADLINE))
        .collect();
    eventually("some coupons are issued", async || {
        !house.issuances(coupon).await.is_empty()
    })
    .await;
    assert!(house.engine.stop(Duration::from_secs(10)).await);
    let stored: HashSet<_> = house
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
    let shards = house.store.shards().await.unwrap();
    assert!(
        shards.iter().all(|row| row.owner.is_none()),
        "a shard was not released"
    );
}

/// If each shard were released by a commit of its own, a node could not stop in time where commits are slow.
#[tokio::test(flavor = "multi_thread")]
async fn all_shards_are_released_by_few_commits() {
    let house = House::new().await;
    house.faults.delay_moves(Duration::from_millis(100));
    assert!(house.engine.stop(Duration::from_secs(10)).await);
    let shards = house.store.shards().await.unwrap();
    assert!(shards.iter().all(|row| row.owner.is_none()));
    let moves = house.faults.moves();
    assert!(
        (4..=16).contains(&moves),
        "{moves} commits released {SHARDS} shards"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_although_the_portion_in_flight_comes_back_fenced() {
    let (house, coupon) = House::with_coupon(None).await;
    house.faults.hold_writes(true);
    let asked = house.spawn_issue(coupon, 1, 1, DEADLINE);
    eventually("the request is admitted", async || house.engine.admitted() == 1).await;
    house.faults.refuse_beats(true);
    house.take_shard_away(coupon).await;
    let engine = house.engine.clone();
    let stopped = tokio::spawn(async move { engine.stop(LONG).await });
    eventually("the engine is stopping", async || {
        house.engine.not_ready().contains(&NotReady::Draining)
    })
    .await;
    house.faults.hold_writes(false);
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
    assert!(house.issuances(coupon).await.is_empty());
}
