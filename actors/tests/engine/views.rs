//! The view of the rows for operators, while the rows change.

use std::time::Duration;

use actors::coupon::change::ChangeDone;
use actors::coupon::offer::{Coupon, Offer, Status};
use actors::coupon::rows::{CouponRows, Created, NewCoupon};
use actors::coupon::uses::UseCounts;
use actors::ids::{Incarnation, NodeId, RequestKey, ShardId};
use actors::store::{Claim, ClusterStore, NodeRow, NodeState, ShardRow};
use actors::time::timestamp;

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

/// An owner of the former build knows neither uses nor the later fields of a coupon.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_an_owner_of_the_previous_release_made_is_shown_as_it_is_stored() {
    let fixture = TestEngine::new().await;
    let new = NewCoupon {
        key: RequestKey::random(),
        offer: Offer {
            description: Some("One a customer".to_owned()),
            ..Offer::titled("T")
        },
        status: Status::Open,
        created_at: timestamp(),
        record: None,
    };
    let Created::New(Coupon { id, .. }) = fixture.store.create_coupon(&new).await.unwrap() else {
        panic!("the key is not new");
    };
    let stored = fixture.store.coupon(id).await.unwrap().unwrap();
    let mut coupon = stored.coupon.clone();
    coupon.offer.description = None;
    let mut done = ChangeDone {
        coupon,
        issued: stored.issued,
        from_version: Some(0),
        uses: None,
    };
    let shown = fixture.coupons.after_change(done.clone()).await;
    assert_eq!(shown, Ok(stored.clone()));
    done.uses = Some(UseCounts::default());
    let shown = fixture.coupons.after_change(done).await.unwrap();
    assert_eq!((shown.coupon.offer.description, shown.uses), (None, stored.uses));
}
