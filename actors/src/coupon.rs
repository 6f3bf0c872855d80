//! Coupons, as a kind: the offer, its issuances, what may be asked and what is decided, and its rows.
//!
//! [`issue`] and [`change`] are the verbs; [`ledger`] is what they decide from; [`entry`] is what they
//! decide; [`kind`] puts them together for the engine. [`client`] is what a gateway holds.

pub mod change;
pub mod client;
pub mod entry;
pub mod issue;
pub mod issued;
pub mod kind;
pub mod ledger;
pub mod notice;
pub mod offer;
pub mod rows;
pub mod tail;
mod wire;

pub use kind::{Ask, CouponKind, Outcome};
