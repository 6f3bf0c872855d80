//! A coupon's place in its shard, and who waits there.

use std::collections::VecDeque;

use crate::ids::Fence;
use crate::owning::message::Request;

/// How many sweeps a coupon that was loaded ahead is kept for, if its shard does not come: a hand-over
/// follows its announcement within some beats.
const EXPECTED_SWEEPS: u8 = 10;

/// A coupon's place in the shard.
#[derive(Debug)]
pub(super) enum Seat {
    /// Being read.
    Loading(Loading),
    Active,
    /// Its owner takes nobody any more, and has not stopped yet.
    Stopping(VecDeque<Request>),
    /// Its owner stopped with something unsettled: it is read again once the epoch is raised.
    AwaitingRaise(VecDeque<Request>),
    /// Loaded ahead, under no fence: nothing is decided upon it before the rest was read under one.
    Expected(Expected),
}

/// A read under way.
#[derive(Debug)]
pub(super) struct Loading {
    /// The fence that was committed before it began.
    pub(super) under: Fence,
    pub(super) requests: VecDeque<Request>,
    /// How many of them were there when it began: only to them can it say that there is no such coupon.
    pub(super) before: usize,
}

impl Loading {
    pub(super) fn of(under: Fence, requests: VecDeque<Request>) -> Seat {
        let before = requests.len();
        Seat::Loading(Self {
            under,
            requests,
            before,
        })
    }

    fn sweep(&mut self) {
        let (mut place, mut still_before) = (0, 0);
        self.requests.retain(|request| {
            let waits = request.is_waited_for();
            still_before += usize::from(waits && place < self.before);
            place += 1;
            waits
        });
        self.before = still_before;
    }
}

/// A coupon whose shard is expected.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// It has been read; else it is being read, or waits for that.
    pub(super) read: bool,
    sweeps: u8,
}

impl Seat {
    /// Forgets requests that nobody waits for any more. False if the seat itself has been kept for nothing.
    pub(super) fn sweep(&mut self, is_served: bool) -> bool {
        match self {
            Self::Active => {}
            Self::Loading(loading) => loading.sweep(),
            Self::Stopping(requests) | Self::AwaitingRaise(requests) => {
                requests.retain(Request::is_waited_for)
            }
            Self::Expected(expected) => {
                expected.sweeps = expected.sweeps.saturating_add(1);
                return is_served || expected.sweeps < EXPECTED_SWEEPS;
            }
        }
        true
    }

    /// The requests that wait here, unless an owner has them.
    pub(super) fn waiting(&mut self) -> Option<&mut VecDeque<Request>> {
        match self {
            Self::Active | Self::Expected(_) => None,
            Self::Loading(Loading { requests, .. })
            | Self::Stopping(requests)
            | Self::AwaitingRaise(requests) => Some(requests),
        }
    }
}
