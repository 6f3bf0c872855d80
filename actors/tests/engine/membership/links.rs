//! Links for tests: a test decides which nodes they connect.

use std::sync::{Arc, Mutex};

use actors::cluster::peers::Peers;
use actors::ids::{Fence, Incarnation, PeerAddress, ShardId};
use actors::store::{NodeRow, NodeState};
use actors::time::Moment;

/// The nodes that have links, and what membership has asked of these links.
#[derive(Default)]
pub struct Mesh {
    pub nodes: Vec<(usize, Incarnation)>,
    pub links_made: usize,
    /// The number of the node that no other node reaches.
    pub cut_off: Option<usize>,
    pub asked_ahead: Vec<(Incarnation, ShardId)>,
    pub moved: Vec<(ShardId, Fence)>,
}

/// The links of one node.
pub struct Links {
    pub mesh: Arc<Mutex<Mesh>>,
    pub number: usize,
    pub known: Mutex<Vec<PeerAddress>>,
}

impl Peers for Links {
    fn live_as(&self, me: Incarnation) {
        let mut mesh = self.mesh.lock().unwrap();
        mesh.nodes.retain(|(number, _)| *number != self.number);
        mesh.nodes.push((self.number, me));
    }

    fn know(&self, _asked_at: Moment, others: &[NodeRow]) {
        let live = others.iter().filter(|row| row.state != NodeState::Ended);
        let peer = |row: &NodeRow| PeerAddress {
            node: row.id.clone(),
            incarnation: row.incarnation,
            address: row.cluster.clone(),
        };
        *self.known.lock().unwrap() = live.map(peer).collect();
    }

    fn linked(&self) -> Vec<Incarnation> {
        let mesh = self.mesh.lock().unwrap();
        let cut_off = mesh.cut_off;
        let reached = mesh.nodes.iter().filter(|(number, _)| {
            *number != self.number && ![Some(*number), Some(self.number)].contains(&cut_off)
        });
        reached.map(|(_, incarnation)| *incarnation).collect()
    }

    fn refuses(&self, _peer: Incarnation) -> bool {
        false
    }

    fn loaded_ahead(&self, _peer: Incarnation, _shard: ShardId) {}

    fn publish(&self, shard: ShardId, to: Fence) {
        self.mesh.lock().unwrap().moved.push((shard, to));
    }
}
