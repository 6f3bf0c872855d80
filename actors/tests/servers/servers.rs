//! Real database servers for tests.

pub mod database;
pub mod launcher;
