//! Notices: what an owner tells doors, on its node and on others.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::owning::door::filter::FILTER_BYTES_MAX;
use crate::owning::kind::{DoorNotice, Kind, Unreadable};
use crate::time::Timestamp;

/// Longest notice for another node: a filter and what it is about.
pub const NOTICE_BYTES_MAX: usize = FILTER_BYTES_MAX + 2 * 1024;

/// A notice with what the engine keeps beside it.
#[derive(Debug)]
pub struct Notice<K: Kind> {
    content: K::Notice,
    /// A door answered by it since its owner last looked: requests come, although the owner sees none.
    used: AtomicBool,
    encoded: OnceLock<Vec<u8>>,
}

impl<K: Kind> Notice<K> {
    /// Makes a notice that no door has used.
    pub fn new(content: K::Notice) -> Self {
        Self {
            content,
            used: AtomicBool::new(false),
            encoded: OnceLock::new(),
        }
    }

    /// Returns it in the form for other nodes, which is written once. At most [`NOTICE_BYTES_MAX`].
    pub fn encoded(&self) -> &[u8] {
        self.encoded.get_or_init(|| self.content.encode())
    }

    /// Reads what another node wrote.
    ///
    /// # Errors
    ///
    /// If it is not a notice of this kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        K::Notice::decode(bytes).map(Self::new)
    }

    /// Returns the refusal that the owner would give at `now`; `None` if only the owner can answer.
    pub fn refusal(&self, ask: &K::Ask, now: Timestamp) -> Option<K::Outcome> {
        let refusal = self.content.refusal(ask, now)?;
        // Read first: a write by every request would move this line between processors.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(refusal)
    }

    /// Returns what it is about.
    pub fn id(&self) -> K::Id {
        self.content.id()
    }

    /// Returns the version that it is true of.
    pub fn version(&self) -> u64 {
        self.content.version()
    }

    /// Returns true if a door answered by it since this was last called.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}
