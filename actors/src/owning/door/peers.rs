//! Which peers there are and were: to whom owners confirm what is sold out, and how long one who is gone may
//! still refuse by it.

use std::time::Duration;

use crate::ids::Incarnation;
use crate::owning::door::DOOR_TTL;
use crate::time::Moment;

/// The peers of a node, as its reads of the rows tell them.
#[derive(Debug)]
pub struct Acquaintances {
    lease: Duration,
    living: Vec<Incarnation>,
    /// Before the rows that said so were read.
    asked_at: Option<Moment>,
    /// Since when the rows were read often enough that nobody came and went unseen.
    seen_since: Option<Moment>,
    /// When one was seen last to be gone.
    departed_at: Option<Moment>,
}

impl Acquaintances {
    /// Of a node in a cluster with this lease, that has read nothing yet.
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            living: Vec::new(),
            asked_at: None,
            seen_since: None,
            departed_at: None,
        }
    }

    /// These are the peers that live, by rows read after `asked_at` and by `now`.
    ///
    /// Who is gone is so since `now` at the latest, who lives did so at `asked_at` at the least: whichever of
    /// them is counted from, nobody waits too short.
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

    /// Whether what owners say may be confirmed to this peer: it lived a lease ago at the most. So one that
    /// was ended hears no confirmation a lease after.
    pub fn may_confirm(&self, now: Moment, peer: Incarnation) -> bool {
        self.asked_at
            .is_some_and(|asked_at| now.since(asked_at) < self.lease)
            && self.living.contains(&peer)
    }

    /// Until when one who lives and was not heard to forget may refuse by what a change made untrue, that was
    /// made by `done_at`: owners that were ended confirm until their leases end, and what they confirm counts
    /// for its time.
    pub fn unheard_until(&self, done_at: Moment) -> Moment {
        done_at + self.lease + DOOR_TTL
    }

    /// The same of those who are gone; `None`, if nobody went that long ago.
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
    fn only_who_lived_within_a_lease_hears_confirmations() {
        let mut peers = Acquaintances::new(LEASE);
        assert!(!peers.may_confirm(at(0), peer(1)));
        // Reading took its time: whoever lived may have been ended right after it was asked.
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
    fn whoever_is_gone_is_waited_for_over_a_lease_and_the_time_that_notices_count() {
        let mut peers = Acquaintances::new(LEASE);
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
                0..=16 => assert_eq!(until, Some(at(5_000)), "who went before is not known"),
                17..=29 => assert_eq!(until, None),
                30.. => assert_eq!(until, Some(at(14_000)).filter(|until| *until > now)),
            }
        }
        // Rows were not read for longer than a lease: somebody may have come and gone.
        peers.know(at(20_000), at(20_000), vec![peer(2)]);
        assert_eq!(peers.departed_until(at(20_000)), Some(at(25_000)));
        assert_eq!(peers.unheard_until(at(21_000)), at(26_000));
    }
}
