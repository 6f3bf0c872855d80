//! A coupon's requests and outcomes as they go to other nodes.

pub(crate) mod messages;
mod read;
mod write;

pub(crate) use read::{ask as read_ask, coupon as read_coupon, outcome as read_outcome};
pub(crate) use write::{ask as write_ask, coupon as write_coupon, outcome as write_outcome};

/// Longest text of an offer in a request or an outcome: what a gateway takes as a whole body.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most fields that are wrong with an offer.
const INVALID_MAX: usize = 32;

#[cfg(test)]
mod tests;
