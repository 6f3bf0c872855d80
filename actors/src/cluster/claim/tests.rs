//! The steps one by one, and several nodes at one database against the promise that an epoch has one owner.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

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

/// Nodes here are linked to all others of 1 to 9, unless a test says otherwise.
fn node(id: &str, number: u64, state: NodeState) -> NodeRow {
    NodeRow {
        id: name(id),
        incarnation: incarnation(number),
        beat: READY_BEATS,
        state,
        http: String::new(),
        cluster: String::new(),
        links: (1..10)
            .filter(|other| *other != number)
            .map(incarnation)
            .collect(),
    }
}

fn row(id: u16, epoch: u64, owner: Option<u64>) -> ShardRow {
    ShardRow {
        id: ShardId::new(id).unwrap(),
        epoch: Epoch::new(epoch),
        owner: owner.and_then(Incarnation::new),
    }
}

fn ready(id: &NodeId) -> Member<'_> {
    Member {
        id,
        incarnation: incarnation(1),
        ready: true,
        leaving: false,
    }
}

/// Of a few shards, those planned for this node among these.
fn planned(nodes: &[&str], id: &str) -> Vec<u16> {
    let plan = Plan::new(nodes.iter().map(|node| name(node)));
    ShardId::all()
        .filter(|shard| plan.owner_of(*shard).unwrap().as_str() == id)
        .map(ShardId::get)
        .collect()
}

fn serving(epochs: &[(u16, u64)]) -> impl Fn(ShardId) -> Here {
    |id| {
        epochs
            .iter()
            .find(|(shard, _)| *shard == id.get())
            .map_or(Here::Unserved, |(_, epoch)| Here::Serving(Epoch::new(*epoch)))
    }
}

/// Everybody has loaded ahead by the next beat.
fn loaded(_: ShardId, _: Incarnation) -> bool {
    true
}

fn steps_of_a(nodes: &[NodeRow], shards: &[ShardRow], here: impl Fn(ShardId) -> Here) -> Steps {
    Judge::new(LEASE, BEAT).steps(ready(&name("a")), at(0), nodes, shards, here, loaded)
}

fn claimed(steps: &Steps) -> Vec<u16> {
    steps.claim.iter().map(|claim| claim.seen.id.get()).collect()
}

fn dropped(steps: &Steps) -> Vec<u16> {
    steps.drop.iter().map(|id| id.get()).collect()
}

#[test]
fn a_node_alone_claims_what_has_no_owner_or_a_dead_one() {
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
fn what_is_ours_and_not_served_is_claimed_before_it_is() {
    let steps = steps_of_a(
        &[node("a", 1, NodeState::Ready)],
        &[row(3, 4, Some(1))],
        serving(&[]),
    );
    assert_eq!((claimed(&steps), dropped(&steps)), (vec![3], vec![]));
}

#[test]
fn what_another_has_is_dropped_and_left_to_it_while_it_lives() {
    let nodes = [node("a", 1, NodeState::Ready), node("b", 2, NodeState::Ready)];
    let steps = steps_of_a(&nodes, &[row(3, 5, Some(2))], serving(&[(3, 4)]));
    assert_eq!((claimed(&steps), dropped(&steps)), (vec![], vec![3]));
}

#[test]
fn rows_read_before_a_claim_of_ours_do_not_take_it_back() {
    let nodes = [node("a", 1, NodeState::Ready), node("b", 2, NodeState::Ready)];
    assert_eq!(
        steps_of_a(&nodes, &[row(3, 5, Some(2))], serving(&[(3, 6)])),
        Steps::default()
    );
}

#[test]
fn what_changed_since_the_rows_began_to_be_read_is_not_judged() {
    let nodes = [node("a", 1, NodeState::Ready)];
    for here in [Here::Unjudged, Here::Moving] {
        let shards = [row(0, 0, None), row(1, 4, Some(1)), row(2, 4, Some(9))];
        assert_eq!(steps_of_a(&nodes, &shards, |_| here), Steps::default());
    }
}

#[test]
fn a_node_that_is_not_ready_by_its_row_or_by_itself_claims_nothing_new() {
    assert_eq!(
        steps_of_a(
            &[node("a", 1, NodeState::Joining)],
            &[row(0, 0, None)],
            serving(&[])
        ),
        Steps::default()
    );
    let (id, nodes) = (name("a"), [node("a", 1, NodeState::Ready)]);
    for member in [
        Member {
            ready: false,
            ..ready(&id)
        },
        Member {
            leaving: true,
            ..ready(&id)
        },
    ] {
        let steps =
            Judge::new(LEASE, BEAT).steps(member, at(0), &nodes, &[row(0, 0, None)], serving(&[]), loaded);
        assert_eq!(steps, Steps::default());
    }
}

#[test]
fn the_planned_node_claims_at_once_and_another_after_a_lease() {
    let nodes = [node("a", 1, NodeState::Ready), node("b", 2, NodeState::Ready)];
    let (ours, theirs) = (planned(&["a", "b"], "a")[0], planned(&["a", "b"], "b")[0]);
    let (id, mut judge) = (name("a"), Judge::new(LEASE, BEAT));
    let shards = [row(ours, 4, Some(9)), row(theirs, 4, Some(9))];
    for beat in 0..=10 {
        let steps = judge.steps(ready(&id), at(beat), &nodes, &shards, serving(&[]), loaded);
        assert!(claimed(&steps).contains(&ours));
        assert_eq!(claimed(&steps).contains(&theirs), beat == 10, "beat {beat}");
    }
    // Somebody had it in between, or we were away: the lease counts anew.
    let had = [row(ours, 4, Some(9)), row(theirs, 5, Some(9))];
    assert!(!claimed(&judge.steps(ready(&id), at(11), &nodes, &had, serving(&[]), loaded)).contains(&theirs));
    assert!(!claimed(&judge.steps(ready(&id), at(60), &nodes, &had, serving(&[]), loaded)).contains(&theirs));
}

#[test]
fn a_shard_is_announced_and_then_handed_to_the_planned_node_that_is_ready_and_has_beaten_three_times() {
    let theirs = planned(&["a", "b"], "b")[0];
    let epochs = [(theirs, 4)];
    let (id, shards, here) = (name("a"), [row(theirs, 4, Some(1))], serving(&epochs));
    let mut judge = Judge::new(LEASE, BEAT);
    let with_b = |beat, state| {
        [
            node("a", 1, NodeState::Ready),
            NodeRow {
                beat,
                ..node("b", 2, state)
            },
        ]
    };
    assert_eq!(
        judge.steps(
            ready(&id),
            at(0),
            &with_b(9, NodeState::Joining),
            &shards,
            &here,
            loaded
        ),
        Steps::default()
    );
    assert_eq!(
        judge.steps(
            ready(&id),
            at(1),
            &with_b(2, NodeState::Ready),
            &shards,
            &here,
            loaded
        ),
        Steps::default()
    );
    let announced = judge.steps(
        ready(&id),
        at(2),
        &with_b(3, NodeState::Ready),
        &shards,
        &here,
        loaded,
    );
    let shard = ShardId::new(theirs).unwrap();
    assert_eq!(
        announced,
        Steps {
            announce: vec![(shard, incarnation(2))],
            ..Steps::default()
        }
    );
    let given = judge.steps(
        ready(&id),
        at(3),
        &with_b(4, NodeState::Ready),
        &shards,
        &here,
        loaded,
    );
    let from = Fence {
        epoch: Epoch::new(4),
        owner: incarnation(1),
    };
    assert_eq!(
        given,
        Steps {
            give_up: vec![GiveUp {
                shard,
                from,
                to: Some(incarnation(2))
            }],
            ..Steps::default()
        }
    );
    // Another life of the same node is announced to first.
    let reborn = [node("a", 1, NodeState::Ready), node("b", 3, NodeState::Ready)];
    assert_eq!(
        judge
            .steps(ready(&id), at(4), &reborn, &shards, &here, loaded)
            .announce,
        [(shard, incarnation(3))]
    );
    // A pause of ours takes nothing back of what was announced: a database that is slow for each beat would
    // keep all shards where they are.
    assert_eq!(
        judge
            .steps(ready(&id), at(50), &reborn, &shards, &here, loaded)
            .give_up
            .len(),
        1
    );
}

#[test]
fn a_shard_waits_until_its_next_owner_has_loaded_ahead_but_not_for_ever() {
    let theirs = planned(&["a", "b"], "b")[0];
    let epochs = [(theirs, 4)];
    let (id, shards, here) = (name("a"), [row(theirs, 4, Some(1))], serving(&epochs));
    let nodes = [node("a", 1, NodeState::Ready), node("b", 2, NodeState::Ready)];
    let given_at = |loads_at: u64| {
        let mut judge = Judge::new(LEASE, BEAT);
        let given = |beat: &u64| {
            let has_loaded = |_, to| to == incarnation(2) && *beat >= loads_at;
            let steps = judge.steps(ready(&id), at(*beat), &nodes, &shards, &here, has_loaded);
            assert_eq!(steps.announce.len(), usize::from(*beat == 0), "once");
            !steps.give_up.is_empty()
        };
        (0..100).find(given).unwrap()
    };
    assert_eq!([0, 3, 50].map(given_at), [1, 3, u64::from(AHEAD_BEATS)]);
}

#[test]
fn only_so_many_shards_move_at_a_time() {
    let nodes = [
        NodeRow {
            state: NodeState::Leaving,
            ..node("a", 1, NodeState::Ready)
        },
        node("b", 2, NodeState::Ready),
    ];
    let shards: Vec<ShardRow> = (0..SHARDS).map(|id| row(id, 4, Some(1))).collect();
    let (id, mut judge) = (name("a"), Judge::new(LEASE, BEAT));
    let member = Member {
        leaving: true,
        ..ready(&id)
    };
    let here = |_| Here::Serving(Epoch::new(4));
    assert_eq!(
        judge
            .steps(member, at(0), &nodes, &shards, here, loaded)
            .announce
            .len(),
        MOVING_MAX
    );
    let steps = judge.steps(member, at(1), &nodes, &shards, here, loaded);
    assert_eq!(
        (steps.announce.len(), steps.give_up.len()),
        (MOVING_MAX, MOVING_MAX),
        "the next are announced meanwhile"
    );
    let moving = |shard: ShardId| {
        if usize::from(shard.get()) < MOVING_MAX - 2 {
            Here::Moving
        } else {
            here(shard)
        }
    };
    let steps = judge.steps(member, at(2), &nodes, &shards, moving, loaded);
    let given: Vec<usize> = steps
        .give_up
        .iter()
        .map(|given| usize::from(given.shard.get()))
        .collect();
    assert_eq!(given, [MOVING_MAX, MOVING_MAX + 1], "what is moving takes room");
    // The others that were announced wait for their turn, and are not announced again.
    let announced: Vec<usize> = steps
        .announce
        .iter()
        .map(|(shard, _)| usize::from(shard.get()))
        .collect();
    assert_eq!(announced, [MOVING_MAX - 2, MOVING_MAX - 1]);
}

#[test]
fn whoever_is_outside_keeps_what_it_has_until_it_is_not_ready_and_then_gives_it_to_nobody() {
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
    let (id, mut judge) = (name("a"), Judge::new(LEASE, BEAT));
    for beat in 0..3 {
        let steps = judge.steps(
            ready(&id),
            at(beat),
            &nodes,
            &shards,
            serving(&[(0, 4), (1, 4)]),
            loaded,
        );
        assert_eq!(steps, Steps::default(), "beat {beat}");
    }
    // One of them is not even served: it must not stay with us either, as nobody else claims it while we
    // live.
    let steps = judge.steps(
        Member {
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
    let given = [0, 1].map(|shard| GiveUp {
        shard: ShardId::new(shard).unwrap(),
        from,
        to: None,
    });
    assert_eq!(
        steps,
        Steps {
            give_up: given.to_vec(),
            ..Steps::default()
        }
    );
}

#[test]
fn one_that_leaves_without_a_target_serves_on() {
    let nodes = [node("a", 1, NodeState::Leaving), node("b", 2, NodeState::Joining)];
    let id = name("a");
    let member = Member {
        leaving: true,
        ..ready(&id)
    };
    let steps = Judge::new(LEASE, BEAT).steps(
        member,
        at(0),
        &nodes,
        &[row(0, 4, Some(1))],
        serving(&[(0, 4)]),
        loaded,
    );
    assert_eq!(steps, Steps::default());
}

/// A node of the model.
struct Node {
    id: NodeId,
    incarnation: Incarnation,
    judge: Judge,
    state: NodeState,
    serving: BTreeMap<ShardId, Epoch>,
    /// Rows that it read and has not judged yet.
    read: Option<(u64, Vec<NodeRow>, Vec<ShardRow>)>,
}

/// What happens next in the model, to the node of this place.
#[derive(Debug, Clone)]
enum Event {
    Read(usize),
    Judge(usize),
    /// It says so in its row; a dead one is ended by the others.
    State(usize, NodeState),
    /// It loses what it serves, though the rows say that it is its own.
    Forget(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let place = || 0..4_usize;
    let state =
        prop_oneof![3 => Just(NodeState::Ready), 1 => Just(NodeState::Leaving), 1 => Just(NodeState::Ended)];
    prop_oneof![
        6 => place().prop_map(Event::Read),
        6 => place().prop_map(Event::Judge),
        1 => (place(), state).prop_map(|(place, state)| Event::State(place, state)),
        1 => place().prop_map(Event::Forget),
    ]
}

struct Cluster {
    beat: u64,
    nodes: Vec<Node>,
    shards: Vec<ShardRow>,
    /// Who served a shard under an epoch.
    served: BTreeMap<(ShardId, Epoch), Incarnation>,
}

impl Cluster {
    fn new() -> Self {
        let node = |number: u64| Node {
            id: name(&format!("node-{number}")),
            incarnation: incarnation(number),
            judge: Judge::new(LEASE, BEAT),
            state: NodeState::Ready,
            serving: BTreeMap::new(),
            read: None,
        };
        Self {
            beat: 0,
            nodes: (1..=4).map(node).collect(),
            shards: (0..24).map(|id| row(id, 0, None)).collect(),
            served: BTreeMap::new(),
        }
    }

    fn rows(&self) -> Vec<NodeRow> {
        self.nodes
            .iter()
            .map(|one| NodeRow {
                id: one.id.clone(),
                ..node("x", one.incarnation.get(), one.state)
            })
            .collect()
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        self.beat += 1;
        match event {
            Event::Read(place) => {
                self.nodes[*place].read = Some((self.beat, self.rows(), self.shards.clone()))
            }
            Event::Judge(place) => return self.judge(*place),
            // The dead stay dead.
            Event::State(place, state) => match &mut self.nodes[*place] {
                Node {
                    state: NodeState::Ended,
                    ..
                } => {}
                node => {
                    node.state = *state;
                    if *state == NodeState::Ended {
                        node.serving.clear();
                    }
                }
            },
            Event::Forget(place) => self.nodes[*place].serving.clear(),
        }
        Ok(())
    }

    /// The steps from rows that may be old by now, each carried out as the store does: by compare-and-set.
    fn judge(&mut self, place: usize) -> Result<(), TestCaseError> {
        let node = &mut self.nodes[place];
        let Some((beat, rows, shards)) = node.read.take() else {
            return Ok(());
        };
        if node.state == NodeState::Ended {
            return Ok(());
        }
        let member = Member {
            id: &node.id,
            incarnation: node.incarnation,
            ready: true,
            leaving: node.state == NodeState::Leaving,
        };
        let here = |id: ShardId| {
            node.serving
                .get(&id)
                .map_or(Here::Unserved, |epoch| Here::Serving(*epoch))
        };
        // Some never tell that they have.
        let steps = node
            .judge
            .steps(member, at(beat), &rows, &shards, here, |shard, _| {
                shard.get() % 2 == 0
            });
        for shard in steps.drop {
            node.serving.remove(&shard);
        }
        for claim in steps.claim {
            let row = &mut self.shards[usize::from(claim.seen.id.get())];
            if *row == claim.seen {
                *row = ShardRow {
                    id: row.id,
                    epoch: row.epoch.next(),
                    owner: Some(claim.claimant),
                };
                node.serving.insert(row.id, row.epoch);
                let before = self.served.insert((row.id, row.epoch), claim.claimant);
                prop_assert!(before.is_none(), "{:?} had an owner in {:?}", row.id, row.epoch);
            }
        }
        for GiveUp { shard, from, to } in steps.give_up {
            node.serving.remove(&shard);
            let row = &mut self.shards[usize::from(shard.get())];
            if (row.epoch, row.owner) == (from.epoch, Some(from.owner)) {
                *row = ShardRow {
                    id: shard,
                    epoch: if to.is_some() { row.epoch.next() } else { row.epoch },
                    owner: to,
                };
            }
        }
        Ok(())
    }

    /// Everybody beats in turn, often enough for a lease to pass and for all that is announced to move.
    fn come_to_rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..20 {
            for place in 0..self.nodes.len() {
                self.nodes[place].read = Some((self.beat, self.rows(), self.shards.clone()));
                self.judge(place)?;
            }
            self.beat += 1;
        }
        Ok(())
    }

    fn check_rest(&self) -> Result<(), TestCaseError> {
        let plan = Plan::new(
            self.nodes
                .iter()
                .filter(|node| node.state == NodeState::Ready)
                .map(|node| node.id.clone()),
        );
        for row in &self.shards {
            let servers: Vec<&Node> = self
                .nodes
                .iter()
                .filter(|node| node.serving.get(&row.id) == Some(&row.epoch))
                .collect();
            let Some(planned) = plan.owner_of(row.id) else {
                continue;
            };
            prop_assert_eq!(servers.len(), 1, "{:?}", row);
            prop_assert_eq!(&servers[0].id, planned);
            prop_assert_eq!(row.owner, Some(servers[0].incarnation));
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn an_epoch_has_one_owner_and_in_the_end_every_shard_is_where_it_should_be(events in prop::collection::vec(event(), 1..80)) {
        let mut cluster = Cluster::new();
        for event in &events {
            cluster.happen(event)?;
        }
        cluster.come_to_rest()?;
        cluster.check_rest()?;
    }

    #[test]
    fn only_shards_that_must_move_do(gone in 0..4_usize) {
        let mut cluster = Cluster::new();
        cluster.come_to_rest()?;
        let before = cluster.shards.clone();
        cluster.happen(&Event::State(gone, NodeState::Leaving))?;
        cluster.come_to_rest()?;
        let left = cluster.nodes[gone].incarnation;
        let after_leaving = cluster.shards.clone();
        for (old, new) in before.iter().zip(&after_leaving) {
            prop_assert_eq!(old.owner == Some(left), old != new, "{:?} became {:?}", old, new);
        }
        cluster.happen(&Event::State(gone, NodeState::Ready))?;
        cluster.come_to_rest()?;
        let owners = |rows: &[ShardRow]| rows.iter().map(|row| row.owner).collect::<Vec<_>>();
        prop_assert_eq!(owners(&before), owners(&cluster.shards));
        let moved: HashSet<ShardId> = after_leaving.iter().zip(&cluster.shards).filter(|(old, new)| old != new).map(|(_, new)| new.id).collect();
        let must: HashSet<ShardId> = before.iter().filter(|row| row.owner == Some(left)).map(|row| row.id).collect();
        prop_assert_eq!(moved, must);
    }
}
