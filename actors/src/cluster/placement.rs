//! Placement: which node should own a shard. It uses rendezvous hashing over nodes. So when a node joins or
//! leaves, only the shards of that node move.

use hrw_hash::HrwNodes;

use crate::ids::{NodeId, ShardId};

/// The plan for a set of nodes. All nodes that know the same set make the same plan.
pub struct Plan {
    nodes: Option<HrwNodes<Candidate>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Candidate(NodeId);

impl hrw_hash::HrwNode for Candidate {}

impl Plan {
    /// Makes the plan for these nodes, whatever their order.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let nodes: Vec<Candidate> = nodes.into_iter().map(Candidate).collect();
        Self {
            nodes: (!nodes.is_empty()).then(|| HrwNodes::new(nodes)),
        }
    }

    /// Returns the node that should own the shard; `None` if there is no node.
    pub fn owner_of(&self, shard: ShardId) -> Option<&NodeId> {
        let nodes = self.nodes.as_ref()?;
        nodes.sorted(&shard.get()).next().map(|candidate| &candidate.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: &[&str]) -> Plan {
        Plan::new(nodes.iter().map(|node| NodeId::parse(node).unwrap()))
    }

    #[test]
    fn a_single_node_owns_all_shards_and_without_nodes_no_shard_has_an_owner() {
        let alone = plan(&["a"]);
        assert!(ShardId::all().all(|shard| alone.owner_of(shard).unwrap().as_str() == "a"));
        assert!(ShardId::all().all(|shard| plan(&[]).owner_of(shard).is_none()));
    }

    /// Pins the plan, because two releases with different plans would take shards from each other forever.
    #[test]
    fn the_plan_is_pinned() {
        let three = plan(&["a", "b", "c"]);
        let planned: String = ShardId::all()
            .take(16)
            .map(|shard| three.owner_of(shard).unwrap().as_str())
            .collect();
        assert_eq!(planned, "cbccaabacabcacab");
    }

    #[test]
    fn when_a_node_leaves_only_its_own_shards_move() {
        let (three, two) = (plan(&["a", "b", "c"]), plan(&["c", "a"]));
        let mut moved = 0;
        for shard in ShardId::all() {
            let before = three.owner_of(shard).unwrap();
            if before.as_str() == "b" {
                moved += 1;
            } else {
                assert_eq!(two.owner_of(shard).unwrap(), before);
            }
        }
        assert!((40..130).contains(&moved), "b had {moved} of 256 shards");
    }
}
