//! Coupons, as a kind: the offer, its issuances, the requests and decisions about them, and their rows.
//!
//! [`issue`], [`change`] and [`uses`] decide from the [`ledger`], and [`entry`] has the stored form of their
//! decisions; [`change_keys`] recognises repeated changes, and [`record`] is what is kept of them. [`code`]
//! has the names of issuances that people type. [`kind`] puts these modules together for the engine.
//! [`client`] is what the HTTP side of a node uses.

pub mod change;
pub mod change_keys;
pub mod client;
pub mod code;
pub mod entry;
pub mod ids;
pub mod issue;
pub mod issued;
pub mod kind;
pub mod ledger;
pub mod metrics;
pub mod notice;
pub mod offer;
pub mod record;
pub mod rows;
pub mod tail;
mod time_zone;
pub mod uses;
mod wire;

pub use kind::{CouponAsk, CouponKind, CouponOutcome};
