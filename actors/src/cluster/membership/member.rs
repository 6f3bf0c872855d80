//! The lifecycle of one incarnation, as a state machine: what the answer to each beat means, and which other
//! nodes have stopped beating.

use std::collections::HashMap;
use std::time::Duration;

use crate::ids::Incarnation;
use crate::store::{NodeRow, NodeState};
use crate::time::Moment;

/// What the answer to a beat means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beaten {
    /// The incarnation is alive. Its lease holds until this moment.
    Alive(Moment),
    /// Another node ended this incarnation, or its row is gone. The node drops everything and rejoins.
    Ended,
    /// The database lost a beat that it had confirmed. The node raises an alarm, drops everything and
    /// rejoins.
    WentBackwards {
        /// The last beat that the database had confirmed.
        confirmed: u64,
        /// The beat that the node's row has now.
        counted: u64,
    },
}

/// A peer is ended after this number of consecutive beats of this node, if at each of these beats the peer's
/// beat stood still and the peer's address refused new connections. One refusal shows that no process listens
/// at the address. A second refusal rules out that the peer was only restarting.
const REFUSED_BEATS: u32 = 2;

/// The lifecycle of one incarnation; see the module.
#[derive(Debug)]
pub struct MemberLifecycle {
    incarnation: Incarnation,
    lease: Duration,
    beat: Duration,
    confirmed: u64,
    last_sent: Option<Moment>,
    over: bool,
    others: HashMap<Incarnation, Watched>,
    /// True if shards may be placed on this node. Its row says so too.
    ready: bool,
    /// Since when the group has not contained this node.
    outside_since: Option<Moment>,
}

/// The beat of another node, and since when this node has seen it stand still.
#[derive(Debug, Clone, Copy)]
struct Watched {
    beat: u64,
    since: Moment,
    /// Number of this node's consecutive beats at which the other beat stood still and the other node's
    /// address refused connections.
    refused: u32,
}

impl MemberLifecycle {
    /// Makes the lifecycle of an incarnation that has joined and not beaten yet.
    pub fn new(incarnation: Incarnation, lease: Duration, beat: Duration) -> Self {
        let others = HashMap::new();
        Self {
            incarnation,
            lease,
            beat,
            confirmed: 0,
            last_sent: None,
            over: false,
            others,
            ready: false,
            outside_since: None,
        }
    }

    /// Returns the incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Marks the incarnation as over, whatever its row says later. The node must rejoin as another
    /// incarnation.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// Returns true if the incarnation is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Returns true if shards may be placed on this node. A node that is not ready releases its shards and
    /// does not claim any.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Returns true if the node is ready and the group contained it when the rows were last read.
    pub fn is_inside(&self) -> bool {
        self.ready && self.outside_since.is_none()
    }

    /// Returns the state that the next beat writes to the row.
    pub fn state(&self, leaving: bool) -> NodeState {
        match self.ready {
            _ if leaving => NodeState::Leaving,
            true => NodeState::Ready,
            false => NodeState::Joining,
        }
    }

    /// Takes the answer to a beat that was sent after `sent_at`. `counted` is the beat that the row has now,
    /// or `None` if the row is ended or gone.
    pub fn beaten(&mut self, sent_at: Moment, counted: Option<u64>) -> Beaten {
        let Some(counted) = counted else {
            return Beaten::Ended;
        };
        if counted <= self.confirmed {
            return Beaten::WentBackwards {
                confirmed: self.confirmed,
                counted,
            };
        }
        self.confirmed = counted;
        // If two beats are far apart, they prove nothing about other nodes and the group in between. So
        // watching starts again.
        if are_far_apart(self.last_sent, sent_at, self.lease, self.beat) {
            self.others.clear();
            self.outside_since = None;
        }
        self.last_sent = Some(sent_at);
        Beaten::Alive(sent_at + self.lease)
    }

    /// Takes the nodes' rows, which were read between a beat sent at `sent_at` and `read_at`. Returns the
    /// nodes to end. A node is ended if its beat stood still for its own lease, whatever the lease of this
    /// node is. It is also ended if, at two consecutive beats of this node, its beat stood still and its
    /// address refused new connections (`refuses`).
    ///
    /// The time is counted from the `read_at` of the rows that first had the beat to the present `sent_at`.
    /// The other node sent the beat before that `read_at`, so the other node's own lease is over by now.
    pub fn observed(
        &mut self,
        sent_at: Moment,
        read_at: Moment,
        nodes: &[NodeRow],
        refuses: impl Fn(Incarnation) -> bool,
    ) -> Vec<NodeRow> {
        let living = |node: &&NodeRow| node.incarnation != self.incarnation && node.state != NodeState::Ended;
        let present: Vec<&NodeRow> = nodes.iter().filter(living).collect();
        self.others
            .retain(|incarnation, _| present.iter().any(|node| node.incarnation == *incarnation));
        let is_dead = |node: &&NodeRow| {
            let Some(watched) = self
                .others
                .get_mut(&node.incarnation)
                .filter(|watched| watched.beat == node.beat)
            else {
                self.others.insert(
                    node.incarnation,
                    Watched {
                        beat: node.beat,
                        since: read_at,
                        refused: 0,
                    },
                );
                return false;
            };
            watched.refused = if refuses(node.incarnation) {
                watched.refused + 1
            } else {
                0
            };
            let lease = node.lease_or(self.lease);
            sent_at.since(watched.since) >= lease || watched.refused >= REFUSED_BEATS
        };
        present.into_iter().filter(is_dead).cloned().collect()
    }

    /// Returns the watched nodes that are no longer alive according to these rows, and when their last beat
    /// was first seen.
    pub fn silenced<'a>(&'a self, nodes: &'a [NodeRow]) -> impl Iterator<Item = (Incarnation, Moment)> + 'a {
        let is_live = |incarnation| {
            nodes
                .iter()
                .any(|node| node.incarnation == incarnation && node.state != NodeState::Ended)
        };
        let watched = self
            .others
            .iter()
            .map(|(incarnation, watched)| (*incarnation, watched.since));
        watched.filter(move |(incarnation, _)| !is_live(*incarnation))
    }

    /// Notes whether the group contains this node. The rows were read after a beat sent at `sent_at`, or
    /// after the node joined at that moment. A node that was outside for a lease is no longer ready. A link
    /// that was lost is usually back long before that.
    pub fn grouped(&mut self, sent_at: Moment, inside: bool) {
        if inside {
            self.outside_since = None;
            self.ready = true;
            return;
        }
        let since = *self.outside_since.get_or_insert(sent_at);
        if sent_at.since(since) >= self.lease {
            self.ready = false;
        }
    }
}

/// Returns true if two consecutive beats of this node are too far apart to infer anything about other nodes:
/// the database may have been unavailable to all nodes in between.
///
/// A third of a lease is not too far apart. If the database is far away or commits slowly, a beat and the
/// reads after it may take longer than two intervals, and such a node must still be able to end others.
pub(crate) fn are_far_apart(last: Option<Moment>, sent_at: Moment, lease: Duration, beat: Duration) -> bool {
    last.is_none_or(|last| sent_at.since(last) > (2 * beat).max(lease / 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);
    const BEAT: Duration = Duration::from_millis(300);

    fn life() -> MemberLifecycle {
        MemberLifecycle::new(Incarnation::new(1).unwrap(), LEASE, BEAT)
    }

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    fn never(_: Incarnation) -> bool {
        false
    }

    fn always(_: Incarnation) -> bool {
        true
    }

    fn other(beat: u64) -> NodeRow {
        NodeRow::ready(2, beat)
    }

    #[test]
    fn the_lease_begins_when_the_beat_is_about_to_be_sent() {
        assert_eq!(life().beaten(at(100), Some(1)), Beaten::Alive(at(3_100)));
    }

    #[test]
    fn an_ended_row_ends_the_incarnation_and_a_beat_that_does_not_grow_raises_the_alarm() {
        let mut life = life();
        assert_eq!(life.beaten(at(0), Some(5)), Beaten::Alive(at(3_000)));
        assert_eq!(
            life.beaten(at(300), Some(5)),
            Beaten::WentBackwards {
                confirmed: 5,
                counted: 5
            }
        );
        assert_eq!(life.beaten(at(600), None), Beaten::Ended);
    }

    #[test]
    fn a_node_whose_beat_stands_still_for_a_lease_is_ended() {
        let mut life = life();
        for beat in 0..=10 {
            let sent_at = at(beat * 300);
            life.beaten(sent_at, Some(beat + 1));
            assert_eq!(
                life.observed(sent_at, sent_at, &[other(7)], never).len(),
                usize::from(beat == 10),
                "after beat {beat}"
            );
        }
    }

    #[test]
    fn a_node_is_judged_by_its_own_lease() {
        for (millis, beats) in [(1_500, 5), (30_000, 100)] {
            let mut life = life();
            let its = NodeRow {
                lease: Some(Duration::from_millis(millis)),
                ..other(7)
            };
            for beat in 0..=beats {
                let sent_at = at(beat * 300);
                life.beaten(sent_at, Some(beat + 1));
                assert_eq!(
                    life.observed(sent_at, sent_at, std::slice::from_ref(&its), never)
                        .len(),
                    usize::from(beat == beats),
                    "after beat {beat}"
                );
            }
        }
    }

    #[test]
    fn a_node_is_ended_only_after_its_lease_however_long_reading_took() {
        let mut life = life();
        for beat in 0..=11 {
            let sent_at = at(beat * 300);
            life.beaten(sent_at, Some(beat + 1));
            // The other node's last beat may have been sent up to 200 ms after this node's beat.
            assert_eq!(
                life.observed(sent_at, at(beat * 300 + 200), &[other(7)], never)
                    .len(),
                usize::from(beat == 11),
                "after beat {beat}"
            );
        }
    }

    #[test]
    fn a_node_that_beats_is_not_ended() {
        let mut life = life();
        for beat in 0..=30 {
            let sent_at = at(beat * 300);
            life.beaten(sent_at, Some(beat + 1));
            assert!(
                life.observed(sent_at, sent_at, &[other(beat / 5)], never)
                    .is_empty()
            );
        }
    }

    #[test]
    fn a_gap_between_a_nodes_own_beats_proves_nothing() {
        let mut life = life();
        life.beaten(at(0), Some(1));
        assert!(life.observed(at(0), at(0), &[other(7)], never).is_empty());
        life.beaten(at(10_000), Some(2));
        assert!(
            life.observed(at(10_000), at(10_000), &[other(7)], never)
                .is_empty()
        );
    }

    #[test]
    fn a_node_whose_own_beats_take_long_still_ends_others() {
        let mut life = life();
        for beat in 0..=3 {
            let sent_at = at(beat * 1_000);
            life.beaten(sent_at, Some(beat + 1));
            let dead = life.observed(sent_at, sent_at, &[other(7)], never);
            assert_eq!(dead.len(), usize::from(beat == 3), "after beat {beat}");
        }
    }

    #[test]
    fn a_node_that_refuses_connections_is_ended_after_two_beats_unless_it_beats() {
        let mut life = life();
        for beat in 0..=2 {
            let sent_at = at(beat * 300);
            life.beaten(sent_at, Some(beat + 1));
            assert_eq!(
                life.observed(sent_at, sent_at, &[other(7)], always).len(),
                usize::from(beat == 2),
                "after beat {beat}"
            );
        }
        for beat in 3..=30 {
            let sent_at = at(beat * 300);
            life.beaten(sent_at, Some(beat + 1));
            assert!(
                life.observed(sent_at, sent_at, &[other(7 + beat)], always)
                    .is_empty(),
                "it beats"
            );
        }
    }

    #[test]
    fn occasional_refusals_prove_nothing() {
        let mut life = life();
        for beat in 0..10 {
            let sent_at = at(beat * 300);
            life.beaten(sent_at, Some(beat + 1));
            assert!(
                life.observed(sent_at, sent_at, &[other(7)], |_| beat % 2 == 0)
                    .is_empty(),
                "after beat {beat}"
            );
        }
    }

    #[test]
    fn refusals_across_a_gap_between_a_nodes_own_beats_prove_nothing() {
        let mut life = life();
        for (beat, millis) in [0, 300, 1_400, 1_700].into_iter().enumerate() {
            life.beaten(at(millis), Some(beat as u64 + 1));
            assert!(
                life.observed(at(millis), at(millis), &[other(7)], always)
                    .is_empty(),
                "at {millis}"
            );
        }
    }

    #[test]
    fn a_node_outside_the_group_for_a_lease_is_not_ready_until_it_is_inside_again() {
        let mut life = life();
        assert_eq!((life.state(false), life.is_inside()), (NodeState::Joining, false));
        life.grouped(at(0), true);
        assert_eq!(
            (life.state(false), life.state(true)),
            (NodeState::Ready, NodeState::Leaving)
        );
        for beat in 0..=20 {
            let sent_at = at(300 + beat * 300);
            life.beaten(sent_at, Some(beat + 1));
            life.grouped(sent_at, false);
            assert_eq!(life.is_ready(), beat < 10, "after beat {beat}");
            assert!(!life.is_inside());
        }
        life.grouped(at(7_000), true);
        assert!(life.is_ready() && life.is_inside());
    }

    #[test]
    fn time_without_beats_does_not_count_as_time_outside_the_group() {
        let mut life = life();
        life.grouped(at(0), true);
        for (beat, millis) in [300, 600, 20_000, 20_300].into_iter().enumerate() {
            life.beaten(at(millis), Some(beat as u64 + 1));
            life.grouped(at(millis), false);
            assert!(life.is_ready(), "at {millis}");
        }
    }
}
