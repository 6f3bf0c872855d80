//! Series whose labels are known before their first event. They exist from the start: if a counter began with
//! its first event, `increase()` and `rate()` would not see this event.

use super::{PEER_REFUSED, SHARD_MOVES, handles, peer_handles};

/// Kinds of moves of a shard.
const SHARD_MOVE_KINDS: [&str; 5] = ["handed_off", "released", "received", "claimed", "lost"];
/// Reasons for refusals between peers.
pub(super) const PEER_REFUSALS: [&str; 18] = [
    "crowded",
    "handshake",
    "identity",
    "versions",
    "cluster",
    "shards",
    "protocol",
    "not_let_in",
    "by_peer",
    "late",
    "stranger",
    "early",
    "generation",
    "out_of_place",
    "no_link",
    "missing",
    "unreadable",
    "notice",
];

/// Creates these series, at 0. Call it once, after the recorder is installed.
pub fn register() {
    handles();
    peer_handles();
    for kind in SHARD_MOVE_KINDS {
        metrics::counter!(SHARD_MOVES, "kind" => kind).increment(0);
    }
    for reason in PEER_REFUSALS {
        metrics::counter!(PEER_REFUSED, "reason" => reason).increment(0);
    }
}

/// Counts a change of a shard's owner. Such changes are rare enough to look the metric up each time.
pub(crate) fn shard_moved(kind: &'static str) {
    debug_assert!(SHARD_MOVE_KINDS.contains(&kind), "{kind} is not registered");
    metrics::counter!(SHARD_MOVES, "kind" => kind).increment(1);
}
