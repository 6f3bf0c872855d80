//! The shards of a node under test, as membership sees them.

use std::sync::{Arc, Mutex};

use actors::cluster::claim::LocalState;
use actors::cluster::local::LocalShards;
use actors::coupon::CouponKind;
use actors::engine::local::EngineShards;
use actors::ids::{Fence, Incarnation, ShardId};

use super::links::Mesh;

/// The shards of a node. The mesh records which shards a peer is asked to load ahead.
pub struct Shards {
    pub shards: EngineShards<CouponKind>,
    pub mesh: Arc<Mutex<Mesh>>,
}

impl LocalShards for Shards {
    fn changes(&self, shard: ShardId) -> u64 {
        self.shards.changes(shard)
    }

    fn state(&self, shard: ShardId, changes: u64) -> LocalState {
        self.shards.state(shard, changes)
    }

    fn claimed(&self, shard: ShardId, fence: Fence) {
        self.shards.claimed(shard, fence);
    }

    fn lost(&self, shard: ShardId) {
        self.shards.lost(shard);
    }

    fn hand_off(&self, shard: ShardId, from: Fence, to: Option<Incarnation>) {
        self.shards.hand_off(shard, from, to);
    }

    fn ask_to_load_ahead(&self, shard: ShardId, to: Incarnation) {
        self.shards.ask_to_load_ahead(shard, to);
        self.mesh.lock().unwrap().asked_ahead.push((to, shard));
    }

    fn is_loaded_ahead(&self, shard: ShardId, by: Incarnation) -> bool {
        self.shards.is_loaded_ahead(shard, by)
    }

    fn forget_notices(&self) {
        self.shards.forget_notices();
    }
}
