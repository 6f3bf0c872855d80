//! What handlers share: who asks, copies of what many read, and how much one user may ask.

pub(crate) mod auth;
pub(crate) mod copies;
pub(crate) mod coupon_copies;
pub(crate) mod user_limit;
