//! The state of one id in its shard, and the requests that wait for its owner.

use std::collections::VecDeque;

use crate::ids::Fence;
use crate::owning::kind::Kind;
use crate::owning::request::Request;

/// Number of sweeps for which rows loaded ahead are kept if this node does not get their shard. A hand-off
/// follows within a few beats.
const AHEAD_SWEEPS: u8 = 10;

/// The state of one id in its shard.
#[derive(Debug)]
pub(super) enum Slot<K: Kind> {
    /// The id is being loaded.
    Loading(Loading<K>),
    /// The id has an owner.
    Active,
    /// The owner admits no requests any more, and has not stopped yet.
    Stopping(VecDeque<Request<K>>),
    /// The owner stopped with something unsettled. The id is loaded again once the epoch is raised.
    AwaitingRaise(VecDeque<Request<K>>),
    /// The id is loaded ahead, without a fence. Nothing is decided from its rows before the rest is read
    /// under a fence.
    Ahead(Ahead),
}

/// A load under way.
#[derive(Debug)]
pub(super) struct Loading<K: Kind> {
    /// The fence that was committed before the load began.
    pub(super) under: Fence,
    pub(super) requests: VecDeque<Request<K>>,
    /// How many of the requests were there when the load began. If the load finds that the id does not exist,
    /// only these requests may be told so.
    pub(super) before: usize,
}

impl<K: Kind> Loading<K> {
    pub(super) fn of(under: Fence, requests: VecDeque<Request<K>>) -> Slot<K> {
        let before = requests.len();
        Slot::Loading(Self {
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

/// An id that is loaded ahead of its shard.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// True if its rows were read; false while they are being read or wait to be read.
    pub(super) read: bool,
    sweeps: u8,
}

impl<K: Kind> Slot<K> {
    /// Drops requests whose callers do not wait any more. Returns false if the slot itself is no longer
    /// needed.
    pub(super) fn sweep(&mut self, is_served: bool) -> bool {
        match self {
            Self::Active => {}
            Self::Loading(loading) => loading.sweep(),
            Self::Stopping(requests) | Self::AwaitingRaise(requests) => {
                requests.retain(Request::is_waited_for);
            }
            Self::Ahead(expected) => {
                expected.sweeps = expected.sweeps.saturating_add(1);
                return is_served || expected.sweeps < AHEAD_SWEEPS;
            }
        }
        true
    }

    /// Returns the requests that wait in this slot; `None` if no requests wait in a slot of this kind.
    pub(super) fn waiting(&mut self) -> Option<&mut VecDeque<Request<K>>> {
        match self {
            Self::Active | Self::Ahead(_) => None,
            Self::Loading(Loading { requests, .. })
            | Self::Stopping(requests)
            | Self::AwaitingRaise(requests) => Some(requests),
        }
    }
}
