//! The shards of this node, as membership sees them.

use std::sync::Arc;

use crate::cluster::claim::LocalState;
use crate::cluster::local::LocalShards;
use crate::engine::exchange::news::News;
use crate::engine::links::NodeLinks;
use crate::ids::{Fence, Incarnation, ShardId};
use crate::owning::door::{Board, Door};
use crate::owning::kind::Kind;
use crate::owning::shard::ShardHandle;
use crate::time;

/// Shards, by number, with the door and the board of their node.
pub struct EngineShards<K: Kind> {
    /// The shards.
    pub shards: Arc<[ShardHandle<K>]>,
    /// The knowledge of this node's door.
    pub door: Arc<Door<K>>,
    /// The notices posted by owners of this node.
    pub board: Arc<Board<K>>,
    /// The links to peers, if the node is in a cluster.
    pub links: Option<NodeLinks<K>>,
}

impl<K: Kind> EngineShards<K> {
    fn shard(&self, id: ShardId) -> &ShardHandle<K> {
        &self.shards[usize::from(id.get())]
    }
}

impl<K: Kind> LocalShards for EngineShards<K> {
    fn changes(&self, shard: ShardId) -> u64 {
        self.shard(shard).changes()
    }

    fn state(&self, shard: ShardId, changes: u64) -> LocalState {
        self.shard(shard).local_state(changes)
    }

    fn claimed(&self, shard: ShardId, fence: Fence) {
        self.shard(shard).claimed(fence);
    }

    fn lost(&self, shard: ShardId) {
        self.shard(shard).lost();
    }

    fn hand_off(&self, shard: ShardId, from: Fence, to: Option<Incarnation>) {
        self.shard(shard).hand_off(from, to);
    }

    fn ask_to_load_ahead(&self, shard: ShardId, to: Incarnation) {
        let ids = self.shard(shard).ids_to_load_ahead();
        if let Some(links) = &self.links {
            links.say_to(to, &News::LoadAhead { shard, ids });
        }
    }

    fn is_loaded_ahead(&self, shard: ShardId, by: Incarnation) -> bool {
        self.shard(shard).is_loaded_ahead(by)
    }

    fn forget_notices(&self) {
        // The order matters: a read of the board after this moment finds no earlier notice.
        self.board.clear();
        self.door.forget(time::moment());
    }
}
