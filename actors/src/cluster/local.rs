//! The shards of this node, as membership sees them.

use crate::cluster::claim::LocalState;
use crate::ids::{Fence, Incarnation, ShardId};

/// The shards that this node serves. No call waits, and calls about one shard take effect in their order.
pub trait LocalShards: Send + Sync + 'static {
    /// Returns how often the state of this shard has changed. The caller takes this count before it reads
    /// rows, so that [`Self::state`] can tell whether the rows may be older than the state.
    fn changes(&self, shard: ShardId) -> u64;

    /// Returns the state of this shard, or [`LocalState::Unsettled`] if the state has changed since
    /// [`Self::changes`] returned `changes`.
    fn state(&self, shard: ShardId, changes: u64) -> LocalState;

    /// Serves this shard from now on: it was claimed under this fence.
    fn claimed(&self, shard: ShardId, fence: Fence);

    /// Stops serving this shard at once.
    fn lost(&self, shard: ShardId);

    /// Hands this shard off to the node `to`, or releases it if `to` is `None`. Does nothing unless this node
    /// owns the shard under the fence `from`.
    fn hand_off(&self, shard: ShardId, from: Fence, to: Option<Incarnation>);

    /// Asks the next owner of this shard to load it ahead.
    fn ask_to_load_ahead(&self, shard: ShardId, to: Incarnation);

    /// Returns true if the incarnation `by` has loaded the shard ahead, or there is nothing to load.
    fn is_loaded_ahead(&self, shard: ShardId, by: Incarnation) -> bool;

    /// Forgets all notices that were posted or received, because the database may have lost what they are
    /// based on.
    fn forget_notices(&self);
}
