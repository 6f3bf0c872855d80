//! Timeouts of a connection: a state machine that is fed with events and knows the next deadline.
//!
//! A connection has one timer, which is set only while the connection waits for the client. A request that
//! arrives complete and a response that is read at once need no timer. hyper's own timeout for heads is not
//! used: it sets a timer for every request, counts idle time too, and sends no response.

use std::time::{Duration, Instant};

/// Number of bytes that a client must read within `write`. If a single byte were enough, a client could hold
/// a connection for ever by reading a trickle.
const WRITTEN_BYTES_MIN: u64 = 16 * 1024;

/// Timeout of every wait for a client while the node stops. A request that a client has already sent arrives
/// within this time.
pub(crate) const STOPPING_TIMEOUT: Duration = Duration::from_secs(1);

/// The timeouts of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From the first byte of a head to its last byte. For the first head, from the start of the connection.
    pub(super) header: Duration,
    /// Between the last byte of a response and the next request.
    pub(super) idle: Duration,
    /// For reading [`WRITTEN_BYTES_MIN`] of responses.
    pub(super) write: Duration,
}

/// What a client was too slow to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timeout {
    /// The client never sent a byte.
    Silent,
    /// The client began a head and did not finish it.
    Header,
    /// The client sent no further request, which is not an error.
    Idle,
    /// The client did not read responses.
    Write,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first byte.
    Silent,
    /// The rest of a head.
    Head,
    /// The handler. The body of the request has a timeout of its own.
    Busy,
    /// The client, which reads the response. There is a timeout only while the client leaves bytes unread.
    Responding,
    /// The next request.
    Idle,
}

/// Bytes that the system does not accept because the client does not read.
#[derive(Debug, Clone, Copy)]
struct Stall {
    since: Instant,
    written_bytes: u64,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Pace {
    limits: Limits,
    phase: Phase,
    since: Instant,
    stall: Option<Stall>,
    stopping_since: Option<Instant>,
    /// True while parts of the response's body are still to come.
    body_is_open: bool,
    /// True if a body that is not read may still arrive.
    left_unread: bool,
}

impl Pace {
    /// Makes the pace of a connection that starts now.
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            phase: Phase::Silent,
            since: now,
            stall: None,
            stopping_since: None,
            body_is_open: false,
            left_unread: false,
        }
    }

    /// Records that bytes arrived. Calls `now` only if the time matters.
    pub(super) fn received(&mut self, now: impl FnOnce() -> Instant) {
        match self.phase {
            Phase::Silent => self.phase = Phase::Head,
            Phase::Idle => (self.phase, self.since) = (Phase::Head, now()),
            Phase::Head | Phase::Busy | Phase::Responding => {}
        }
    }

    /// Records that a head is complete.
    pub(super) fn request_began(&mut self) {
        self.phase = Phase::Busy;
    }

    /// Records that the response was made. `left_unread` is true if the body may not have been read to its
    /// end.
    pub(super) fn responded(&mut self, left_unread: bool) {
        (self.phase, self.body_is_open) = (Phase::Responding, true);
        self.left_unread |= left_unread;
    }

    /// Records that no more of the response's body will come.
    pub(super) fn body_ended(&mut self) {
        self.body_is_open = false;
    }

    /// True if the client may still be sending a body that the node does not read.
    pub(super) fn has_left_unread(&self) -> bool {
        self.left_unread
    }

    /// Records that the system accepts no more bytes.
    pub(super) fn stalled(&mut self, now: impl FnOnce() -> Instant) {
        self.stall.get_or_insert_with(|| Stall {
            since: now(),
            written_bytes: 0,
        });
    }

    /// Records that the system accepted bytes.
    pub(super) fn wrote(&mut self, bytes: usize, now: impl FnOnce() -> Instant) {
        if let Some(stall) = &mut self.stall {
            stall.written_bytes += bytes as u64;
            if stall.written_bytes >= WRITTEN_BYTES_MIN {
                *stall = Stall {
                    since: now(),
                    written_bytes: 0,
                };
            }
        }
    }

    /// Records that the system accepted all bytes that were written so far. If they end a response, the
    /// connection is idle from now on. Calls `now` only if the time matters.
    pub(super) fn flushed(&mut self, now: impl FnOnce() -> Instant) {
        self.stall = None;
        if self.phase == Phase::Responding && !self.body_is_open {
            (self.phase, self.since) = (Phase::Idle, now());
        }
    }

    /// True if responses wait for the client to read them.
    pub(super) fn is_stalled(&self) -> bool {
        self.stall.is_some()
    }

    /// Records that the node is stopping.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stopping_since.get_or_insert(now);
    }

    /// Returns the next deadline, and what times out then; `None` while the connection waits only for the
    /// handler, or for more of a body.
    pub(super) fn deadline(&self) -> Option<(Instant, Timeout)> {
        let waits_for = match self.phase {
            Phase::Silent => Some((self.since + self.limits.header, Timeout::Silent)),
            Phase::Head => Some((self.since + self.limits.header, Timeout::Header)),
            Phase::Idle => Some((self.since + self.limits.idle, Timeout::Idle)),
            Phase::Busy | Phase::Responding => None,
        };
        let to_write = self
            .stall
            .map(|stall| (stall.since + self.limits.write, Timeout::Write));
        let (at, timeout) = waits_for.into_iter().chain(to_write).min_by_key(|(at, _)| *at)?;
        let stopping = self.stopping_since.map(|since| since + STOPPING_TIMEOUT);
        Some((stopping.map_or(at, |stopping| stopping.min(at)), timeout))
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
    fn the_timeout_of_a_head_is_for_the_whole_head() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS, start);
        assert_eq!(pace.deadline(), Some((at(start, 10), Timeout::Silent)));
        for seconds in 1..10 {
            pace.received(|| at(start, seconds));
            assert_eq!(pace.deadline(), Some((at(start, 10), Timeout::Header)));
        }
        pace.request_began();
        pace.received(|| at(start, 11));
        assert_eq!(pace.deadline(), None);
        pace.responded(false);
        pace.body_ended();
        pace.flushed(|| at(start, 12));
        assert_eq!(pace.deadline(), Some((at(start, 87), Timeout::Idle)));
        pace.received(|| at(start, 80));
        assert_eq!(pace.deadline(), Some((at(start, 90), Timeout::Header)));
    }

    #[test]
    fn a_trickle_does_not_count_as_reading_responses() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS, start);
        pace.received(|| start);
        pace.request_began();
        pace.stalled(|| start);
        for seconds in 1..20 {
            pace.wrote(100, || at(start, seconds));
            pace.stalled(|| at(start, seconds));
        }
        assert_eq!(pace.deadline(), Some((at(start, 20), Timeout::Write)));
        pace.wrote(WRITTEN_BYTES_MIN as usize, || at(start, 19));
        assert_eq!(pace.deadline(), Some((at(start, 39), Timeout::Write)));
        pace.flushed(|| at(start, 20));
        assert_eq!(pace.deadline(), None);
    }

    #[test]
    fn a_connection_is_idle_once_the_last_byte_of_a_response_has_left() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS, start);
        pace.received(|| start);
        pace.request_began();
        pace.responded(false);
        // Parts of the body are sent, and the client reads each part slowly.
        for seconds in [50, 100, 150] {
            pace.flushed(|| at(start, seconds));
            assert_eq!(pace.deadline(), None, "more is to come");
            pace.stalled(|| at(start, seconds));
            assert_eq!(pace.deadline(), Some((at(start, seconds + 20), Timeout::Write)));
            pace.received(|| at(start, seconds));
        }
        pace.body_ended();
        assert_eq!(pace.deadline(), Some((at(start, 170), Timeout::Write)));
        pace.flushed(|| at(start, 160));
        assert_eq!(pace.deadline(), Some((at(start, 235), Timeout::Idle)));
        pace.flushed(|| at(start, 200));
        assert_eq!(pace.deadline(), Some((at(start, 235), Timeout::Idle)));
    }

    #[test]
    fn stopping_shortens_waits_for_clients_but_not_for_handlers() {
        let start = Instant::now();
        let mut pace = Pace::new(LIMITS, start);
        pace.received(|| start);
        pace.stop(at(start, 1));
        assert_eq!(
            pace.deadline(),
            Some((at(start, 1) + STOPPING_TIMEOUT, Timeout::Header))
        );
        pace.request_began();
        assert_eq!(pace.deadline(), None);
        let mut late = Pace::new(LIMITS, start);
        late.stop(at(start, 9) + Duration::from_millis(500));
        assert_eq!(
            late.deadline(),
            Some((at(start, 10), Timeout::Silent)),
            "stopping does not extend a deadline"
        );
    }
}
