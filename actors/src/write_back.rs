//! Lanes: what is decided becomes stored here.

pub mod batch;
