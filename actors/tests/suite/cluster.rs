//! The cluster's rows: nodes, beats, claims.

use std::time::Duration;

use actors::ids::{Epoch, Fence, Incarnation, NodeId, PEERS_MAX, ShardId};
use actors::store::{Claim, ClusterStore, ENDED_ROWS_MAX, HandOff, NodeRow, NodeState, ShardRow};
use futures_util::future::join_all;

use crate::support::{Database, claim, shard_row};

pub fn node(name: &str) -> NodeRow {
    NodeRow {
        http: "127.0.0.1:8080".to_owned(),
        lease: Some(Duration::from_micros(3_000_001)),
        ..NodeRow::new(NodeId::parse(name).unwrap(), Incarnation::random())
    }
}

fn shard(number: u16) -> ShardId {
    ShardId::new(number).unwrap()
}

pub async fn checking_again_changes_nothing(database: &impl Database) {
    let store = database.store();
    let rows = store.shards().await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.id).collect::<Vec<_>>(),
        ShardId::all().collect::<Vec<_>>()
    );
    assert!(
        rows.iter()
            .all(|row| row.epoch == Epoch::new(0) && row.owner.is_none())
    );
    let fence = claim(&*store, shard(7)).await;
    store.check().await.unwrap();
    assert_eq!(
        shard_row(&*store, shard(7)).await,
        ShardRow {
            id: shard(7),
            epoch: fence.epoch,
            owner: Some(fence.owner)
        }
    );
}

pub async fn each_shard_goes_to_one_of_two_claimants(database: &impl Database) {
    let store = database.store();
    let seen = store.shards().await.unwrap();
    let claimants: Vec<Incarnation> = (0..2).map(|_| Incarnation::random()).collect();
    let claims = |claimant: Incarnation| {
        seen.iter()
            .map(|&seen| Claim { seen, claimant })
            .collect::<Vec<_>>()
    };
    let sent: Vec<_> = claimants.iter().map(|&claimant| claims(claimant)).collect();
    let answers = join_all(sent.iter().map(|claims| store.claim(claims))).await;
    let rows = store.shards().await.unwrap();
    assert!(
        rows.iter().all(
            |row| row.epoch == Epoch::new(1) && row.owner.is_some_and(|owner| claimants.contains(&owner))
        )
    );
    let answered = answers
        .into_iter()
        .map(|answer| answer.unwrap())
        .collect::<Vec<_>>();
    for (claimant, answered) in claimants.iter().zip(&answered) {
        for row in answered {
            let owned = rows[usize::from(row.id.get())].owner == Some(*claimant);
            assert_eq!(
                row.owner == Some(*claimant),
                owned,
                "the answer to the claimant is the stored row of {}",
                row.id
            );
        }
    }
}

pub async fn claims_are_answered_in_order_and_independently(database: &impl Database) {
    let store = database.store();
    let stale = shard_row(&*store, shard(3)).await;
    let taken = claim(&*store, shard(3)).await;
    let claimant = Incarnation::random();
    let free = [
        shard_row(&*store, shard(200)).await,
        shard_row(&*store, shard(1)).await,
    ];
    let mistaken = ShardRow {
        owner: Some(Incarnation::random()),
        ..shard_row(&*store, shard(9)).await
    };
    let claims = [free[0], stale, mistaken, free[1]].map(|seen| Claim { seen, claimant });
    let rows = store.claim(&claims).await.unwrap();
    let mine = |number| ShardRow {
        id: shard(number),
        epoch: Epoch::new(1),
        owner: Some(claimant),
    };
    let theirs = ShardRow {
        id: shard(3),
        epoch: taken.epoch,
        owner: Some(taken.owner),
    };
    let unowned = ShardRow {
        id: shard(9),
        epoch: Epoch::new(0),
        owner: None,
    };
    assert_eq!(rows, [mine(200), theirs, unowned, mine(1)]);
    assert_eq!(store.claim(&[]).await.unwrap(), []);
}

pub async fn a_shard_is_released_only_under_its_fence(database: &impl Database) {
    let store = database.store();
    let (one, other) = (claim(&*store, shard(1)).await, claim(&*store, shard(2)).await);
    let wrong = Fence {
        owner: Incarnation::random(),
        ..other
    };
    store
        .release(&[(shard(1), one), (shard(2), wrong)])
        .await
        .unwrap();
    assert_eq!(
        shard_row(&*store, shard(1)).await,
        ShardRow {
            id: shard(1),
            epoch: one.epoch,
            owner: None
        }
    );
    assert_eq!(shard_row(&*store, shard(2)).await.owner, Some(other.owner));
    assert_eq!(claim(&*store, shard(1)).await.epoch, one.epoch.next());
}

pub async fn a_shard_is_handed_off_only_under_its_fence(database: &impl Database) {
    let store = database.store();
    let held = [
        claim(&*store, shard(9)).await,
        claim(&*store, shard(2)).await,
        claim(&*store, shard(5)).await,
    ];
    let to = Incarnation::random();
    let older = Fence {
        epoch: Epoch::new(0),
        ..held[1]
    };
    let anothers = Fence {
        owner: Incarnation::random(),
        ..held[2]
    };
    let asked = [(shard(9), held[0]), (shard(2), older), (shard(5), anothers)].map(|(shard, from)| HandOff {
        shard,
        from,
        to,
    });
    let rows = store.hand_off(&asked).await.unwrap();
    let kept = |number, fence: Fence| ShardRow {
        id: shard(number),
        epoch: fence.epoch,
        owner: Some(fence.owner),
    };
    let given = ShardRow {
        id: shard(9),
        epoch: held[0].epoch.next(),
        owner: Some(to),
    };
    assert_eq!(rows, [given, kept(2, held[1]), kept(5, held[2])]);
    assert_eq!(
        store.hand_off(&asked).await.unwrap(),
        rows,
        "a retry returns the same rows, and does not hand a shard off twice"
    );
    assert_eq!(store.hand_off(&[]).await.unwrap(), []);
}

pub async fn many_shards_are_moved_independently(database: &impl Database) {
    let store = database.store();
    let (owner, to) = (Incarnation::random(), Incarnation::random());
    let seen = store.shards().await.unwrap();
    let claims: Vec<Claim> = seen
        .iter()
        .map(|&seen| Claim {
            seen,
            claimant: owner,
        })
        .collect();
    let claimed = store.claim(&claims).await.unwrap();
    assert!(
        claimed
            .iter()
            .all(|row| (row.epoch, row.owner) == (Epoch::new(1), Some(owner)))
    );
    // The fences are in the reverse order of the shards, and every third fence has another owner.
    let fences = claimed.iter().rev().map(|row| {
        let is_stale = row.id.get() % 3 == 0;
        let owner = if is_stale { Incarnation::random() } else { owner };
        let fence = Fence {
            epoch: row.epoch,
            owner,
        };
        (row.id, fence)
    });
    let fences: Vec<(ShardId, Fence)> = fences.collect();
    let (given, kept) = fences.split_at(100);
    let hand_offs: Vec<HandOff> = given
        .iter()
        .map(|&(shard, from)| HandOff { shard, from, to })
        .collect();
    let rows = store.hand_off(&hand_offs).await.unwrap();
    for (row, asked) in rows.iter().zip(&hand_offs) {
        let expected = if row.id.get() % 3 == 0 {
            (Epoch::new(1), Some(owner))
        } else {
            (Epoch::new(2), Some(to))
        };
        assert_eq!((row.id, (row.epoch, row.owner)), (asked.shard, expected));
    }
    store.release(kept).await.unwrap();
    let after = store.shards().await.unwrap();
    for (shard, _) in kept {
        let row = after[usize::from(shard.get())];
        let owner = (shard.get() % 3 == 0).then_some(owner);
        assert_eq!((row.epoch, row.owner), (Epoch::new(1), owner), "shard {shard}");
    }
}

pub async fn a_row_names_the_linked_peers_of_its_node(database: &impl Database) {
    let store = database.store();
    let most: Vec<Incarnation> = (0..PEERS_MAX).map(|_| Incarnation::random()).collect();
    let first = NodeRow {
        links: most[..2].to_vec(),
        ..node("a")
    };
    store.join(&first, None).await.unwrap();
    assert_eq!(store.nodes().await.unwrap()[0].links, most[..2]);
    for links in [&most[..], &most[..1], &[]] {
        store
            .beat(&first.id, first.incarnation, NodeState::Ready, links)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(store.nodes().await.unwrap()[0].links, links);
    }
    let second = NodeRow {
        links: most[1..4].to_vec(),
        ..node("a")
    };
    store.join(&second, Some(first.incarnation)).await.unwrap();
    assert_eq!(store.nodes().await.unwrap(), [second]);
}

pub async fn a_node_replaces_only_the_incarnation_that_it_saw(database: &impl Database) {
    let store = database.store();
    let (first, second, third) = (
        node("a"),
        NodeRow {
            http: "other:1".to_owned(),
            ..node("a")
        },
        node("a"),
    );
    assert!(store.join(&first, None).await.unwrap());
    assert!(
        !store.join(&second, None).await.unwrap(),
        "there is a row already"
    );
    assert!(
        !store.join(&second, Some(third.incarnation)).await.unwrap(),
        "the row has another incarnation"
    );
    assert!(store.join(&second, Some(first.incarnation)).await.unwrap());
    assert!(
        !store.join(&third, Some(first.incarnation)).await.unwrap(),
        "another node was first"
    );
    let neighbour = node("A");
    assert!(store.join(&neighbour, None).await.unwrap(), "case counts");
    assert_eq!(store.nodes().await.unwrap(), [neighbour, second]);
}

pub async fn beats_count_until_the_row_is_replaced_or_ended(database: &impl Database) {
    let store = database.store();
    let beat_of = async |node: &NodeRow, state| {
        let beat = store.beat(&node.id, node.incarnation, state, &[]).await;
        beat.unwrap()
    };
    let first = node("a");
    assert_eq!(beat_of(&first, NodeState::Joining).await, None, "not joined");
    store.join(&first, None).await.unwrap();
    for (beat, state) in [
        (1, NodeState::Joining),
        (2, NodeState::Ready),
        (3, NodeState::Leaving),
        (4, NodeState::Ended),
    ] {
        assert_eq!(beat_of(&first, state).await, Some(beat));
        let mut rows = store.nodes().await.unwrap();
        assert_eq!(rows[0].ended_for.take().is_some(), state == NodeState::Ended);
        assert_eq!(
            rows,
            [NodeRow {
                beat,
                state,
                ..first.clone()
            }]
        );
    }
    assert_eq!(
        beat_of(&first, NodeState::Ready).await,
        None,
        "an ended node never returns"
    );
    let second = node("a");
    store.join(&second, Some(first.incarnation)).await.unwrap();
    assert_eq!(beat_of(&first, NodeState::Ready).await, None, "replaced");
    assert_eq!(beat_of(&second, NodeState::Ready).await, Some(1));
}

pub async fn a_node_is_ended_only_by_a_live_node_and_only_if_it_has_not_beaten(database: &impl Database) {
    let store = database.store();
    let (living, dead) = (node("living"), node("dead"));
    for row in [&living, &dead] {
        assert!(store.join(row, None).await.unwrap());
    }
    assert_eq!(
        store
            .beat(&dead.id, dead.incarnation, NodeState::Ready, &[])
            .await
            .unwrap(),
        Some(1)
    );
    assert!(
        !store.end(living.incarnation, &dead).await.unwrap(),
        "the node has beaten since its row was read"
    );
    let seen = NodeRow {
        beat: 1,
        ..dead.clone()
    };
    assert!(
        !store.end(Incarnation::random(), &seen).await.unwrap(),
        "only a live node may end another"
    );
    assert!(store.end(living.incarnation, &seen).await.unwrap());
    assert!(!store.end(living.incarnation, &seen).await.unwrap(), "once");
    let rows = store.nodes().await.unwrap();
    let ended_for = |node: &NodeRow| {
        let row = rows.iter().find(|row| row.id == node.id);
        row.expect("a row").ended_for
    };
    assert_eq!(ended_for(&living), None);
    assert!(ended_for(&dead).is_some_and(|age| age < Duration::from_secs(60)));
    assert_eq!(
        store
            .beat(&dead.id, dead.incarnation, NodeState::Ready, &[])
            .await
            .unwrap(),
        None
    );
    assert!(
        !store
            .end(dead.incarnation, &NodeRow { beat: 0, ..living })
            .await
            .unwrap(),
        "an ended node does not end another node"
    );
}

pub async fn only_rows_of_ended_nodes_beyond_a_maximum_are_removed(database: &impl Database) {
    let store = database.store();
    assert_eq!(store.sweep_nodes().await.unwrap(), 0, "there are no rows");
    let live = node("live");
    assert!(store.join(&live, None).await.unwrap());
    for number in 0..ENDED_ROWS_MAX + 3 {
        let state = NodeState::Ended;
        let gone = NodeRow {
            state,
            ..node(&format!("gone-{number:03}"))
        };
        assert!(store.join(&gone, None).await.unwrap());
    }
    assert_eq!(store.sweep_nodes().await.unwrap(), 3);
    let left = store.nodes().await.unwrap();
    assert_eq!(left.len(), ENDED_ROWS_MAX + 1);
    assert!(left.contains(&live));
    assert_eq!(
        store.sweep_nodes().await.unwrap(),
        0,
        "the other rows were first seen ended just now"
    );
    // An incarnation without a row cannot beat. A node whose row was removed joins as if its id were new.
    let ids: Vec<&NodeId> = left.iter().map(|row| &row.id).collect();
    let gone = (0..).map(|number| node(&format!("gone-{number:03}")));
    let gone = gone.into_iter().find(|gone| !ids.contains(&&gone.id)).unwrap();
    let beat = store.beat(&gone.id, gone.incarnation, NodeState::Ready, &[]);
    assert_eq!(beat.await.unwrap(), None);
    assert!(store.join(&gone, None).await.unwrap());
}
