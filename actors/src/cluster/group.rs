//! The group: the live nodes that can all reach each other. It is a function of the nodes' rows alone, so
//! that all nodes compute the same group from the same rows.

use crate::ids::Incarnation;
use crate::store::{NodeRow, NodeState};

/// The members, in the order in which they entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    members: Vec<&'a NodeRow>,
}

impl<'a> Group<'a> {
    /// Returns the group of these rows, whatever their order.
    ///
    /// Live nodes are tried one by one, and each enters if it is linked to all members so far. Nodes with
    /// more mutual links come first. Among nodes with equally many links, joining nodes come last. So a new
    /// node that no other node reaches does not push out a node that serves. Then the smaller id comes first.
    pub fn of(nodes: &'a [NodeRow]) -> Self {
        let living: Vec<&NodeRow> = nodes
            .iter()
            .filter(|node| node.state != NodeState::Ended)
            .collect();
        let links = |node: &NodeRow| living.iter().filter(|other| are_linked(node, other)).count();
        let mut candidates: Vec<(usize, &NodeRow)> = living.iter().map(|node| (links(node), *node)).collect();
        candidates.sort_by(|(many, one), (few, other)| {
            let joins = |node: &NodeRow| node.state == NodeState::Joining;
            few.cmp(many)
                .then(joins(one).cmp(&joins(other)))
                .then(one.id.cmp(&other.id))
        });
        let mut members: Vec<&NodeRow> = Vec::new();
        for (_, candidate) in candidates {
            if members.iter().all(|member| are_linked(member, candidate)) {
                members.push(candidate);
            }
        }
        Self { members }
    }

    /// Returns true if this incarnation is a member.
    pub fn has(&self, incarnation: Incarnation) -> bool {
        self.members
            .iter()
            .any(|member| member.incarnation == incarnation)
    }

    /// Returns the members on which shards are placed.
    pub fn ready(&self) -> impl Iterator<Item = &'a NodeRow> {
        self.members
            .iter()
            .copied()
            .filter(|member| member.state == NodeState::Ready)
    }
}

/// Returns true if both nodes report the link between them.
fn are_linked(one: &NodeRow, other: &NodeRow) -> bool {
    one.links.contains(&other.incarnation) && other.links.contains(&one.incarnation)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::NodeId;

    fn node(number: u64, state: NodeState, links: &[u64]) -> NodeRow {
        NodeRow {
            // Ids descend while incarnations ascend, so that sorting by incarnation instead of id is noticed.
            id: NodeId::parse(&format!("node-{:02}", 50 - number)).unwrap(),
            state,
            links: links.iter().filter_map(|link| Incarnation::new(*link)).collect(),
            ..NodeRow::ready(number, 3)
        }
    }

    fn members(nodes: &[NodeRow]) -> Vec<u64> {
        Group::of(nodes)
            .members
            .iter()
            .map(|member| member.incarnation.get())
            .collect()
    }

    fn rows() -> impl Strategy<Value = Vec<NodeRow>> {
        let state = prop_oneof![4 => Just(NodeState::Ready), 1 => Just(NodeState::Joining), 1 => Just(NodeState::Leaving), 1 => Just(NodeState::Ended)];
        let row = (state, prop::collection::vec(prop::bool::weighted(0.8), 8));
        prop::collection::vec(row, 0..8).prop_map(|rows| {
            let numbered = rows.into_iter().enumerate();
            let row = |(place, (state, linked)): (usize, (NodeState, Vec<bool>))| {
                let links: Vec<u64> = (1..=8)
                    .zip(linked)
                    .filter_map(|(number, linked)| linked.then_some(number))
                    .collect();
                node(place as u64 + 1, state, &links)
            };
            numbered.map(row).collect()
        })
    }

    proptest! {
        #[test]
        fn all_nodes_compute_the_same_group_from_the_same_rows(rows in rows(), mut seed in any::<u64>()) {
            let mut shuffled = rows.clone();
            for place in (1..shuffled.len()).rev() {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(place, (seed >> 33) as usize % (place + 1));
            }
            prop_assert_eq!(members(&rows), members(&shuffled));
        }

        #[test]
        fn members_reach_each_other_and_every_node_that_reaches_all_members_is_a_member(rows in rows()) {
            let group = Group::of(&rows);
            for one in &group.members {
                prop_assert!(one.state != NodeState::Ended);
                prop_assert!(group.members.iter().all(|other| one == other || are_linked(one, other)));
            }
            for row in rows.iter().filter(|row| row.state != NodeState::Ended && !group.has(row.incarnation)) {
                prop_assert!(group.members.iter().any(|member| !are_linked(row, member)), "{:?} reaches all", row.id);
            }
            prop_assert_eq!(group.members.is_empty(), rows.iter().all(|row| row.state == NodeState::Ended));
        }
    }

    #[test]
    fn a_node_alone_is_the_group() {
        assert_eq!(
            members(&[node(1, NodeState::Joining, &[]), node(2, NodeState::Ended, &[1])]),
            [1]
        );
    }

    #[test]
    fn if_two_nodes_do_not_reach_each_other_the_node_with_more_links_is_a_member() {
        let ready = NodeState::Ready;
        let rows = [
            node(1, ready, &[2, 3]),
            node(2, ready, &[1, 3, 4]),
            node(3, ready, &[1, 2, 4]),
            node(4, ready, &[2, 3]),
        ];
        // Incarnations 1 and 4 do not reach each other, and each has two links. So the smaller node id
        // decides, and that is the id of incarnation 4.
        assert_eq!(members(&rows), [3, 2, 4]);
        let one_sided = [node(1, ready, &[2]), node(2, ready, &[])];
        assert_eq!(members(&one_sided), [2], "a link counts if both nodes report it");
    }

    #[test]
    fn a_joining_node_that_no_other_node_reaches_does_not_push_out_a_ready_node() {
        // The joining node has the smaller id.
        assert_eq!(
            members(&[node(1, NodeState::Ready, &[]), node(2, NodeState::Joining, &[])]),
            [1]
        );
    }
}
