//! Where a request goes: a function of what is known about its shard.

use crate::cluster::ownership::{Holder, ShardLocation};
use crate::ids::{Epoch, Incarnation};

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To the shard on this node. Only the shard itself knows for certain whether it is served here.
    Local,
    /// To a peer.
    Peer {
        /// Its incarnation.
        to: Incarnation,
        /// The epoch in which it owns the shard.
        epoch: Epoch,
    },
    /// Nowhere: the peer that owns the shard is alive but not reached.
    None,
}

impl Route {
    /// Returns the route to the holder of a shard. If no owner is known, the request goes to the shard on
    /// this node, which may just have been claimed. If the shard was not claimed, it answers *moved*.
    pub fn of(location: ShardLocation) -> Self {
        match location.holder {
            Holder::Peer(to) => Self::Peer {
                to,
                epoch: location.epoch,
            },
            Holder::Unreachable(_) => Self::None,
            Holder::Local | Holder::Unowned => Self::Local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_to_the_peer_that_holds_its_shard_or_else_to_this_node() {
        let (to, epoch) = (Incarnation::new(7).unwrap(), Epoch::new(3));
        let route = |holder| Route::of(ShardLocation { epoch, holder });
        assert_eq!(route(Holder::Peer(to)), Route::Peer { to, epoch });
        assert_eq!(route(Holder::Unreachable(to)), Route::None);
        assert_eq!(
            [route(Holder::Local), route(Holder::Unowned)],
            [Route::Local, Route::Local]
        );
    }
}
