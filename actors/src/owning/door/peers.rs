//! The peers that are and were alive: which of them may get confirmations of notices, and how long a peer
//! that is gone may still refuse based on a notice.

use std::time::Duration;

use crate::ids::Incarnation;
use crate::owning::door::DOOR_TTL;
use crate::time::Moment;

/// The peers of a node, according to the nodes' rows that it has read.
#[derive(Debug)]
pub struct KnownPeers {
    lease: Duration,
    living: Vec<Incarnation>,
    /// A moment before the last read of the rows.
    asked_at: Option<Moment>,
    /// Since this moment the rows were read often enough that no peer can have come and gone unseen.
    seen_since: Option<Moment>,
    /// When a read of the rows last showed that a peer is gone.
    departed_at: Option<Moment>,
}

impl KnownPeers {
    /// Makes the peers of a node in a cluster with this lease, before its first read.
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            living: Vec::new(),
            asked_at: None,
            seen_since: None,
            departed_at: None,
        }
    }

    /// Learns which peers are alive, from rows that were read between `asked_at` and `now`.
    ///
    /// A peer without a live row was gone by `now` at the latest. A peer with a live row was still alive at
    /// `asked_at`. Waits that count from these moments are never too short.
    pub fn know(&mut self, asked_at: Moment, now: Moment, living: Vec<Incarnation>) {
        if self.asked_at.is_none_or(|before| now.since(before) > self.lease) {
            self.seen_since = Some(now);
        }
        if self.living.iter().any(|peer| !living.contains(peer)) {
            self.departed_at = Some(now);
        }
        self.living = living;
        self.asked_at = Some(asked_at);
    }

    /// Returns true if notices may be confirmed to this peer: it was alive within the last lease. So a peer
    /// gets its last confirmation at most one lease after it was ended.
    pub fn may_confirm(&self, now: Moment, peer: Incarnation) -> bool {
        self.asked_at
            .is_some_and(|asked_at| now.since(asked_at) < self.lease)
            && self.living.contains(&peer)
    }

    /// A change was made at `done_at` or earlier. Returns until when a live peer that has not acknowledged it
    /// may still refuse based on the version before. An owner on a node that was declared dead may confirm
    /// notices until that node's lease runs out, and a confirmation is valid for [`DOOR_TTL`].
    pub fn unacknowledged_until(&self, done_at: Moment) -> Moment {
        done_at + self.lease + DOOR_TTL
    }

    /// Returns until when a peer that is gone may still refuse based on an old version; `None` if that time
    /// is over.
    pub fn departed_until(&self, now: Moment) -> Option<Moment> {
        let since = match (self.departed_at, self.seen_since) {
            (Some(departed_at), Some(seen_since)) => departed_at.max(seen_since),
            (None, Some(seen_since)) => seen_since,
            (_, None) => now,
        };
        let until = since + self.lease + DOOR_TTL;
        (until > now).then_some(until)
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

    #[test]
    fn only_a_peer_that_was_alive_within_a_lease_gets_confirmations() {
        let mut peers = KnownPeers::new(LEASE);
        assert!(!peers.may_confirm(at(0), peer(1)));
        // The read took long: a live peer may have been ended right after the read began.
        peers.know(at(0), at(900), vec![peer(1)]);
        assert!(peers.may_confirm(at(2_999), peer(1)) && !peers.may_confirm(at(0), peer(2)));
        assert!(
            !peers.may_confirm(at(3_000), peer(1)),
            "the rows were not read since"
        );
        peers.know(at(3_100), at(3_100), vec![peer(2)]);
        assert!(!peers.may_confirm(at(3_100), peer(1)) && peers.may_confirm(at(3_100), peer(2)));
    }

    #[test]
    fn a_peer_that_is_gone_may_refuse_for_a_lease_plus_the_time_for_which_notices_count() {
        let mut peers = KnownPeers::new(LEASE);
        assert_eq!(peers.departed_until(at(0)), Some(at(5_000)), "nothing is known");
        for beat in 0..=40 {
            peers.know(
                at(beat * 300),
                at(beat * 300),
                if beat < 30 {
                    vec![peer(1), peer(2)]
                } else {
                    vec![peer(2)]
                },
            );
            let (now, until) = (at(beat * 300), peers.departed_until(at(beat * 300)));
            match beat {
                0..=16 => assert_eq!(until, Some(at(5_000)), "earlier peers are not known"),
                17..=29 => assert_eq!(until, None),
                30.. => assert_eq!(until, Some(at(14_000)).filter(|until| *until > now)),
            }
        }
        // Rows were not read for longer than a lease: a peer may have come and gone.
        peers.know(at(20_000), at(20_000), vec![peer(2)]);
        assert_eq!(peers.departed_until(at(20_000)), Some(at(25_000)));
        assert_eq!(peers.unacknowledged_until(at(21_000)), at(26_000));
    }
}
