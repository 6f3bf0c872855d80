//! Coupons: the offer, the decisions about it, and its rows.

pub mod issued;
pub mod ledger;
pub mod offer;
pub mod rows;
pub mod tail;
