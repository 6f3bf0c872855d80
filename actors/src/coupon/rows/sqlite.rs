//! The rows of coupons and issuances in SQLite.

pub(crate) mod columns;
pub(crate) mod load;
pub(crate) mod read_back;
pub(crate) mod reads;
pub(crate) mod write;
