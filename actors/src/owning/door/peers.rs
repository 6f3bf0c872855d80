//! The peers that are and were alive: which of them may get confirmations of notices, and how long a peer
//! that is gone may still refuse based on a notice.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use crate::ids::{Incarnation, PEERS_MAX};
use crate::owning::door::DOOR_TTL;
use crate::store::{NodeRow, NodeState};
use crate::time::Moment;

/// The peers of a node, according to the nodes' rows that it has read.
#[derive(Debug)]
pub struct KnownPeers {
    /// The lease of this node.
    lease: Duration,
    /// The live peers and their leases.
    living: HashMap<Incarnation, Duration>,
    /// The peers whose rows say that they are ended.
    ended: HashSet<Incarnation>,
    /// A moment before the last read of the rows.
    asked_at: Option<Moment>,
    /// Since this moment the rows were read often enough that no peer can have come and gone unseen.
    seen_since: Option<Moment>,
    /// The last time that the rows showed a peer to be gone whose door was not known to be closed.
    departed_at: Option<Moment>,
    /// Latest time at which the lease of a peer that is gone may end.
    departed_lease_until: Option<Moment>,
    /// Peers that are leaving and said that their doors are closed, at most [`CLOSED_MAX`].
    closed: VecDeque<Incarnation>,
}

/// Maximum number of peers whose doors are remembered as closed. Fewer peers leave within the time for which
/// that matters. A change waits for the door of a peer that is forgotten too early.
const CLOSED_MAX: usize = 2 * PEERS_MAX;

impl KnownPeers {
    /// Makes the peers of a node with this lease, before its first read.
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            living: HashMap::new(),
            ended: HashSet::new(),
            asked_at: None,
            seen_since: None,
            departed_at: None,
            departed_lease_until: None,
            closed: VecDeque::new(),
        }
    }

    /// Learns which peers are alive, from the rows of all other incarnations, which were read between
    /// `asked_at` and `now`.
    ///
    /// A peer without a live row was gone by `now` at the latest. A peer with a live row was still alive at
    /// `asked_at`. Waits that count from these moments are never too short.
    pub fn know(&mut self, asked_at: Moment, now: Moment, others: &[NodeRow]) {
        let is_ended = |row: &&NodeRow| row.state == NodeState::Ended;
        let living: HashMap<Incarnation, Duration> = others
            .iter()
            .filter(|row| !is_ended(row))
            .map(|row| (row.incarnation, row.lease_or(self.lease)))
            .collect();
        // A live peer is ended only after its lease without a beat. So reads that are closer together than
        // the shortest lease miss no peer.
        let shortest = living.values().copied().fold(self.lease, Duration::min);
        if self.asked_at.is_none_or(|before| now.since(before) > shortest) {
            self.seen_since = Some(now);
        }
        let is_open = |peer: &Incarnation| !self.closed.contains(peer);
        let gone = self.living.iter();
        let gone = gone.filter(|(peer, _)| !living.contains_key(*peer) && is_open(peer));
        // What is left of the leases of peers that are gone.
        let mut departed: Vec<Duration> = gone.map(|(_, lease)| *lease).collect();
        // A peer that came and went between two reads left its row behind, and so did peers that were ended
        // before the first read, which may be long ago.
        let ended = others.iter().filter(is_ended);
        let unseen = ended.clone().filter(|row| {
            let peer = row.incarnation;
            !self.ended.contains(&peer) && !self.living.contains_key(&peer) && is_open(&peer)
        });
        let left = |row: &NodeRow| {
            let lease = row.lease_or(self.lease);
            lease.saturating_sub(row.ended_for.unwrap_or_default())
        };
        departed.extend(unseen.map(left));
        if let Some(longest) = departed.into_iter().max() {
            self.departed_at = Some(now);
            self.departed_lease_until = self.departed_lease_until.max(Some(now + longest));
        }
        self.ended = ended.map(|row| row.incarnation).collect();
        self.living = living;
        self.asked_at = Some(asked_at);
    }

    /// Notes that this peer, which is leaving, has closed its door: it refuses nothing any more.
    pub fn close(&mut self, peer: Incarnation) {
        if !self.is_closed(peer) {
            if self.closed.len() == CLOSED_MAX {
                self.closed.pop_front();
            }
            self.closed.push_back(peer);
        }
    }

    /// Returns true if the door of this peer is closed.
    pub fn is_closed(&self, peer: Incarnation) -> bool {
        self.closed.contains(&peer)
    }

    /// Returns true if notices may be confirmed to this peer: it was alive within the last lease. So a peer
    /// gets its last confirmation at most one lease after it was ended.
    pub fn may_confirm(&self, now: Moment, peer: Incarnation) -> bool {
        self.asked_at
            .is_some_and(|asked_at| now.since(asked_at) < self.lease)
            && self.living.contains_key(&peer)
    }

    /// Returns until when a live peer that has not acknowledged a change may still refuse based on the
    /// version before. The change was made at `done_at` or earlier. An owner on a node that was declared dead
    /// may confirm notices until that node's lease runs out, and a confirmation is valid for [`DOOR_TTL`].
    pub fn unacknowledged_until(&self, done_at: Moment) -> Moment {
        self.confirmed_until(done_at) + DOOR_TTL
    }

    /// Returns until when a peer that is gone may still refuse based on an old version; `None` if that time
    /// is over.
    pub fn departed_until(&self, now: Moment) -> Option<Moment> {
        let since = match (self.departed_at, self.seen_since) {
            (Some(departed_at), Some(seen_since)) => departed_at.max(seen_since),
            (None, Some(seen_since)) => seen_since,
            (_, None) => now,
        };
        let until = self.confirmed_until(since) + DOOR_TTL;
        (until > now).then_some(until)
    }

    /// Returns until when an owner may still confirm notices that were superseded at `since`, or confirm
    /// notices to a peer that left at `since`. A live node confirms them for at most its own lease, and a
    /// node that is gone until its lease ends.
    fn confirmed_until(&self, since: Moment) -> Moment {
        let longest = self.living.values().copied().fold(self.lease, Duration::max);
        (since + longest).max(self.departed_lease_until.unwrap_or(Moment::ORIGIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    fn peer(number: u64) -> Incarnation {
        Incarnation::new(number).unwrap()
    }

    fn row(number: u64, state: NodeState, lease: Option<Duration>) -> NodeRow {
        NodeRow {
            state,
            lease,
            ..NodeRow::ready(number, 1)
        }
    }

    /// Returns the rows of live peers, without their leases.
    fn live(numbers: &[u64]) -> Vec<NodeRow> {
        let rows = numbers.iter().map(|number| row(*number, NodeState::Ready, None));
        rows.collect()
    }

    #[test]
    fn only_a_peer_that_was_alive_within_a_lease_gets_confirmations() {
        let mut peers = KnownPeers::new(LEASE);
        assert!(!peers.may_confirm(at(0), peer(1)));
        // The read took long: a live peer may have been ended right after the read began.
        peers.know(at(0), at(900), &live(&[1]));
        assert!(peers.may_confirm(at(2_999), peer(1)) && !peers.may_confirm(at(0), peer(2)));
        assert!(
            !peers.may_confirm(at(3_000), peer(1)),
            "the rows were not read since"
        );
        peers.know(at(3_100), at(3_100), &live(&[2]));
        assert!(!peers.may_confirm(at(3_100), peer(1)) && peers.may_confirm(at(3_100), peer(2)));
    }

    #[test]
    fn a_peer_that_closed_its_door_before_it_left_refuses_nothing() {
        let mut peers = KnownPeers::new(LEASE);
        let beats = |peers: &mut KnownPeers, beats: std::ops::Range<u64>, living: &[u64]| {
            let rows: Vec<NodeRow> = living
                .iter()
                .map(|number| row(*number, NodeState::Ready, None))
                .collect();
            for beat in beats {
                peers.know(at(beat * 300), at(beat * 300), &rows);
            }
        };
        beats(&mut peers, 0..30, &[1, 2, 3]);
        peers.close(peer(1));
        assert!(peers.is_closed(peer(1)) && !peers.is_closed(peer(2)));
        beats(&mut peers, 30..31, &[2, 3]);
        assert_eq!(peers.departed_until(at(9_000)), None);
        // A read that began before the peer left changes nothing.
        beats(&mut peers, 31..32, &[1, 2, 3]);
        beats(&mut peers, 32..33, &[2, 3]);
        assert_eq!(peers.departed_until(at(9_600)), None);
        beats(&mut peers, 33..34, &[3]);
        assert_eq!(
            peers.departed_until(at(9_900)),
            Some(at(14_900)),
            "its door is open"
        );
        for number in 10..10 + CLOSED_MAX as u64 {
            peers.close(peer(number));
        }
        assert!(!peers.is_closed(peer(1)), "the oldest is forgotten");
    }

    #[test]
    fn a_peer_that_is_gone_may_refuse_for_a_lease_plus_the_time_for_which_notices_count() {
        let mut peers = KnownPeers::new(LEASE);
        assert_eq!(peers.departed_until(at(0)), Some(at(5_000)), "nothing is known");
        for beat in 0..=40 {
            peers.know(
                at(beat * 300),
                at(beat * 300),
                &live(if beat < 30 { &[1, 2] } else { &[2] }),
            );
            let (now, until) = (at(beat * 300), peers.departed_until(at(beat * 300)));
            match beat {
                0..=16 => assert_eq!(until, Some(at(5_000)), "earlier peers are not known"),
                17..=29 => assert_eq!(until, None),
                30.. => assert_eq!(until, Some(at(14_000)).filter(|until| *until > now)),
            }
        }
        // Rows were not read for longer than a lease: a peer may have come and gone.
        peers.know(at(20_000), at(20_000), &live(&[2]));
        assert_eq!(peers.departed_until(at(20_000)), Some(at(25_000)));
        assert_eq!(peers.unacknowledged_until(at(21_000)), at(26_000));
    }

    #[test]
    fn the_longest_lease_counts_among_this_node_live_peers_and_peers_that_are_gone() {
        let mut peers = KnownPeers::new(LEASE);
        let lease = |seconds| Some(Duration::from_secs(seconds));
        let (long, short) = (
            row(1, NodeState::Ready, lease(30)),
            row(2, NodeState::Ready, lease(1)),
        );
        for beat in 0..=300 {
            peers.know(at(beat * 300), at(beat * 300), &[long.clone(), short.clone()]);
        }
        assert_eq!(peers.departed_until(at(90_000)), None);
        assert_eq!(peers.unacknowledged_until(at(90_000)), at(122_000));
        // The peer with the short lease is gone: the other one may confirm notices to it for its own lease.
        peers.know(at(90_300), at(90_300), std::slice::from_ref(&long));
        assert_eq!(peers.departed_until(at(90_300)), Some(at(122_300)));
        // Now the other one is gone as well, whatever its row says later.
        let mut next = row(3, NodeState::Ready, lease(3));
        next.id = long.id.clone();
        for beat in 302..=422 {
            peers.know(at(beat * 300), at(beat * 300), std::slice::from_ref(&next));
        }
        let gone_at = 302 * 300;
        assert_eq!(peers.departed_until(at(gone_at)), Some(at(gone_at + 32_000)));
        assert_eq!(peers.departed_until(at(gone_at + 32_000)), None);
        assert_eq!(peers.unacknowledged_until(at(126_600)), at(131_600));
    }

    #[test]
    fn a_peer_that_came_and_went_between_two_reads_is_known_by_its_row() {
        let mut peers = KnownPeers::new(LEASE);
        let before = row(1, NodeState::Ended, None);
        for beat in 0..=30 {
            peers.know(at(beat * 300), at(beat * 300), std::slice::from_ref(&before));
        }
        assert_eq!(peers.departed_until(at(9_000)), None);
        let unseen = row(2, NodeState::Ended, Some(Duration::from_secs(20)));
        peers.know(at(9_300), at(9_300), &[before, unseen]);
        assert_eq!(peers.departed_until(at(9_300)), Some(at(31_300)));
    }

    #[test]
    fn a_peer_that_was_ended_before_the_first_read_is_waited_for_until_its_lease_is_over() {
        let until = |ended_for| {
            let mut peers = KnownPeers::new(LEASE);
            let gone = NodeRow {
                ended_for,
                ..row(1, NodeState::Ended, Some(Duration::from_secs(30)))
            };
            peers.know(at(0), at(1_000), std::slice::from_ref(&gone));
            let until = peers.departed_until(at(1_000)).unwrap();
            assert_eq!(peers.unacknowledged_until(at(1_000)), until);
            until
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(until(None), at(33_000), "it may have been ended just now");
        assert_eq!(until(seconds(0)), at(33_000));
        assert_eq!(until(seconds(20)), at(13_000));
        assert_eq!(
            until(seconds(3_600)),
            at(6_000),
            "others may have been there before"
        );
    }

    #[test]
    fn reads_further_apart_than_the_shortest_lease_may_have_missed_a_peer() {
        let mut peers = KnownPeers::new(LEASE);
        let short = [row(1, NodeState::Ready, Some(Duration::from_millis(900)))];
        for beat in 0..=30 {
            peers.know(at(beat * 300), at(beat * 300), &short);
        }
        assert_eq!(peers.departed_until(at(9_000)), None);
        peers.know(at(10_000), at(10_000), &short);
        assert_eq!(peers.departed_until(at(10_000)), Some(at(15_000)));
    }
}
