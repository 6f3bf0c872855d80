//! One node of Firstcome: configuration, wiring, and the HTTP gateway before the engine.
//!
//! `cli` says what can be asked of the program, [`wiring`] puts a node together and takes it apart, `gateway`
//! answers HTTP.

pub mod cli;
pub mod config;
mod gateway;
mod healthcheck;
mod kept;
mod signals;
pub mod telemetry;
mod token;
mod welcome;
pub mod wiring;

pub use gateway::listener;
