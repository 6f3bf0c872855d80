//! Owners and their shards, how requests reach them, and how their decisions are stored.

pub mod door;
pub mod figures;
pub mod gate;
pub mod inbox;
pub mod kind;
pub mod owner;
pub mod pair;
pub mod request;
pub mod router;
pub mod shard;
pub mod write_back;
