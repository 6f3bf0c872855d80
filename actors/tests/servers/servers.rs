//! Real database servers for tests.

pub mod database;
pub mod launcher;
pub mod proxy;
