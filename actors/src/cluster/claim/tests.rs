//! Tests of single steps; [`model`] runs several nodes on one database.

mod model;

use super::*;
use crate::ids::SHARDS;

const LEASE: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_millis(300);

fn at(beat: u64) -> Moment {
    Moment::at(BEAT * u32::try_from(beat).unwrap())
}

fn incarnation(number: u64) -> Incarnation {
    Incarnation::new(number).unwrap()
}

fn name(id: &str) -> NodeId {
    NodeId::parse(id).unwrap()
}

/// Makes a node that is linked to all other nodes from 1 to 9.
fn node(id: &str, number: u64, state: NodeState) -> NodeRow {
    NodeRow {
        beat: READY_BEATS,
        state,
        links: (1..10)
            .filter(|other| *other != number)
            .map(incarnation)
            .collect(),
        ..NodeRow::new(name(id), incarnation(number))
    }
}

fn row(id: u16, epoch: u64, owner: Option<u64>) -> ShardRow {
    ShardRow {
        id: ShardId::new(id).unwrap(),
        epoch: Epoch::new(epoch),
        owner: owner.and_then(Incarnation::new),
    }
}

fn ready(id: &NodeId) -> PlanningNode<'_> {
    PlanningNode {
        id,
        incarnation: incarnation(1),
        ready: true,
        leaving: false,
    }
}

/// Returns the shards that the plan gives to the node `id` if `nodes` are ready.
fn planned(nodes: &[&str], id: &str) -> Vec<u16> {
    let plan = Plan::new(nodes.iter().map(|node| name(node)));
    ShardId::all()
        .filter(|shard| plan.owner_of(*shard).unwrap().as_str() == id)
        .map(ShardId::get)
        .collect()
}

fn serving(epochs: &[(u16, u64)]) -> impl Fn(ShardId) -> LocalState {
    |id| {
        epochs
            .iter()
            .find(|(shard, _)| *shard == id.get())
            .map_or(LocalState::Unserved, |(_, epoch)| {
                LocalState::Serving(Epoch::new(*epoch))
            })
    }
}

/// Returns true: every node has loaded ahead by the next beat.
fn loaded(_: ShardId, _: Incarnation) -> bool {
    true
}

fn steps_of_a(nodes: &[NodeRow], shards: &[ShardRow], here: impl Fn(ShardId) -> LocalState) -> ShardSteps {
    ClaimPlanner::new(LEASE, BEAT).steps(ready(&name("a")), at(0), nodes, shards, here, loaded)
}

fn claimed(steps: &ShardSteps) -> Vec<u16> {
    steps.claim.iter().map(|claim| claim.seen.id.get()).collect()
}

fn dropped(steps: &ShardSteps) -> Vec<u16> {
    steps.drop.iter().map(|id| id.get()).collect()
}

#[test]
fn a_single_node_claims_shards_that_have_no_owner_or_a_dead_owner() {
    let nodes = [node("a", 1, NodeState::Ready), node("old", 9, NodeState::Ended)];
    let shards = [
        row(0, 0, None),
        row(1, 4, Some(9)),
        row(2, 4, Some(8)),
        row(3, 4, Some(1)),
    ];
    let steps = steps_of_a(&nodes, &shards, serving(&[(3, 4)]));
    assert_eq!((claimed(&steps), dropped(&steps)), (vec![0, 1, 2], vec![]));
}

#[test]
fn a_shard_that_a_node_owns_by_the_row_but_does_not_serve_is_claimed() {
    let steps = steps_of_a(
        &[node("a", 1, NodeState::Ready)],
        &[row(3, 4, Some(1))],
        serving(&[]),
    );
    assert_eq!((claimed(&steps), dropped(&steps)), (vec![3], vec![]));
}

#[test]
fn a_shard_that_a_live_peer_owns_is_dropped_and_not_claimed() {
    let nodes = [node("a", 1, NodeState::Ready), node("b", 2, NodeState::Ready)];
    let steps = steps_of_a(&nodes, &[row(3, 5, Some(2))], serving(&[(3, 4)]));
    assert_eq!((claimed(&steps), dropped(&steps)), (vec![], vec![3]));
}

#[test]
fn rows_older_than_a_claim_of_this_node_do_not_undo_it() {
    let nodes = [node("a", 1, NodeState::Ready), node("b", 2, NodeState::Ready)];
    assert_eq!(
        steps_of_a(&nodes, &[row(3, 5, Some(2))], serving(&[(3, 6)])),
        ShardSteps::default()
    );
}

#[test]
fn a_shard_that_changed_since_the_read_began_is_not_judged() {
    let nodes = [node("a", 1, NodeState::Ready)];
    for here in [LocalState::Unsettled, LocalState::Moving] {
        let shards = [row(0, 0, None), row(1, 4, Some(1)), row(2, 4, Some(9))];
        assert_eq!(steps_of_a(&nodes, &shards, |_| here), ShardSteps::default());
    }
}

#[test]
fn a_node_claims_no_shard_unless_it_and_its_row_are_ready() {
    assert_eq!(
        steps_of_a(
            &[node("a", 1, NodeState::Joining)],
            &[row(0, 0, None)],
            serving(&[])
        ),
        ShardSteps::default()
    );
    let (id, nodes) = (name("a"), [node("a", 1, NodeState::Ready)]);
    for member in [
        PlanningNode {
            ready: false,
            ..ready(&id)
        },
        PlanningNode {
            leaving: true,
            ..ready(&id)
        },
    ] {
        let steps = ClaimPlanner::new(LEASE, BEAT).steps(
            member,
            at(0),
            &nodes,
            &[row(0, 0, None)],
            serving(&[]),
            loaded,
        );
        assert_eq!(steps, ShardSteps::default());
    }
}

#[test]
fn the_planned_node_claims_at_once_and_any_other_node_after_a_lease() {
    let nodes = [node("a", 1, NodeState::Ready), node("b", 2, NodeState::Ready)];
    let (ours, theirs) = (planned(&["a", "b"], "a")[0], planned(&["a", "b"], "b")[0]);
    let (id, mut planner) = (name("a"), ClaimPlanner::new(LEASE, BEAT));
    let shards = [row(ours, 4, Some(9)), row(theirs, 4, Some(9))];
    for beat in 0..=10 {
        let steps = planner.steps(ready(&id), at(beat), &nodes, &shards, serving(&[]), loaded);
        assert!(claimed(&steps).contains(&ours));
        assert_eq!(claimed(&steps).contains(&theirs), beat == 10, "beat {beat}");
    }
    // The time is counted anew if the shard had another owner in between, or if this node paused for long.
    let had = [row(ours, 4, Some(9)), row(theirs, 5, Some(9))];
    assert!(
        !claimed(&planner.steps(ready(&id), at(11), &nodes, &had, serving(&[]), loaded)).contains(&theirs)
    );
    assert!(
        !claimed(&planner.steps(ready(&id), at(60), &nodes, &had, serving(&[]), loaded)).contains(&theirs)
    );
}

/// A node "a" that serves one shard, which should be on "b".
struct OneShard {
    shard: ShardId,
    planner: ClaimPlanner,
}

impl OneShard {
    fn new() -> Self {
        Self {
            shard: ShardId::new(planned(&["a", "b"], "b")[0]).unwrap(),
            planner: ClaimPlanner::new(LEASE, BEAT),
        }
    }

    /// Returns the steps of "a" after this beat. Every node has loaded ahead by the next beat.
    fn steps(&mut self, beat: u64, b: NodeRow) -> ShardSteps {
        self.steps_if(beat, b, loaded)
    }

    fn steps_if(
        &mut self,
        beat: u64,
        b: NodeRow,
        has_loaded: impl Fn(ShardId, Incarnation) -> bool,
    ) -> ShardSteps {
        let nodes = [node("a", 1, NodeState::Ready), b];
        let shard = self.shard.get();
        let (id, shards) = (name("a"), [row(shard, 4, Some(1))]);
        let epochs = [(shard, 4)];
        let here = serving(&epochs);
        self.planner
            .steps(ready(&id), at(beat), &nodes, &shards, here, has_loaded)
    }

    /// Returns the steps that let this node load the shard ahead.
    fn loading(&self, number: u64) -> ShardSteps {
        ShardSteps {
            load_ahead: vec![(self.shard, incarnation(number))],
            ..ShardSteps::default()
        }
    }

    /// Returns the steps that hand the shard off to this node.
    fn handing_off(&self, number: u64) -> ShardSteps {
        let from = Fence {
            epoch: Epoch::new(4),
            owner: incarnation(1),
        };
        ShardSteps {
            hand_off: vec![HandOffPlan {
                shard: self.shard,
                from,
                to: Some(incarnation(number)),
            }],
            ..ShardSteps::default()
        }
    }
}

/// Returns the node "b" after this many beats.
fn b_after(beat: u64, state: NodeState) -> NodeRow {
    NodeRow {
        beat,
        ..node("b", 2, state)
    }
}

#[test]
fn a_shard_is_loaded_ahead_and_handed_off_once_the_planned_node_is_ready_and_has_beaten_three_times() {
    let mut one = OneShard::new();
    assert_eq!(
        one.steps(0, b_after(9, NodeState::Joining)),
        ShardSteps::default()
    );
    assert_eq!(one.steps(1, b_after(2, NodeState::Ready)), ShardSteps::default());
    assert_eq!(one.steps(2, b_after(3, NodeState::Ready)), one.loading(2));
    assert_eq!(one.steps(3, b_after(4, NodeState::Ready)), one.handing_off(2));
    // Another incarnation of the same node loads ahead first.
    let reborn = node("b", 3, NodeState::Ready);
    assert_eq!(one.steps(4, reborn.clone()).load_ahead, one.loading(3).load_ahead);
    // A long gap between two beats does not restart loading ahead. If it did, a database that slows every
    // beat down would prevent all hand-offs.
    assert_eq!(one.steps(50, reborn).hand_off.len(), 1);
}

#[test]
fn a_shard_waits_a_limited_time_for_its_next_owner_to_load_ahead() {
    let given_at = |loads_at: u64| {
        let mut one = OneShard::new();
        let given = |beat: &u64| {
            let has_loaded = |_, to| to == incarnation(2) && *beat >= loads_at;
            let steps = one.steps_if(*beat, node("b", 2, NodeState::Ready), has_loaded);
            assert_eq!(steps.load_ahead.len(), usize::from(*beat == 0), "once");
            !steps.hand_off.is_empty()
        };
        (0..100).find(given).unwrap()
    };
    assert_eq!([0, 3, 50].map(given_at), [1, 3, u64::from(AHEAD_BEATS)]);
}

#[test]
fn the_number_of_shards_that_move_at_a_time_is_bounded() {
    let nodes = [
        NodeRow {
            state: NodeState::Leaving,
            ..node("a", 1, NodeState::Ready)
        },
        node("b", 2, NodeState::Ready),
    ];
    let shards: Vec<ShardRow> = (0..SHARDS).map(|id| row(id, 4, Some(1))).collect();
    let (id, mut planner) = (name("a"), ClaimPlanner::new(LEASE, BEAT));
    let member = PlanningNode {
        leaving: true,
        ..ready(&id)
    };
    let here = |_| LocalState::Serving(Epoch::new(4));
    assert_eq!(
        planner
            .steps(member, at(0), &nodes, &shards, here, loaded)
            .load_ahead
            .len(),
        MOVING_MAX
    );
    let steps = planner.steps(member, at(1), &nodes, &shards, here, loaded);
    assert_eq!(
        (steps.load_ahead.len(), steps.hand_off.len()),
        (MOVING_MAX, MOVING_MAX),
        "the next shards are loaded ahead meanwhile"
    );
    let moving = |shard: ShardId| {
        if usize::from(shard.get()) < MOVING_MAX - 2 {
            LocalState::Moving
        } else {
            here(shard)
        }
    };
    let steps = planner.steps(member, at(2), &nodes, &shards, moving, loaded);
    let given: Vec<usize> = steps
        .hand_off
        .iter()
        .map(|given| usize::from(given.shard.get()))
        .collect();
    assert_eq!(given, [MOVING_MAX, MOVING_MAX + 1], "moving shards take room");
    // Shards that are being loaded ahead wait for their turn, and their loading is not requested again.
    let loading: Vec<usize> = steps
        .load_ahead
        .iter()
        .map(|(shard, _)| usize::from(shard.get()))
        .collect();
    assert_eq!(loading, [MOVING_MAX - 2, MOVING_MAX - 1]);
}

#[test]
fn a_node_outside_the_group_releases_its_shards_once_it_is_no_longer_ready() {
    let alone = NodeRow {
        links: Vec::new(),
        ..node("a", 1, NodeState::Ready)
    };
    let nodes = [
        alone,
        node("b", 2, NodeState::Ready),
        node("c", 3, NodeState::Ready),
    ];
    let shards = [row(0, 4, Some(1)), row(1, 4, Some(1))];
    let (id, mut planner) = (name("a"), ClaimPlanner::new(LEASE, BEAT));
    for beat in 0..3 {
        let steps = planner.steps(
            ready(&id),
            at(beat),
            &nodes,
            &shards,
            serving(&[(0, 4), (1, 4)]),
            loaded,
        );
        assert_eq!(steps, ShardSteps::default(), "beat {beat}");
    }
    // One of the shards is not served. It must be released too, because no other node claims it while this
    // node is alive.
    let steps = planner.steps(
        PlanningNode {
            ready: false,
            ..ready(&id)
        },
        at(3),
        &nodes,
        &shards,
        serving(&[(0, 4)]),
        loaded,
    );
    let from = Fence {
        epoch: Epoch::new(4),
        owner: incarnation(1),
    };
    let given = [0, 1].map(|shard| HandOffPlan {
        shard: ShardId::new(shard).unwrap(),
        from,
        to: None,
    });
    assert_eq!(
        steps,
        ShardSteps {
            hand_off: given.to_vec(),
            ..ShardSteps::default()
        }
    );
}

#[test]
fn a_leaving_node_keeps_serving_shards_that_no_other_node_can_take() {
    let nodes = [node("a", 1, NodeState::Leaving), node("b", 2, NodeState::Joining)];
    let id = name("a");
    let member = PlanningNode {
        leaving: true,
        ..ready(&id)
    };
    let steps = ClaimPlanner::new(LEASE, BEAT).steps(
        member,
        at(0),
        &nodes,
        &[row(0, 4, Some(1))],
        serving(&[(0, 4)]),
        loaded,
    );
    assert_eq!(steps, ShardSteps::default());
}
