//! The state of one id in its shard, and the requests that wait for its owner.

use std::collections::VecDeque;

use crate::ids::Fence;
use crate::owning::kind::Kind;
use crate::owning::request::Request;

/// For how many sweeps rows that were loaded ahead are kept if their shard does not come. A hand-off follows
/// within some beats.
const AHEAD_SWEEPS: u8 = 10;

/// The state of one id in its shard.
#[derive(Debug)]
pub(super) enum Slot<K: Kind> {
    /// It is being loaded.
    Loading(Loading<K>),
    /// It has an owner.
    Active,
    /// Its owner admits no request any more, and has not stopped yet.
    Stopping(VecDeque<Request<K>>),
    /// Its owner stopped with something unsettled. It is loaded again once the epoch is raised.
    AwaitingRaise(VecDeque<Request<K>>),
    /// It is loaded ahead, under no fence. Nothing is decided from it before the rest was read under one.
    Ahead(Ahead),
}

/// A load under way.
#[derive(Debug)]
pub(super) struct Loading<K: Kind> {
    /// The fence that was committed before it began.
    pub(super) under: Fence,
    pub(super) requests: VecDeque<Request<K>>,
    /// How many of them were there when it began. Only to them can it tell that the id does not exist.
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

/// What is loaded ahead of its shard.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// True if it was read; false while it is being read or waits for that.
    pub(super) read: bool,
    sweeps: u8,
}

impl<K: Kind> Slot<K> {
    /// Drops requests whose callers do not wait any more. Returns false if the slot itself was kept in vain.
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

    /// Returns the requests that wait here, unless an owner has them.
    pub(super) fn waiting(&mut self) -> Option<&mut VecDeque<Request<K>>> {
        match self {
            Self::Active | Self::Ahead(_) => None,
            Self::Loading(Loading { requests, .. })
            | Self::Stopping(requests)
            | Self::AwaitingRaise(requests) => Some(requests),
        }
    }
}
