//! Tests of membership with its real tasks and actors, not only its state machines: several nodes share one
//! database, and the test controls the links between them.

mod cluster;
mod links;
mod shards;

use std::time::{Duration, Instant};

use actors::cluster::membership::JoinError;
use actors::cluster::membership::life_record::LifeRecord;
use actors::ids::{Incarnation, NodeId, PeerAddress, SHARDS};
use actors::store::{ClusterStore, NodeRow, NodeState};
use actors::time;
use testkit::poll::eventually;

use self::cluster::{Cluster, LEASE};
use super::faults::Faults;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_is_handed_its_shards_and_hands_them_back_when_it_leaves() {
    let (cluster, one) = Cluster::with_one().await;
    eventually("all claims are published", async || {
        cluster.mesh.lock().unwrap().moved.len() == usize::from(SHARDS)
    })
    .await;
    cluster.mesh.lock().unwrap().moved.clear();
    let before = cluster.rows().await;
    let two = cluster.start("two", "2:2").await.unwrap();
    cluster.placed_on(&[&one, &two]).await;
    let known = two.links.known.lock().unwrap().clone();
    let expected = PeerAddress {
        node: one.id.clone(),
        incarnation: cluster.mesh_incarnation(&one),
        address: "1:1".to_owned(),
    };
    assert_eq!(known, [expected]);
    let moved = cluster.changed_since(&before).await;
    assert!(
        (64..192).contains(&moved.len()),
        "{} of 256 shards moved",
        moved.len()
    );
    eventually("exactly the shards that moved are published", async || {
        cluster.published() == moved
    })
    .await;
    assert!(
        moved.iter().all(|shard| cluster.is_load_ahead_requested(*shard)),
        "a shard was handed off without being loaded ahead"
    );
    two.membership.begin_leaving();
    cluster.placed_on(&[&one]).await;
    two.membership.leave().await;
    assert_eq!(cluster.row_of(&two).await.state, NodeState::Ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_loses_the_database_is_ended_by_its_peer_and_joins_again_by_itself() {
    let (cluster, one, two) = Cluster::with_two().await;
    let before = cluster.row_of(&two).await.incarnation;
    two.faults.refuse_beats(true);
    cluster.placed_on(&[&one]).await;
    eventually("node two knows that it has no shards", async || {
        !two.membership.is_ready()
    })
    .await;
    two.faults.refuse_beats(false);
    cluster.placed_on(&[&one, &two]).await;
    assert_ne!(cluster.row_of(&two).await.incarnation, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_is_ended_when_all_nodes_lose_the_database() {
    let (cluster, one, two) = Cluster::with_two().await;
    let before = cluster.store.nodes().await.unwrap();
    [&one, &two]
        .iter()
        .for_each(|node| node.faults.refuse_beats(true));
    eventually("no node has a lease", async || {
        !one.membership.is_ready() && !two.membership.is_ready()
    })
    .await;
    [&one, &two]
        .iter()
        .for_each(|node| node.faults.refuse_beats(false));
    cluster.placed_on(&[&one, &two]).await;
    let after = cluster.store.nodes().await.unwrap();
    assert!(
        before
            .iter()
            .zip(after)
            .all(|(old, new)| old.incarnation == new.incarnation),
        "an incarnation changed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_be_reached_releases_its_shards_and_gets_them_back_when_it_is_reached() {
    let (cluster, one, two) = Cluster::with_two().await;
    // Of two nodes that do not reach each other, the one with the smaller id stays in the group.
    let begun = Instant::now();
    cluster.mesh.lock().unwrap().cut_off = Some(two.links.number);
    eventually("node two says that it is outside the group", async || {
        two.membership.is_outside() && !two.membership.is_ready()
    })
    .await;
    eventually("node one has all shards", async || {
        cluster.is_placed_on(&[&one]).await && !two.membership.is_ready()
    })
    .await;
    assert!(two.membership.is_outside() && !one.membership.is_outside());
    assert!(
        begun.elapsed() >= LEASE,
        "a link that fails for a moment does not move shards"
    );
    cluster.mesh.lock().unwrap().cut_off = None;
    cluster.placed_on(&[&one, &two]).await;
    assert!(!two.membership.is_outside());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_live_node_is_refused_and_a_dead_node_is_replaced_after_a_lease() {
    let (cluster, one) = Cluster::with_one().await;
    // The address does not identify a node: two machines may both have the loopback address, or none.
    for address in ["2:2", "1:1"] {
        let begun = Instant::now();
        let refused = cluster.start("one", address).await.err().unwrap();
        assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
        assert!(
            matches!(&refused, JoinError::Taken { links, .. } if links == "1:1"),
            "{refused}"
        );
    }
    // The first node is not disturbed.
    cluster.placed_on(&[&one]).await;
    one.faults.refuse_beats(true);
    for address in ["1:1", "2:2"] {
        let begun = Instant::now();
        let next = cluster.start("one", address).await.unwrap();
        assert!(begun.elapsed() >= LEASE);
        cluster.placed_on(&[&next]).await;
        next.faults.refuse_beats(true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_knows_that_its_last_incarnation_is_gone_joins_at_once() {
    let (cluster, record) = (Cluster::new().await, LifeRecord::default());
    let start = async || {
        let started = cluster.start_again("one", "1:1", Faults::default(), record.clone());
        started.await.unwrap()
    };
    let first = start().await;
    cluster.placed_on(&[&first]).await;
    first.faults.refuse_beats(true);
    let begun = Instant::now();
    let second = start().await;
    assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
    eventually("the second has all shards", async || {
        second.membership.was_ready()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predecessor_is_watched_for_its_own_lease_and_not_after_it_is_ended() {
    let cluster = Cluster::new().await;
    let watched = async |id: &str, lease, state| {
        let row = NodeRow {
            beat: 7,
            state,
            cluster: "1:1".to_owned(),
            lease,
            ..NodeRow::new(NodeId::parse(id).unwrap(), Incarnation::random())
        };
        assert!(cluster.store.join(&row, None).await.unwrap());
        let begun = Instant::now();
        let _started = cluster.start(id, "1:1").await.unwrap();
        begun.elapsed()
    };
    let long = watched("long", Some(2 * LEASE), NodeState::Ready).await;
    assert!(long >= 2 * LEASE, "{long:?}");
    let unknown = watched("unknown", None, NodeState::Ready).await;
    assert!(unknown >= LEASE && unknown < 2 * LEASE, "{unknown:?}");
    let ended = watched("ended", Some(2 * LEASE), NodeState::Ended).await;
    assert!(ended < LEASE, "{ended:?}");
}

/// Returns a delay for each claim. With this delay the claims of all shards take two leases.
fn claim_delay() -> Duration {
    2 * LEASE / u32::from(SHARDS)
}

/// These claims take longer than a lease. If slow claims delayed beats or were given up, a node with a slow
/// database would void its own claims for ever.
#[tokio::test(flavor = "multi_thread")]
async fn slow_claims_do_not_delay_beats_and_are_made_only_once() {
    let (cluster, faults) = (Cluster::new().await, Faults::default());
    faults.delay_claims(claim_delay());
    let begun = Instant::now();
    let one = cluster.start_with("one", "1:1", faults).await.unwrap();
    eventually("node one has a lease", async || one.lease.holds(time::moment())).await;
    eventually("node one has all shards", async || {
        assert!(one.lease.holds(time::moment()), "a claim delayed a beat");
        cluster.is_placed_on(&[&one]).await
    })
    .await;
    assert!(begun.elapsed() > LEASE, "the claims took {:?}", begun.elapsed());
    let rows = cluster.rows().await;
    assert!(
        rows.iter().all(|row| row.epoch.get() == 1),
        "a shard was claimed again"
    );
}

/// If the node did not stay ready, a balancer that drops unready nodes would have no node left.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_stays_ready_while_it_takes_over_more_shards_than_it_can_claim_in_one_beat() {
    let (cluster, one, two) = Cluster::with_two().await;
    one.faults.delay_claims(claim_delay());
    two.faults.refuse_beats(true);
    eventually("node one has all shards", async || {
        assert!(one.membership.is_ready(), "not ready during the take-over");
        cluster.is_placed_on(&[&one]).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_counts_from_before_its_beat_was_sent() {
    const DELAY: Duration = Duration::from_millis(300);
    let (_cluster, one) = Cluster::with_one().await;
    one.faults.delay_beats(DELAY);
    eventually("no lease is left from before the delay", async || {
        one.lease.remaining(time::moment()) < LEASE - DELAY
    })
    .await;
    let begun = Instant::now();
    let mut most = Duration::ZERO;
    while begun.elapsed() < 4 * DELAY {
        most = most.max(one.lease.remaining(time::moment()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        most <= LEASE - DELAY,
        "an answer delayed by {DELAY:?} extends the lease to {most:?} of {LEASE:?}"
    );
    assert!(
        most > Duration::ZERO,
        "a delayed answer does not extend the lease"
    );
}
