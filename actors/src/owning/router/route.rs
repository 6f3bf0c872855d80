//! Which way a request goes: a function of what is known of its shard.

use crate::cluster::ownership::{Entry, Owner};
use crate::ids::{Epoch, Incarnation};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the shard on this node, which knows best whether it serves.
    Here,
    /// To a peer.
    Peer {
        /// Which life of it.
        to: Incarnation,
        /// In which epoch it has the shard.
        epoch: Epoch,
    },
}

impl Way {
    /// To whoever has the shard. A shard that nobody is known to have may have just been claimed here, and
    /// else answers *moved*.
    pub fn of(entry: Entry) -> Self {
        match entry.owner {
            Owner::Elsewhere(to) => Self::Peer {
                to,
                epoch: entry.epoch,
            },
            Owner::Here | Owner::Nobody => Self::Here,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_peer_has_goes_over_a_link_and_in_the_epoch_in_which_it_has_it() {
        let (to, epoch) = (Incarnation::new(7).unwrap(), Epoch::new(3));
        let way = |owner| Way::of(Entry { epoch, owner });
        assert_eq!(way(Owner::Elsewhere(to)), Way::Peer { to, epoch });
        assert_eq!([way(Owner::Here), way(Owner::Nobody)], [Way::Here, Way::Here]);
    }
}
