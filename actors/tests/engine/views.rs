//! The view of the rows for operators, while the rows change.

use std::time::Duration;

use actors::ids::{Incarnation, NodeId, ShardId};
use actors::store::{Claim, ClusterStore, NodeRow, NodeState, ShardRow};

use super::fixture::TestEngine;
use testkit::poll::eventually;

/// Lets a node join and claim the shard. Tests call this between the two reads of a view.
async fn join_and_claim(fixture: &TestEngine, number: u64, shard: ShardId) {
    let claimant = Incarnation::new(number).unwrap();
    let row = NodeRow {
        beat: 1,
        state: NodeState::Ready,
        ..NodeRow::new(NodeId::parse(&format!("other-{number}")).unwrap(), claimant)
    };
    assert!(fixture.store.join(&row, None).await.unwrap());
    let seen = fixture
        .store
        .shards()
        .await
        .unwrap()
        .into_iter()
        .find(|row| row.id == shard)
        .unwrap();
    let claimed = fixture.store.claim(&[Claim { seen, claimant }]).await.unwrap();
    assert_eq!(claimed[0].owner, Some(claimant));
}

/// True if the owner of each shard is among the nodes.
fn owners_are_among(shards: &[ShardRow], nodes: &[NodeRow]) -> bool {
    shards
        .iter()
        .filter_map(|shard| shard.owner)
        .all(|owner| nodes.iter().any(|node| node.incarnation == owner))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_joins_while_the_rows_are_read_is_among_the_nodes_of_the_view() {
    let fixture = TestEngine::with_lease(Duration::from_millis(300)).await;
    // Without beats the engine itself reads no rows.
    fixture.lose_lease().await;
    let shard = ShardId::new(7).unwrap();
    fixture.faults.hold_rows(true);
    let viewing = tokio::spawn({
        let engine = fixture.engine.clone();
        async move { engine.cluster().await.unwrap() }
    });
    eventually("the first of the two reads is done", async || {
        fixture.faults.rows_waiting() == 1
    })
    .await;
    join_and_claim(&fixture, 1, shard).await;
    fixture.faults.hold_rows(false);
    let view = viewing.await.unwrap();
    assert!(
        owners_are_among(&view.shards, &view.nodes),
        "the owner of {:?} is not among {:?}",
        view.shards[7],
        view.nodes
    );

    fixture.faults.hold_rows(true);
    let viewing = tokio::spawn({
        let engine = fixture.engine.clone();
        async move { engine.place(shard).await.unwrap() }
    });
    eventually("the first of the two reads is done", async || {
        fixture.faults.rows_waiting() == 2
    })
    .await;
    join_and_claim(&fixture, 2, shard).await;
    fixture.faults.hold_rows(false);
    let (row, nodes) = viewing.await.unwrap();
    assert!(
        owners_are_among(&[row], &nodes),
        "the owner of {row:?} is not among {nodes:?}"
    );
}
