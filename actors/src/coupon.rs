//! The owner of one coupon.

pub mod message;
