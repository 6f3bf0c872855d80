//! Which shards a node claims, and which of those it serves it must drop: a function of the rows.

use crate::ids::{Epoch, Incarnation, NodeId, ShardId};
use crate::placement::Plan;
use crate::store::{Claim, NodeRow, NodeState, ShardRow};

/// What to do about the shards after reading the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// To be claimed, and served once they are.
    pub claim: Vec<Claim>,
    /// Served here, and another's.
    pub drop: Vec<ShardId>,
}

/// Compares the rows with the plan and with what is served here (`serving`: the epoch, if it is).
///
/// Claimed are shards planned for this node that have no living owner, and those that are this node's own by the row but not served:
/// the epoch is raised before they are, so that nothing of an earlier service of theirs can still be stored.
pub fn steps(id: &NodeId, me: Incarnation, nodes: &[NodeRow], shards: &[ShardRow], serving: impl Fn(ShardId) -> Option<Epoch>) -> Steps {
    let living = |owner: Incarnation| nodes.iter().any(|node| node.incarnation == owner && node.state != NodeState::Ended);
    let plan = Plan::new(nodes.iter().filter(|node| node.state == NodeState::Ready).map(|node| node.id.clone()));
    let mut steps = Steps::default();
    for row in shards {
        let served = serving(row.id);
        let mine = row.owner == Some(me);
        if mine && served.is_none() {
            steps.claim.push(Claim { seen: *row, claimant: me });
        } else if !mine && served.is_some_and(|epoch| epoch < row.epoch) {
            steps.drop.push(row.id);
        } else if !row.owner.is_some_and(living) && plan.owner_of(row.id) == Some(id) {
            steps.claim.push(Claim { seen: *row, claimant: me });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, incarnation: u64, state: NodeState) -> NodeRow {
        NodeRow {
            id: NodeId::parse(id).unwrap(),
            incarnation: Incarnation::new(incarnation).unwrap(),
            beat: 1,
            state,
            http: String::new(),
            cluster: String::new(),
            links: Vec::new(),
        }
    }

    fn row(id: u16, epoch: u64, owner: Option<u64>) -> ShardRow {
        ShardRow { id: ShardId::new(id).unwrap(), epoch: Epoch::new(epoch), owner: owner.and_then(Incarnation::new) }
    }

    fn steps_of_a(nodes: &[NodeRow], shards: &[ShardRow], serving: &[(u16, u64)]) -> (Vec<u16>, Vec<u16>) {
        let serving = |id: ShardId| serving.iter().find(|(shard, _)| *shard == id.get()).map(|(_, epoch)| Epoch::new(*epoch));
        let steps = steps(&NodeId::parse("a").unwrap(), Incarnation::new(1).unwrap(), nodes, shards, serving);
        (steps.claim.iter().map(|claim| claim.seen.id.get()).collect(), steps.drop.iter().map(|id| id.get()).collect())
    }

    #[test]
    fn a_node_alone_claims_what_has_no_owner_or_a_dead_one() {
        let nodes = [node("a", 1, NodeState::Ready), node("old", 9, NodeState::Ended)];
        let shards = [row(0, 0, None), row(1, 4, Some(9)), row(2, 4, Some(8)), row(3, 4, Some(1))];
        assert_eq!(steps_of_a(&nodes, &shards, &[(3, 4)]), (vec![0, 1, 2], vec![]));
    }

    #[test]
    fn what_is_ours_and_not_served_is_claimed_before_it_is() {
        let nodes = [node("a", 1, NodeState::Ready)];
        assert_eq!(steps_of_a(&nodes, &[row(3, 4, Some(1))], &[]), (vec![3], vec![]));
    }

    #[test]
    fn what_another_has_is_dropped_and_left_to_it_while_it_lives() {
        let nodes = [node("a", 1, NodeState::Ready), node("b", 2, NodeState::Ready)];
        assert_eq!(steps_of_a(&nodes, &[row(3, 5, Some(2))], &[(3, 4)]), (vec![], vec![3]));
    }

    #[test]
    fn rows_read_before_a_claim_of_ours_do_not_take_it_back() {
        let nodes = [node("a", 1, NodeState::Ready), node("b", 2, NodeState::Ready)];
        assert_eq!(steps_of_a(&nodes, &[row(3, 5, Some(2))], &[(3, 6)]), (vec![], vec![]));
    }

    #[test]
    fn a_node_that_is_not_ready_claims_nothing_new() {
        let nodes = [node("a", 1, NodeState::Joining)];
        assert_eq!(steps_of_a(&nodes, &[row(0, 0, None)], &[]), (vec![], vec![]));
    }
}
