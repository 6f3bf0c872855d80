//! Everything that owns, places, moves and stores coupons.

pub mod admission;
pub mod coupon;
pub mod door;
pub mod engine;
pub mod ids;
pub mod lease;
pub mod membership;
pub mod metrics;
pub mod offer;
pub mod placement;
pub mod router;
pub mod shard;
pub mod store;
pub mod time;
pub mod write_back;
