//! Notices: what an owner tells doors, on its node and on other nodes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::owning::door::filter::FILTER_BYTES_MAX;
use crate::owning::kind::{DecodeError, DoorNotice, Kind};
use crate::time::Timestamp;

/// Maximum length of a notice for another node: a filter, and the thing that the notice is about.
pub const NOTICE_BYTES_MAX: usize = FILTER_BYTES_MAX + 2 * 1024;

/// A notice, and what the engine keeps with it.
#[derive(Debug)]
pub struct Notice<K: Kind> {
    content: K::Notice,
    /// True if a door has answered with this notice since the owner last looked. Then requests arrive
    /// although the owner does not see them.
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

    /// Returns the encoded notice for other nodes, which has at most [`NOTICE_BYTES_MAX`] bytes. It is
    /// encoded only once.
    pub fn encoded(&self) -> &[u8] {
        self.encoded.get_or_init(|| self.content.encode())
    }

    /// Decodes a notice of another node.
    ///
    /// # Errors
    ///
    /// If the bytes are not a notice of this kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        K::Notice::decode(bytes).map(Self::new)
    }

    /// Returns the refusal that the owner would give at `now`; `None` if only the owner can answer.
    pub fn refusal(&self, ask: &K::Ask, now: Timestamp) -> Option<K::Outcome> {
        let refusal = self.content.refusal(ask, now)?;
        // The flag is read first. If every request wrote it, its cache line would move between processors.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(refusal)
    }

    /// Returns the id of the thing that the notice is about.
    pub fn id(&self) -> K::Id {
        self.content.id()
    }

    /// Returns the version for which the notice is true.
    pub fn version(&self) -> u64 {
        self.content.version()
    }

    /// Returns true if a door has answered with this notice since the last call.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}
