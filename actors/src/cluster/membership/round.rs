//! A round, as a state machine: what a node reads after a beat, in which order, which nodes it ends, and what
//! it found.
//!
//! The shards are read before the nodes. So an owner that is missing among the nodes was ended: it cannot
//! have joined between the two reads.

use std::collections::VecDeque;

use crate::cluster::group::Group;
use crate::cluster::membership::member::MemberLifecycle;
use crate::ids::Incarnation;
use crate::store::{NodeRow, NodeState, ShardRow};
use crate::time::Moment;

/// A statement for the store; its answer goes back to the round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Read the shards. The answer goes to [`Round::read_shards`].
    ReadShards,
    /// Read the nodes. The answer goes to [`Round::read_nodes`].
    ReadNodes,
    /// End this node. The answer goes to [`Round::answered`].
    End(NodeRow),
}

/// One round, which follows one beat.
#[derive(Debug)]
pub struct Round {
    sent_at: Moment,
    changes: Vec<u64>,
    shards: Option<Vec<ShardRow>>,
    nodes: Option<Vec<NodeRow>>,
    dead: VecDeque<NodeRow>,
}

/// What a round found.
#[derive(Debug)]
pub struct Findings {
    /// By shard: how often its state on this node had changed before the shards were read.
    pub changes: Vec<u64>,
    /// The rows of the shards.
    pub shards: Vec<ShardRow>,
    /// The rows of the nodes. Nodes that the round ended have the state `Ended`.
    pub nodes: Vec<NodeRow>,
    /// True if the group contains this node.
    pub inside: bool,
    /// The nodes that the round ended, and when their last beat was first seen.
    pub silenced: Vec<(Incarnation, Moment)>,
}

impl Round {
    /// Begins a round after the beat sent at `sent_at`.
    pub fn new(sent_at: Moment) -> Self {
        Self {
            sent_at,
            changes: Vec::new(),
            shards: None,
            nodes: None,
            dead: VecDeque::new(),
        }
    }

    /// Returns when the round's beat was sent.
    pub fn sent_at(&self) -> Moment {
        self.sent_at
    }

    /// Returns the next statement; `None` at the end.
    pub fn statement(&self) -> Option<Statement> {
        if self.shards.is_none() {
            Some(Statement::ReadShards)
        } else if self.nodes.is_none() {
            Some(Statement::ReadNodes)
        } else {
            self.dead.front().cloned().map(Statement::End)
        }
    }

    /// Takes the rows of the shards. `changes` was taken before the rows were read; see
    /// [`Findings::changes`].
    pub fn read_shards(&mut self, changes: Vec<u64>, rows: Vec<ShardRow>) {
        self.changes = changes;
        self.shards = Some(rows);
    }

    /// Takes the rows of the nodes, which were read at `read_at` or earlier, and finds the nodes to end.
    /// `refuses` returns true for a node whose address refuses new connections. Returns the nodes that are no
    /// longer alive, and when their last beat was first seen. These nodes are not reported again.
    pub fn read_nodes(
        &mut self,
        lifecycle: &mut MemberLifecycle,
        read_at: Moment,
        rows: Vec<NodeRow>,
        refuses: impl Fn(Incarnation) -> bool,
    ) -> Vec<(Incarnation, Moment)> {
        let silenced = lifecycle.silenced(&rows).collect();
        self.dead = lifecycle.observed(self.sent_at, read_at, &rows, refuses).into();
        self.nodes = Some(rows);
        silenced
    }

    /// Takes the answer to [`Statement::End`]: true if the node was ended, false if its row had changed.
    pub fn answered(&mut self, ended: bool) {
        let Some(dead) = self.dead.pop_front().filter(|_| ended) else {
            return;
        };
        let rows = self.nodes.iter_mut().flatten();
        rows.filter(|row| row.incarnation == dead.incarnation)
            .for_each(|row| row.state = NodeState::Ended);
    }

    /// Ends the round: tells the lifecycle whether the group contains this node.
    pub fn finish(self, lifecycle: &mut MemberLifecycle) -> Findings {
        let nodes = self.nodes.unwrap_or_default();
        let silenced = lifecycle.silenced(&nodes).collect();
        let inside = Group::of(&nodes).has(lifecycle.incarnation());
        lifecycle.grouped(self.sent_at, inside);
        Findings {
            changes: self.changes,
            shards: self.shards.unwrap_or_default(),
            nodes,
            inside,
            silenced,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);
    const BEAT: Duration = Duration::from_millis(300);

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    fn incarnation(number: u64) -> Incarnation {
        Incarnation::new(number).unwrap()
    }

    fn row(number: u64, beat: u64) -> NodeRow {
        NodeRow {
            links: vec![incarnation(3 - number)],
            ..NodeRow::ready(number, beat)
        }
    }

    /// Runs a round of node 1, which beats every 300 ms. Node 2 does not beat.
    fn round(lifecycle: &mut MemberLifecycle, beat: u64, ended: bool) -> (Vec<Statement>, Findings) {
        let sent_at = at(beat * 300);
        lifecycle.beaten(sent_at, Some(beat + 1));
        let mut round = Round::new(sent_at);
        let mut statements = Vec::new();
        while let Some(statement) = round.statement() {
            statements.push(statement.clone());
            match statement {
                Statement::ReadShards => round.read_shards(Vec::new(), Vec::new()),
                Statement::ReadNodes => {
                    round.read_nodes(lifecycle, sent_at, vec![row(1, beat), row(2, 7)], |_| false);
                }
                Statement::End(_) => round.answered(ended),
            }
        }
        (statements, round.finish(lifecycle))
    }

    #[test]
    fn shards_are_read_before_nodes_and_a_node_without_beats_is_ended_after_a_lease() {
        let mut lifecycle = MemberLifecycle::new(incarnation(1), LEASE, BEAT);
        let reads = [Statement::ReadShards, Statement::ReadNodes];
        for beat in 0..10 {
            let (statements, found) = round(&mut lifecycle, beat, true);
            assert_eq!(statements, reads, "after beat {beat}");
            assert!(found.inside && found.silenced.is_empty());
        }
        let (statements, found) = round(&mut lifecycle, 10, true);
        assert_eq!(statements[..2], reads);
        assert_eq!(statements[2..], [Statement::End(row(2, 7))]);
        assert_eq!(found.nodes[1].state, NodeState::Ended);
        assert_eq!(found.silenced, [(incarnation(2), at(0))]);
    }

    #[test]
    fn a_node_that_could_not_be_ended_counts_as_alive() {
        let mut lifecycle = MemberLifecycle::new(incarnation(1), LEASE, BEAT);
        for beat in 0..10 {
            round(&mut lifecycle, beat, false);
        }
        let (statements, found) = round(&mut lifecycle, 10, false);
        assert_eq!(statements.len(), 3);
        assert_eq!(found.nodes[1].state, NodeState::Ready);
        assert!(found.silenced.is_empty());
    }
}
