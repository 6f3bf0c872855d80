//! The rows of coupons and issuances in MySQL and MariaDB.

pub(crate) mod columns;
pub(crate) mod insert;
pub(crate) mod load;
pub(crate) mod read_back;
pub(crate) mod reads;
pub(crate) mod write;
