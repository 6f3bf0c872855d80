//! Everything that owns, places, moves and stores coupons.

pub mod admission;
pub mod coupon;
pub mod engine;
pub mod ids;
pub mod metrics;
pub mod offer;
pub mod store;
pub mod time;
pub mod write_back;
