//! The shards of this node, as membership sees them.

use crate::cluster::claim::LocalState;
use crate::ids::{Fence, Incarnation, ShardId};

/// What this node serves. No call waits, and calls about one shard take effect in their order.
pub trait LocalShards: Send + Sync + 'static {
    /// Returns how often this shard has changed how it stands. Taken before rows are read, it tells
    /// [`Self::state`] whether the rows may be older than the present state.
    fn changes(&self, shard: ShardId) -> u64;

    /// Returns how this shard stands, if that has not changed since there were so many `changes`.
    fn state(&self, shard: ShardId, changes: u64) -> LocalState;

    /// Serves this shard from now on: it was claimed under this fence.
    fn claimed(&self, shard: ShardId, fence: Fence);

    /// Stops serving this shard at once.
    fn lost(&self, shard: ShardId);

    /// Hands this shard off, or releases it to no node, if it is owned here under this fence.
    fn hand_off(&self, shard: ShardId, from: Fence, to: Option<Incarnation>);

    /// Asks the node that this shard will be handed to to load ahead.
    fn ask_to_load_ahead(&self, shard: ShardId, to: Incarnation);

    /// Returns true if that node has loaded ahead, or there is nothing to load.
    fn is_loaded_ahead(&self, shard: ShardId, by: Incarnation) -> bool;

    /// Forgets what doors were told, as the database may know nothing of it any more.
    fn forget_notices(&self);
}
