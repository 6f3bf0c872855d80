//! The rows of coupons and issuances, a folder for each database.

pub mod mysql;
pub mod sqlite;
