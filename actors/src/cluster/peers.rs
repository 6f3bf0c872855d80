//! What membership and links tell each other: membership names the peers, and links report which peers they
//! reach.

use crate::ids::{Fence, Incarnation, ShardId};
use crate::store::NodeRow;
use crate::time::Moment;

/// The links of a node, as membership and shards use them. No call waits, because membership must beat in
/// time.
pub trait Peers: Send + Sync + 'static {
    /// Sets the present incarnation of this node.
    fn live_as(&self, me: Incarnation);

    /// Takes the rows of all other incarnations, which were read after `asked_at`. They name the live peers.
    fn know(&self, asked_at: Moment, others: &[NodeRow]);

    /// Returns the peers that this node is linked to.
    fn linked(&self) -> Vec<Incarnation>;

    /// Returns true if the operating system of this peer refuses new connections, which means that nothing
    /// listens there any more. A failed handshake is not a refusal.
    fn refuses(&self, peer: Incarnation) -> bool;

    /// Tells this peer, which asked this node to load the shard ahead, that this is done as far as possible.
    /// This message is a hint and may be lost.
    fn loaded_ahead(&self, peer: Incarnation, shard: ShardId);

    /// Tells all peers that a shard is owned under this fence now. This message is only a hint, because the
    /// rows say so too.
    fn publish(&self, shard: ShardId, fence: Fence);
}

/// The links of a node that has no peers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn live_as(&self, _me: Incarnation) {}

    fn know(&self, _asked_at: Moment, _others: &[NodeRow]) {}

    fn linked(&self) -> Vec<Incarnation> {
        Vec::new()
    }

    fn refuses(&self, _peer: Incarnation) -> bool {
        false
    }

    fn loaded_ahead(&self, _peer: Incarnation, _shard: ShardId) {}

    fn publish(&self, _shard: ShardId, _fence: Fence) {}
}
