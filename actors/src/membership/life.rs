//! A node's own life and its view of others', as a state machine: what each beat's answer means, and who has stopped beating.

use std::collections::HashMap;
use std::time::Duration;

use crate::ids::Incarnation;
use crate::store::{NodeRow, NodeState};
use crate::time::Moment;

/// What the answer to a beat means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beaten {
    /// Alive; the lease holds until then.
    Alive(Moment),
    /// Somebody ended this incarnation, or its row is gone: drop everything and join anew.
    Ended,
    /// The database went back behind what it had confirmed: alarm, drop everything and join anew.
    WentBackwards {
        /// The beat that it had confirmed.
        confirmed: u64,
        /// The beat it counts now.
        counted: u64,
    },
}

/// One incarnation's life; see the module.
#[derive(Debug)]
pub struct Life {
    incarnation: Incarnation,
    lease: Duration,
    beat: Duration,
    confirmed: u64,
    last_sent: Option<Moment>,
    over: bool,
    others: HashMap<Incarnation, Watched>,
}

/// Another's beat, and since when it stands still in the eyes of this node.
#[derive(Debug, Clone, Copy)]
struct Watched {
    beat: u64,
    since: Moment,
}

impl Life {
    /// The life of an incarnation that has joined and not beaten yet.
    pub fn new(incarnation: Incarnation, lease: Duration, beat: Duration) -> Self {
        Self { incarnation, lease, beat, confirmed: 0, last_sent: None, over: false, others: HashMap::new() }
    }

    /// Which incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// It is over, whatever its row may say later: only another incarnation may live.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// A beat sent after `sent_at` was answered: by the count it has now, or by nothing where the row lives no more.
    pub fn beaten(&mut self, sent_at: Moment, counted: Option<u64>) -> Beaten {
        let Some(counted) = counted else { return Beaten::Ended };
        if counted <= self.confirmed {
            return Beaten::WentBackwards { confirmed: self.confirmed, counted };
        }
        self.confirmed = counted;
        // Beats far apart prove nothing about others in between: they are watched from here on.
        if self.last_sent.is_none_or(|last| sent_at.since(last) > 2 * self.beat) {
            self.others.clear();
        }
        self.last_sent = Some(sent_at);
        Beaten::Alive(sent_at + self.lease)
    }

    /// The nodes' rows, read after a beat sent at `sent_at`: those whose beat stood still over a lease of beats of ours, to be ended.
    pub fn observed<'a>(&mut self, sent_at: Moment, nodes: &'a [NodeRow]) -> Vec<&'a NodeRow> {
        let living = |node: &&NodeRow| node.incarnation != self.incarnation && node.state != NodeState::Ended;
        let present: Vec<&NodeRow> = nodes.iter().filter(living).collect();
        self.others.retain(|incarnation, _| present.iter().any(|node| node.incarnation == *incarnation));
        let still = |node: &&NodeRow| {
            let watched = self.others.entry(node.incarnation).or_insert(Watched { beat: node.beat, since: sent_at });
            if watched.beat != node.beat {
                *watched = Watched { beat: node.beat, since: sent_at };
            }
            sent_at.since(watched.since) >= self.lease
        };
        present.into_iter().filter(still).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;

    const LEASE: Duration = Duration::from_secs(3);
    const BEAT: Duration = Duration::from_millis(300);

    fn life() -> Life {
        Life::new(Incarnation::new(1).unwrap(), LEASE, BEAT)
    }

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    fn other(beat: u64) -> NodeRow {
        NodeRow {
            id: NodeId::parse("b").unwrap(),
            incarnation: Incarnation::new(2).unwrap(),
            beat,
            state: NodeState::Ready,
            http: String::new(),
            cluster: String::new(),
            links: Vec::new(),
        }
    }

    #[test]
    fn the_lease_counts_from_before_the_beat_was_sent() {
        assert_eq!(life().beaten(at(100), Some(1)), Beaten::Alive(at(3_100)));
    }

    #[test]
    fn an_ended_row_ends_the_life_and_a_lower_beat_raises_the_alarm() {
        let mut life = life();
        assert_eq!(life.beaten(at(0), Some(5)), Beaten::Alive(at(3_000)));
        assert_eq!(life.beaten(at(300), Some(5)), Beaten::WentBackwards { confirmed: 5, counted: 5 });
        assert_eq!(life.beaten(at(600), None), Beaten::Ended);
    }

    #[test]
    fn whoever_stands_still_over_a_lease_of_beats_is_to_be_ended() {
        let mut life = life();
        for beat in 0..=10 {
            let sent_at = at(beat * 300);
            life.beaten(sent_at, Some(beat + 1));
            assert_eq!(life.observed(sent_at, &[other(7)]).len(), usize::from(beat == 10), "after beat {beat}");
        }
    }

    #[test]
    fn whoever_beats_is_left_alone() {
        let mut life = life();
        for beat in 0..=30 {
            let sent_at = at(beat * 300);
            life.beaten(sent_at, Some(beat + 1));
            assert!(life.observed(sent_at, &[other(beat / 5)]).is_empty());
        }
    }

    #[test]
    fn a_gap_between_our_own_beats_proves_nothing() {
        let mut life = life();
        life.beaten(at(0), Some(1));
        assert!(life.observed(at(0), &[other(7)]).is_empty());
        life.beaten(at(10_000), Some(2));
        assert!(life.observed(at(10_000), &[other(7)]).is_empty());
    }
}
