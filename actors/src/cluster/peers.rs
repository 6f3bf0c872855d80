//! What membership and links tell each other: membership whom there is, links whom they reach.

use crate::ids::{CouponId, Fence, Incarnation, NodeId, ShardId};
use crate::time::Moment;

/// Another node that lives, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its name.
    pub node: NodeId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Where its links are reached.
    pub address: String,
}

/// The links of a node, as membership knows them. Every call returns at once: membership has a beat to keep.
pub trait Peers: Send + Sync + 'static {
    /// This node lives as this incarnation from now on.
    fn live_as(&self, me: Incarnation);

    /// These live besides us, by rows read after `asked_at`: there are no others.
    fn know(&self, asked_at: Moment, peers: Vec<PeerAddress>);

    /// Whom we are linked to.
    fn linked(&self) -> Vec<Incarnation>;

    /// Whether the system refuses a new connection to it: nobody listens there any more. A handshake that
    /// fails is no such refusal.
    fn refuses(&self, peer: Incarnation) -> bool;

    /// Tell this peer that a shard is about to be handed to it, so that it loads these coupons ahead. Only a
    /// hint: it may be lost.
    fn expect(&self, peer: Incarnation, shard: ShardId, coupons: Vec<CouponId>);

    /// Tell this peer that what it wished to be loaded ahead of a shard is, as far as that was possible. Only
    /// a hint too.
    fn loaded_ahead(&self, peer: Incarnation, shard: ShardId);

    /// Tell peers that a shard was handed over, and is owned under this fence now. Only a hint: the rows say
    /// so too.
    fn moved(&self, shard: ShardId, to: Fence);
}

/// Of a node that has no peers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn live_as(&self, _me: Incarnation) {}

    fn know(&self, _asked_at: Moment, _peers: Vec<PeerAddress>) {}

    fn linked(&self) -> Vec<Incarnation> {
        Vec::new()
    }

    fn refuses(&self, _peer: Incarnation) -> bool {
        false
    }

    fn expect(&self, _peer: Incarnation, _shard: ShardId, _coupons: Vec<CouponId>) {}

    fn loaded_ahead(&self, _peer: Incarnation, _shard: ShardId) {}

    fn moved(&self, _shard: ShardId, _to: Fence) {}
}
