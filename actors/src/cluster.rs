//! Which node may own which shard: state machines over the rows of nodes and shards.

pub mod claim;
pub mod group;
pub mod lease;
pub mod local;
pub mod membership;
pub mod ownership;
pub mod peers;
pub mod placement;
pub mod reach;
