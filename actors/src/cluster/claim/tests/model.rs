//! Runs several nodes on one database, and checks that an epoch has one owner.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

/// A node of the model.
struct Node {
    id: NodeId,
    incarnation: Incarnation,
    planner: ClaimPlanner,
    state: NodeState,
    serving: BTreeMap<ShardId, Epoch>,
    /// Rows that the node has read and not yet compared with the plan.
    read: Option<(u64, Vec<NodeRow>, Vec<ShardRow>)>,
}

/// What happens next in the model. Each event names the place of a node.
#[derive(Debug, Clone)]
enum Event {
    Read(usize),
    Plan(usize),
    /// The node's row gets this state. `Ended` is set by other nodes.
    State(usize, NodeState),
    /// The node stops serving, although the rows still name it as the owner.
    Forget(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let place = || 0..4_usize;
    let state =
        prop_oneof![3 => Just(NodeState::Ready), 1 => Just(NodeState::Leaving), 1 => Just(NodeState::Ended)];
    prop_oneof![
        6 => place().prop_map(Event::Read),
        6 => place().prop_map(Event::Plan),
        1 => (place(), state).prop_map(|(place, state)| Event::State(place, state)),
        1 => place().prop_map(Event::Forget),
    ]
}

struct Cluster {
    beat: u64,
    nodes: Vec<Node>,
    shards: Vec<ShardRow>,
    /// The incarnation that served a shard under an epoch.
    served: BTreeMap<(ShardId, Epoch), Incarnation>,
}

impl Cluster {
    fn new() -> Self {
        let node = |number: u64| Node {
            id: name(&format!("node-{number}")),
            incarnation: incarnation(number),
            planner: ClaimPlanner::new(LEASE, BEAT),
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
                self.nodes[*place].read = Some((self.beat, self.rows(), self.shards.clone()));
            }
            Event::Plan(place) => return self.plan(*place),
            // Ended incarnations never return.
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

    /// Plans the steps from rows that may be stale. Carries out each step as the store does, by
    /// compare-and-set.
    fn plan(&mut self, place: usize) -> Result<(), TestCaseError> {
        let node = &mut self.nodes[place];
        let Some((beat, rows, shards)) = node.read.take() else {
            return Ok(());
        };
        if node.state == NodeState::Ended {
            return Ok(());
        }
        let member = PlanningNode {
            id: &node.id,
            incarnation: node.incarnation,
            ready: true,
            leaving: node.state == NodeState::Leaving,
        };
        let local_state = |id: ShardId| {
            node.serving
                .get(&id)
                .map_or(LocalState::Unserved, |epoch| LocalState::Serving(*epoch))
        };
        // Odd shards never report that they are loaded ahead.
        let steps = node
            .planner
            .steps(member, at(beat), &rows, &shards, local_state, |shard, _| {
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
        for HandOffPlan { shard, from, to } in steps.hand_off {
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

    /// Lets all nodes beat in turn until a lease has passed and every planned shard has moved.
    fn come_to_rest(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..20 {
            for place in 0..self.nodes.len() {
                self.nodes[place].read = Some((self.beat, self.rows(), self.shards.clone()));
                self.plan(place)?;
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
    fn an_epoch_has_one_owner_and_every_shard_reaches_its_planned_node(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut cluster = Cluster::new();
        for event in &events {
            cluster.happen(event)?;
        }
        cluster.come_to_rest()?;
        cluster.check_rest()?;
    }

    #[test]
    fn exactly_the_shards_that_must_move_are_moved(gone in 0..4_usize) {
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
        let changed = after_leaving.iter().zip(&cluster.shards).filter(|(old, new)| old != new);
        let moved: HashSet<ShardId> = changed.map(|(_, new)| new.id).collect();
        let owned = before.iter().filter(|row| row.owner == Some(left));
        let must: HashSet<ShardId> = owned.map(|row| row.id).collect();
        prop_assert_eq!(moved, must);
    }
}
