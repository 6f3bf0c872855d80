//! A coupon's requests and outcomes, as they are sent to other nodes.

pub(crate) mod messages;
mod read;
mod write;

pub(crate) use read::{ask as read_ask, coupon as read_coupon, outcome as read_outcome};
pub(crate) use write::{
    ask as write_ask, change_bytes as write_change, coupon as write_coupon, outcome as write_outcome,
};

/// Maximum length of an offer's text in a request or an outcome. The HTTP API accepts no longer body, so no
/// text can be longer.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of wrong fields of an offer.
const INVALID_MAX: usize = 32;
/// Maximum number of versions in a condition.
const VERSIONS_MAX: usize = 64;

#[cfg(test)]
mod tests;
