//! Which live peers this node does not reach, as a state machine over what it reads after its beats.
//!
//! A peer that died has no link either, but its shards soon have another owner, so requests for them wait. A
//! peer that goes on beating keeps its shards, until the group has decided which of the two nodes is outside.
//! That takes longer than a client waits, so requests for these shards are refused at once.

use std::collections::HashMap;
use std::time::Duration;

use crate::ids::Incarnation;
use crate::store::{NodeRow, NodeState};
use crate::time::Moment;

/// How long a peer must go on beating without a link before it counts as unreachable. A link that was lost is
/// usually back within this time.
const UNLINKED: Duration = Duration::from_secs(1);

/// The peers to which this node has no link.
#[derive(Debug)]
pub struct Reach {
    lease: Duration,
    unlinked: HashMap<Incarnation, Unlinked>,
}

#[derive(Debug, Clone, Copy)]
struct Unlinked {
    since: Moment,
    beat: u64,
    /// When its beat was last seen to have changed.
    beaten_at: Moment,
}

impl Reach {
    /// Makes the state of a node that has read nothing yet.
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            unlinked: HashMap::new(),
        }
    }

    /// Takes the nodes' rows as of `now`, and the peers to which this node `me` is linked. Returns the live
    /// peers that are not reached.
    pub fn unreachable(
        &mut self,
        now: Moment,
        me: Incarnation,
        nodes: &[NodeRow],
        linked: &[Incarnation],
    ) -> Vec<Incarnation> {
        let is_unlinked = |node: &&NodeRow| {
            node.state != NodeState::Ended && node.incarnation != me && !linked.contains(&node.incarnation)
        };
        let before = std::mem::take(&mut self.unlinked);
        for node in nodes.iter().filter(is_unlinked) {
            let mut unlinked = before.get(&node.incarnation).copied().unwrap_or(Unlinked {
                since: now,
                beat: node.beat,
                beaten_at: now,
            });
            if unlinked.beat != node.beat {
                (unlinked.beat, unlinked.beaten_at) = (node.beat, now);
            }
            self.unlinked.insert(node.incarnation, unlinked);
        }
        let lives_on = |unlinked: &Unlinked| {
            unlinked.beaten_at.since(unlinked.since) >= UNLINKED
                && now.since(unlinked.beaten_at) < self.lease / 2
        };
        let unreachable = self.unlinked.iter().filter(|(_, unlinked)| lives_on(unlinked));
        unreachable.map(|(peer, _)| *peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn incarnation(number: u64) -> Incarnation {
        Incarnation::new(number).unwrap()
    }

    /// Returns whether peer 2 is unreachable after each of node 1's beats, which come every 300 ms. The peer
    /// has sent this many beats by then, and the node is linked to it or not.
    fn after(beats: &[(u64, bool)]) -> Vec<bool> {
        let mut reach = Reach::new(LEASE);
        let unreachable = beats.iter().zip(0..).map(|((beat, is_linked), number)| {
            let now = Moment::at(Duration::from_millis(300) * number);
            let linked: &[Incarnation] = if *is_linked { &[incarnation(2)] } else { &[] };
            let nodes = [NodeRow::ready(1, 9), NodeRow::ready(2, *beat)];
            let found = reach.unreachable(now, incarnation(1), &nodes, linked);
            assert!(found.iter().all(|peer| *peer == incarnation(2)));
            !found.is_empty()
        });
        unreachable.collect()
    }

    #[test]
    fn a_peer_that_beats_for_a_second_without_a_link_is_unreachable_until_it_is_linked() {
        let beats: Vec<(u64, bool)> = (1..=8).map(|beat| (beat, [1, 7, 8].contains(&beat))).collect();
        assert_eq!(
            after(&beats),
            [false, false, false, false, false, true, false, false],
            "unlinked from 0.3 s to 1.5 s"
        );
    }

    #[test]
    fn a_peer_that_died_is_not_unreachable_because_its_shards_are_about_to_be_taken_over() {
        assert!(after(&[(7, false); 10]).iter().all(|unreachable| !unreachable));
        let mut beats: Vec<(u64, bool)> = (1..=6).map(|beat| (beat, false)).collect();
        beats.extend([(6, false); 6]);
        let unreachable = after(&beats);
        assert!(unreachable[5], "it beats");
        assert!(!unreachable[11], "it stopped beating");
    }
}
