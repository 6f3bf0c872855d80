//! What owns: owners and their shards, the way to them, and the way of what they decide into the store.

pub mod door;
pub mod gate;
pub mod inbox;
pub mod kind;
pub mod owner;
pub mod pair;
pub mod request;
pub mod router;
pub mod shard;
pub mod write_back;
