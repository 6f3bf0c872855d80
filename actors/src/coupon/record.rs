//! What the audit log keeps of a change: who made it, and what it asked for.

use crate::ids::Author;
use crate::time::Timestamp;

/// Maximum length of [`ChangeRecord::asked`] in bytes: that of a request's body, and room around it.
pub const ASKED_BYTES_MAX: usize = 17 * 1024;

/// Who made a change, and what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRecord {
    /// Who made it.
    pub author: Author,
    /// What it asked for, in the words of the client; at most [`ASKED_BYTES_MAX`].
    pub asked: String,
}

/// One row of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRow {
    /// The version of the coupon after the change.
    pub version: u64,
    /// When it was made.
    pub changed_at: Timestamp,
    /// `None` if a node of the former build received it.
    pub record: Option<ChangeRecord>,
}
