//! What the stream of a connection, its service and its bodies share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outgoing::Outgoing;
use super::pace::Pace;

/// How far the requests and responses of a connection are. Only the connection's own task uses it, so the
/// lock is always free.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<State>>);

/// The state machines of a connection.
#[derive(Debug)]
pub(super) struct State {
    /// Its timeouts.
    pub(super) pace: Pace,
    /// The bytes that hyper writes.
    pub(super) outgoing: Outgoing,
}

impl Progress {
    /// The progress of a connection that starts now.
    pub(super) fn new(pace: Pace) -> Self {
        Self(Arc::new(Mutex::new(State {
            pace,
            outgoing: Outgoing::default(),
        })))
    }

    /// Locks the state.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
