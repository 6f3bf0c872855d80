//! What operators are shown of the rows, while they change.

use std::time::Duration;

use actors::engine::NotReady;
use actors::ids::{Incarnation, NodeId, ShardId};
use actors::store::{Claim, ClusterStore, NodeRow, NodeState, ShardRow};

use super::house::House;
use testkit::poll::eventually;

/// A node joins, and claims the shard, between the two reads that a view is made of.
async fn joins_meanwhile(house: &House, number: u64, shard: ShardId) {
    let claimant = Incarnation::new(number).unwrap();
    let row = NodeRow {
        id: NodeId::parse(&format!("other-{number}")).unwrap(),
        incarnation: claimant,
        beat: 1,
        state: NodeState::Ready,
        http: String::new(),
        cluster: String::new(),
        links: Vec::new(),
    };
    assert!(house.store.join(&row, None).await.unwrap());
    let seen = house
        .store
        .shards()
        .await
        .unwrap()
        .into_iter()
        .find(|row| row.id == shard)
        .unwrap();
    let claimed = house.store.claim(&[Claim { seen, claimant }]).await.unwrap();
    assert_eq!(claimed[0].owner, Some(claimant));
}

fn are_named(shards: &[ShardRow], nodes: &[NodeRow]) -> bool {
    shards
        .iter()
        .filter_map(|shard| shard.owner)
        .all(|owner| nodes.iter().any(|node| node.incarnation == owner))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_joins_while_the_rows_are_read_is_not_shown_as_nobody() {
    let house = House::with_lease(Duration::from_millis(300)).await;
    // Without beats the engine itself reads no rows.
    house.faults.refuse_beats(true);
    eventually("nobody else reads", async || {
        house.engine.not_ready().contains(&NotReady::NoLease)
    })
    .await;
    let shard = ShardId::new(7).unwrap();
    house.faults.hold_rows(true);
    let viewing = tokio::spawn({
        let engine = house.engine.clone();
        async move { engine.cluster().await.unwrap() }
    });
    eventually("one of the two is read", async || {
        house.faults.rows_waiting() == 1
    })
    .await;
    joins_meanwhile(&house, 1, shard).await;
    house.faults.hold_rows(false);
    let view = viewing.await.unwrap();
    assert!(
        are_named(&view.shards, &view.nodes),
        "{:?} is none of {:?}",
        view.shards[7],
        view.nodes
    );

    house.faults.hold_rows(true);
    let viewing = tokio::spawn({
        let engine = house.engine.clone();
        async move { engine.place(shard).await.unwrap() }
    });
    eventually("one of the two is read", async || {
        house.faults.rows_waiting() == 2
    })
    .await;
    joins_meanwhile(&house, 2, shard).await;
    house.faults.hold_rows(false);
    let (row, nodes) = viewing.await.unwrap();
    assert!(are_named(&[row], &nodes), "{row:?} is none of {nodes:?}");
}
