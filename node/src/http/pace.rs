//! How long a connection may keep us waiting: a state machine that is told what happens and says when
//! patience ends.
//!
//! One clock for a connection, armed only while we wait for the client: a request that comes whole, and an
//! answer that is taken at once, set no timer. hyper's own limit for heads sets one for every request, counts
//! idle time as part of it, and answers nobody.

use std::time::{Duration, Instant};

/// How many bytes of answers a client must take within the limit for it. In all and not by byte, or a trickle
/// would hold a connection for ever; a larger answer has that much longer.
const TAKEN_BYTES_MIN: u64 = 16 * 1024;

/// How long clients that keep a stopping node waiting still have: a request on its way arrives in less.
pub(crate) const STOPPING_PATIENCE: Duration = Duration::from_secs(1);

/// The limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first byte of a head (of the first one: from the connection's start) to its last.
    pub(super) header: Duration,
    /// Between an answer and the next request.
    pub(super) idle: Duration,
    /// For taking [`TAKEN_BYTES_MIN`] of answers.
    pub(super) write: Duration,
}

/// Why a connection ends before its client wants it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// Nothing was sent on it, ever.
    Silent,
    /// A head was begun, and not ended in time.
    Header,
    /// No request for too long, which is nobody's fault.
    Idle,
    /// Answers are not taken.
    Write,
}

/// Whom a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// For the first byte.
    Silent,
    /// For the rest of a head.
    Head,
    /// For us: a request is being answered. Its body has a limit of its own, which its handler keeps.
    Busy,
    /// For the next request.
    Idle,
}

/// Answers that the system does not take, as the client does not.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    taken_bytes: u64,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Pace {
    limits: Limits,
    phase: Phase,
    since: Instant,
    stall: Option<Stall>,
    stopping_since: Option<Instant>,
    /// A body may still be coming in that nobody waited for.
    left_unread: bool,
}

impl Pace {
    /// A connection that starts now.
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            phase: Phase::Silent,
            since: now,
            stall: None,
            stopping_since: None,
            left_unread: false,
        }
    }

    /// Bytes came in. The time is asked for only where it counts.
    pub(super) fn received(&mut self, now: impl FnOnce() -> Instant) {
        match self.phase {
            Phase::Silent => self.phase = Phase::Head,
            Phase::Idle => (self.phase, self.since) = (Phase::Head, now()),
            Phase::Head | Phase::Busy => {}
        }
    }

    /// A head is complete.
    pub(super) fn asked(&mut self) {
        self.phase = Phase::Busy;
    }

    /// The answer is on its way, to a request whose body was read or not.
    pub(super) fn answered(&mut self, left_unread: bool, now: Instant) {
        (self.phase, self.since) = (Phase::Idle, now);
        self.left_unread |= left_unread;
    }

    /// Whether a client may be sending what nobody reads any more.
    pub(super) fn has_left_unread(&self) -> bool {
        self.left_unread
    }

    /// The system takes no more of what is to be written.
    pub(super) fn stalled(&mut self, now: impl FnOnce() -> Instant) {
        self.stall.get_or_insert_with(|| Stall {
            since: now(),
            taken_bytes: 0,
        });
    }

    /// It took so much.
    pub(super) fn wrote(&mut self, bytes: usize, now: impl FnOnce() -> Instant) {
        if let Some(stall) = &mut self.stall {
            stall.taken_bytes += bytes as u64;
            if stall.taken_bytes >= TAKEN_BYTES_MIN {
                *stall = Stall {
                    since: now(),
                    taken_bytes: 0,
                };
            }
        }
    }

    /// It took everything.
    pub(super) fn flushed(&mut self) {
        self.stall = None;
    }

    /// Whether answers wait for the client to take them.
    pub(super) fn is_stalled(&self) -> bool {
        self.stall.is_some()
    }

    /// The node stops.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stopping_since.get_or_insert(now);
    }

    /// When patience ends, and with what; none while the client waits for us.
    pub(super) fn deadline(&self) -> Option<(Instant, Late)> {
        let waits_for = match self.phase {
            Phase::Silent => Some((self.since + self.limits.header, Late::Silent)),
            Phase::Head => Some((self.since + self.limits.header, Late::Header)),
            Phase::Idle => Some((self.since + self.limits.idle, Late::Idle)),
            Phase::Busy => None,
        };
        let to_write = self
            .stall
            .map(|stall| (stall.since + self.limits.write, Late::Write));
        let (at, late) = waits_for.into_iter().chain(to_write).min_by_key(|(at, _)| *at)?;
        let stopping = self.stopping_since.map(|since| since + STOPPING_PATIENCE);
        Some((stopping.map_or(at, |stopping| stopping.min(at)), late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        header: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(20),
    };

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_head_has_its_time_in_all_and_not_by_byte() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS, start);
        assert_eq!(pace.deadline(), Some((at(start, 10), Late::Silent)));
        for seconds in 1..10 {
            pace.received(|| at(start, seconds));
            assert_eq!(pace.deadline(), Some((at(start, 10), Late::Header)));
        }
        pace.asked();
        pace.received(|| at(start, 11));
        assert_eq!(pace.deadline(), None);
        pace.answered(false, at(start, 12));
        assert_eq!(pace.deadline(), Some((at(start, 87), Late::Idle)));
        pace.received(|| at(start, 80));
        assert_eq!(pace.deadline(), Some((at(start, 90), Late::Header)));
    }

    #[test]
    fn a_trickle_does_not_count_as_taking_answers() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS, start);
        pace.received(|| start);
        pace.asked();
        pace.stalled(|| start);
        for seconds in 1..20 {
            pace.wrote(100, || at(start, seconds));
            pace.stalled(|| at(start, seconds));
        }
        assert_eq!(pace.deadline(), Some((at(start, 20), Late::Write)));
        pace.wrote(TAKEN_BYTES_MIN as usize, || at(start, 19));
        assert_eq!(pace.deadline(), Some((at(start, 39), Late::Write)));
        pace.flushed();
        assert_eq!(pace.deadline(), None);
    }

    #[test]
    fn a_stopping_node_waits_for_nobody_long_and_for_its_own_answers_as_ever() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS, start);
        pace.received(|| start);
        pace.stop(at(start, 1));
        assert_eq!(
            pace.deadline(),
            Some((at(start, 1) + STOPPING_PATIENCE, Late::Header))
        );
        pace.asked();
        assert_eq!(pace.deadline(), None);
        let mut overdue = Pace::new(LIMITS, start);
        overdue.stop(at(start, 9) + Duration::from_millis(500));
        assert_eq!(
            overdue.deadline(),
            Some((at(start, 10), Late::Silent)),
            "stopping gives nobody more time"
        );
    }
}
